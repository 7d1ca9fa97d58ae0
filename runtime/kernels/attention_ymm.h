/* The operations of AVX2 that attention in int8 consists of, for AVX2 and AVX-VNNI. */
#ifndef CVQ_RUNTIME_KERNELS_ATTENTION_YMM_H
#define CVQ_RUNTIME_KERNELS_ATTENTION_YMM_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "runtime/kernels/attention_kernel.h"
#include "runtime/kernels/gemm_int8.h"

#define V __m256
#define I __m256i
#define W 8
#define v_load _mm256_loadu_ps
#define v_store _mm256_storeu_ps
#define v_set _mm256_set1_ps
#define v_addend v_set
#define v_mul _mm256_mul_ps
#define v_sub _mm256_sub_ps
#define v_fma _mm256_fmadd_ps
#define v_max _mm256_max_ps
#define v_floor _mm256_floor_ps
#define v_whole _mm256_cvtepi32_ps
#define v_nearest _mm256_cvtps_epi32
#define key_begin(kv, key) i_load((kv)->key_start + (key))
#define value_begin(total) _mm256_setzero_si256()

GEMM_INLINE __m256i i_load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
GEMM_INLINE void i_store(void *p, __m256i x) {
    _mm256_storeu_si256((__m256i *)p, x);
}
GEMM_INLINE __m256i v_exponent(__m256i n) {
    return _mm256_slli_epi32(n, 23);
}
GEMM_INLINE __m256 v_raise(__m256 x, __m256i e) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), e));
}
GEMM_INLINE __m256 v_split(__m256 x, __m256i *e) {
    const __m256i n = _mm256_cvttps_epi32(x);
    *e = v_exponent(n);
    return _mm256_sub_ps(x, _mm256_cvtepi32_ps(n));
}
/* Packing puts 4 integers of each vector side by side: the permutation undoes that. */
GEMM_INLINE void pack32(const __m256i *x, uint8_t *to) {
    __m256i bytes =
        _mm256_packus_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)to, bytes);
}
GEMM_INLINE uint32_t sum_bytes(const uint8_t *p) {
    __m256i sums = _mm256_sad_epu8(i_load(p), _mm256_setzero_si256());
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (uint32_t)(_mm_extract_epi16(half, 0) + _mm_extract_epi16(half, 4));
}
GEMM_INLINE float v_largest(__m256 x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

#endif
