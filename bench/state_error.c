/* Sums in double, in the order of rows. */
#include "bench/state_error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bench/statistics.h"

static cvq_status find_or_add(cvq_state_errors *e, const char *name, size_t cols,
                              cvq_state_error **out, cvq_error *err) {
    void *channels;
    *out = (cvq_state_error *)(uintptr_t)cvq_state_errors_find(e, name);
    if (*out && (*out)->cols != cols)
        return cvq_fail(err, CVQ_INTERNAL, name, "rows of different lengths");
    if (*out) return CVQ_OK;
    if (e->count == e->capacity) {
        size_t more = e->capacity ? 2 * e->capacity : 32;
        cvq_state_error *places = realloc(e->places, more * sizeof *places);
        if (!places) return cvq_fail(err, CVQ_OUT_OF_MEMORY, name, "no memory for its errors");
        e->places = places;
        e->capacity = more;
    }
    CVQ_TRY(cvq_alloc(&channels, cols, sizeof(double), name, err));
    *out = &e->places[e->count++];
    **out = (cvq_state_error){.cols = cols, .channel_sq = channels};
    snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    return CVQ_OK;
}

cvq_status cvq_state_errors_add(cvq_state_errors *e, const char *name, const float *reference,
                                const float *values, size_t rows, size_t cols, cvq_error *err) {
    cvq_state_error *s;
    CVQ_TRY(find_or_add(e, name, cols, &s, err));
    for (size_t r = 0; r < rows; r++, reference += cols, values += cols) {
        for (size_t k = 0; k < cols; k++) {
            const double x = (double)reference[k], d = (double)values[k] - x;
            s->channel_sq[k] += x * x;
            s->sum_sq += x * x;
            s->error_sq += d * d;
        }
    }
    s->rows += rows;
    return CVQ_OK;
}

void cvq_state_errors_free(cvq_state_errors *e) {
    for (size_t i = 0; i < e->count; i++) free(e->places[i].channel_sq);
    free(e->places);
    *e = (cvq_state_errors){0};
}

const cvq_state_error *cvq_state_errors_find(const cvq_state_errors *e, const char *name) {
    for (size_t i = 0; i < e->count; i++)
        if (strcmp(e->places[i].name, name) == 0) return &e->places[i];
    return NULL;
}

double cvq_state_error_relative(const cvq_state_error *s) {
    return s->sum_sq > 0 ? sqrt(s->error_sq / s->sum_sq) : 0;
}

cvq_status cvq_state_error_outliers(const cvq_state_error *s, double *out, cvq_error *err) {
    void *copy;
    CVQ_TRY(cvq_alloc(&copy, s->cols, sizeof(double), s->name, err));
    memcpy(copy, s->channel_sq, s->cols * sizeof(double));
    const double median = cvq_quantile(copy, s->cols, 0.5), most = cvq_quantile(copy, s->cols, 1);
    free(copy);
    *out = median > 0 ? sqrt(most / median) : 0;
    return CVQ_OK;
}
