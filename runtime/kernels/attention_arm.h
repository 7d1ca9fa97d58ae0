/* The operations of NEON that attention in int8 consists of, for all aarch64 levels. Codes are
 * taken as signed, less 128, so that sums over keys start from 0 (but where key_begin is defined
 * before). */
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
#define v_addend(name) v_load_again(name##_lanes)
#define v_mul vmulq_f32
#define v_sub vsubq_f32
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_max vmaxq_f32
#define v_floor vrndmq_f32
#define v_whole vcvtq_f32_s32
#define v_largest vmaxvq_f32
#define tile_codes attention_codes
#define load_codes attention_codes_load

#ifndef key_begin
#define key_begin(kv, key) vdupq_n_s32(0)
#endif

/* vfmaq overwrites what it adds to: a load for each use, for a copy takes a unit of the products.
 */
static const _Alignas(16) float EXP2_3A_lanes[] = {EXP2_3A, EXP2_3A, EXP2_3A, EXP2_3A};
static const _Alignas(16) float EXP2_3B_lanes[] = {EXP2_3B, EXP2_3B, EXP2_3B, EXP2_3B};
static const _Alignas(16) float EXP2_3D_lanes[] = {EXP2_3D, EXP2_3D, EXP2_3D, EXP2_3D};

GEMM_INLINE float32x4_t v_load_again(const float *p) {
    float32x4_t x;
    __asm__ volatile("ldr %q0, %1" : "=w"(x) : "Q"(*(const float(*)[4])p));
    return x;
}

GEMM_INLINE int32x4_t v_exponent(int32x4_t n) {
    return vshlq_n_s32(n, 23);
}
GEMM_INLINE float32x4_t v_raise(float32x4_t x, int32x4_t e) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), e));
}
/* x in units of 2^-23 is an integer: what is whole stands in an exponent's place already, and the
 * rest below it. So there is one conversion, which has a single unit, and not two. */
GEMM_INLINE float32x4_t v_split(float32x4_t x, int32x4_t *e) {
    const float32x4_t one = vdupq_n_f32(1);
    const int32x4_t units = vcvtq_n_s32_f32(x, 23), below = vdupq_n_s32((1 << 23) - 1);
    const int32x4_t rest = vandq_s32(units, below);
    *e = vbicq_s32(units, below);
    return vsubq_f32(vreinterpretq_f32_s32(vorrq_s32(rest, vreinterpretq_s32_f32(one))), one);
}
/* The nearest integer to |x| < 2^22, in the lowest 22 bits: one addition, where a conversion has
 * a single unit. A NaN without payload gives 0. */
GEMM_INLINE int32x4_t v_nearest(float32x4_t x) {
    return vreinterpretq_s32_f32(vaddq_f32(x, vdupq_n_f32(12582912.0f)));
}
/* The lowest bytes. */
GEMM_INLINE void pack32(const int32x4_t *x, uint8_t *to) {
    GEMM_UNROLL for (int i = 0; i < 2; i++) {
        uint16x8_t low = vreinterpretq_u16_s16(
            vuzp1q_s16(vreinterpretq_s16_s32(x[4 * i]), vreinterpretq_s16_s32(x[4 * i + 1])));
        uint16x8_t high = vreinterpretq_u16_s16(
            vuzp1q_s16(vreinterpretq_s16_s32(x[4 * i + 2]), vreinterpretq_s16_s32(x[4 * i + 3])));
        vst1q_u8(to + 16 * i, vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)));
    }
}
GEMM_INLINE uint32_t sum_bytes(const uint8_t *p) {
    return (uint32_t)vaddlvq_u8(vld1q_u8(p)) + vaddlvq_u8(vld1q_u8(p + 16));
}

#endif
