/* 16-bit floating point: IEEE half (f16) and bfloat16, converted in plain C with the rounding that
 * hardware uses (nearest, ties to even). */
#ifndef CVQ_BASE_HALF_H
#define CVQ_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t cvq_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float cvq_bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline float cvq_bf16_to_f32(uint16_t h) {
    return cvq_bits_f32((uint32_t)h << 16);
}

/* NaN stays a (quiet) NaN of the same sign. */
static inline uint16_t cvq_f32_to_bf16(float f) {
    uint32_t u = cvq_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
static inline float cvq_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
    if (e == 31) return cvq_bits_f32(sign | 0x7f800000u | (m << 13));
    if (e != 0) return cvq_bits_f32(sign | ((e + 112) << 23) | (m << 13));
    float v = (float)m * 0x1p-24f; /* subnormal or zero, exact */
    return cvq_bits_f32(cvq_f32_bits(v) | sign);
}
static inline uint16_t cvq_f32_to_f16(float f) {
    uint32_t u = cvq_f32_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
    if (a < 0x38800000u) {                                   /* below 2^-14: a multiple of 2^-24 */
        float scaled = cvq_bits_f32(a) + 0.5f;               /* the addition does the rounding */
        return (uint16_t)(sign | (cvq_f32_bits(scaled) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13));
}

#endif
