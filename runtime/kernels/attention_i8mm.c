/* Attention in int8 with the matrix multiplication extension: usmmla multiplies 2 rows of codes by
 * 2 lanes of lines over 8 columns, two lines zipped: once for a block where rows are many, else by
 * each tile. Codes lie in pairs of rows, 8 of each in turn; all sums of a panel and 6 rows are in
 * registers. */
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

/* A quarter of two lines: 2 lanes over 8 columns in each vector. */
GEMM_INLINE void zip_quarter(const int8_t *first, const int8_t *second, int8x16_t lanes[2]) {
    int32x4_t a = vreinterpretq_s32_s8(vld1q_s8(first));
    int32x4_t b = vreinterpretq_s32_s8(vld1q_s8(second));
    lanes[0] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
    lanes[1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
}

/* Sums of all rows: [p][j] has rows 2p and 2p + 1 by lanes 2j and 2j + 1. */
typedef struct paired_sums {
    int32x4_t of[PAIRS][8];
} paired_sums;

GEMM_INLINE void sums_clear(paired_sums *sum) {
    GEMM_UNROLL for (int p = 0; p < PAIRS; p++) {
        GEMM_UNROLL for (int j = 0; j < 8; j++) sum->of[p][j] = vdupq_n_s32(0);
    }
}

GEMM_INLINE void add_lanes(const uint8x16_t *x, int j, int8x16_t lanes, paired_sums *sum) {
    GEMM_UNROLL for (int p = 0; p < PAIRS; p++) sum->of[p][j] =
        vusmmlaq_s32(sum->of[p][j], x[p], lanes);
}

GEMM_INLINE void load_rows(const paired_codes *codes, size_t step, uint8x16_t *x) {
    GEMM_UNROLL for (int p = 0; p < PAIRS; p++) x[p] = vld1q_u8(codes->pair[p] + 8 * step);
}

GEMM_INLINE void sums_end(const paired_sums *sum, int32x4_t (*dot)[4]) {
    GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++) {
        GEMM_UNROLL for (int j = 0; j < 4; j++) {
            int64x2_t left = vreinterpretq_s64_s32(sum->of[i / 2][2 * j]);
            int64x2_t right = vreinterpretq_s64_s32(sum->of[i / 2][2 * j + 1]);
            int64x2_t row = i % 2 ? vzip2q_s64(left, right) : vzip1q_s64(left, right);
            dot[i][j] = vaddq_s32(dot[i][j], vreinterpretq_s32_s64(row));
        }
    }
}

GEMM_INLINE void dots(size_t steps, const paired_codes *codes, const int8_t *lines,
                      size_t step_bytes, int32x4_t (*dot)[4]) {
    paired_sums sum;
    sums_clear(&sum);
    for (size_t s = 0; s < steps; s += 2, lines += 2 * step_bytes) {
        uint8x16_t x[PAIRS];
        load_rows(codes, s, x);
        const int8_t *second = s + 1 < steps ? lines + step_bytes : lines;
        GEMM_UNROLL for (int j = 0; j < 8; j += 2) {
            int8x16_t lanes[2];
            zip_quarter(lines + 8 * j, second + 8 * j, lanes);
            add_lanes(x, j, lanes[0], &sum);
            add_lanes(x, j + 1, lanes[1], &sum);
        }
    }
    sums_end(&sum, dot);
}
#define key_dots dots
#define value_dots dots

#define PREPARED_ROWS 12

/* Two lines zipped are 128 bytes; panels follow one another, of values too. */
typedef struct attention_memory {
    _Alignas(64) int8_t keys[CVQ_ATTENTION_KEYS / CVQ_PANEL_ROWS * ATTENTION_PREPARED_STEPS * 64];
    _Alignas(64) int8_t values[ATTENTION_PREPARED_PANELS * CVQ_ATTENTION_KEYS / 4 * 64];
} attention_memory;
_Static_assert(ATTENTION_PREPARED_STEPS % 2 == 0, "an odd number of steps takes one more");

static int8_t *zip_panel(const int8_t *lines, size_t step_bytes, size_t steps, int8_t *out) {
    for (size_t s = 0; s < steps; s += 2, lines += 2 * step_bytes, out += 128) {
        const int8_t *second = s + 1 < steps ? lines + step_bytes : lines;
        GEMM_UNROLL for (int j = 0; j < 8; j += 2) {
            int8x16_t lanes[2];
            zip_quarter(lines + 8 * j, second + 8 * j, lanes);
            vst1q_s8(out + 16 * j, lanes[0]);
            vst1q_s8(out + 16 * j + 16, lanes[1]);
        }
    }
    return out;
}

static attention_lines prepare_lines(const cvq_attention_block *kv, attention_memory *m) {
    const size_t quads = CVQ_ATTENTION_KEYS / 4;
    int8_t *keys = m->keys, *values = m->values;
    for (size_t p = 0; p < CVQ_ATTENTION_KEYS / CVQ_PANEL_ROWS; p++)
        keys = zip_panel(kv->keys + p * kv->steps * 64, 64, kv->steps, keys);
    for (size_t p = 0; p < kv->panels; p++)
        values = zip_panel(kv->values + p * 64, kv->panels * 64, quads, values);
    return (attention_lines){.keys = m->keys,
                             .values = m->values,
                             .key_panel = (kv->steps + 1) / 2 * 128,
                             .key_step = 128,
                             .value_panel = quads * 64,
                             .value_step = 128};
}

/* step_bytes: from two lines to the next two. */
GEMM_INLINE void prepared_dots(size_t steps, const paired_codes *codes, const int8_t *lines,
                               size_t step_bytes, int32x4_t (*dot)[4]) {
    paired_sums sum;
    sums_clear(&sum);
    for (size_t s = 0; s < steps; s += 2, lines += step_bytes) {
        uint8x16_t x[PAIRS];
        load_rows(codes, s, x);
        GEMM_UNROLL for (int j = 0; j < 8; j++) add_lanes(x, j, vld1q_s8(lines + 16 * j), &sum);
    }
    sums_end(&sum, dot);
}

#include "runtime/kernels/attention_template.h"
