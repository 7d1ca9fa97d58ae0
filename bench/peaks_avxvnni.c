/* The peak of AVX-VNNI: vpdpbusd on 32 bytes. */
#include <immintrin.h>

#include "bench/peaks_internal.h"

double cvq_peak_int8__avxvnni(size_t steps) {
    __m256i a = _mm256_set1_epi8(3);
    const __m256i b = _mm256_set1_epi8(1);
    PEAK_LOOP(__m256i, "x", 12, a, steps, _mm256_dpbusd_avx_epi32(s[j], a, b))
    return 2.0 * 32 * 12 * (double)steps;
}
