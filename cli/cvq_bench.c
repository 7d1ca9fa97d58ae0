/* cvq-bench: how near to this machine's limits the model's parts run. The measuring is bench/'s;
 * here it is asked for, and shown as a table or as JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "formats/cvq_reader.h"
#include "formats/json.h"
#include "quant/recipe.h"

typedef struct arguments {
    cvq_common common;
    const char *only, *recipe;
    uint64_t scale;
    bool quick, json;
} arguments;

static const cvq_option options[] = {
    {.name = "quick",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, quick),
     .help = "fewer types, numbers of rows and runs: about a minute in place of ten"},
    {.name = "only",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, only),
     .value = "GLOB",
     .help = "only rows whose name matches, or whose NAME:TYPE:ROWS does: 'gemm_vit_*:q8:*'"},
    {.name = "recipe",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, recipe),
     .value = "NAME",
     .help = "types of the layers' weights, as cvq-quantize has them (default q4); with bf16 they "
             "run in exact f32"},
    {.name = "json",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, json),
     .help = "print one JSON object instead of the table"},
    {.name = "scale",
     .kind = CVQ_OPTION_COUNT,
     .offset = offsetof(arguments, scale),
     .value = "N",
     .min = 1,
     .max = 16,
     .help = "divide the model's sizes by N (1, 2, 4, 8 or 16), to try the program itself: the "
             "figures mean nothing then"},
};

static const cvq_command command = {
    .name = "cvq-bench",
    .summary = "Measure this machine and how near to its limits CogVLM2 runs on it.",
    .operands = "[MODEL.cvq]",
    .min_operands = 0,
    .max_operands = 1,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes = "No model is needed: matrices and layers have the real model's shapes and random "
             "weights. With MODEL.cvq a picture is encoded, a prompt read and an answer decoded "
             "as well.\n"
             "A row's rate is given as a share of the peak that bounds it, of the same run: "
             "arithmetic in registers (int8, bf16, f32) or reading from memory (read). The last "
             "column is the time of all the model's work of that kind: for a picture, a prompt "
             "with one, or a token. Run it while nothing else runs.",
};

static const char *const phases[] = {"encode", "prefill", "decode", "convert"};

/* ---------------------------------------------------------------- the table */

static const char *time_text(double seconds, char out[32]) {
    if (seconds < 1e-3)
        snprintf(out, 32, "%.1f us", seconds * 1e6);
    else if (seconds < 1)
        snprintf(out, 32, "%.2f ms", seconds * 1e3);
    else
        snprintf(out, 32, "%.2f s", seconds);
    return out;
}

static void print_peak(void *context, const cvq_peak *p) {
    (void)context;
    printf("peak  %-5s %-11s %3d thread%s %10.1f %s\n", cvq_peak_kind_name(p->kind),
           cvq_cpu_level_name(p->level), p->threads, p->threads == 1 ? " " : "s", p->value * 1e-9,
           cvq_peak_unit(p->kind));
    fflush(stdout);
}

static void print_row(void *context, const cvq_bench_row *r) {
    char median[32], least[32], whole[32], fraction[32] = "";
    (void)context;
    if (r->fraction > 0)
        snprintf(fraction, sizeof fraction, "%.1f%% of %s", 100 * r->fraction,
                 cvq_peak_kind_name(r->bound));
    printf("%-22s %-5s %5zu %6zu %6zu %10s %10s %5zu %9.1f %-10s %-14s %10s\n", r->name, r->type,
           r->shape[0], r->shape[1], r->shape[2], time_text(r->median_s, median),
           time_text(r->min_s, least), r->runs, r->rate, r->unit, fraction,
           time_text(r->model_s, whole));
    fflush(stdout);
}

static void print_row_header(void) {
    printf("\n%-22s %-5s %5s %6s %6s %10s %10s %5s %9s %-10s %-14s %10s\n", "", "type", "m", "n",
           "k", "median", "least", "runs", "rate", "", "share of peak", "model");
}

static void show_note(void *context, const char *text) {
    const arguments *args = context;
    cvq_say_note(&args->common, "%s", text);
}

/* ---------------------------------------------------------------- JSON */

static void add_peaks(cJSON *root, const cvq_bench *b) {
    cJSON *peaks = cvq_json_add_array(root, "peaks");
    for (size_t i = 0; i < b->num_peaks; i++) {
        const cvq_peak *p = &b->peaks[i];
        cJSON *o = cJSON_CreateObject();
        cvq_json_add_string(o, "kind", cvq_peak_kind_name(p->kind));
        cvq_json_add_string(o, "level", cvq_cpu_level_name(p->level));
        cvq_json_add_number(o, "threads", p->threads);
        cvq_json_add_number(o, "value", p->value * 1e-9);
        cvq_json_add_string(o, "unit", cvq_peak_unit(p->kind));
        cvq_json_append(peaks, o);
    }
}

static void add_row(cJSON *rows, const cvq_bench_row *r) {
    cJSON *o = cJSON_CreateObject();
    cvq_json_add_string(o, "name", r->name);
    cvq_json_add_string(o, "phase", phases[r->phase]);
    cJSON *shape = cvq_json_add_array(o, "shape");
    for (int i = 0; i < 3; i++) cvq_json_append(shape, cJSON_CreateNumber((double)r->shape[i]));
    cvq_json_add_string(o, "type", r->type);
    cvq_json_add_string(o, "level", cvq_cpu_level_name(r->level));
    cvq_json_add_number(o, "threads", r->threads);
    cvq_json_add_number(o, "median_s", r->median_s);
    cvq_json_add_number(o, "min_s", r->min_s);
    cvq_json_add_number(o, "runs", (double)r->runs);
    cvq_json_add_number(o, "ops", r->ops);
    cvq_json_add_number(o, "bytes", r->bytes);
    cvq_json_add_number(o, "rate", r->rate);
    cvq_json_add_string(o, "unit", r->unit);
    cvq_json_add_string(o, "bound", cvq_peak_kind_name(r->bound));
    cvq_json_add_number(o, "fraction", r->fraction);
    cvq_json_add_number(o, "model_s", r->model_s);
    cvq_json_append(rows, o);
}

/* Rows of answering are "results", those of making a file "conversion". */
static cvq_status print_json(const cvq_bench *b, cvq_error *err) {
    cvq_buffer text = {0};
    cJSON *root = cJSON_CreateObject();
    cvq_json_add_number(root, "version", 1);
    cvq_json_add_string(root, "cpu", cvq_cpu_model());
    cvq_json_add_string(root, "level", cvq_cpu_level_name(b->level));
    cvq_json_add_number(root, "threads", b->threads);
    add_peaks(root, b);
    cJSON *results = cvq_json_add_array(root, "results");
    cJSON *conversion = cvq_json_add_array(root, "conversion");
    for (size_t i = 0; i < b->num_rows; i++)
        add_row(b->rows[i].phase == CVQ_BENCH_CONVERT ? conversion : results, &b->rows[i]);
    cvq_status status = cvq_json_print(&text, root, err);
    if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
    cJSON_Delete(root);
    cvq_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- the command */

static bool stopped(void *context) {
    (void)context;
    return cvq_interrupted();
}

static void session_changed(void *context, cvq_session *session) {
    (void)context;
    cvq_interrupt_session(session);
}

/* A file that cannot be opened is told before minutes of measuring. */
static cvq_status try_model(const arguments *args, cvq_error *err) {
    cvq_reader *r = NULL;
    if (args->common.num_operands == 0) return CVQ_OK;
    cvq_status status = cvq_reader_open(&r, args->common.operands[0], err);
    cvq_reader_close(r);
    return status;
}

static cvq_status measure(cvq_bench *b, const arguments *args, cvq_error *err) {
    typedef cvq_status step(cvq_bench * b, cvq_error * err);
    static step *const steps[] = {cvq_bench_gemm,    cvq_bench_attention, cvq_bench_vit,
                                  cvq_bench_prefill, cvq_bench_decode,    cvq_bench_kv,
                                  cvq_bench_convert};
    CVQ_TRY(try_model(args, err));
    CVQ_TRY(cvq_bench_open(b, err));
    if (!args->json)
        printf("%s, %s, %d thread%s\n", cvq_cpu_model(), cvq_cpu_level_name(b->level), b->threads,
               b->threads == 1 ? "" : "s");
    CVQ_TRY(cvq_bench_peaks(b, err));
    if (!args->json) print_row_header();
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) CVQ_TRY(steps[i](b, err));
    if (args->common.num_operands > 0) CVQ_TRY(cvq_bench_model(b, args->common.operands[0], err));
    if (b->num_rows == 0)
        return cvq_fail(err, CVQ_NOT_FOUND, "--only", "no row is called %s; --quick lists fewer",
                        args->only);
    return args->json ? print_json(b, err) : CVQ_OK;
}

/* The exit code, after a message if it is not 0. */
static int check_usage(const arguments *args, const cvq_bench *b) {
    cvq_recipe *recipe = NULL;
    cvq_error err = {0};
    if ((b->scale & (b->scale - 1)) != 0)
        return cvq_say_usage(&command, "--scale %u: give 1, 2, 4, 8 or 16", b->scale);
    if (cvq_recipe_open(&recipe, args->recipe, &err) != CVQ_OK)
        return cvq_say_wrong_value(&command, "recipe", args->recipe, &err);
    cvq_recipe_free(recipe);
    return CVQ_EXIT_DONE;
}

int main(int argc, char **argv) {
    arguments args = {.recipe = "q4", .scale = 1};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    cvq_error err = {0};
    cvq_bench b = {.threads = args.common.threads,
                   .quick = args.quick,
                   .only = args.only,
                   .recipe = args.recipe,
                   .scale = (uint32_t)args.scale,
                   .stopped = stopped,
                   .on_note = show_note,
                   .on_session = session_changed,
                   .context = &args};
    if (!args.json) b.on_peak = print_peak;
    if (!args.json) b.on_row = print_row;
    exit_code = check_usage(&args, &b);
    if (exit_code != CVQ_EXIT_DONE) return exit_code;
    cvq_status status = cvq_cpu_level_find(&b.level, cvq_cpu_selected(), &err);
    if (status == CVQ_OK) status = measure(&b, &args, &err);
    if (status != CVQ_OK) exit_code = cvq_say_error(&command, &err);
    cvq_bench_close(&b);
    return cvq_finish_stdout(&command, exit_code);
}
