/* What cvq-calibrate measured, to quantize by: the options --imatrix and --feedback of cvq-convert
 * and cvq-quantize. */
#ifndef CVQ_CLI_CALIBRATION_FILES_H
#define CVQ_CLI_CALIBRATION_FILES_H

#include "cli/options.h"
#include "quant/quantize.h"

/* What was given: members of a command's arguments. */
typedef struct cvq_calibration_paths {
    const char *imatrix, *feedback;
} cvq_calibration_paths;

/* Rows of an option table; at: the offset of a cvq_calibration_paths. */
#define CVQ_CALIBRATION_OPTIONS(at)                                                                \
    {.name = "imatrix",                                                                            \
     .kind = CVQ_OPTION_TEXT,                                                                      \
     .offset = (at) + offsetof(cvq_calibration_paths, imatrix),                                    \
     .value = "FILE",                                                                              \
     .help = "importance of the input channels, as cvq-calibrate writes it"},                      \
    {                                                                                              \
        .name = "feedback", .kind = CVQ_OPTION_TEXT,                                               \
        .offset = (at) + offsetof(cvq_calibration_paths, feedback), .value = "FILE",               \
        .help =                                                                                    \
            "let the decoder's columns make good what others lose, by the second moments that "    \
            "cvq-calibrate --second-moments wrote; takes two to three times as long"               \
    }

/* Start with {0}. */
typedef struct cvq_calibration_files {
    cvq_importance *importance;
    cvq_second_moments_file *moments;
} cvq_calibration_files;

/* Opens what was given; notes say how many matrices saw too few tokens, and how many of the
 * decoder's go without feedback. Close it in any case. */
cvq_status cvq_calibration_files_open(cvq_calibration_files *c, const cvq_calibration_paths *paths,
                                      const cvq_model_config *config, const cvq_common *common,
                                      cvq_error *err);
void cvq_calibration_files_close(cvq_calibration_files *c);

#endif
