/* Attention in int8 with the dot product extension: signed codes by keys with sdot, weights by
 * values made unsigned with udot. 3 rows at a time. */
#include "runtime/kernels/attention_arm.h"

#define ATTEND attend_int8_6x16__dotprod
/* Values are 128 more than they should be. */
#define value_begin(total) vdupq_n_s32(-128 * (total))

#define SOME_ROWS 3

/* Step n of those whose codes x holds. signed_codes: codes less 128 by the line; else codes by the
 * line plus 128. */
#define DOT(n)                                                                                     \
    GEMM_UNROLL for (int p = 0; p < 4; p++) {                                                      \
        int8x16_t line = vld1q_s8(lines + (size_t)n * step_bytes + 16 * p);                        \
        if (!signed_codes) line = flip(line);                                                      \
        GEMM_UNROLL for (int i = 0; i < SOME_ROWS; i++) dot[i][p] =                                \
            signed_codes ? vdotq_laneq_s32(dot[i][p], line, x[i], n)                               \
                         : vreinterpretq_s32_u32(vdotq_laneq_u32(vreinterpretq_u32_s32(dot[i][p]), \
                                                                 vreinterpretq_u8_s8(line),        \
                                                                 vreinterpretq_u8_s8(x[i]), n));   \
    }

GEMM_INLINE int8x16_t flip(int8x16_t x) {
    return veorq_s8(x, vdupq_n_s8(-128));
}

GEMM_INLINE void some_dots(const bool signed_codes, size_t steps, const uint8_t *codes, size_t ld,
                           const int8_t *lines, size_t step_bytes, int32x4_t (*dot)[4]) {
    int8x16_t x[SOME_ROWS];
    size_t s = 0;
    for (; s + 4 <= steps; s += 4, codes += 16, lines += 4 * step_bytes) {
        GEMM_UNROLL for (int i = 0; i < SOME_ROWS; i++) {
            x[i] = vreinterpretq_s8_u8(vld1q_u8(codes + (size_t)i * ld));
            if (signed_codes) x[i] = flip(x[i]);
        }
        DOT(0)
        DOT(1)
        DOT(2)
        DOT(3)
    }
    for (; s < steps; s++, codes += 4, lines += step_bytes) {
        GEMM_UNROLL for (int i = 0; i < SOME_ROWS; i++) {
            int32_t four;
            memcpy(&four, codes + (size_t)i * ld, 4);
            x[i] = vreinterpretq_s8_s32(vdupq_n_s32(four));
            if (signed_codes) x[i] = flip(x[i]);
        }
        DOT(0)
    }
}

GEMM_INLINE void dots(const bool signed_codes, size_t steps, const attention_codes *codes,
                      const int8_t *lines, size_t step_bytes, int32x4_t (*dot)[4]) {
    for (size_t i = 0; i < CVQ_ATTENTION_ROWS; i += SOME_ROWS) {
        int32x4_t sum[SOME_ROWS][4];
        memcpy(sum, dot[i], sizeof sum);
        some_dots(signed_codes, steps, codes->first + i * codes->ld, codes->ld, lines, step_bytes,
                  sum);
        memcpy(dot[i], sum, sizeof sum);
    }
}
#define key_dots(...) dots(true, __VA_ARGS__)
#define value_dots(...) dots(false, __VA_ARGS__)

#include "runtime/kernels/attention_template.h"
