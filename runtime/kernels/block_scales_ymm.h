/* What the int8 matrix kernels of AVX2 and AVX-VNNI for many and for few rows share: what the bytes
 * of a block's scale mean, for 8 rows of a panel at once (cvq_scale_decode says it for one). */
#ifndef CVQ_RUNTIME_KERNELS_BLOCK_SCALES_YMM_H
#define CVQ_RUNTIME_KERNELS_BLOCK_SCALES_YMM_H

#include <immintrin.h>

#include "runtime/kernels/gemm_int8.h"

/* A table of 16 bytes for both halves of a register. */
GEMM_INLINE __m256i load_table(const uint8_t *table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));
}

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

/* 8 of q4h's words, a lane each. */
GEMM_INLINE __m256i q4h_lanes(const uint8_t *scales) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)scales));
}

/* d: the level at the place of an exponent's end and a mantissa's start; level 0 is 2^-18. */
GEMM_INLINE __m256 q4h_scales(__m256i lanes) {
    __m256i level = _mm256_slli_epi32(_mm256_and_si256(lanes, _mm256_set1_epi32(0xff00)), 11);
    return _mm256_castsi256_ps(_mm256_add_epi32(level, _mm256_set1_epi32((127 - 18) << 23)));
}

/* For one half of a block's columns: bytes with their highest bit set take the narrow table. */
typedef struct q4h_half {
    __m256i narrow, offset;
} q4h_half;

GEMM_INLINE q4h_half q4h_half_of(__m256i lanes, const int half) {
    const __m256i low_bytes =
        _mm256_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, //
                         0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    const __m256i even = _mm256_set1_epi8(14);
    __m256i bytes = _mm256_shuffle_epi8(lanes, low_bytes);
    if (half) return (q4h_half){bytes, _mm256_and_si256(_mm256_srli_epi16(bytes, 3), even)};
    return (q4h_half){_mm256_slli_epi16(bytes, 4),
                      _mm256_and_si256(_mm256_slli_epi16(bytes, 1), even)};
}

/* Codes in one half of the columns become entries of their rows' tables plus offsets. */
GEMM_INLINE __m256i q4h_entries(__m256i codes, __m256i wide, __m256i narrow, const q4h_half *half) {
    __m256i entry = _mm256_blendv_epi8(_mm256_shuffle_epi8(wide, codes),
                                       _mm256_shuffle_epi8(narrow, codes), half->narrow);
    return _mm256_add_epi8(entry, half->offset);
}

#endif
