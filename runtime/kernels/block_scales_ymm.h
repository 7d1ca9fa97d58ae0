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

/* The bytes of 8 of q4s's scales, a lane each, sign-extended: a byte's highest bit is the sign. */
GEMM_INLINE __m256i q4s_lanes(const uint8_t *scales) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)scales));
}

/* d of a panel's rows, 8 in each; head: their row scales. */
GEMM_INLINE void q4s_scales(const uint8_t *head, const uint8_t *scales, __m256 d[2]) {
    const __m128i *levels = (const __m128i *)(const void *)cvq_q4s_levels;
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)scales);
    __m128i four = _mm_and_si128(bytes, _mm_set1_epi8(15));
    __m128i low = _mm_shuffle_epi8(_mm_loadu_si128(levels), four);
    __m128i high = _mm_shuffle_epi8(_mm_loadu_si128(levels + 1), four);
    __m128i fifth_bit_first = _mm_slli_epi16(bytes, 3);
    __m128i level[2] = {_mm_blendv_epi8(low, high, fifth_bit_first)};
    level[1] = _mm_unpackhi_epi64(level[0], level[0]);
    GEMM_UNROLL for (int h = 0; h < 2; h++) {
        __m256 factor = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(level[h]));
        __m256i sign = _mm256_and_si256(q4s_lanes(scales + 8 * h), _mm256_set1_epi32(INT32_MIN));
        d[h] = _mm256_xor_ps(_mm256_mul_ps(_mm256_loadu_ps((const void *)(head + 32 * h)), factor),
                             _mm256_castsi256_ps(sign));
    }
}

/* 4 x the two bits of the offset, which is 5 more. */
GEMM_INLINE __m256i q4s_offsets(__m256i lanes) {
    return _mm256_and_si256(_mm256_srli_epi32(lanes, 3), _mm256_set1_epi32(12));
}

/* 8 of q4h's words, twice. */
GEMM_INLINE __m256i q4h_words(const uint8_t *scales) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)scales));
}

/* d: the level at the place of an exponent's end and a mantissa's start; level 0 is 2^-18. */
GEMM_INLINE __m256 q4h_scales(__m256i words) {
    const __m256i high_bytes =
        _mm256_setr_epi8(-1, -1, 1, -1, -1, -1, 3, -1, -1, -1, 5, -1, -1, -1, 7, -1, //
                         -1, -1, 9, -1, -1, -1, 11, -1, -1, -1, 13, -1, -1, -1, 15, -1);
    __m256i level = _mm256_slli_epi32(_mm256_shuffle_epi8(words, high_bytes), 3);
    return _mm256_castsi256_ps(_mm256_add_epi32(level, _mm256_set1_epi32((127 - 18) << 23)));
}

typedef struct q4h_tables {
    __m256i wide, narrow;
} q4h_tables;

GEMM_INLINE q4h_tables q4h_tables_load(void) {
    return (q4h_tables){load_table(cvq_q4h_tables[0]), load_table(cvq_q4h_tables[1])};
}

/* For each byte of a line the low byte of its row's word, which has the choices of both halves. */
GEMM_INLINE __m256i q4h_bytes(__m256i words) {
    return _mm256_shuffle_epi8(
        words, _mm256_setr_epi8(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6, //
                                8, 8, 8, 8, 10, 10, 10, 10, 12, 12, 12, 12, 14, 14, 14, 14));
}

/* Bytes with the highest bit set take the narrow table in a half of the block's columns. */
GEMM_INLINE __m256i q4h_narrow(__m256i bytes, const int half) {
    return half ? bytes : _mm256_slli_epi16(bytes, 4);
}

/* Codes become entries of their rows' tables. Assembly, since for the intrinsic gcc 12 compares
 * `narrow` with zero, though the instruction looks at the highest bits alone. */
GEMM_INLINE __m256i q4h_entries(__m256i codes, const q4h_tables *t, __m256i narrow) {
    __m256i entries = _mm256_shuffle_epi8(t->wide, codes);
    __asm__("vpblendvb %2, %1, %0, %0"
            : "+x"(entries)
            : "x"(_mm256_shuffle_epi8(t->narrow, codes)), "x"(narrow));
    return entries;
}

/* Twice the offset for each byte. */
GEMM_INLINE __m256i q4h_offsets(__m256i bytes, const int half) {
    __m256i twice = half ? _mm256_srli_epi16(bytes, 3) : _mm256_slli_epi16(bytes, 1);
    return _mm256_and_si256(twice, _mm256_set1_epi8(14));
}

#endif
