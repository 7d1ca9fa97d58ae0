/* Peaks of AVX2: 8-bit products by vpmaddubsw, pairs by vpmaddwd, then vpaddd; f32 by FMA. */
#include <immintrin.h>

#include "bench/peaks_internal.h"

double cvq_peak_int8__avx2(size_t steps) {
    __m256i a = _mm256_set1_epi8(3);
    const __m256i b = _mm256_set1_epi8(1), one = _mm256_set1_epi16(1);
    PEAK_LOOP(__m256i, "x", 10, a, steps,
              _mm256_add_epi32(s[j], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one)))
    return 2.0 * 32 * 10 * (double)steps;
}

double cvq_peak_f32__avx2(size_t steps) {
    __m256 a = _mm256_set1_ps(1);
    const __m256 b = _mm256_set1_ps(1);
    PEAK_LOOP(__m256, "x", 10, a, steps, _mm256_fmadd_ps(a, b, s[j]))
    return 2.0 * 8 * 10 * (double)steps;
}

uint64_t cvq_peak_read__avx2(const uint8_t *p, size_t bytes) {
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    for (size_t i = 0; i < bytes; i += 128) {
        _mm_prefetch((const char *)(p + i + 2048), _MM_HINT_T0);
        _mm_prefetch((const char *)(p + i + 2112), _MM_HINT_T0);
        for (size_t j = 0; j < 4; j++)
            s[j] = _mm256_xor_si256(
                s[j], _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 32 * j)));
    }
    s[0] = _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    return (uint64_t)_mm256_extract_epi64(s[0], 0) ^ (uint64_t)_mm256_extract_epi64(s[0], 2);
}
