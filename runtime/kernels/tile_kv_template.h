/* Few rows by the panels of a KV cache in terms of vectors of W floats, included once by each
 * tile_kv_SET.c, which defines before:
 * TILE_F16, TILE_INT8            the kernels' names
 * V, W, VECTORS                  vectors of W floats; how many side by side: a panel or more
 * v_load, v_store, v_set, v_add, v_fma(a, b, c) = a b + c
 * v_of_f16(p), v_of_int8(p)      W elements to floats
 * Elements are converted on their way into the sums, so that the memory is read without a pause. */
#include <stdbool.h>

#include "runtime/kernels/gemm_int8.h"
#include "runtime/kernels/kernels_internal.h"

#define MOST_ROWS 4
#define AHEAD ((size_t)16384) /* bytes from what is read to what is asked for */

/* Vector v of those side by side: its panel and place there. */
#define PANEL_OF(v) ((size_t)(v)*W / CVQ_PANEL_ROWS)
#define LANE_OF(v) ((size_t)(v)*W % CVQ_PANEL_ROWS)

GEMM_INLINE V element(const cvq_kv_panels *w, const bool half, size_t at) {
    return half ? v_of_f16((const uint16_t *)w->data + at)
                : v_of_int8((const int8_t *)w->data + at);
}

/* Rows of panels side by side are read from several places, and what comes later is asked for as it
 * lies in memory: in order and without a pause. */
GEMM_INLINE void ask(const int vectors, const bool half, const uint8_t *next, size_t kk) {
    const size_t bytes = (size_t)vectors * W * (half ? 2 : 1); /* of a row */
    if (bytes >= 64 || kk % (64 / bytes) == 0) __builtin_prefetch(next + kk * bytes);
}

GEMM_INLINE void tile_rows(const int rows, const int vectors, const bool half,
                           const cvq_kv_panels *w, size_t panel, const uint8_t *next,
                           const float *a, size_t lda, float *c, size_t ldc, bool accumulate) {
    V sum[MOST_ROWS][VECTORS];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = v_set(0);
    }
    for (size_t kk = 0; kk < w->k; kk++) {
        V x[VECTORS];
        ask(vectors, half, next, kk);
        GEMM_UNROLL for (int v = 0; v < vectors; v++) x[v] =
            element(w, half, (panel + PANEL_OF(v)) * w->stride + kk * CVQ_PANEL_ROWS + LANE_OF(v));
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            V factor = v_set(a[(size_t)i * lda + kk]);
            GEMM_UNROLL for (int v = 0; v < vectors; v++) sum[i][v] =
                v_fma(factor, x[v], sum[i][v]);
        }
    }
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int v = 0; v < vectors; v++) {
            float *to = c + (size_t)i * ldc + (size_t)v * W;
            v_store(to, accumulate ? v_add(v_load(to), sum[i][v]) : sum[i][v]);
        }
    }
}

GEMM_INLINE void tile_panels(const int vectors, const bool half, const cvq_kv_panels *w,
                             size_t panel, size_t panels, const float *a, size_t lda, size_t m,
                             float *c, size_t ldc, bool accumulate) {
    const size_t bytes = w->stride * (half ? 2 : 1), at = panel * bytes + AHEAD;
    const uint8_t *next = w->data;
    if (at < panels * bytes)
        next += at;
    else if (w->next)
        next = (const uint8_t *)w->next + (at - panels * bytes);
    c += panel * CVQ_PANEL_ROWS;
    for (; m >= 4; m -= 4, a += 4 * lda, c += 4 * ldc)
        tile_rows(4, vectors, half, w, panel, next, a, lda, c, ldc, accumulate);
    if (m == 3) tile_rows(3, vectors, half, w, panel, next, a, lda, c, ldc, accumulate);
    if (m == 2) tile_rows(2, vectors, half, w, panel, next, a, lda, c, ldc, accumulate);
    if (m == 1) tile_rows(1, vectors, half, w, panel, next, a, lda, c, ldc, accumulate);
}

GEMM_INLINE void tile(const bool half, const cvq_kv_panels *w, size_t panels, const float *a,
                      size_t lda, size_t m, float *c, size_t ldc, bool accumulate) {
    enum { STEP = VECTORS * W / CVQ_PANEL_ROWS, ONE = CVQ_PANEL_ROWS / W };
    size_t panel = 0;
    for (; panel + STEP <= panels; panel += STEP)
        tile_panels(VECTORS, half, w, panel, panels, a, lda, m, c, ldc, accumulate);
    for (; panel < panels; panel++)
        tile_panels(ONE, half, w, panel, panels, a, lda, m, c, ldc, accumulate);
}

void TILE_F16(const cvq_kv_panels *w, size_t panels, const float *a, size_t lda, size_t m, float *c,
              size_t ldc, bool accumulate) {
    tile(true, w, panels, a, lda, m, c, ldc, accumulate);
}

void TILE_INT8(const cvq_kv_panels *w, size_t panels, const float *a, size_t lda, size_t m,
               float *c, size_t ldc, bool accumulate) {
    tile(false, w, panels, a, lda, m, c, ldc, accumulate);
}
