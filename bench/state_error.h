/* How far the hidden states of two models are apart, place by place: sums for the relative error of
 * a place, and the size of each channel, which shows outliers. */
#ifndef CVQ_BENCH_STATE_ERROR_H
#define CVQ_BENCH_STATE_ERROR_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CVQ_MAX_PLACE_NAME 64

typedef struct cvq_state_error {
    char name[CVQ_MAX_PLACE_NAME];
    size_t cols;
    uint64_t rows;
    double error_sq, sum_sq; /* of all values: differences, the reference's */
    double *channel_sq;      /* [cols], the reference's */
} cvq_state_error;

/* Start with {0}. */
typedef struct cvq_state_errors {
    cvq_state_error *places; /* in order of appearance */
    size_t count, capacity;
} cvq_state_errors;

/* Rows of a place, [rows][cols]; cols the same whenever it comes. */
cvq_status cvq_state_errors_add(cvq_state_errors *e, const char *name, const float *reference,
                                const float *values, size_t rows, size_t cols, cvq_error *err);
void cvq_state_errors_free(cvq_state_errors *e);
/* NULL where nothing of this name came. */
const cvq_state_error *cvq_state_errors_find(const cvq_state_errors *e, const char *name);

/* Root of squared differences over squares; 0 where the reference is all zeros. */
double cvq_state_error_relative(const cvq_state_error *s);
/* Root mean square of the largest channel over that of the median one: 8-bit activations lose most
 * where it is large. 0 where half of the channels are zeros. */
cvq_status cvq_state_error_outliers(const cvq_state_error *s, double *out, cvq_error *err);

#endif
