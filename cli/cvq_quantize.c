/* cvq-quantize: a 16-bit .cvq file to a smaller one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/calibration_files.h"
#include "cli/messages.h"
#include "cli/model_output.h"
#include "cli/target_size.h"

#define DEFAULT_RECIPE "q4"

typedef struct arguments {
    cvq_common common;
    const char *recipe, *report;
    cvq_calibration_paths calibration;
    cvq_text_list types;
    cvq_target target;
    bool resume, dry_run;
} arguments;

static const cvq_option options[] = {
    {.name = "recipe",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, recipe),
     .value = "NAME",
     .help = "types of the weights: q4 (default), q4-small, q8 or bf16"},
    {.name = "type",
     .kind = CVQ_OPTION_LIST,
     .offset = offsetof(arguments, types),
     .value = "GLOB=TYPE",
     .help = "give tensors whose Hugging Face name matches GLOB this type: f32, bf16, q8, q6, q4h, "
             "q4t, q4s or q4; may be given again, and the last match wins"},
    {.name = "target-size",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, target.size),
     .value = "SIZE",
     .help = "instead of a recipe: types for each matrix so that the file is at most this large "
             "(12.5G, 900M, or bits per weight, as 4.5bpw) and loses as little as possible"},
    {.name = "sensitivity",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, target.sensitivity),
     .value = "FILE",
     .help = "for --target-size: how much each matrix matters, as cvq-sensitivity measured it; "
             "without it the mean over another model's layers is taken"},
    CVQ_CALIBRATION_OPTIONS(offsetof(arguments, calibration)),
    {.name = "report",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, report),
     .value = "FILE",
     .help = "write a table (TSV) with a row for each tensor: type, bits, relative RMSE, largest "
             "error; '-' is stdout"},
    CVQ_RESUME_OPTION(arguments, resume),
    {.name = "dry-run",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, dry_run),
     .help = "write nothing (no OUT.cvq is given): print a table of the tensors (name, shape, "
             "source type, type, bytes)"},
};

static const cvq_command command = {
    .name = "cvq-quantize",
    .summary = "Turn a 16-bit .cvq file into a smaller one.",
    .operands = "IN.cvq OUT.cvq",
    .min_operands = 1,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes = "In GLOB, '*' is any run of characters, '?' any one, [abc] one of those. A GLOB that "
             "matches no tensor is wrong usage. Where a file comes from and its licences are "
             "carried over.",
};

/* Everything that is open while one file is made. */
typedef struct work {
    const arguments *args;
    cvq_reader *in;
    cvq_recipe *recipe;
    cvq_calibration_files calibration;
    cvq_output report;
    cvq_convert_result result;
} work;

/* The recipe with the rules of --type: the exit code, after a message if it is not 0. */
static int make_recipe(work *w) {
    const arguments *args = w->args;
    cvq_error err = {0};
    const char *name = args->recipe ? args->recipe : DEFAULT_RECIPE;
    if (cvq_recipe_open(&w->recipe, name, &err) != CVQ_OK)
        return cvq_say_wrong_value(&command, "recipe", name, &err);
    for (size_t i = 0; i < args->types.count; i++) {
        if (cvq_recipe_add_rule(w->recipe, args->types.items[i], &err) != CVQ_OK)
            return cvq_say_wrong_value(&command, "type", args->types.items[i], &err);
    }
    return CVQ_EXIT_DONE;
}

/* Types of all tensors, [tensor count]; released with free(). */
static cvq_status plan_types(const work *w, cvq_type **types, cvq_error *err) {
    const cvq_model_config *config = cvq_reader_config(w->in);
    size_t inv_freq = cvq_model_tensor_index(config, CVQ_T_INV_FREQ, 0);
    CVQ_TRY(cvq_alloc((void **)types, cvq_model_tensor_count(config), sizeof **types,
                      "the tensors' types", err));
    cvq_status status =
        cvq_recipe_types(w->recipe, config, cvq_reader_tensor(w->in, inv_freq)->type, *types, err);
    if (status != CVQ_OK) {
        free(*types);
        *types = NULL;
    }
    return status;
}

static cvq_convert_options convert_options(const work *w) {
    return (cvq_convert_options){
        .report = w->args->report != NULL,
        .quantize = {.importance = w->calibration.importance, .moments = w->calibration.moments}};
}

/* --target-size; CVQ_INVALID_ARGUMENT is wrong usage. */
static cvq_status make_sized_recipe(work *w, cvq_error *err) {
    const arguments *args = w->args;
    uint64_t bytes;
    char size[32];
    const cvq_convert_options o = convert_options(w);
    CVQ_TRY(cvq_target_recipe(&w->recipe, &args->target, &args->common, w->in, &o, &bytes, err));
    cvq_say_note(&args->common, "--target-size %s: the file has %s (%llu bytes)", args->target.size,
                 cvq_human_bytes(bytes, size), (unsigned long long)bytes);
    return CVQ_OK;
}

static cvq_status dry_run(const work *w, cvq_error *err) {
    cvq_buffer table = {0};
    cvq_status status = cvq_requantize_dry_run(&table, w->in, w->recipe, err);
    if (status == CVQ_OK) fwrite(table.data, 1, table.size, stdout);
    cvq_buffer_free(&table);
    return status;
}

static cvq_status quantize(work *w, cvq_error *err) {
    const arguments *args = w->args;
    const char *inputs[] = {args->common.operands[0], args->calibration.imatrix,
                            args->calibration.feedback, args->target.sensitivity};
    const char *path = args->common.operands[1];
    cvq_model_output output = CVQ_MODEL_OUTPUT_NONE;
    cvq_convert_options o = convert_options(w);
    CVQ_TRY(cvq_model_output_open(&output, &args->common, path, args->resume, inputs, 4,
                                  "quantizing", &o.quantize, err));
    const cvq_convert_target target = cvq_model_output_target(&output);
    const cvq_status status = cvq_requantize(w->in, w->recipe, &o, &target, &w->result, err);
    return cvq_model_output_close(&output, status, &w->result, "quantized", err);
}

static cvq_status write_report(work *w, cvq_error *err) {
    const cvq_buffer *text = &w->result.report;
    if (w->report.fd >= 0) {
        CVQ_TRY(cvq_write_all(w->report.fd, 0, text->data, text->size, w->args->report, err));
        return cvq_output_commit(&w->report, err);
    }
    fwrite(text->data, 1, text->size, stdout);
    return CVQ_OK;
}

static cvq_status make_file(work *w, cvq_error *err) {
    const arguments *args = w->args;
    const char *inputs[] = {args->common.operands[0], args->calibration.imatrix,
                            args->calibration.feedback, args->target.sensitivity};
    const bool table_on_stdout = args->report && strcmp(args->report, "-") == 0;
    if (args->report && !table_on_stdout)
        CVQ_TRY(cvq_output_open(&w->report, args->report, args->common.force, inputs, 4, err));
    CVQ_TRY(quantize(w, err));
    if (args->report) CVQ_TRY(write_report(w, err));
    if (!args->common.quiet)
        cvq_say_written(table_on_stdout ? stderr : stdout, args->common.operands[1], w->result.id);
    return CVQ_OK;
}

/* What contradicts itself: the exit code, after a message. */
static int check_usage(const arguments *args) {
    const bool named = args->recipe || args->types.count;
    if (args->dry_run && args->common.num_operands == 2)
        return cvq_say_usage(&command, "--dry-run writes nothing, so it takes no OUT.cvq");
    if (!args->dry_run && args->common.num_operands == 1)
        return cvq_say_usage(&command, "too few arguments: needs %s", command.operands);
    if (args->report && !args->dry_run && strcmp(args->report, args->common.operands[1]) == 0)
        return cvq_say_usage(&command, "--report and OUT.cvq are the same file");
    if (args->target.size && named)
        return cvq_say_usage(&command, "--target-size chooses all types: it does not go with "
                                       "--recipe or --type");
    if (args->target.sensitivity && !args->target.size)
        return cvq_say_usage(&command, "--sensitivity goes with --target-size");
    return CVQ_EXIT_DONE;
}

/* Wrong usage is found before any output is opened. */
static int run(work *w) {
    cvq_error err = {0};
    cvq_type *types = NULL;
    const cvq_target *target = &w->args->target;
    int exit_code = check_usage(w->args);
    if (exit_code == CVQ_EXIT_DONE && !target->size) exit_code = make_recipe(w);
    if (exit_code != CVQ_EXIT_DONE) return exit_code;
    if (cvq_reader_open(&w->in, w->args->common.operands[0], &err) != CVQ_OK)
        return cvq_say_error(&command, &err);
    cvq_status status = cvq_calibration_files_open(
        &w->calibration, &w->args->calibration, cvq_reader_config(w->in), &w->args->common, &err);
    if (status != CVQ_OK) return cvq_say_error(&command, &err);
    if (target->size) status = make_sized_recipe(w, &err);
    if (status == CVQ_OK) status = plan_types(w, &types, &err);
    free(types);
    if (status == CVQ_INVALID_ARGUMENT)
        return cvq_say_usage(&command, "%s%s%s", err.where, err.where[0] ? ": " : "", err.message);
    if (status == CVQ_OK) status = w->args->dry_run ? dry_run(w, &err) : make_file(w, &err);
    return status == CVQ_OK ? CVQ_EXIT_DONE : cvq_say_error(&command, &err);
}

int main(int argc, char **argv) {
    arguments args = {0};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    work w = {.args = &args, .report = CVQ_OUTPUT_NONE};
    exit_code = run(&w);
    cvq_output_discard(&w.report);
    cvq_calibration_files_close(&w.calibration);
    cvq_buffer_free(&w.result.report);
    cvq_reader_close(w.in);
    cvq_recipe_free(w.recipe);
    return cvq_finish_stdout(&command, exit_code);
}
