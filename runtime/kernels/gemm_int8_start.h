/* The start values of the x86 levels' tiles. */
#ifndef CVQ_RUNTIME_KERNELS_GEMM_INT8_START_H
#define CVQ_RUNTIME_KERNELS_GEMM_INT8_START_H

#include <immintrin.h>

#include "runtime/kernels/gemm_int8.h"

static inline void start_32(const int32_t *sums, size_t stride, size_t rows, size_t columns,
                            int32_t zero, int32_t *out) {
    for (size_t i = 0; i < rows; i++, sums += stride, out += GEMM_CHUNK_BLOCKS)
        for (size_t b = 0; b < columns / 32; b += 8) {
            __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(sums + b));
            x = _mm256_mullo_epi32(x, _mm256_set1_epi32(-zero));
            _mm256_storeu_si256((__m256i *)(void *)(out + b), x);
        }
}
/* q8: of GEMM_CHUNK_Q8 columns. */
static inline void start_128(const int32_t *sums, size_t stride, size_t rows, size_t columns,
                             int32_t zero, int32_t *out) {
    (void)columns;
    for (size_t i = 0; i < rows; i++, sums += stride, out += GEMM_CHUNK_BLOCKS) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)sums);
        x = _mm256_hadd_epi32(x, x);
        x = _mm256_hadd_epi32(x, x);
        x = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
        x = _mm256_mullo_epi32(x, _mm256_set1_epi32(-zero));
        _mm256_storeu_si256((__m256i *)(void *)out, x);
    }
}

#endif
