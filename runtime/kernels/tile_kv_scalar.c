/* Few rows by the panels of a KV cache, the definition. */
#include <math.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

static float element(const cvq_kv_panels *w, bool half, size_t panel, size_t kk, size_t lane) {
    size_t at = panel * w->stride + kk * CVQ_PANEL_ROWS + lane;
    if (half) return cvq_f16_to_f32(((const uint16_t *)w->data)[at]);
    return (float)((const int8_t *)w->data)[at];
}

static void tile(const cvq_kv_panels *w, bool half, size_t panels, const float *a, size_t lda,
                 size_t m, float *c, size_t ldc, bool accumulate) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < panels * CVQ_PANEL_ROWS; j++) {
            size_t panel = j / CVQ_PANEL_ROWS, lane = j % CVQ_PANEL_ROWS;
            float sum = 0, *to = c + i * ldc + j;
            for (size_t kk = 0; kk < w->k; kk++)
                sum = fmaf(a[i * lda + kk], element(w, half, panel, kk, lane), sum);
            *to = accumulate ? *to + sum : sum;
        }
}

void tile_kv_f16__scalar(const cvq_kv_panels *w, size_t panels, const float *a, size_t lda,
                         size_t m, float *c, size_t ldc, bool accumulate) {
    tile(w, true, panels, a, lda, m, c, ldc, accumulate);
}

void tile_kv_int8__scalar(const cvq_kv_panels *w, size_t panels, const float *a, size_t lda,
                          size_t m, float *c, size_t ldc, bool accumulate) {
    tile(w, false, panels, a, lda, m, c, ldc, accumulate);
}
