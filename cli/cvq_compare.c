/* cvq-compare: where in a model the loss of a quantized file comes from. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"
#include "bench/chart.h"
#include "cli/compared_model.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "formats/json.h"

typedef struct compare_args {
    cvq_run_args run;
    uint64_t window;
    const char *svg, *scratch;
} compare_args;

#define MEMBER(name) offsetof(compare_args, name)
static const cvq_option options[] = {
    CVQ_OPTION_WINDOW(MEMBER(window), "default 512"),
    {.name = "svg",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(svg),
     .value = "FILE.svg",
     .help = "draw the relative errors, a line for each model and precision"},
    {.name = "scratch",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(scratch),
     .value = "DIR",
     .help = "where the reference's states are kept meanwhile (default: this folder); some 4.5 GB "
             "for a picture with the real model"},
    {.name = "json",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(run.json),
     .help = "print one JSON object: reference, and of each model predictions and states"},
    CVQ_OPTION_TEMPLATE(MEMBER(run.template_choice)),
    CVQ_OPTION_ROPE(MEMBER(run.rope)),
    CVQ_OPTION_KV(MEMBER(run.kv)),
    CVQ_OPTION_PRECISION(MEMBER(run.precision)),
    CVQ_OPTION_VERIFY(MEMBER(run.verify)),
    CVQ_OPTION_NO_EXIF(MEMBER(run.no_exif)),
};

static const cvq_command command = {
    .name = "cvq-compare",
    .summary = "Show where in a model, and how far, quantized files depart from the original.",
    .operands = "REF.cvq MODEL.cvq... DATA.jsonl",
    .min_operands = 3,
    .max_operands = 18,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes =
        "DATA.jsonl is as for cvq-calibrate: questions, whose first answers are scored, and texts "
        "{\"text\"}. A quantized model goes through it twice unless --precision chooses: exact, "
        "which shows what the weights alone lost, and fast, with 8-bit activations too.\n"
        "Of every place (the picture's encoding layer by layer, the adapter, the decoder's layers "
        "by expert) the relative error is the root of squared differences over squares. bos and "
        "the token that begins a picture are left out. \"Outliers\" is the largest channel of the "
        "reference over the median one: 8-bit activations lose most where it is large.",
};

#define MAX_MODELS 32 /* 16 files, twice */

typedef struct work {
    const compare_args *args;
    const char *data;
    cvq_compared reference, models[MAX_MODELS];
    char names[MAX_MODELS][96]; /* "q4.cvq, exact" */
    size_t num_models;
    cvq_tap_spool spool;
    cvq_output svg, scratch;
} work;

/* ---------------------------------------------------------------- opening */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int open_model(work *w, char *path, int precision) {
    cvq_compared *c = &w->models[w->num_models];
    char *name = w->names[w->num_models++];
    snprintf(name, sizeof w->names[0], "%.80s, %s", base_name(path),
             precision == CVQ_PRECISION_FAST ? "fast" : "exact");
    return cvq_compared_open(c, &w->args->run, path, precision, w->data, (size_t)w->args->window,
                             &w->spool, false);
}

/* A quantized file in both precisions; a 16-bit one in exact arithmetic, as there is no other. */
static int open_file(work *w, char *path) {
    const int chosen = w->args->run.precision;
    int exit_code = open_model(w, path, chosen ? chosen : CVQ_PRECISION_EXACT);
    const cvq_model *model = w->models[w->num_models - 1].run.model;
    if (exit_code != CVQ_EXIT_DONE || chosen || !cvq_model_describe(model)->quantized)
        return exit_code;
    return open_model(w, path, CVQ_PRECISION_FAST);
}

static int open_models(work *w) {
    const cvq_common *common = &w->args->run.common;
    w->data = common->operands[common->num_operands - 1];
    int exit_code =
        cvq_compared_open(&w->reference, &w->args->run, common->operands[0], CVQ_PRECISION_EXACT,
                          w->data, (size_t)w->args->window, &w->spool, true);
    for (int i = 1; exit_code == CVQ_EXIT_DONE && i + 1 < common->num_operands; i++)
        exit_code = open_file(w, common->operands[i]);
    return exit_code;
}

static cvq_status open_files(work *w, cvq_error *err) {
    const cvq_common *common = &w->args->run.common;
    const char *const *inputs = (const char *const *)common->operands;
    const size_t n = (size_t)common->num_operands;
    char *path = NULL;
    if (w->args->svg) {
        CVQ_TRY(cvq_task_check_output(&w->reference.text.task, w->args->svg, err));
        CVQ_TRY(cvq_output_open(&w->svg, w->args->svg, common->force, inputs, n, err));
    }
    CVQ_TRY(cvq_path_join(&path, w->args->scratch, "cvq-compare.states", err));
    cvq_status status = cvq_output_open(&w->scratch, path, true, inputs, n, err);
    if (status == CVQ_OK) status = cvq_output_scratch(&w->scratch, &w->spool.fd, err);
    cvq_output_discard(&w->scratch);
    w->spool.where = w->args->scratch;
    free(path);
    return status;
}

/* The same data must be the same tokens and pictures to all. */
static cvq_status check_alike(const work *w, cvq_error *err) {
    const cvq_model_info *a = cvq_model_describe(w->reference.run.model);
    for (size_t i = 0; i < w->num_models; i++) {
        const cvq_model_info *b = cvq_model_describe(w->models[i].run.model);
        if (memcmp(w->reference.text.hash, w->models[i].text.hash, sizeof w->reference.text.hash) ==
                0 &&
            a->vocab_size == b->vocab_size && a->hidden_size == b->hidden_size &&
            a->image_slots == b->image_slots)
            continue;
        return cvq_fail(err, CVQ_MISMATCH, w->models[i].operand,
                        "is made from another model than %s", w->reference.operand);
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- running */

static cvq_status run_piece(work *w, size_t i, cvq_error *err) {
    cvq_tap_spool_clear(&w->spool);
    CVQ_TRY(cvq_compared_piece(&w->reference, i, err));
    for (size_t m = 0; m < w->num_models; m++) CVQ_TRY(cvq_compared_piece(&w->models[m], i, err));
    return CVQ_OK;
}

static cvq_status run_all(work *w, cvq_error *err) {
    char prefix[80];
    const double started = cvq_progress_clock();
    const size_t n = w->reference.text.num_pieces;
    CVQ_TRY(cvq_compared_observe(&w->reference, err));
    for (size_t m = 0; m < w->num_models; m++) CVQ_TRY(cvq_compared_observe(&w->models[m], err));
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < n; i++) {
        cvq_format_step("piece", i, n, started, prefix, sizeof prefix);
        w->reference.run.prefix = prefix;
        for (size_t m = 0; m < w->num_models; m++) w->models[m].run.prefix = prefix;
        status = cvq_interrupted() ? cvq_fail(err, CVQ_CANCELLED, "", "interrupted")
                                   : run_piece(w, i, err);
    }
    w->reference.run.prefix = NULL;
    for (size_t m = 0; m < w->num_models; m++) w->models[m].run.prefix = NULL;
    cvq_progress_erase();
    return status;
}

/* ---------------------------------------------------------------- JSON */

static cJSON *predictions(cvq_divergence *d, bool compared) {
    const cvq_divergence_sum s = cvq_divergence_summarize(d);
    cJSON *o = cJSON_CreateObject();
    cvq_json_add_number(o, "tokens", (double)d->count);
    cvq_json_add_number(o, "perplexity", s.perplexity);
    cvq_json_add_number(o, "stderr", s.perplexity_stderr);
    if (!compared) return o;
    cvq_json_add_number(o, "perplexity_ratio", s.perplexity_ratio);
    cvq_json_add_number(o, "perplexity_ratio_stderr", s.perplexity_ratio_stderr);
    cvq_json_add_number(o, "kld_mean", s.kld_mean);
    cvq_json_add_number(o, "kld_stderr", s.kld_stderr);
    cvq_json_add_number(o, "kld_median", s.kld_median);
    cvq_json_add_number(o, "kld_p99", s.kld_p99);
    cvq_json_add_number(o, "top1_agreement", s.top1_agreement);
    return o;
}

static void add_predictions(cJSON *object, cvq_compared *c) {
    static const char *const keys[] = {"text", "answers"};
    for (int k = 0; k < 2; k++)
        if (c->sum[k].count)
            cvq_json_add_item(object, keys[k], predictions(&c->sum[k], !c->reference));
}

static cvq_status add_states(cJSON *object, const cvq_compared *c, cvq_error *err) {
    cJSON *list = cvq_json_add_array(object, "states");
    for (size_t i = 0; i < c->states.count; i++) {
        const cvq_state_error *s = &c->states.places[i];
        double outliers;
        CVQ_TRY(cvq_state_error_outliers(s, &outliers, err));
        cJSON *o = cJSON_CreateObject();
        cvq_json_append(list, o);
        cvq_json_add_string(o, "name", s->name);
        cvq_json_add_number(o, "rows", (double)s->rows);
        cvq_json_add_number(o, "relative_error", cvq_state_error_relative(s));
        cvq_json_add_number(o, "outliers", outliers);
    }
    return CVQ_OK;
}

static void add_model(cJSON *object, const cvq_compared *c) {
    const cvq_model_info *info = cvq_model_describe(c->run.model);
    cvq_json_add_string(object, "file", base_name(c->operand));
    cvq_json_add_string(object, "recipe", info->recipe);
    cvq_json_add_number(object, "bytes", (double)info->file_bytes);
    cvq_json_add_string(object, "precision",
                        c->args.precision == CVQ_PRECISION_FAST ? "fast" : "exact");
}

static cvq_status print_json(work *w, cvq_error *err) {
    cvq_buffer text = {0};
    cJSON *root = cJSON_CreateObject();
    cJSON *reference = cvq_json_add_object(root, "reference");
    add_model(reference, &w->reference);
    add_predictions(reference, &w->reference);
    cJSON *list = cvq_json_add_array(root, "models");
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < w->num_models; i++) {
        cJSON *object = cJSON_CreateObject();
        cvq_json_append(list, object);
        add_model(object, &w->models[i]);
        add_predictions(object, &w->models[i]);
        status = add_states(object, &w->models[i], err);
    }
    if (status == CVQ_OK) status = cvq_json_print(&text, root, err);
    if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
    cJSON_Delete(root);
    cvq_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- the table */

static void print_predictions(work *w) {
    static const char *const kinds[] = {"text", "answers"};
    printf("predictions\ttokens\tperplexity\tx_reference\tkld_mean\tkld_p99\tsame_likeliest\n");
    for (int k = 0; k < 2; k++) {
        cvq_divergence *r = &w->reference.sum[k];
        if (r->count == 0) continue;
        printf("%s of %s\t%zu\t%.4f\t\t\t\t\n", kinds[k], base_name(w->reference.operand), r->count,
               cvq_divergence_summarize(r).perplexity);
        for (size_t i = 0; i < w->num_models; i++) {
            const cvq_divergence_sum s = cvq_divergence_summarize(&w->models[i].sum[k]);
            printf("%s of %s\t%zu\t%.4f\t%.5f\t%.6f\t%.6f\t%.4f\n", kinds[k], w->names[i],
                   w->models[i].sum[k].count, s.perplexity, s.perplexity_ratio, s.kld_mean,
                   s.kld_p99, s.top1_agreement);
        }
    }
}

/* All models went the same way, so that they have the same places in the same order. */
static cvq_status print_states(const work *w, cvq_error *err) {
    const cvq_state_errors *first = &w->models[0].states;
    printf("\nrelative_error");
    for (size_t i = 0; i < w->num_models; i++) printf("\t%s", w->names[i]);
    printf("\toutliers\n");
    for (size_t p = 0; p < first->count; p++) {
        double outliers;
        CVQ_TRY(cvq_state_error_outliers(&first->places[p], &outliers, err));
        printf("%s", first->places[p].name);
        for (size_t i = 0; i < w->num_models; i++) {
            const cvq_state_error *s =
                cvq_state_errors_find(&w->models[i].states, first->places[p].name);
            printf("\t%.5f", s ? cvq_state_error_relative(s) : 0);
        }
        printf("\t%.1f\n", outliers);
    }
    return CVQ_OK;
}

static cvq_status draw(work *w, cvq_error *err) {
    const cvq_state_errors *first = &w->models[0].states;
    cvq_chart_series series[MAX_MODELS];
    cvq_buffer svg = {0};
    double *values = NULL;
    const char **labels = NULL;
    cvq_status status = cvq_alloc((void **)&values, first->count * w->num_models, sizeof *values,
                                  "the picture", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&labels, first->count, sizeof *labels, "the picture", err);
    if (status != CVQ_OK) goto done;
    for (size_t p = 0; p < first->count; p++) labels[p] = first->places[p].name;
    unsigned file = 0;
    for (size_t i = 0; i < w->num_models; i++) {
        const cvq_compared *c = &w->models[i];
        const bool again = i > 0 && c->operand == c[-1].operand;
        file += i > 0 && !again;
        series[i] = (cvq_chart_series){w->names[i], values + i * first->count, file, again};
        for (size_t p = 0; p < first->count; p++) {
            const cvq_state_error *s = cvq_state_errors_find(&w->models[i].states, labels[p]);
            values[i * first->count + p] = s ? cvq_state_error_relative(s) : 0;
        }
    }
    const cvq_chart chart = {"Error of the hidden states by layer",
                             "relative error",
                             labels,
                             first->count,
                             series,
                             w->num_models};
    status = cvq_chart_print(&svg, &chart, err);
    if (status == CVQ_OK)
        status = cvq_write_all(w->svg.fd, 0, svg.data, svg.size, w->args->svg, err);
    if (status == CVQ_OK) status = cvq_output_commit(&w->svg, err);
done:
    cvq_buffer_free(&svg);
    free(labels);
    free(values);
    return status;
}

/* ---------------------------------------------------------------- the whole */

static cvq_status compare(work *w, cvq_error *err) {
    CVQ_TRY(check_alike(w, err));
    CVQ_TRY(open_files(w, err));
    CVQ_TRY(run_all(w, err));
    if (w->args->svg) CVQ_TRY(draw(w, err));
    if (w->args->run.json) return print_json(w, err);
    print_predictions(w);
    return print_states(w, err);
}

int main(int argc, char **argv) {
    compare_args args = {.window = 512, .scratch = "."};
    static work w; /* large */
    int exit_code;
    cvq_error err = {0};
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    w = (work){.args = &args,
               .spool = CVQ_TAP_SPOOL_NONE,
               .svg = CVQ_OUTPUT_NONE,
               .scratch = CVQ_OUTPUT_NONE};
    exit_code = open_models(&w);
    if (exit_code == CVQ_EXIT_DONE && compare(&w, &err) != CVQ_OK)
        exit_code = cvq_say_error(&command, &err);
    cvq_output_discard(&w.svg);
    if (w.spool.fd >= 0) close(w.spool.fd);
    cvq_tap_spool_free(&w.spool);
    for (size_t i = 0; i < w.num_models; i++) cvq_compared_close(&w.models[i]);
    cvq_compared_close(&w.reference);
    return cvq_finish_stdout(&command, exit_code);
}
