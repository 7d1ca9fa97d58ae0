/* Second moments of the inputs of the decoder's matrices: sums of x x^T over tokens, which
 * cvq-quantize --feedback reads. Per layer and expert those of qkv, dense, gate (up has the same
 * input) and down; formats/moment_layout.h says how they lie in memory and in the file. */
#ifndef CVQ_BENCH_SECOND_MOMENTS_H
#define CVQ_BENCH_SECOND_MOMENTS_H

#include "base/memory.h"
#include "formats/model_tensors.h"
#include "formats/safetensors.h"

typedef struct cvq_second_moment {
    char *name; /* of the weight */
    size_t cols;
    uint64_t values; /* of all triangles */
    uint64_t tokens;
    float *sums; /* [values], or NULL: not being measured */
} cvq_second_moment;

/* Start with {0}. All of a large model do not fit in memory: they are measured in passes over the
 * data, each of a run of matrices, which is written and freed before the next. */
typedef struct cvq_second_moments {
    cvq_second_moment *matrices; /* in the order of the model */
    size_t count, first, end;    /* [first, end): the pass */
    uint64_t budget;             /* bytes of sums in a pass (one matrix always fits) */
    int threads;
    cvq_st_writer *writer;
    cvq_buffer names;
} cvq_second_moments;

/* Writes to fd, which stays the caller's. *m is to be closed even after a failure. */
cvq_status cvq_second_moments_open(cvq_second_moments *m, const cvq_model_config *config,
                                   uint64_t budget, int threads, int fd, const char *where,
                                   cvq_error *err);
void cvq_second_moments_close(cvq_second_moments *m);
/* The next matrices, from zero. */
cvq_status cvq_second_moments_begin(cvq_second_moments *m, cvq_error *err);
/* The matrix of this name if the pass measures it, or NULL. */
cvq_second_moment *cvq_second_moments_find(const cvq_second_moments *m, const char *name);
/* rows x s->cols values, added in the order of rows, whatever the number of threads. */
void cvq_second_moments_add(const cvq_second_moments *m, cvq_second_moment *s, const float *values,
                            size_t rows);
/* Writes what the pass measured. *more: there are matrices left; if not, the file is complete. */
cvq_status cvq_second_moments_end(cvq_second_moments *m, bool *more, cvq_error *err);

#endif
