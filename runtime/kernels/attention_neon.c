/* Attention in int8 with plain NEON: two lines of products fit 16 bits (2 x 128 x 127 = 32,512),
 * smull and smlal, then sadalp adds pairs into 32 bits; 2 rows at a time. */
#include "runtime/kernels/attention_arm.h"

#define ATTEND attend_int8_6x16__neon
#define value_begin(total) vdupq_n_s32(0) /* value_dots adds 128 x the line itself */

GEMM_INLINE int8x8_t broadcast4(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, 4);
    return vreinterpret_s8_s32(vdup_n_s32((int32_t)((uint32_t)four ^ 0x80808080u)));
}

/* sum[i][j]: two partial sums of lanes 2j and 2j + 1 of the panel. */
GEMM_INLINE void two_rows(size_t steps, const uint8_t *codes, size_t ld, const int8_t *lines,
                          size_t step_bytes, int32x4_t sum[2][8]) {
    for (size_t s = 0; s + 2 <= steps; s += 2, codes += 8, lines += 2 * step_bytes) {
        int8x8_t x[2][2];
        GEMM_UNROLL for (int i = 0; i < 2; i++) {
            x[i][0] = broadcast4(codes + (size_t)i * ld);
            x[i][1] = broadcast4(codes + (size_t)i * ld + 4);
        }
        GEMM_UNROLL for (int j = 0; j < 8; j++) {
            int8x8_t first = vld1_s8(lines + 8 * j), second = vld1_s8(lines + step_bytes + 8 * j);
            GEMM_UNROLL for (int i = 0; i < 2; i++) sum[i][j] =
                vpadalq_s16(sum[i][j], vmlal_s8(vmull_s8(first, x[i][0]), second, x[i][1]));
        }
    }
    if (steps % 2 == 0) return;
    GEMM_UNROLL for (int i = 0; i < 2; i++) {
        int8x8_t x = broadcast4(codes + (size_t)i * ld);
        GEMM_UNROLL for (int j = 0; j < 8; j++) sum[i][j] =
            vpadalq_s16(sum[i][j], vmull_s8(vld1_s8(lines + 8 * j), x));
    }
}

GEMM_INLINE void key_dots(size_t steps, const attention_codes *codes, const int8_t *lines,
                          size_t step_bytes, int32x4_t (*dot)[4]) {
    for (size_t row = 0; row < CVQ_ATTENTION_ROWS; row += 2) {
        int32x4_t sum[2][8];
        GEMM_UNROLL for (int i = 0; i < 2; i++) {
            GEMM_UNROLL for (int j = 0; j < 8; j++) sum[i][j] = vdupq_n_s32(0);
        }
        two_rows(steps, codes->first + row * codes->ld, codes->ld, lines, step_bytes, sum);
        for (size_t i = 0; i < 2; i++)
            for (size_t j = 0; j < 4; j++)
                dot[row + i][j] =
                    vaddq_s32(dot[row + i][j], vpaddq_s32(sum[i][2 * j], sum[i][2 * j + 1]));
    }
}

GEMM_INLINE void value_dots(size_t steps, const attention_codes *codes, const int8_t *lines,
                            size_t step_bytes, int32x4_t (*dot)[4]) {
    for (size_t j = 0; j < 4; j++) {
        int32x4_t sum = vdupq_n_s32(0);
        for (size_t s = 0; s < steps; s++)
            sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(lines + s * step_bytes + 16 * j)));
        for (size_t i = 0; i < CVQ_ATTENTION_ROWS; i++) dot[i][j] = vshlq_n_s32(sum, 7);
    }
    key_dots(steps, codes, lines, step_bytes, dot);
}

#include "runtime/kernels/attention_template.h"
