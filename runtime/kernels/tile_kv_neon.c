/* Few rows by the panels of a KV cache with NEON: a panel is four vectors. */
#include <arm_neon.h>
#include <string.h>

#define TILE_F16 tile_kv_f16__neon
#define TILE_INT8 tile_kv_int8__neon
#define V float32x4_t
#define W 4
#define VECTORS 4
#define v_load vld1q_f32
#define v_store vst1q_f32
#define v_set vdupq_n_f32
#define v_add vaddq_f32
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_of_f16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))

static inline float32x4_t v_of_int8(const signed char *p) {
    int four;
    memcpy(&four, p, 4);
    int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

#include "runtime/kernels/tile_kv_template.h"
