/* int8 matrix kernels for few rows with plain AVX2. vpmaddubsw adds pairs of products into 16 bits,
 * where
 *   q4   a whole block fits: 8 lines x 2 x 15 x 127 = 30,480,
 *   q6   two lines fit: 2 x 2 x 63 x 127 = 32,004,
 *   q4t, q4s, q4h  one line fits: 2 x 127 x 127 = 32,258,
 *   q8   one line fits as |code - 128| x (activation with the code's sign): 2 x 128 x 127 = 32,512,
 *        which also takes care of the zero point;
 * vpmaddwd with ones makes 32-bit sums. */
#include "runtime/kernels/gemv_int8_ymm.h"

GEMM_INLINE __m256i widen(__m256i pairs) {
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

GEMM_INLINE __m256i add_products(__m256i sum, __m256i codes, const int8_t *four) {
    return _mm256_add_epi32(sum, widen(_mm256_maddubs_epi16(codes, broadcast4(four))));
}

GEMM_INLINE void multiply_block_of_32(const cvq_type type, const int panels, const int rows,
                                      const uint8_t *const *group, const size_t b, __m256i table,
                                      const gemm_rows *a, size_t k,
                                      __m256i (*dot)[GEMV_MAX_PANELS][2]) {
    __m256i block[GEMV_MAX_ROWS][GEMV_MAX_PANELS][2]; /* q4: sums of 16 bits */
    GEMM_UNROLL for (size_t l = 0; l < 4; l++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            line x, y;
            if (l % 2 == 0) gemv_ask(type, group[p], 2 * b + l / 2);
            decode(type, group[p], b, l, table, &x, &y);
            GEMM_UNROLL for (int i = 0; i < rows; i++) {
                const int8_t *q = a->q + (size_t)i * a->stride + k + 4 * l;
                __m256i first = broadcast4(q), second = broadcast4(q + 16);
                GEMM_UNROLL for (int h = 0; h < 2; h++) {
                    __m256i u = _mm256_maddubs_epi16(x.half[h], first);
                    __m256i v = _mm256_maddubs_epi16(y.half[h], second);
                    if (cvq_type_has_codebook(type)) {
                        dot[i][p][h] = _mm256_add_epi32(dot[i][p][h], widen(u));
                        dot[i][p][h] = _mm256_add_epi32(dot[i][p][h], widen(v));
                        continue;
                    }
                    u = _mm256_add_epi16(u, v);
                    if (type == CVQ_TYPE_Q6)
                        dot[i][p][h] = _mm256_add_epi32(dot[i][p][h], widen(u));
                    else
                        block[i][p][h] = l ? _mm256_add_epi16(block[i][p][h], u) : u;
                }
            }
        }
    }
    if (type != CVQ_TYPE_Q4) return;
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            GEMM_UNROLL for (int h = 0; h < 2; h++) dot[i][p][h] =
                _mm256_add_epi32(dot[i][p][h], widen(block[i][p][h]));
        }
    }
}

GEMM_INLINE void multiply_block_of_128(const int panels, const int rows,
                                       const uint8_t *const *group, const size_t b,
                                       const gemm_rows *a, size_t k,
                                       __m256i (*dot)[GEMV_MAX_PANELS][2]) {
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p][0] = dot[i][p][1] =
            _mm256_setzero_si256();
    }
    const int8_t *q = a->q + k;
    for (size_t at = 64 + 2048 * b; at < 64 + 2048 * (b + 1); at += 256, q += 16) {
        GEMM_UNROLL for (size_t l = 0; l < 4; l++) {
            GEMM_UNROLL for (int p = 0; p < panels; p++) {
                const uint8_t *codes = group[p] + at + 64 * l;
                __builtin_prefetch(codes + GEMV_AHEAD_Q8);
                GEMM_UNROLL for (int h = 0; h < 2; h++) {
                    __m256i x =
                        _mm256_xor_si256(load_half(codes + 32 * h), _mm256_set1_epi8((char)128));
                    __m256i magnitude = _mm256_abs_epi8(x);
                    GEMM_UNROLL for (int i = 0; i < rows; i++) {
                        __m256i four = broadcast4(q + (size_t)i * a->stride + 4 * l);
                        __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, x));
                        dot[i][p][h] = _mm256_add_epi32(dot[i][p][h], widen(pairs));
                    }
                }
            }
        }
    }
}

GEMV_KERNEL(q8, Q8, 16x4__avx2)
GEMV_KERNEL(q6, Q6, 16x4__avx2)
GEMV_KERNEL(q4t, Q4T, 16x4__avx2)
GEMV_KERNEL(q4, Q4, 16x4__avx2)
GEMV_KERNEL(q4s, Q4S, 16x4__avx2)
GEMV_KERNEL_Q4H(16x4__avx2, gemm_u8q4h_16x4__avx2)
