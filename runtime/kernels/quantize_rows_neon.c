/* Activations to int8 with NEON: 128 columns at a time, from a zero-padded copy at the row's end.
 */
#include <arm_neon.h>
#include <string.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

/* The largest bit pattern of |x|: a number's order is that of its bits, above all are infinity and
 * then NaNs. */
static uint32_t largest_bits(const float *x) {
    uint32x4_t m = vdupq_n_u32(0);
    for (int k = 0; k < CVQ_ACT_BLOCK; k += 4)
        m = vmaxq_u32(m,
                      vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + k)), vdupq_n_u32(0x7fffffff)));
    return vmaxvq_u32(m);
}

static float quantize_block(const float *x, int8_t *q, int32_t *sums) {
    uint32_t largest = largest_bits(x);
    float max = cvq_bits_f32(largest);
    if (largest >= 0x7f800000u || max < CVQ_ACT_TINY) {
        memset(q, 0, CVQ_ACT_BLOCK);
        memset(sums, 0, CVQ_ACT_BLOCK / CVQ_ACT_SUM * sizeof *sums);
        return largest >= 0x7f800000u ? cvq_bits_f32(0x7fc00000u) : 0;
    }
    const float inverse = 127.0f / max;
    for (int g = 0; g < 4; g++) {
        int32x4_t sum = vdupq_n_s32(0);
        for (int k = 32 * g; k < 32 * g + 32; k += 8) {
            int32x4_t v0 = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + k), inverse));
            int32x4_t v1 = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + k + 4), inverse));
            sum = vaddq_s32(sum, vaddq_s32(v0, v1));
            vst1_s8(q + k, vmovn_s16(vcombine_s16(vmovn_s32(v0), vmovn_s32(v1))));
        }
        sums[g] = vaddvq_s32(sum);
    }
    return max / 127.0f;
}

void quantize_rows_128__neon(const float *x, size_t ldx, size_t rows, size_t k,
                             const cvq_act8 *out) {
    for (size_t i = 0; i < rows; i++)
        for (size_t k0 = 0; k0 < out->stride; k0 += CVQ_ACT_BLOCK) {
            float padded[CVQ_ACT_BLOCK];
            const float *block = x + i * ldx + k0;
            if (k0 + CVQ_ACT_BLOCK > k) {
                memset(padded, 0, sizeof padded);
                if (k0 < k) memcpy(padded, block, (k - k0) * sizeof *block);
                block = padded;
            }
            size_t at = i * out->stride + k0;
            out->scale[at / CVQ_ACT_BLOCK] =
                quantize_block(block, out->q + at, out->sum + at / CVQ_ACT_SUM);
        }
}
