/* What AVX-512's int8 matrix kernels for many and for few rows share: what the bytes of a block's
 * scale mean, for the 16 rows of a panel at once (cvq_scale_decode says it for one). */
#ifndef CVQ_RUNTIME_KERNELS_BLOCK_SCALES_ZMM_H
#define CVQ_RUNTIME_KERNELS_BLOCK_SCALES_ZMM_H

#include <immintrin.h>

#include "runtime/kernels/gemm_int8.h"

/* A table of 16 bytes for each 16 bytes of a line. */
GEMM_INLINE __m512i load_table(const uint8_t *table) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)table));
}

/* q4s's levels as floats: 0 .. 15 and 16 .. 31. */
typedef struct q4s_levels {
    __m512 low, high;
} q4s_levels;

GEMM_INLINE q4s_levels q4s_levels_load(void) {
    __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)cvq_q4s_levels);
    __m512i low = _mm512_cvtepu8_epi32(_mm256_castsi256_si128(bytes));
    __m512i high = _mm512_cvtepu8_epi32(_mm256_extracti128_si256(bytes, 1));
    q4s_levels levels = {_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high)};
    return levels;
}

/* The bytes of q4s's scales, a lane each. */
GEMM_INLINE __m512i q4s_lanes(const uint8_t *scales) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)scales));
}

/* d of each row; head: the panel's row scales. */
GEMM_INLINE __m512 q4s_scales(q4s_levels levels, const uint8_t *head, __m512i lanes) {
    __m512 level = _mm512_permutex2var_ps(levels.low, lanes, levels.high); /* by the 5 low bits */
    __m512 d = _mm512_mul_ps(_mm512_loadu_ps((const void *)head), level);
    __m512i sign = _mm512_slli_epi32(_mm512_and_si512(lanes, _mm512_set1_epi32(128)), 24);
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(d), sign));
}

/* 4 x the two bits of the offset, which is 5 more. */
GEMM_INLINE __m512i q4s_offsets(__m512i lanes) {
    return _mm512_and_si512(_mm512_srli_epi32(lanes, 3), _mm512_set1_epi32(12));
}

/* q4h's words, a lane each. */
GEMM_INLINE __m512i q4h_lanes(const uint8_t *scales) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)scales));
}

/* d: the level at the place of an exponent's end and a mantissa's start; level 0 is 2^-18. */
GEMM_INLINE __m512 q4h_scales(__m512i lanes) {
    __m512i level = _mm512_slli_epi32(_mm512_and_si512(lanes, _mm512_set1_epi32(0xff00)), 11);
    return _mm512_castsi512_ps(_mm512_add_epi32(level, _mm512_set1_epi32((127 - 18) << 23)));
}

/* For each half of a block's columns which bytes of a line take the narrow table, and offsets. */
typedef struct q4h_halves {
    __mmask64 narrow[2];
    __m512i offset[2];
} q4h_halves;

GEMM_INLINE q4h_halves q4h_halves_of(__m512i lanes) {
    const __m128i low_bytes = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    const __m512i even = _mm512_set1_epi8(14);
    __m512i bytes = _mm512_shuffle_epi8(lanes, _mm512_broadcast_i32x4(low_bytes));
    q4h_halves halves = {
        {_mm512_test_epi8_mask(bytes, _mm512_set1_epi8(8)), _mm512_movepi8_mask(bytes)},
        {_mm512_and_si512(_mm512_slli_epi16(bytes, 1), even),
         _mm512_and_si512(_mm512_srli_epi16(bytes, 3), even)}};
    return halves;
}

/* A line's codes in one half of the columns become entries of its rows' tables plus offsets. */
GEMM_INLINE __m512i q4h_entries(__m512i codes, __m512i wide, __m512i narrow,
                                const q4h_halves *halves, const int half) {
    __m512i entry = _mm512_shuffle_epi8(wide, codes);
    entry = _mm512_mask_shuffle_epi8(entry, halves->narrow[half], narrow, codes);
    return _mm512_add_epi8(entry, halves->offset[half]);
}

#endif
