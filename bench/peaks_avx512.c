/* Peaks of AVX-512 with VNNI: vpdpbusd and FMA on 64 bytes. */
#include <immintrin.h>

#include "bench/peaks_internal.h"

double cvq_peak_int8__avx512(size_t steps) {
    __m512i a = _mm512_set1_epi8(3);
    const __m512i b = _mm512_set1_epi8(1);
    PEAK_LOOP(__m512i, "v", 12, a, steps, _mm512_dpbusd_epi32(s[j], a, b))
    return 2.0 * 64 * 12 * (double)steps;
}

double cvq_peak_f32__avx512(size_t steps) {
    __m512 a = _mm512_set1_ps(1);
    const __m512 b = _mm512_set1_ps(1);
    PEAK_LOOP(__m512, "v", 12, a, steps, _mm512_fmadd_ps(a, b, s[j]))
    return 2.0 * 16 * 12 * (double)steps;
}

uint64_t cvq_peak_read__avx512(const uint8_t *p, size_t bytes) {
    __m512i s[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                    _mm512_setzero_si512()};
    for (size_t i = 0; i < bytes; i += 256)
        for (size_t j = 0; j < 4; j++) {
            _mm_prefetch((const char *)(p + i + 64 * j + 2048), _MM_HINT_T0);
            s[j] = _mm512_xor_si512(s[j], _mm512_loadu_si512((const void *)(p + i + 64 * j)));
        }
    s[0] = _mm512_xor_si512(_mm512_xor_si512(s[0], s[1]), _mm512_xor_si512(s[2], s[3]));
    return (uint64_t)_mm512_reduce_add_epi64(s[0]);
}
