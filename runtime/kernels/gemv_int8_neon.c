/* int8 matrix kernels for few rows with plain NEON: two products of a lane fit 16 bits (2 x 128 x
 * 127 = 32,512), smull and smlal, then sadalp adds pairs of columns into 32 bits. */
#include <arm_neon.h>

#include "runtime/kernels/gemm_int8.h"

/* Two columns' sums of two rows each. */
typedef struct dots {
    int32x4_t start, low, high;
} dots;
typedef int32x4_t activations; /* a lane is 4 columns */

GEMM_INLINE dots dots_start(int32x4_t x) {
    return (dots){x, vdupq_n_s32(0), vdupq_n_s32(0)};
}
GEMM_INLINE int32x4_t dots_end(dots x) {
    return vaddq_s32(x.start, vpaddq_s32(x.low, x.high));
}
GEMM_INLINE activations activations_load(const int8_t *q) {
    return vreinterpretq_s32_s8(vld1q_s8(q));
}
GEMM_INLINE dots dots_sum(dots sum, int8x16_t x, int8x16_t y, int8x16_t a, int8x16_t b) {
    int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(a)), high = vmull_high_s8(x, a);
    sum.low = vpadalq_s16(sum.low, vmlal_s8(low, vget_low_s8(y), vget_low_s8(b)));
    sum.high = vpadalq_s16(sum.high, vmlal_high_s8(high, y, b));
    return sum;
}
#define dots_add(sum, x, y, a, b, l)                                                               \
    sum = dots_sum(sum, x, y, vreinterpretq_s8_s32(vdupq_laneq_s32(a, l)),                         \
                   vreinterpretq_s8_s32(vdupq_laneq_s32(b, l)))

#include "runtime/kernels/gemv_int8_arm.h"

GEMV_KERNEL(q8, Q8, 16x4__neon)
GEMV_KERNEL(q6, Q6, 16x4__neon)
GEMV_KERNEL(q4t, Q4T, 16x4__neon)
GEMV_KERNEL(q4, Q4, 16x4__neon)
GEMV_KERNEL(q4s, Q4S, 16x4__neon)
GEMV_KERNEL(q4h, Q4H, 16x4__neon)
