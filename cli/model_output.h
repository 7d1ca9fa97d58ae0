/* A .cvq file being made: what cvq-convert and cvq-quantize share, from opening the output to
 * saying what became of it. */
#ifndef CVQ_CLI_MODEL_OUTPUT_H
#define CVQ_CLI_MODEL_OUTPUT_H

#include "cli/output.h"
#include "cli/progress.h"
#include "convert/convert.h"

/* The row of an option table. member: of the command's arguments, a bool. */
#define CVQ_RESUME_OPTION(type, member)                                                            \
    {                                                                                              \
        .name = "resume", .kind = CVQ_OPTION_FLAG, .offset = offsetof(type, member),               \
        .help =                                                                                    \
            "go on where an interrupted run of the same command stopped (its OUT.cvq.partial and " \
            "OUT.cvq.partial.journal are there); the file becomes the same"                        \
    }

typedef struct cvq_model_output {
    const cvq_common *common;
    cvq_output out;
    cvq_progress progress;
    bool resume, leftover;
} cvq_model_output;

#define CVQ_MODEL_OUTPUT_NONE                                                                      \
    { .out = CVQ_OUTPUT_NONE }

/* As cvq_output_open_resumable. label: "converting". Fills what of options is about progress and
 * threads. */
cvq_status cvq_model_output_open(cvq_model_output *m, const cvq_common *common, const char *path,
                                 bool resume, const char *const *inputs, size_t num_inputs,
                                 const char *label, cvq_quantize_options *options, cvq_error *err);
cvq_convert_target cvq_model_output_target(const cvq_model_output *m);
/* After the work, which ended with `status`: gives the output its name, or removes it, or keeps
 * what is worth it for --resume and says so. Returns status, or why the file has no name. done:
 * what -v calls the work, "converted". */
cvq_status cvq_model_output_close(cvq_model_output *m, cvq_status status,
                                  const cvq_convert_result *result, const char *done,
                                  cvq_error *err);

#endif
