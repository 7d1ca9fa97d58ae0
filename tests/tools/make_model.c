/* Models of the real size, or of a part of it, made of noise:
 *
 *   make_model [option]... cvq OUT.cvq        a .cvq file of any recipe
 *   make_model [option]... checkpoint OUT_DIR  a checkpoint in Hugging Face's form
 *
 * Options as --help lists them. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/synthetic_checkpoint.h"
#include "cli/messages.h"
#include "cli/output.h"
#include "cli/progress.h"

typedef struct arguments {
    cvq_common common;
    const char *recipe;
    uint64_t layers, vit_layers, scale, seed;
    bool sparse;
} arguments;

static const cvq_option options[] = {
    {.name = "recipe",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(arguments, recipe),
     .value = "NAME",
     .help = "of a .cvq: bf16, q8, q4 (default) or q4-small"},
    {.name = "layers",
     .kind = CVQ_OPTION_COUNT,
     .offset = offsetof(arguments, layers),
     .value = "N",
     .min = 1,
     .max = 32,
     .help = "decoder layers (default 32)"},
    {.name = "vit-layers",
     .kind = CVQ_OPTION_COUNT,
     .offset = offsetof(arguments, vit_layers),
     .value = "N",
     .min = 1,
     .max = 63,
     .help = "layers of the vision encoder (default 63)"},
    {.name = "scale",
     .kind = CVQ_OPTION_COUNT,
     .offset = offsetof(arguments, scale),
     .value = "N",
     .min = 1,
     .max = 16,
     .help = "divide every width by 1 (default), 2, 4, 8 or 16"},
    {.name = "seed",
     .kind = CVQ_OPTION_COUNT,
     .offset = offsetof(arguments, seed),
     .value = "N",
     .max = UINT64_MAX,
     .help = "another seed gives other noise (default 1)"},
    {.name = "sparse",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, sparse),
     .help = "of a checkpoint: of each MiB only 64 KiB are noise, the rest takes no room on disk"},
};

static const cvq_command command = {
    .name = "make_model",
    .summary = "Make a model of the real size, or of a part of it, out of noise.",
    .operands = "cvq OUT.cvq | checkpoint OUT_DIR",
    .min_operands = 2,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
};

static cvq_synthetic_options options_of(const arguments *args, cvq_progress *progress) {
    return (cvq_synthetic_options){.seed = args->seed,
                                   .threads = args->common.threads,
                                   .progress = cvq_progress_bytes,
                                   .progress_context = progress};
}

static cvq_status make_checkpoint(const arguments *args, const cvq_model_config *config,
                                  cvq_error *err) {
    const char *dir = args->common.operands[1];
    cvq_progress progress;
    if (mkdir(dir, 0777) != 0) return cvq_fail_errno(err, dir, "cannot make it");
    cvq_progress_init(&progress, &args->common);
    cvq_progress_begin(&progress, "making", "bytes");
    const cvq_synthetic_options o = options_of(args, &progress);
    const cvq_status status = cvq_synthetic_checkpoint(config, &o, args->sparse, dir, err);
    cvq_progress_erase();
    return status;
}

static cvq_status make_file(const arguments *args, const cvq_model_config *config,
                            cvq_recipe *recipe, cvq_error *err) {
    const char *path = args->common.operands[1];
    cvq_output out = CVQ_OUTPUT_NONE;
    cvq_progress progress;
    uint8_t id[CVQ_ID_BYTES];
    CVQ_TRY(cvq_output_open(&out, path, args->common.force, NULL, 0, err));
    cvq_progress_init(&progress, &args->common);
    cvq_progress_begin(&progress, "making", "bytes");
    const cvq_synthetic_options o = options_of(args, &progress);
    cvq_status status = cvq_synthetic_file(config, recipe, &o, out.fd, path, id, err);
    cvq_progress_erase();
    if (status == CVQ_OK) status = cvq_output_commit(&out, err);
    cvq_output_discard(&out);
    if (status == CVQ_OK && !args->common.quiet) cvq_say_written(stdout, path, id);
    return status;
}

int main(int argc, char **argv) {
    arguments args = {.recipe = "q4", .layers = 32, .vit_layers = 63, .scale = 1, .seed = 1};
    cvq_error err = {0};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    if ((args.scale & (args.scale - 1)) != 0)
        return cvq_say_usage(&command, "--scale must be 1, 2, 4, 8 or 16");
    const bool checkpoint = strcmp(args.common.operands[0], "checkpoint") == 0;
    if (!checkpoint && strcmp(args.common.operands[0], "cvq") != 0)
        return cvq_say_usage(&command, "%s: what is that to be?", args.common.operands[0]);
    cvq_model_config config = cvq_scaled_config((uint32_t)args.scale);
    config.num_layers = (uint32_t)args.layers;
    config.vit_num_layers = (uint32_t)args.vit_layers;
    cvq_recipe *recipe = NULL;
    if (cvq_recipe_open(&recipe, args.recipe, &err) != CVQ_OK)
        return cvq_say_usage(&command, "--recipe %s: %s", args.recipe, err.message);
    const cvq_status status = checkpoint ? make_checkpoint(&args, &config, &err)
                                         : make_file(&args, &config, recipe, &err);
    if (status != CVQ_OK) exit_code = cvq_say_error(&command, &err);
    cvq_recipe_free(recipe);
    return cvq_finish_stdout(&command, exit_code);
}
