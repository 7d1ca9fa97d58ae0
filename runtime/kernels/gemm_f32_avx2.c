/* Matrix work in f32 with AVX2: weights to f32, and tiles of 6 rows of activations. */
#include "runtime/kernels/gemm_f32_tiles.h"
#include "runtime/kernels/gemm_int8_ymm.h"

/* A line of 8 rows x 2 columns: the second column is the upper half of each lane. */
void unpack_bf16_16__avx2(const cvq_panels *w, size_t panel, size_t k0, size_t k1, float *out) {
    const uint8_t *data = w->data + panel * w->panel_stride + k0 * CVQ_PANEL_ROWS * 2;
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    for (size_t k = 0; k < k1 - k0; k += 2)
        for (size_t h = 0; h < 2; h++) {
            __m256i x = load_half(data + k * 32 + h * 32);
            float *to = out + k * CVQ_PANEL_ROWS + h * 8;
            _mm256_storeu_ps(to, _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)));
            _mm256_storeu_ps(to + CVQ_PANEL_ROWS, _mm256_castsi256_ps(_mm256_and_si256(x, upper)));
        }
}

/* Unpacked lines of codes (offsets added) to floats. */
GEMM_INLINE void lines_to_f32(const gemm_chunk *chunk, size_t block, float *out) {
    const __m256i zero = _mm256_set1_epi32(chunk->zero), byte = _mm256_set1_epi32(255);
    for (size_t l = 0; l < chunk->columns / 4; l++)
        for (size_t h = 0; h < 2; h++) {
            __m256i x = load_half(chunk->lines + 64 * l + 32 * h);
            __m256 scale = _mm256_loadu_ps(chunk->scale[4 * l / block] + 8 * h);
            for (size_t i = 0; i < 4; i++) {
                __m256i code = _mm256_sub_epi32(_mm256_and_si256(x, byte), zero);
                _mm256_storeu_ps(out + (4 * l + i) * CVQ_PANEL_ROWS + 8 * h,
                                 _mm256_mul_ps(scale, _mm256_cvtepi32_ps(code)));
                x = _mm256_srli_epi32(x, 8);
            }
        }
}

#define UNPACK(TYPE, type, block, call)                                                            \
    void unpack_##type##_16__avx2(const cvq_panels *w, size_t panel, size_t k0, size_t k1,         \
                                  float *out) {                                                    \
        const cvq_type_info *info = cvq_type_describe(CVQ_TYPE_##TYPE);                            \
        gemm_chunk chunk;                                                                          \
        chunk.columns = k1 - k0;                                                                   \
        chunk.head = w->data + panel * w->panel_stride;                                            \
        const uint8_t *data =                                                                      \
            chunk.head + cvq_group_offset(info, CVQ_PANEL_ROWS, k0 / info->group);                 \
        call;                                                                                      \
        lines_to_f32(&chunk, block, out);                                                          \
    }
UNPACK(Q8, q8, 128, unpack_q8(w, data, &chunk))
UNPACK(Q6, q6, 32, unpack_q6(w, data, &chunk))
UNPACK(Q4T, q4t, 32, unpack_q4t(w, data, &chunk, true))
UNPACK(Q4, q4, 32, unpack_q4(w, data, &chunk))
UNPACK(Q4S, q4s, 32, unpack_q4s(w, data, &chunk, true))
UNPACK(Q4H, q4h, 32, unpack_q4h(w, data, &chunk))

GEMM_INLINE void tile_rows(const size_t rows, const float *w, size_t k, const float *a, size_t lda,
                           float *c, size_t ldc, bool accumulate) {
    __m256 sum[6][2];
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    for (size_t kk = 0; kk < k; kk++) {
        __m256 top = _mm256_load_ps(w + 16 * kk), bottom = _mm256_load_ps(w + 16 * kk + 8);
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
            __m256 x = _mm256_broadcast_ss(a + i * lda + kk);
            sum[i][0] = _mm256_fmadd_ps(x, top, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(x, bottom, sum[i][1]);
        }
    }
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
        GEMM_UNROLL for (size_t h = 0; h < 2; h++) {
            float *to = c + i * ldc + 8 * h;
            _mm256_storeu_ps(to, accumulate ? _mm256_add_ps(_mm256_loadu_ps(to), sum[i][h])
                                            : sum[i][h]);
        }
    }
}

GEMM_F32_TILES(tile_f32_16x6__avx2, 6, GEMM_F32_1_TO_6)
