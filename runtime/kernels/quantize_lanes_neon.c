/* Keys and values to int8 with NEON. */
#include <arm_neon.h>

#define QUANTIZE quantize_lanes_16__neon
#define V float32x4_t
#define I int32x4_t
#define W 4
#define v_load vld1q_f32
#define v_store vst1q_f32
#define v_set vdupq_n_f32
#define v_sub vsubq_f32
#define v_mul vmulq_f32
#define v_div vdivq_f32
#define v_bits vreinterpretq_s32_f32
#define v_of_bits vreinterpretq_f32_s32
#define v_nearest vcvtnq_s32_f32
#define i_store(p, x) vst1q_s32((int32_t *)(void *)(p), x)
#define i_set vdupq_n_s32
#define i_add vaddq_s32
#define i_sub vsubq_s32
#define i_and vandq_s32
#define i_or vorrq_s32
#define i_max vmaxq_s32
#define i_left vshlq_n_s32
#define i_above(a, b) vreinterpretq_s32_u32(vcgtq_s32(a, b))

#include "runtime/kernels/quantize_lanes_template.h"
