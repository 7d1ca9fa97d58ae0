/* Matrix work in f32 with AVX-512: a panel's 16 rows are one zmm, tiles of 12 rows of activations,
 * which fused multiply-adds broadcast from memory. */
#include <immintrin.h>

#include "runtime/kernels/gemm_f32_tiles.h"
#include "runtime/kernels/gemm_int8.h"

/* The second column of a line is the upper half of each lane. */
void unpack_bf16_16__avx512(const cvq_panels *w, size_t panel, size_t k0, size_t k1, float *out) {
    const uint8_t *data = w->data + panel * w->panel_stride + k0 * CVQ_PANEL_ROWS * 2;
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    for (size_t k = 0; k < k1 - k0; k += 2) {
        __m512i x = _mm512_loadu_si512((const void *)(data + k * 32));
        float *to = out + k * CVQ_PANEL_ROWS;
        _mm512_storeu_ps(to, _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
        _mm512_storeu_ps(to + CVQ_PANEL_ROWS, _mm512_castsi512_ps(_mm512_and_si512(x, upper)));
    }
}

GEMM_INLINE void tile_rows(const size_t rows, const float *w, size_t k, const float *a, size_t lda,
                           float *c, size_t ldc, bool accumulate) {
    __m512 sum[12];
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) sum[i] = _mm512_setzero_ps();
    for (size_t kk = 0; kk < k; kk++) {
        __m512 weights = _mm512_load_ps(w + 16 * kk);
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) sum[i] =
            _mm512_fmadd_ps(_mm512_set1_ps(a[i * lda + kk]), weights, sum[i]);
    }
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
        float *to = c + i * ldc;
        _mm512_storeu_ps(to, accumulate ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i]) : sum[i]);
    }
}

GEMM_F32_TILES(tile_f32_16x12__avx512, 12, GEMM_F32_1_TO_12)
