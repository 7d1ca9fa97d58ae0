/* The peak of the matrix multiplication extension: usmmla, 2 x 8 by 8 x 2. */
#include <arm_neon.h>

#include "bench/peaks_internal.h"

double cvq_peak_int8__i8mm(size_t steps) {
    uint8x16_t a = vdupq_n_u8(3);
    const int8x16_t b = vdupq_n_s8(1);
    PEAK_LOOP(int32x4_t, "w", 16, vdupq_n_s32(1), steps, vusmmlaq_s32(s[j], a, b))
    return 2.0 * 32 * 16 * (double)steps;
}
