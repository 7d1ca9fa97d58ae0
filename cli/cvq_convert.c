/* cvq-convert: a Hugging Face checkpoint to one .cvq file. */
#include <stdio.h>
#include <string.h>

#include "cli/messages.h"
#include "cli/model_output.h"

typedef struct arguments {
    cvq_common common;
    const char *recipe, *revision, *card;
    bool resume, dry_run;
} arguments;

static const cvq_option options[] = {
    {.name = "recipe",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, recipe),
     .value = "NAME",
     .help = "types of the weights: bf16 (default; keeps every weight as it is), q8, q4 or "
             "q4-small"},
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
                          const cvq_recipe *recipe, cvq_error *err) {
    const char *dir = args->common.operands[0], *path = args->common.operands[1];
    const char *inputs[] = {dir, args->card};
    cvq_model_output output = CVQ_MODEL_OUTPUT_NONE;
    cvq_convert_result result = {0};
    cvq_convert_options o = {.revision = args->revision, .card_path = args->card};
    CVQ_TRY(cvq_model_output_open(&output, &args->common, path, args->resume, inputs, 2,
                                  "converting", &o.quantize, err));
    const cvq_convert_target target = cvq_model_output_target(&output);
    cvq_status status = cvq_convert(checkpoint, recipe, &o, &target, &result, err);
    status = cvq_model_output_close(&output, status, &result, "converted", err);
    if (status != CVQ_OK) return status;
    if (result.licenses == 0)
        cvq_say_note(&args->common,
                     "%s: no LICENSE file there, so the new file carries no licence text; add it "
                     "to the folder and convert again before handing the file on",
                     dir);
    if (!args->common.quiet) cvq_say_written(stdout, path, result.id);
    return CVQ_OK;
}

int main(int argc, char **argv) {
    arguments args = {.recipe = "bf16"};
    cvq_error err = {0};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    if (args.dry_run && args.common.num_operands == 2)
        return cvq_say_usage(&command, "--dry-run writes nothing, so it takes no OUT.cvq");
    if (!args.dry_run && args.common.num_operands == 1)
        return cvq_say_usage(&command, "too few arguments: needs %s", command.operands);

    cvq_recipe *recipe = NULL;
    if (cvq_recipe_open(&recipe, args.recipe, &err) != CVQ_OK)
        return cvq_say_usage(&command, "--recipe %s: %s", args.recipe, err.message);
    cvq_checkpoint *checkpoint = NULL;
    cvq_status status = cvq_checkpoint_open(&checkpoint, args.common.operands[0], &err);
    if (status == CVQ_OK)
        status = args.dry_run ? dry_run(checkpoint, recipe, &err)
                              : convert(&args, checkpoint, recipe, &err);
    if (status != CVQ_OK) exit_code = cvq_say_error(&command, &err);
    cvq_checkpoint_close(checkpoint);
    cvq_recipe_free(recipe);
    return cvq_finish_stdout(&command, exit_code);
}
