/* The peak of the dot product extension: sdot. */
#include <arm_neon.h>

#include "bench/peaks_internal.h"

double cvq_peak_int8__dotprod(size_t steps) {
    int8x16_t a = vdupq_n_s8(3);
    const int8x16_t b = vdupq_n_s8(1);
    PEAK_LOOP(int32x4_t, "w", 16, vdupq_n_s32(1), steps, vdotq_s32(s[j], a, b))
    return 2.0 * 16 * 16 * (double)steps;
}
