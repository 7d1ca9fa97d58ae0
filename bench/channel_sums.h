/* What calibration measures: for every matrix the sum of squares of each input channel, and over
 * how many tokens. As a file: "<tensor name>.sum_sq" F32 [K] and "<tensor name>.count" I64 [1]. */
#ifndef CVQ_BENCH_CHANNEL_SUMS_H
#define CVQ_BENCH_CHANNEL_SUMS_H

#include <stddef.h>
#include <stdint.h>

#include "formats/model_tensors.h"

typedef struct cvq_channel_sums {
    char *name; /* of the weight */
    size_t cols;
    double *sum_sq; /* [cols] */
    uint64_t tokens;
} cvq_channel_sums;

/* Start with {0}. */
typedef struct cvq_calibration {
    cvq_channel_sums *matrices; /* sorted by name */
    size_t count;
} cvq_calibration;

/* All matrices of a model, zeros. *out is {0} after a failure; so is it below. */
cvq_status cvq_calibration_open(cvq_calibration *out, const cvq_model_config *config,
                                cvq_error *err);
/* A file: untrusted. */
cvq_status cvq_calibration_read(cvq_calibration *out, const char *path, cvq_error *err);
void cvq_calibration_free(cvq_calibration *c);

/* NULL where there is none of this name. */
cvq_channel_sums *cvq_calibration_find(const cvq_calibration *c, const char *name);
/* rows x cols values, added in the order of rows. */
void cvq_channel_sums_add(cvq_channel_sums *s, const float *values, size_t rows);
void cvq_calibration_clear(cvq_calibration *c);
/* total += more. Both must have the same matrices: CVQ_MISMATCH names the first that differs, and
 * total is as it was. where: the file that `more` comes from. */
cvq_status cvq_calibration_add(cvq_calibration *total, const cvq_calibration *more,
                               const char *where, cvq_error *err);
cvq_status cvq_calibration_write(const cvq_calibration *c, int fd, const char *where,
                                 cvq_error *err);

#endif
