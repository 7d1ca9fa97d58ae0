/* Attention in int8 with the matrix multiplication extension: usmmla multiplies 2 rows of codes by
 * 2 lanes of lines over 8 columns, two lines zipped. Codes lie in pairs of rows, 8 of each in turn;
 * all sums of a panel and 6 rows are in registers. */
#define key_begin(kv, key) vld1q_s32((kv)->key_start + (key))

#include "runtime/kernels/attention_arm.h"

#define ATTEND attend_int8_6x16__i8mm
#define value_begin(total) vdupq_n_s32(0)

#define PAIRS (CVQ_ATTENTION_ROWS / 2)
#define MAX_CODES (4 * CVQ_ATTENTION_STEPS) /* of a row, keys included */
_Static_assert(MAX_CODES >= CVQ_ATTENTION_KEYS && MAX_CODES % 8 == 0,
               "codes are in pairs of steps");

typedef struct paired_codes {
    _Alignas(16) uint8_t pair[PAIRS][2 * MAX_CODES];
} paired_codes;
#undef tile_codes
#undef load_codes
#define tile_codes paired_codes
#define load_codes load_pairs

/* An odd step stands beside zeros. */
GEMM_INLINE void load_pairs(size_t steps, const uint8_t *codes, size_t ld, paired_codes *out) {
    for (size_t i = 0; i < CVQ_ATTENTION_ROWS; i++, codes += ld) {
        uint8_t *to = out->pair[i / 2] + i % 2 * 8;
        for (size_t s = 0; s + 2 <= steps; s += 2) vst1_u8(to + 8 * s, vld1_u8(codes + 4 * s));
        if (steps % 2 == 0) continue;
        memcpy(to + 8 * (steps - 1), codes + 4 * (steps - 1), 4);
        memset(to + 8 * (steps - 1) + 4, 0, 4);
    }
}

/* Two lines by all rows: sum[p][j] has rows 2p and 2p + 1 by lanes 2j and 2j + 1. */
GEMM_INLINE void two_lines(const paired_codes *codes, size_t step, const int8_t *first,
                           const int8_t *second, int32x4_t (*sum)[8]) {
    uint8x16_t x[PAIRS];
    GEMM_UNROLL for (int p = 0; p < PAIRS; p++) x[p] = vld1q_u8(codes->pair[p] + 8 * step);
    GEMM_UNROLL for (int j = 0; j < 4; j++) {
        int32x4_t a = vreinterpretq_s32_s8(vld1q_s8(first + 16 * j));
        int32x4_t b = vreinterpretq_s32_s8(vld1q_s8(second + 16 * j));
        int8x16_t left = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        int8x16_t right = vreinterpretq_s8_s32(vzip2q_s32(a, b));
        GEMM_UNROLL for (int p = 0; p < PAIRS; p++) {
            sum[p][2 * j] = vusmmlaq_s32(sum[p][2 * j], x[p], left);
            sum[p][2 * j + 1] = vusmmlaq_s32(sum[p][2 * j + 1], x[p], right);
        }
    }
}

GEMM_INLINE void dots(size_t steps, const paired_codes *codes, const int8_t *lines,
                      size_t step_bytes, int32x4_t (*dot)[4]) {
    int32x4_t sum[PAIRS][8];
    GEMM_UNROLL for (int p = 0; p < PAIRS; p++) {
        GEMM_UNROLL for (int j = 0; j < 8; j++) sum[p][j] = vdupq_n_s32(0);
    }
    size_t s = 0;
    for (; s + 2 <= steps; s += 2, lines += 2 * step_bytes)
        two_lines(codes, s, lines, lines + step_bytes, sum);
    if (s < steps) two_lines(codes, s, lines, lines, sum);
    GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++) {
        GEMM_UNROLL for (int j = 0; j < 4; j++) {
            int64x2_t left = vreinterpretq_s64_s32(sum[i / 2][2 * j]);
            int64x2_t right = vreinterpretq_s64_s32(sum[i / 2][2 * j + 1]);
            int64x2_t row = i % 2 ? vzip2q_s64(left, right) : vzip1q_s64(left, right);
            dot[i][j] = vaddq_s32(dot[i][j], vreinterpretq_s32_s64(row));
        }
    }
}
#define key_dots dots
#define value_dots dots

#include "runtime/kernels/attention_template.h"
