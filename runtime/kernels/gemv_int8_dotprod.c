/* int8 matrix kernels for few rows with the dot product extension: sdot by element. */
#include <arm_neon.h>

#include "runtime/kernels/gemm_int8.h"

typedef int32x4_t dots;
typedef int8x16_t activations;
#define dots_start(x) (x)
#define dots_end(x) (x)
#define activations_load vld1q_s8
#define dots_add(sum, x, y, a, b, l) sum = vdotq_laneq_s32(vdotq_laneq_s32(sum, x, a, l), y, b, l)

#include "runtime/kernels/gemv_int8_arm.h"

GEMV_KERNEL(q8, Q8, 16x4__dotprod)
GEMV_KERNEL(q6, Q6, 16x4__dotprod)
GEMV_KERNEL(q4t, Q4T, 16x4__dotprod)
GEMV_KERNEL(q4, Q4, 16x4__dotprod)
GEMV_KERNEL(q4s, Q4S, 16x4__dotprod)
GEMV_KERNEL(q4h, Q4H, 16x4__dotprod)
