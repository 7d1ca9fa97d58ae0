/* cvq-convert: a Hugging Face checkpoint to one .cvq file. */
#include <stdio.h>
#include <string.h>

#include "cli/calibration_files.h"
#include "cli/manifest_file.h"
#include "cli/messages.h"
#include "cli/model_output.h"
#include "convert/provenance.h"
#include "convert/reproduce.h"

typedef struct arguments {
    cvq_common common;
    const char *recipe, *revision, *card, *check;
    cvq_calibration_paths calibration;
    bool resume, dry_run;
} arguments;

static const cvq_option options[] = {
    {.name = "recipe",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, recipe),
     .value = "NAME",
     .help = "types of the weights: bf16 (default; keeps every weight as it is), q8, q4 or "
             "q4-small"},
    CVQ_CALIBRATION_OPTIONS(offsetof(arguments, calibration)),
    {.name = "source-revision",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, revision),
     .value = "COMMIT",
     .help = "the checkpoint's commit, kept in the file"},
    {.name = "card",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, card),
     .value = "FILE",
     .help = "a model card (text) to keep in the file"},
    CVQ_RESUME_OPTION(arguments, resume),
    {.name = "dry-run",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, dry_run),
     .help = "write nothing (no OUT.cvq is given): print a table of the tensors (name, shape, "
             "source type, type, bytes) from the checkpoint's headers alone"},
    {.name = "check",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, check),
     .value = "FILE",
     .help = "write nothing (no OUT.cvq is given): convert again as FILE, a manifest or a .cvq "
             "file, says that it was made, and tell whether it is exactly what the checkpoint "
             "gives, or the first tensor that differs; give the calibration files that it was made "
             "with"},
};

static const cvq_command command = {
    .name = "cvq-convert",
    .summary = "Turn a Hugging Face checkpoint of CogVLM2 into one .cvq file.",
    .operands = "CKPT_DIR OUT.cvq",
    .min_operands = 1,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes = "CKPT_DIR holds config.json, tokenizer.json, model*.safetensors with their index, and "
             "the licence (LICENSE*), whose text goes into the file. The same checkpoint and "
             "recipe give the same bytes on every machine.",
};

static cvq_status dry_run(const cvq_checkpoint *checkpoint, const cvq_recipe *recipe,
                          cvq_error *err) {
    cvq_buffer table = {0};
    cvq_status status = cvq_convert_dry_run(&table, checkpoint, recipe, err);
    if (status == CVQ_OK) fwrite(table.data, 1, table.size, stdout);
    cvq_buffer_free(&table);
    return status;
}

static cvq_status convert(const arguments *args, const cvq_checkpoint *checkpoint,
                          const cvq_recipe *recipe, const cvq_calibration_files *calibration,
                          cvq_error *err) {
    const char *dir = args->common.operands[0], *path = args->common.operands[1];
    const char *inputs[] = {dir, args->card, args->calibration.imatrix, args->calibration.feedback};
    cvq_model_output output = CVQ_MODEL_OUTPUT_NONE;
    cvq_buffer card = {0};
    cvq_convert_result result = {0};
    cvq_convert_options o = {
        .revision = args->revision,
        .quantize = {.importance = calibration->importance, .moments = calibration->moments}};
    if (args->card) CVQ_TRY(cvq_text_read(&card, args->card, err));
    o.card = (const char *)card.data;
    cvq_status status = cvq_model_output_open(&output, &args->common, path, args->resume, inputs, 4,
                                              "converting", &o.quantize, err);
    if (status == CVQ_OK) {
        const cvq_convert_target target = cvq_model_output_target(&output);
        status = cvq_convert(checkpoint, recipe, &o, &target, &result, err);
        status = cvq_model_output_close(&output, status, &result, "converted", err);
    }
    cvq_buffer_free(&card);
    if (status != CVQ_OK) return status;
    if (result.licenses == 0)
        cvq_say_note(&args->common,
                     "%s: no LICENSE file there, so the new file carries no licence text; add it "
                     "to the folder and convert again before handing the file on",
                     dir);
    if (!args->common.quiet) cvq_say_written(stdout, path, result.id);
    return CVQ_OK;
}

static cvq_status check(const arguments *args, const cvq_checkpoint *checkpoint,
                        const cvq_calibration_files *calibration, cvq_error *err) {
    cvq_manifest expected = {0};
    cvq_convert_result result = {0};
    cvq_progress progress;
    const cvq_convert_options o = {.quantize = {.threads = args->common.threads,
                                                .importance = calibration->importance,
                                                .moments = calibration->moments,
                                                .progress = cvq_progress_bytes,
                                                .progress_context = &progress}};
    CVQ_TRY(cvq_manifest_open(&expected, args->check, &args->common, err));
    cvq_progress_init(&progress, &args->common);
    cvq_progress_begin(&progress, "converting again", "bytes");
    const cvq_status status = cvq_reproduce(checkpoint, &expected, &o, args->check, &result, err);
    cvq_progress_erase();
    if (status == CVQ_OK && cJSON_GetObjectItemCaseSensitive(expected.json, "quality"))
        cvq_say_note(&args->common,
                     "%s: this says nothing of its \"quality\", which its publisher measured",
                     args->check);
    if (status == CVQ_OK && !args->common.quiet) {
        char id[65];
        cvq_hex_id(result.id, id);
        printf("%s: exactly what %s gives; id %s\n", args->check, args->common.operands[0], id);
    }
    cvq_manifest_free(&expected);
    return status;
}

/* What is wrong with these arguments together, or NULL. */
static const char *wrong_usage(const arguments *args) {
    const bool writes = !args->dry_run && !args->check;
    if (args->dry_run && args->check) return "--dry-run and --check do not go together";
    if (args->check && (args->recipe || args->revision || args->card))
        return "--check takes recipe, revision and card from the file that it checks";
    if (args->check && args->resume) return "--check cannot be resumed";
    if (!writes && args->common.num_operands == 2)
        return "--dry-run and --check write nothing, so they take no OUT.cvq";
    if (writes && args->common.num_operands == 1)
        return "too few arguments: needs CKPT_DIR OUT.cvq";
    return NULL;
}

static cvq_status work(const arguments *args, const cvq_recipe *recipe, cvq_error *err) {
    cvq_checkpoint *checkpoint = NULL;
    cvq_calibration_files calibration = {0};
    cvq_status status = cvq_checkpoint_open(&checkpoint, args->common.operands[0], err);
    if (status == CVQ_OK && args->dry_run) {
        status = dry_run(checkpoint, recipe, err);
    } else if (status == CVQ_OK) {
        status = cvq_calibration_files_open(&calibration, &args->calibration,
                                            cvq_checkpoint_config(checkpoint), &args->common, err);
        if (status == CVQ_OK)
            status = args->check ? check(args, checkpoint, &calibration, err)
                                 : convert(args, checkpoint, recipe, &calibration, err);
    }
    cvq_calibration_files_close(&calibration);
    cvq_checkpoint_close(checkpoint);
    return status;
}

int main(int argc, char **argv) {
    arguments args = {0};
    cvq_error err = {0};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    const char *wrong = wrong_usage(&args);
    if (wrong) return cvq_say_usage(&command, "%s", wrong);
    const char *name = args.recipe ? args.recipe : "bf16";
    cvq_recipe *recipe = NULL;
    if (cvq_recipe_open(&recipe, name, &err) != CVQ_OK)
        return cvq_say_wrong_value(&command, "recipe", name, &err);
    if (work(&args, recipe, &err) != CVQ_OK) exit_code = cvq_say_error(&command, &err);
    cvq_recipe_free(recipe);
    return cvq_finish_stdout(&command, exit_code);
}
