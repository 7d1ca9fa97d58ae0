/* cvq-quantize --target-size: a recipe that fits a size. */
#ifndef CVQ_CLI_TARGET_SIZE_H
#define CVQ_CLI_TARGET_SIZE_H

#include "cli/options.h"
#include "convert/convert.h"

typedef struct cvq_target {
    const char *size;        /* "12.5G", "900M", "4.5bpw" */
    const char *sensitivity; /* a file of cvq-sensitivity, or NULL */
} cvq_target;

/* Types for all matrices so that the file is at most that large, exactly; the divergence to be
 * expected is as small as it can be made. CVQ_INVALID_ARGUMENT where the size cannot be read, or is
 * smaller than all that can be had. options: those of
 * the conversion to come; *bytes: of its file. */
cvq_status cvq_target_recipe(cvq_recipe **out, const cvq_target *target, const cvq_common *common,
                             const cvq_reader *in, const cvq_convert_options *options,
                             uint64_t *bytes, cvq_error *err);

#endif
