/* The operations of NEON that attention in int8 consists of, for all aarch64 levels. Codes are
 * taken as signed, less 128, so that sums over keys start from 0. */
#ifndef CVQ_RUNTIME_KERNELS_ATTENTION_ARM_H
#define CVQ_RUNTIME_KERNELS_ATTENTION_ARM_H

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "runtime/kernels/attention_kernel.h"
#include "runtime/kernels/gemm_int8.h"

#define V float32x4_t
#define I int32x4_t
#define W 4
#define v_load vld1q_f32
#define v_store vst1q_f32
#define v_set vdupq_n_f32
#define v_mul vmulq_f32
#define v_sub vsubq_f32
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_max vmaxq_f32
#define v_floor vrndmq_f32
#define v_whole vcvtq_f32_s32
#define v_nearest vcvtnq_s32_f32
#define v_truncate vcvtq_s32_f32
#define v_largest vmaxvq_f32
#define tile_codes attention_codes
#define load_codes attention_codes_load

#define key_begin(kv, key) vdupq_n_s32(0)

GEMM_INLINE float32x4_t v_add_exponent(float32x4_t x, int32x4_t n) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), vshlq_n_s32(n, 23)));
}
GEMM_INLINE void pack32(const int32x4_t *x, uint8_t *to) {
    for (int i = 0; i < 4; i++) {
        uint16x8_t eight = vcombine_u16(vqmovun_s32(x[2 * i]), vqmovun_s32(x[2 * i + 1]));
        vst1_u8(to + 8 * i, vqmovn_u16(eight));
    }
}
GEMM_INLINE uint32_t sum_bytes(const uint8_t *p) {
    return (uint32_t)vaddlvq_u8(vld1q_u8(p)) + vaddlvq_u8(vld1q_u8(p + 16));
}

#endif
