/* Row kernels with NEON. */
#include <arm_neon.h>
#include <string.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

#define KERNEL_NAME(operation) operation##__neon
#define V float32x4_t
#define W 4
#define EXP_LOWEST -88.0f /* 2^-127 is 0 in v_mul_pow2 */
#define v_load vld1q_f32
#define v_store vst1q_f32
#define v_set vdupq_n_f32
#define v_add vaddq_f32
#define v_sub vsubq_f32
#define v_mul vmulq_f32
#define v_div vdivq_f32
#define v_max vmaxq_f32
#define v_min vminq_f32
#define v_abs vabsq_f32
#define v_round vrndnq_f32
#define v_sum vaddvq_f32
#define v_largest vmaxvq_f32

static inline V v_fma(V a, V b, V c) {
    return vfmaq_f32(c, a, b);
}
static inline float v_first(V v) {
    return vgetq_lane_f32(v, 0);
}
static inline V v_load_some(const float *x, size_t n) {
    float all[W] = {0};
    memcpy(all, x, n * sizeof *x);
    return vld1q_f32(all);
}
static inline void v_store_some(float *x, V v, size_t n) {
    float all[W];
    vst1q_f32(all, v);
    memcpy(x, all, n * sizeof *x);
}
static inline V v_mul_pow2(V x, V n) {
    int32x4_t power = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(power, 23)));
}

#include "runtime/kernels/rows_template.h"

static inline V low_pairs(V a, V b) {
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}
static inline V high_pairs(V a, V b) {
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

void transpose16__neon(const float *x, size_t ld, size_t n, size_t d, float *out) {
    for (size_t k = 0; k < d; k += 4)
        for (size_t r0 = 0; r0 < CVQ_PANEL_ROWS; r0 += 4) {
            V row[4], column[4];
            for (size_t r = 0; r < 4; r++)
                row[r] = r0 + r < n ? v_load_at(x + (r0 + r) * ld + k, d - k) : v_set(0);
            V a = vtrn1q_f32(row[0], row[1]), b = vtrn2q_f32(row[0], row[1]);
            V c = vtrn1q_f32(row[2], row[3]), e = vtrn2q_f32(row[2], row[3]);
            column[0] = low_pairs(a, c);
            column[1] = low_pairs(b, e);
            column[2] = high_pairs(a, c);
            column[3] = high_pairs(b, e);
            for (size_t j = 0; j < 4 && k + j < d; j++)
                vst1q_f32(out + (k + j) * CVQ_PANEL_ROWS + r0, column[j]);
        }
}

void f32_to_f16__neon(const float *x, size_t n, uint16_t *out) {
    size_t i = 0;
    for (; i + W <= n; i += W)
        vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    for (; i < n; i++) out[i] = cvq_f32_to_f16(x[i]);
}

void f16_to_f32__neon(const uint16_t *x, size_t n, float *out) {
    size_t i = 0;
    for (; i + W <= n; i += W)
        vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x + i))));
    for (; i < n; i++) out[i] = cvq_f16_to_f32(x[i]);
}
