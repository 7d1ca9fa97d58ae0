/* Sums of squares by matrix and channel: kept in double precision, stored in single. */
#include "bench/channel_sums.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "formats/safetensors.h"

#define SUMS ".sum_sq"
#define TOKENS ".count"

static int by_name(const void *a, const void *b) {
    const cvq_channel_sums *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* One more matrix at the end; the caller has room for it. */
static cvq_status append(cvq_calibration *c, const char *name, size_t length, uint64_t cols,
                         cvq_error *err) {
    cvq_channel_sums *s = &c->matrices[c->count];
    void *sums;
    size_t n;
    if (!cvq_to_size(cols, &n)) return cvq_fail(err, CVQ_OUT_OF_MEMORY, name, "too many columns");
    CVQ_TRY(cvq_alloc(&sums, cols, sizeof(double), "the sums of a matrix", err));
    *s = (cvq_channel_sums){.name = strndup(name, length), .cols = n, .sum_sq = sums};
    c->count++;
    return s->name ? CVQ_OK : cvq_fail(err, CVQ_OUT_OF_MEMORY, name, "no memory for a name");
}

cvq_status cvq_calibration_open(cvq_calibration *out, const cvq_model_config *config,
                                cvq_error *err) {
    cvq_calibration c = {0};
    void *matrices;
    size_t n = cvq_model_tensor_count(config);
    CVQ_TRY(cvq_alloc(&matrices, n, sizeof *c.matrices, "the list of matrices", err));
    c.matrices = matrices;
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < n; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        if (spec.role == CVQ_ROLE_MATRIX)
            status = append(&c, spec.name, strlen(spec.name), spec.cols, err);
    }
    if (status == CVQ_OK) {
        qsort(c.matrices, c.count, sizeof *c.matrices, by_name);
        *out = c;
    } else {
        cvq_calibration_free(&c);
    }
    return status;
}

void cvq_calibration_free(cvq_calibration *c) {
    if (!c) return;
    for (size_t i = 0; i < c->count; i++) {
        free(c->matrices[i].name);
        free(c->matrices[i].sum_sq);
    }
    free(c->matrices);
    *c = (cvq_calibration){0};
}

/* ---------------------------------------------------------------- adding up */

cvq_channel_sums *cvq_calibration_find(const cvq_calibration *c, const char *name) {
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, c->matrices[middle].name);
        if (order == 0) return &c->matrices[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

void cvq_channel_sums_add(cvq_channel_sums *s, const float *values, size_t rows) {
    for (size_t r = 0; r < rows; r++, values += s->cols)
        for (size_t k = 0; k < s->cols; k++) s->sum_sq[k] += (double)values[k] * (double)values[k];
    s->tokens += rows;
}

void cvq_calibration_clear(cvq_calibration *c) {
    for (size_t i = 0; i < c->count; i++) {
        cvq_channel_sums *s = &c->matrices[i];
        memset(s->sum_sq, 0, s->cols * sizeof *s->sum_sq);
        s->tokens = 0;
    }
}

cvq_status cvq_calibration_add(cvq_calibration *total, const cvq_calibration *more,
                               const char *where, cvq_error *err) {
    for (size_t i = 0; i < total->count || i < more->count; i++) {
        const cvq_channel_sums *a = i < total->count ? &total->matrices[i] : NULL;
        const cvq_channel_sums *b = i < more->count ? &more->matrices[i] : NULL;
        /* NOLINTBEGIN(clang-analyzer-core.NullDereference): there are as many as are counted */
        if (!a || !b || strcmp(a->name, b->name) != 0 || a->cols != b->cols)
            return cvq_fail(err, CVQ_MISMATCH, where,
                            "is of another model than the files before it: they differ at %s",
                            i < more->count ? more->matrices[i].name : total->matrices[i].name);
        /* NOLINTEND(clang-analyzer-core.NullDereference) */
        if (a->tokens > INT64_MAX - b->tokens)
            return cvq_fail(err, CVQ_FORMAT, where, "%s: too many tokens", b->name);
    }
    for (size_t i = 0; i < total->count; i++) {
        cvq_channel_sums *a = &total->matrices[i];
        const cvq_channel_sums *b = &more->matrices[i];
        for (size_t k = 0; k < a->cols; k++) a->sum_sq[k] += b->sum_sq[k];
        a->tokens += b->tokens;
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- reading */

/* The matrix whose sums this tensor of the file holds. */
static cvq_status read_matrix(cvq_calibration *c, const cvq_safetensors *file,
                              const cvq_st_tensor *sums, size_t name_length, const char *path,
                              cvq_error *err) {
    cvq_buffer name = {0};
    cvq_status status = cvq_buffer_append(&name, sums->name, name_length, err);
    if (status == CVQ_OK) status = cvq_buffer_append(&name, TOKENS, sizeof TOKENS, err);
    const cvq_st_tensor *tokens =
        status == CVQ_OK ? cvq_safetensors_find(file, (const char *)name.data) : NULL;
    cvq_buffer_free(&name);
    CVQ_TRY(status);
    if (sums->dtype != CVQ_ST_F32 || sums->ndim != 1 || !tokens || tokens->dtype != CVQ_ST_I64 ||
        tokens->ndim != 1 || tokens->dims[0] != 1)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "%s: not F32 [K] with a " TOKENS " of I64 [1] beside it", sums->name);
    CVQ_TRY(append(c, sums->name, name_length, sums->dims[0], err));
    cvq_channel_sums *s = &c->matrices[c->count - 1];
    s->tokens = cvq_load_le(tokens->data, 8);
    if (s->tokens > INT64_MAX) return cvq_fail(err, CVQ_FORMAT, path, "%s: negative", tokens->name);
    for (size_t k = 0; k < s->cols; k++) {
        float v = cvq_bits_f32((uint32_t)cvq_load_le(sums->data + 4 * k, 4));
        if (!(v >= 0 && v <= FLT_MAX))
            return cvq_fail(err, CVQ_FORMAT, path, "%s: value %zu is negative or not finite",
                            sums->name, k);
        s->sum_sq[k] = (double)v;
    }
    return CVQ_OK;
}

static cvq_status read_all(cvq_calibration *c, const cvq_safetensors *file, const char *path,
                           cvq_error *err) {
    void *matrices;
    size_t n = cvq_safetensors_count(file), ending = strlen(SUMS);
    CVQ_TRY(cvq_alloc(&matrices, n, sizeof *c->matrices, "the list of matrices", err));
    c->matrices = matrices;
    for (size_t i = 0; i < n; i++) {
        const cvq_st_tensor *t = cvq_safetensors_at(file, i);
        size_t length = strlen(t->name);
        if (length <= ending || strcmp(t->name + length - ending, SUMS) != 0) continue;
        CVQ_TRY(read_matrix(c, file, t, length - ending, path, err));
    }
    if (c->count == 0 || 2 * c->count != n)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "holds something else than pairs of " SUMS " and " TOKENS);
    qsort(c->matrices, c->count, sizeof *c->matrices, by_name);
    return CVQ_OK;
}

cvq_status cvq_calibration_read(cvq_calibration *out, const char *path, cvq_error *err) {
    cvq_calibration c = {0};
    cvq_safetensors *file = NULL;
    cvq_error problem = {0};
    cvq_status status = cvq_safetensors_open(&file, path, &problem);
    if (status == CVQ_OK) status = read_all(&c, file, path, &problem);
    if (status != CVQ_OK)
        (void)cvq_fail_advising(err, path, &problem, "; take a file that cvq-calibrate wrote");
    cvq_safetensors_close(file);
    if (status == CVQ_OK)
        *out = c;
    else
        cvq_calibration_free(&c);
    return status;
}

/* ---------------------------------------------------------------- writing */

/* Names and shapes: all counts, then all sums, so that both are aligned to their size. The names
 * are in *names, one behind the other. */
static cvq_status announce(const cvq_calibration *c, cvq_st_tensor *tensors, cvq_buffer *names,
                           cvq_error *err) {
    static const char *const endings[] = {TOKENS, SUMS};
    for (size_t i = 0; i < 2; i++) {
        for (const cvq_channel_sums *m = c->matrices; m < c->matrices + c->count; m++) {
            CVQ_TRY(cvq_buffer_append(names, m->name, strlen(m->name), err));
            CVQ_TRY(cvq_buffer_append(names, endings[i], strlen(endings[i]) + 1, err));
        }
    }
    const char *name = (const char *)names->data; /* which does not move any more */
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): two names were put in for each */
    for (size_t i = 0; i < 2 * c->count; i++, name += strlen(name) + 1) {
        bool sums = i >= c->count;
        uint64_t n = sums ? c->matrices[i - c->count].cols : 1;
        tensors[i] = (cvq_st_tensor){.name = name,
                                     .dtype = sums ? CVQ_ST_F32 : CVQ_ST_I64,
                                     .ndim = 1,
                                     .dims = {n},
                                     .size = n * (sums ? 4 : 8)};
    }
    return CVQ_OK;
}

static cvq_status append_sums(cvq_st_writer *w, const cvq_channel_sums *s, cvq_error *err) {
    cvq_buffer bytes = {0};
    cvq_status status = CVQ_OK;
    for (size_t k = 0; status == CVQ_OK && k < s->cols; k++) {
        if (s->sum_sq[k] <= (double)FLT_MAX)
            status = cvq_buffer_append_le(&bytes, cvq_f32_bits((float)s->sum_sq[k]), 4, err);
        else
            status = cvq_fail(err, CVQ_UNSUPPORTED, s->name,
                              "the squares of input channel %zu add up to more than single "
                              "precision holds; use less data",
                              k);
    }
    if (status == CVQ_OK) status = cvq_st_writer_append(w, bytes.data, bytes.size, err);
    cvq_buffer_free(&bytes);
    return status;
}

static cvq_status append_all(cvq_st_writer *w, const cvq_calibration *c, cvq_error *err) {
    for (size_t i = 0; i < c->count; i++) {
        uint8_t bytes[8];
        cvq_store_le(bytes, c->matrices[i].tokens, 8);
        CVQ_TRY(cvq_st_writer_append(w, bytes, 8, err));
    }
    for (size_t i = 0; i < c->count; i++) CVQ_TRY(append_sums(w, &c->matrices[i], err));
    return CVQ_OK;
}

cvq_status cvq_calibration_write(const cvq_calibration *c, int fd, const char *where,
                                 cvq_error *err) {
    void *tensors;
    cvq_buffer names = {0};
    cvq_st_writer *w = NULL;
    CVQ_TRY(cvq_alloc(&tensors, c->count, 2 * sizeof(cvq_st_tensor), "the list of sums", err));
    cvq_status status = announce(c, tensors, &names, err);
    if (status == CVQ_OK) status = cvq_st_writer_open(&w, fd, tensors, 2 * c->count, where, err);
    if (status == CVQ_OK) status = append_all(w, c, err);
    if (status == CVQ_OK) {
        status = cvq_st_writer_finish(w, err);
        w = NULL;
    }
    cvq_st_writer_free(w);
    cvq_buffer_free(&names);
    free(tensors);
    return status;
}
