/* int8 matrix kernels for few rows with AVX-VNNI: vpdpbusd on halves of lines. */
#include "runtime/kernels/gemv_int8_ymm.h"
#include "runtime/kernels/vnni_ymm.h"

/* Assembly, since for the intrinsic gcc 12 copies every accumulator twice. */
GEMM_INLINE __m256i dot4(__m256i sum, __m256i codes, __m256i activations) {
    __asm__(VPDPBUSD " %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(activations));
    return sum;
}

GEMM_INLINE __m256i add_products(__m256i sum, __m256i codes, const int8_t *four) {
    return dot4(sum, codes, broadcast4(four));
}

GEMM_INLINE void multiply_block_of_32(const cvq_type type, const int panels, const int rows,
                                      const uint8_t *const *group, const size_t b, __m256i table,
                                      const gemm_rows *a, size_t k,
                                      __m256i (*dot)[GEMV_MAX_PANELS][2]) {
    GEMM_UNROLL for (size_t l = 0; l < 4; l++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            line x, y;
            if (l % 2 == 0) gemv_ask(type, group[p], 2 * b + l / 2);
            decode(type, group[p], b, l, table, &x, &y);
            GEMM_UNROLL for (int i = 0; i < rows; i++) {
                const int8_t *q = a->q + (size_t)i * a->stride + k + 4 * l;
                __m256i first = broadcast4(q), second = broadcast4(q + 16);
                GEMM_UNROLL for (int h = 0; h < 2; h++) {
                    dot[i][p][h] = dot4(dot[i][p][h], x.half[h], first);
                    dot[i][p][h] = dot4(dot[i][p][h], y.half[h], second);
                }
            }
        }
    }
}

GEMM_INLINE void multiply_block_of_128(const int panels, const int rows,
                                       const uint8_t *const *group, const size_t b,
                                       const gemm_rows *a, size_t k,
                                       __m256i (*dot)[GEMV_MAX_PANELS][2]) {
    const __m256i zeros = zero_points(CVQ_TYPE_Q8, NULL, NULL, 0, 0);
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        const int32_t *sum = a->sum + ((size_t)i * a->stride + k) / CVQ_ACT_SUM;
        __m256i start =
            _mm256_madd_epi16(zeros, _mm256_set1_epi32(sum[0] + sum[1] + sum[2] + sum[3]));
        GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p][0] = dot[i][p][1] = start;
    }
    const int8_t *q = a->q + k;
    for (size_t at = 64 + 2048 * b; at < 64 + 2048 * (b + 1); at += 512, q += 32) {
        GEMM_UNROLL for (size_t l = 0; l < 8; l++) {
            GEMM_UNROLL for (int p = 0; p < panels; p++) {
                const uint8_t *codes = group[p] + at + 64 * l;
                __builtin_prefetch(codes + GEMV_AHEAD_Q8);
                __m256i top = load_half(codes), bottom = load_half(codes + 32);
                GEMM_UNROLL for (int i = 0; i < rows; i++) {
                    __m256i four = broadcast4(q + (size_t)i * a->stride + 4 * l);
                    dot[i][p][0] = dot4(dot[i][p][0], top, four);
                    dot[i][p][1] = dot4(dot[i][p][1], bottom, four);
                }
            }
        }
    }
}

GEMV_KERNEL(q8, Q8, 16x4__avxvnni)
GEMV_KERNEL(q6, Q6, 16x4__avxvnni)
GEMV_KERNEL(q4t, Q4T, 16x4__avxvnni)
GEMV_KERNEL(q4, Q4, 16x4__avxvnni)
GEMV_KERNEL(q4s, Q4S, 16x4__avxvnni)
GEMV_KERNEL_Q4H(16x4__avxvnni, gemm_u8q4h_16x6__avxvnni)
