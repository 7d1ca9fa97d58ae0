/* The peak of AVX-512 BF16: vdpbf16ps on 64 bytes. */
#include <immintrin.h>

#include "bench/peaks_internal.h"

double cvq_peak_bf16__avx512bf16(size_t steps) {
    __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1));
    const __m512bh b = a;
    PEAK_LOOP(__m512, "v", 12, _mm512_set1_ps(1), steps, _mm512_dpbf16_ps(s[j], a, b))
    return 2.0 * 32 * 12 * (double)steps;
}
