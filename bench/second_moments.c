/* Sums of products: one triangle in single precision for each block of columns. A row of the
 * triangle is one thread's, and takes tokens in their order, so that the sums do not depend on the
 * number of threads; they are stored as correlations in 16 bits. */
#include "bench/second_moments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/parallel.h"
#include "formats/moment_layout.h"

#define ROWS_OF_UNIT 32 /* of a triangle */

enum { PART_COUNT, PART_SUMS, PART_CORRELATION, PARTS };
static const char *const endings[PARTS] = {".count", ".sum_sq", ".correlation"};

/* ---------------------------------------------------------------- opening */

static cvq_status list_matrices(cvq_second_moments *m, const cvq_model_config *config,
                                cvq_error *err) {
    void *memory = NULL;
    const size_t n = cvq_model_tensor_count(config);
    CVQ_TRY(cvq_alloc(&memory, n, sizeof *m->matrices, "the list of matrices", err));
    m->matrices = memory;
    for (size_t i = 0; i < n; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        if (!cvq_moment_measured(spec.kind)) continue;
        cvq_second_moment *s = &m->matrices[m->count];
        *s = (cvq_second_moment){.name = strdup(spec.name),
                                 .cols = (size_t)spec.cols,
                                 .values = cvq_moment_values((size_t)spec.cols)};
        if (!s->name) return cvq_fail(err, CVQ_OUT_OF_MEMORY, spec.name, "no memory for a name");
        m->count++;
    }
    return CVQ_OK;
}

static cvq_status announce(cvq_second_moments *m, int fd, const char *where, cvq_error *err) {
    void *memory = NULL;
    for (size_t i = 0; i < PARTS * m->count; i++) {
        const char *name = m->matrices[i / PARTS].name, *ending = endings[i % PARTS];
        CVQ_TRY(cvq_buffer_append(&m->names, name, strlen(name), err));
        CVQ_TRY(cvq_buffer_append(&m->names, ending, strlen(ending) + 1, err));
    }
    CVQ_TRY(cvq_alloc(&memory, PARTS * m->count, sizeof(cvq_st_tensor), "the list", err));
    cvq_st_tensor *tensors = memory;
    const char *name = (const char *)m->names.data; /* which does not move any more */
    for (size_t i = 0; i < PARTS * m->count; i++, name += strlen(name) + 1) {
        static const cvq_st_dtype dtypes[PARTS] = {CVQ_ST_I64, CVQ_ST_F32, CVQ_ST_F16};
        const cvq_second_moment *s = &m->matrices[i / PARTS];
        const uint64_t counts[PARTS] = {1, s->cols, s->values};
        const cvq_st_dtype dtype = dtypes[i % PARTS];
        tensors[i] = (cvq_st_tensor){.name = name, .dtype = dtype, .ndim = 1};
        tensors[i].dims[0] = counts[i % PARTS];
        tensors[i].size = counts[i % PARTS] * cvq_st_dtype_size(dtype);
    }
    cvq_status status = cvq_st_writer_open(&m->writer, fd, tensors, PARTS * m->count, where, err);
    free(tensors);
    return status;
}

cvq_status cvq_second_moments_open(cvq_second_moments *m, const cvq_model_config *config,
                                   uint64_t budget, int threads, int fd, const char *where,
                                   cvq_error *err) {
    *m = (cvq_second_moments){.budget = budget, .threads = threads};
    CVQ_TRY(list_matrices(m, config, err));
    return announce(m, fd, where, err);
}

static void drop_sums(cvq_second_moments *m) {
    for (size_t i = m->first; i < m->end; i++) {
        free(m->matrices[i].sums);
        m->matrices[i].sums = NULL;
    }
}

void cvq_second_moments_close(cvq_second_moments *m) {
    if (!m) return;
    drop_sums(m);
    for (size_t i = 0; i < m->count; i++) free(m->matrices[i].name);
    free(m->matrices);
    cvq_st_writer_free(m->writer);
    cvq_buffer_free(&m->names);
    *m = (cvq_second_moments){0};
}

/* ---------------------------------------------------------------- a pass */

cvq_status cvq_second_moments_begin(cvq_second_moments *m, cvq_error *err) {
    uint64_t bytes = 0;
    for (m->first = m->end; m->end < m->count; m->end++) {
        cvq_second_moment *s = &m->matrices[m->end];
        void *sums = NULL;
        bytes += s->values * sizeof *s->sums;
        if (m->end > m->first && bytes > m->budget) break;
        CVQ_TRY(cvq_alloc(&sums, s->values, sizeof *s->sums, "second moments", err));
        s->sums = sums;
    }
    return CVQ_OK;
}

cvq_second_moment *cvq_second_moments_find(const cvq_second_moments *m, const char *name) {
    for (size_t i = m->first; i < m->end; i++)
        if (strcmp(m->matrices[i].name, name) == 0) return &m->matrices[i];
    return NULL;
}

typedef struct add_job {
    const cvq_second_moment *s;
    const float *values;
    size_t rows, block, units; /* units: of a whole block */
} add_job;

static void add_unit(void *context, size_t index, int thread) {
    const add_job *job = context;
    const size_t block = index / job->units, first = block * job->block;
    const size_t width = cvq_moment_width(job->s->cols, first);
    const size_t from = index % job->units * ROWS_OF_UNIT;
    float *triangle = job->s->sums + block * cvq_triangle(job->block);
    (void)thread;
    for (size_t i = from; i < from + ROWS_OF_UNIT && i < width; i++) {
        float *sum = triangle + cvq_triangle(i);
        for (size_t t = 0; t < job->rows; t++) {
            const float *x = job->values + t * job->s->cols + first;
            const float factor = x[i];
            for (size_t j = 0; j <= i; j++) sum[j] += factor * x[j];
        }
    }
}

void cvq_second_moments_add(const cvq_second_moments *m, cvq_second_moment *s, const float *values,
                            size_t rows) {
    const size_t block = cvq_moment_block(s->cols);
    add_job job = {s, values, rows, block, (block + ROWS_OF_UNIT - 1) / ROWS_OF_UNIT};
    cvq_parallel_for(m->threads, (s->cols + block - 1) / block * job.units, add_unit, &job);
    s->tokens += rows;
}

/* ---------------------------------------------------------------- writing */

static cvq_status write_count(cvq_second_moments *m, const cvq_second_moment *s, cvq_error *err) {
    uint8_t bytes[8];
    cvq_store_le(bytes, s->tokens, 8);
    return cvq_st_writer_append(m->writer, bytes, 8, err);
}

static cvq_status write_diagonal(cvq_second_moments *m, const cvq_second_moment *s, float *diagonal,
                                 cvq_error *err) {
    const size_t block = cvq_moment_block(s->cols);
    for (size_t k = 0; k < s->cols; k++) {
        const float *triangle = s->sums + k / block * cvq_triangle(block);
        uint8_t bytes[4];
        diagonal[k] = triangle[cvq_triangle(k % block + 1) - 1];
        if (!isfinite(diagonal[k]))
            return cvq_fail(err, CVQ_UNSUPPORTED, s->name,
                            "input channel %zu is not finite, or its squares add up to more than "
                            "single precision holds",
                            k);
        cvq_store_le(bytes, cvq_f32_bits(diagonal[k]), 4);
        CVQ_TRY(cvq_st_writer_append(m->writer, bytes, 4, err));
    }
    return CVQ_OK;
}

static cvq_status write_correlation(cvq_second_moments *m, const cvq_second_moment *s,
                                    const float *diagonal, cvq_error *err) {
    const size_t block = cvq_moment_block(s->cols);
    const float *sum = s->sums;
    uint8_t bytes[2 * CVQ_MOMENT_COLS];
    for (size_t first = 0; first < s->cols; first += block) {
        const float *d = diagonal + first;
        for (size_t i = 0; i < cvq_moment_width(s->cols, first); i++) {
            for (size_t j = 0; j <= i; j++, sum++) {
                const double power = (double)d[i] * (double)d[j];
                const double r = power > 0.0 ? (double)*sum / sqrt(power) : 0.0;
                cvq_store_le(bytes + 2 * j, cvq_f32_to_f16((float)r), 2);
            }
            CVQ_TRY(cvq_st_writer_append(m->writer, bytes, 2 * (i + 1), err));
        }
    }
    return CVQ_OK;
}

static cvq_status write_matrix(cvq_second_moments *m, const cvq_second_moment *s, cvq_error *err) {
    void *diagonal = NULL;
    CVQ_TRY(cvq_alloc(&diagonal, s->cols, sizeof(float), "a diagonal", err));
    cvq_status status = write_count(m, s, err);
    if (status == CVQ_OK) status = write_diagonal(m, s, diagonal, err);
    if (status == CVQ_OK) status = write_correlation(m, s, diagonal, err);
    free(diagonal);
    return status;
}

cvq_status cvq_second_moments_end(cvq_second_moments *m, bool *more, cvq_error *err) {
    for (size_t i = m->first; i < m->end; i++) CVQ_TRY(write_matrix(m, &m->matrices[i], err));
    drop_sums(m);
    *more = m->end < m->count;
    if (*more) return CVQ_OK;
    cvq_st_writer *writer = m->writer;
    m->writer = NULL;
    return cvq_st_writer_finish(writer, err);
}
