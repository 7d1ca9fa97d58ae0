/* What the kernels for few rows of activations (decoding) share: the loops over rows and panels.
 * A level brings a function for every small number of rows and panels that walks whole panels once:
 * codes go from the file's planes into the dot products without a stop in memory, and sums stay in
 * registers from the first column to the last. Read only inside this folder. */
#ifndef CVQ_RUNTIME_KERNELS_GEMV_INT8_H
#define CVQ_RUNTIME_KERNELS_GEMV_INT8_H

#include "runtime/kernels/gemm_int8.h"

#define GEMV_MAX_ROWS 4
#define GEMV_MAX_PANELS 2
/* Bytes from a panel's loads to what is asked for; 0: the hardware alone asks. */
#if defined(__AVX512F__)
#define GEMV_AHEAD 3584
#elif defined(__AVX2__)
#define GEMV_AHEAD 4096
#else
#define GEMV_AHEAD 0
#endif
#define GEMV_AHEAD_Q8 3072

/* data: the first of the panels, of which one comes so many panels after the other; a: from its
 * first row and column on; c[row][16 x panel + lane]. */
typedef void gemv_fn(const cvq_panels *w, const uint8_t *data, size_t apart, const gemm_rows *a,
                     float *c, size_t ldc);

/* One row takes two panels side by side, so that while one's loads wait at the edge of a page the
 * other's run; more rows have work enough with one. The two are half of all panels apart: each half
 * is then read from its beginning to its end, and what is asked for ahead is what comes next. */
typedef struct gemv_plan {
    gemv_fn *two_panels;           /* one row */
    gemv_fn *panel[GEMV_MAX_ROWS]; /* [rows - 1] */
} gemv_plan;

/* Asks for the beginnings of what two_panels reads, which nobody has asked for: all at once, where
 * loads would wait for a few lines at a time. */
GEMM_INLINE void gemv_ask_first(const cvq_panels *w, size_t panel0, size_t num_panels,
                                const size_t bytes) {
    const uint8_t *data = w->data + panel0 * w->panel_stride;
    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(data + i);
        __builtin_prefetch(data + num_panels / 2 * w->panel_stride + i);
    }
}

GEMM_INLINE void gemv_run(const gemv_plan *plan, const cvq_panels *w, size_t panel0,
                          size_t num_panels, const cvq_act8 *a, size_t row0, size_t m, float *c,
                          size_t ldc) {
    const uint8_t *data = w->data + panel0 * w->panel_stride;
    for (size_t i = 0, rows; i < m; i += rows) {
        rows = m - i < GEMV_MAX_ROWS ? m - i : GEMV_MAX_ROWS;
        size_t at = (row0 + i) * a->stride;
        gemm_rows part = {a->q + at, a->scale + at / CVQ_ACT_BLOCK, a->sum + at / CVQ_ACT_SUM,
                          a->stride};
        size_t pairs = rows == 1 ? num_panels / 2 : 0, p = 0;
        float *to = c + i * ldc;
        for (; p < pairs; p++)
            plan->two_panels(w, data + p * w->panel_stride, pairs, &part, to + p * CVQ_PANEL_ROWS,
                             ldc);
        for (p += pairs; p < num_panels; p++)
            plan->panel[rows - 1](w, data + p * w->panel_stride, 0, &part, to + p * CVQ_PANEL_ROWS,
                                  ldc);
    }
}

/* Columns, blocks and bytes of a group, and of a panel's head. */
GEMM_INLINE size_t gemv_columns(const cvq_type type) {
    return type == CVQ_TYPE_Q8 ? 256 : type == CVQ_TYPE_Q4S ? 128 : 64;
}
GEMM_INLINE size_t gemv_blocks(const cvq_type type) {
    return type == CVQ_TYPE_Q4S ? 4 : 2;
}
GEMM_INLINE size_t gemv_bytes(const cvq_type type) {
    size_t row = type == CVQ_TYPE_Q8 ? 260 : type == CVQ_TYPE_Q6 ? 52 : 36;
    return CVQ_PANEL_ROWS * (type == CVQ_TYPE_Q4S ? 68 : row);
}
GEMM_INLINE size_t gemv_head(const cvq_type type) {
    return CVQ_PANEL_ROWS * (type == CVQ_TYPE_Q4S ? sizeof(float) : 0);
}

/* Whether the activations' scale ends with the columns before k. */
GEMM_INLINE bool gemv_ends_part(const cvq_panels *w, size_t k) {
    return k % CVQ_ACT_BLOCK == 0 || k == w->k;
}

/* At half-block i of a panel's group: asks for its share of the lines GEMV_AHEAD further on. More
 * at once would hold up the loads. Near the end of the weights that is beyond them: a request for
 * what is not there does nothing. */
GEMM_INLINE void gemv_ask(const cvq_type type, const uint8_t *group, const size_t i) {
    const size_t lines = gemv_bytes(type) / 64, shares = 2 * gemv_blocks(type);
    const size_t first = lines * i / shares, end = lines * (i + 1) / shares;
    for (size_t l = first; l < end; l++) __builtin_prefetch(group + GEMV_AHEAD + 64 * l);
}

/* The kernel of a type from the file's own
 *   multiply(type, panels, rows, w, data, apart, a, c, ldc). */
#define GEMV_MULTIPLY(type, TYPE, panels, rows)                                                    \
    static void type##_##panels##x##rows(const cvq_panels *w, const uint8_t *data, size_t apart,   \
                                         const gemm_rows *a, float *c, size_t ldc) {               \
        multiply(CVQ_TYPE_##TYPE, panels, rows, w, data, apart, a, c, ldc);                        \
    }
#define GEMV_PLAN(type, TYPE)                                                                      \
    GEMV_MULTIPLY(type, TYPE, 2, 1)                                                                \
    GEMV_MULTIPLY(type, TYPE, 1, 1)                                                                \
    GEMV_MULTIPLY(type, TYPE, 1, 2)                                                                \
    GEMV_MULTIPLY(type, TYPE, 1, 3)                                                                \
    GEMV_MULTIPLY(type, TYPE, 1, 4)                                                                \
    static const gemv_plan type##_plan = {type##_2x1,                                              \
                                          {type##_1x1, type##_1x2, type##_1x3, type##_1x4}};
#define GEMV_KERNEL(type, TYPE, suffix)                                                            \
    GEMV_PLAN(type, TYPE)                                                                          \
    void gemv_##type##_##suffix(const cvq_panels *w, size_t panel0, size_t num_panels,             \
                                const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {  \
        gemv_ask_first(w, panel0, num_panels, GEMV_AHEAD);                                         \
        gemv_run(&type##_plan, w, panel0, num_panels, a, row0, m, c, ldc);                         \
    }

#endif
