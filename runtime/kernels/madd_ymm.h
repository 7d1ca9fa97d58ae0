/* vpmaddwd on ymm registers, in assembly: gcc 12 orders the intrinsics so that a sum is spilled,
 * and waited for, in the innermost loop. */
#ifndef CVQ_RUNTIME_KERNELS_MADD_YMM_H
#define CVQ_RUNTIME_KERNELS_MADD_YMM_H

#include <immintrin.h>

#include "runtime/kernels/gemm_int8.h"

/* sum[2] += pairs of 16-bit numbers, a line's top and bottom half, times the pair in a word. */
GEMM_INLINE void multiply_wide(__m256i sum[2], __m256i top, __m256i bottom, const uint32_t *word) {
    __m256i x, y;
    __asm__("vpbroadcastd %4, %2\n\t"
            "vpmaddwd %2, %5, %3\n\t"
            "vpmaddwd %2, %6, %2\n\t"
            "vpaddd %3, %0, %0\n\t"
            "vpaddd %2, %1, %1"
            : "+x"(sum[0]), "+x"(sum[1]), "=&x"(x), "=&x"(y)
            : "m"(*word), "x"(top), "x"(bottom));
}

#endif
