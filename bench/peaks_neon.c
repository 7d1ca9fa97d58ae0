/* Peaks of plain NEON: smull and smlal into 16 bits, sadalp into 32; fmla. */
#include <arm_neon.h>

#include "bench/peaks_internal.h"

double cvq_peak_int8__neon(size_t steps) {
    int8x8_t a = vdup_n_s8(3);
    const int8x8_t b = vdup_n_s8(1);
    PEAK_LOOP(int32x4_t, "w", 12, vdupq_n_s32(1), steps,
              vpadalq_s16(s[j], vmlal_s8(vmull_s8(a, b), a, b)))
    return 2.0 * 16 * 12 * (double)steps;
}

double cvq_peak_f32__neon(size_t steps) {
    float32x4_t a = vdupq_n_f32(1);
    const float32x4_t b = vdupq_n_f32(1);
    PEAK_LOOP(float32x4_t, "w", 16, a, steps, vfmaq_f32(s[j], a, b))
    return 2.0 * 4 * 16 * (double)steps;
}
