/* What the int8 matrix kernels of AVX2 and AVX-VNNI for many and for few rows share: what the bytes
 * of a block's scale mean, for 8 rows of a panel at once (cvq_scale_decode says it for one). */
#ifndef CVQ_RUNTIME_KERNELS_BLOCK_SCALES_YMM_H
#define CVQ_RUNTIME_KERNELS_BLOCK_SCALES_YMM_H

#include <immintrin.h>

#include "runtime/kernels/gemm_int8.h"

/* The bytes of 8 of q4s's scales, a lane each. */
GEMM_INLINE __m256i q4s_lanes(const uint8_t *scales) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)scales));
}

/* d of 8 rows; head: their row scales. */
GEMM_INLINE __m256 q4s_scales(const uint8_t *head, const uint8_t *scales) {
    const __m128i *levels = (const __m128i *)(const void *)cvq_q4s_levels;
    __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)scales);
    __m128i four = _mm_and_si128(bytes, _mm_set1_epi8(15));
    __m128i low = _mm_shuffle_epi8(_mm_loadu_si128(levels), four);
    __m128i high = _mm_shuffle_epi8(_mm_loadu_si128(levels + 1), four);
    __m128i fifth_bit_first = _mm_slli_epi16(bytes, 3);
    __m256i level = _mm256_cvtepu8_epi32(_mm_blendv_epi8(low, high, fifth_bit_first));
    __m256 d = _mm256_mul_ps(_mm256_loadu_ps((const void *)head), _mm256_cvtepi32_ps(level));
    __m256i sign = _mm256_and_si256(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(128));
    return _mm256_xor_ps(d, _mm256_castsi256_ps(_mm256_slli_epi32(sign, 24)));
}

/* 4 x the two bits of the offset, which is 5 more. */
GEMM_INLINE __m256i q4s_offsets(__m256i lanes) {
    return _mm256_and_si256(_mm256_srli_epi32(lanes, 3), _mm256_set1_epi32(12));
}

#endif
