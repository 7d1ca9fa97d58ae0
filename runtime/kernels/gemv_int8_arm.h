/* What the kernels for few rows of the aarch64 levels share: everything but the products, which the
 * file that includes this brings before:
 *   dots, dots_start(x)        the sums of four rows of weights, from x
 *   dots_end(dots)             as four integers
 *   activations, activations_load(q)
 *                              16 columns of a row
 *   dots_add(dots, x, y, a, b, l)
 *                              + x by columns 4l .. of a + y by those of b; l is 0 .. 3
 * A line is two halves of 8 rows of weights, which are two quarters of 4. Sums of integers start
 * with SUM_BITS; those of a panel are gathered in c, 128 columns after 128. */
#ifndef CVQ_RUNTIME_KERNELS_GEMV_INT8_ARM_H
#define CVQ_RUNTIME_KERNELS_GEMV_INT8_ARM_H

#include "runtime/kernels/gemm_int8_arm.h"
#include "runtime/kernels/gemv_int8.h"

/* Four rows of activations take half a panel at a time, so that sums stay in registers. */
#define GEMV_HALVES(rows) ((rows) > 2 ? 1 : 2)

/* Where the codes and scales of a half of a panel's block are. */
typedef struct half_block {
    const uint8_t *head, *group;
    size_t b; /* of the group */
    size_t h;
} half_block;

/* The block's part of a row: its sum, and (q4h) twice the sums of 16 columns each. */
typedef struct row_sums {
    int32_t all;
    int16_t twice[2];
} row_sums;

GEMM_INLINE uint16x8_t scale_words(half_block x) {
    return vreinterpretq_u16_u8(vld1q_u8(x.group + 32 * x.b + 16 * x.h));
}

/* Sixteen bytes with 4 copies of the lowest of each of four words. */
GEMM_INLINE uint8x16_t four_of_each(uint16x8_t words, const int quarter) {
    const uint8x16_t low = {0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6};
    return vqtbl1q_u8(vreinterpretq_u8_u16(words), quarter ? vaddq_u8(low, vdupq_n_u8(8)) : low);
}

GEMM_INLINE row_sums row_sums_of(const cvq_type type, const gemm_rows *a, size_t at) {
    row_sums s = {a->sum[at / CVQ_ACT_SUM], {0, 0}};
    if (type == CVQ_TYPE_Q4H) {
        int16_t first = vaddlvq_s8(vld1q_s8(a->q + at));
        s.twice[0] = (int16_t)(2 * first);
        s.twice[1] = (int16_t)(2 * (s.all - first));
    }
    return s;
}

/* 16-bit zero points, negated, of q4t's and q4s's 8 rows. */
GEMM_INLINE int16x8_t negative_zeros(const cvq_type type, const cvq_panels *w, half_block x) {
    const int16x8_t zero = vdupq_n_s16(w->codebook->zero);
    if (type == CVQ_TYPE_Q4T)
        return vsubq_s16(vreinterpretq_s16_u16(vandq_u16(scale_words(x), vdupq_n_u16(31))), zero);
    uint8x8_t scales = vld1_u8(x.group + 16 * x.b + 8 * x.h);
    uint8x8_t offset = vand_u8(vshr_n_u8(scales, 3), vdup_n_u8(12));
    return vaddq_s16(vreinterpretq_s16_u16(vmovl_u8(offset)), vsubq_s16(vdupq_n_s16(5), zero));
}

/* What the sums of 8 rows of weights start from. */
GEMM_INLINE void half_starts(const cvq_type type, const cvq_panels *w, half_block x, row_sums s,
                             int32x4_t start[2]) {
    const int32x4_t none = vdupq_n_s32(SUM_BITS);
    if (type == CVQ_TYPE_Q4T || type == CVQ_TYPE_Q4S) {
        int16x8_t zeros = negative_zeros(type, w, x);
        int16x4_t sum = vdup_n_s16((int16_t)s.all);
        start[0] = vmlal_s16(none, vget_low_s16(zeros), sum);
        start[1] = vmlal_s16(none, vget_high_s16(zeros), sum);
        return;
    }
    const int32_t zero = type == CVQ_TYPE_Q4H ? CVQ_Q4H_ZERO : type == CVQ_TYPE_Q6 ? 32 : 8;
    start[0] = start[1] = vsubq_s32(none, vdupq_n_s32(zero * s.all));
    if (type != CVQ_TYPE_Q4H) return;
    const uint16x8_t words = scale_words(x), seven = vdupq_n_u16(7);
    int16x8_t first = vreinterpretq_s16_u16(vandq_u16(words, seven));
    int16x8_t second = vreinterpretq_s16_u16(vandq_u16(vshrq_n_u16(words, 4), seven));
    start[0] = vmlal_n_s16(start[0], vget_low_s16(first), s.twice[0]);
    start[1] = vmlal_n_s16(start[1], vget_high_s16(first), s.twice[0]);
    start[0] = vmlal_n_s16(start[0], vget_low_s16(second), s.twice[1]);
    start[1] = vmlal_n_s16(start[1], vget_high_s16(second), s.twice[1]);
}

GEMM_INLINE void half_scales(const cvq_type type, half_block x, float32x4_t d[2]) {
    const uint8_t *head = x.head + 32 * x.h;
    if (type == CVQ_TYPE_Q4S) {
        const uint8x16x2_t levels = {{vld1q_u8(cvq_q4s_levels), vld1q_u8(cvq_q4s_levels + 16)}};
        const uint8x8_t bytes = vld1_u8(x.group + 16 * x.b + 8 * x.h);
        uint8x8_t level = vqtbl2_u8(levels, vand_u8(bytes, vdup_n_u8(31)));
        uint8x16_t scales = vcombine_u8(bytes, bytes), both = vcombine_u8(level, level);
        d[0] = q4s_scales(head, four_lanes(both, 0), four_lanes(scales, 0));
        d[1] = q4s_scales(head + 16, four_lanes(both, 1), four_lanes(scales, 1));
    } else if (type == CVQ_TYPE_Q4H) {
        const uint16x8_t words = scale_words(x);
        d[0] = q4h_scales(vmovl_u16(vget_low_u16(words)));
        d[1] = q4h_scales(vmovl_high_u16(words));
    } else {
        d[0] = load_halves(x.group + 32 * x.b + 16 * x.h);
        d[1] = load_halves(x.group + 32 * x.b + 16 * x.h + 8);
    }
}

/* The tables of a type, and for q4h which of the two (16 or 0) each byte of both quarters takes, in
 * bits 0 (first half of the columns) and 4 (second half). */
typedef struct code_tables {
    uint8x16x2_t table;
    uint8x16_t choice[2];
} code_tables;

/* 32 entries, in two registers that stay the same: left to itself gcc makes a pair of copies for
 * each look-up. */
GEMM_INLINE uint8x16_t look_up_32(uint8x16x2_t table, uint8x16_t at) {
    register uint8x16_t low __asm__("v30") = table.val[0], high __asm__("v31") = table.val[1];
    uint8x16_t entries;
    __asm__("tbl %0.16b, {v30.16b, v31.16b}, %1.16b"
            : "=w"(entries)
            : "w"(at), "w"(low), "w"(high));
    return entries;
}

/* Lines l (x) and l + 4 (y) of a block, a quarter of them. */
GEMM_INLINE void decode(const cvq_type type, half_block at, const size_t l, const int quarter,
                        const code_tables *t, int8x16_t *x, int8x16_t *y) {
    const uint8_t *codes = at.group + 64 + 256 * at.b + 64 * l + 32 * at.h + 16 * quarter;
    const uint8x16_t both = vld1q_u8(codes), fifteen = vdupq_n_u8(15);
    uint8x16_t first, second;
    if (type == CVQ_TYPE_Q4H) {
        second = vsriq_n_u8(t->choice[quarter], both, 4);
        first = look_up_32(t->table, vsliq_n_u8(both, t->choice[quarter], 4));
        second = look_up_32(t->table, second);
    } else {
        first = vandq_u8(both, fifteen);
        second = vshrq_n_u8(both, 4);
    }
    if (type == CVQ_TYPE_Q4T || type == CVQ_TYPE_Q4S) {
        first = vqtbl1q_u8(t->table.val[0], first);
        second = vqtbl1q_u8(t->table.val[0], second);
    }
    if (type == CVQ_TYPE_Q6) { /* high bits: line l % 2, at bits 2 (l / 2) and 4 further up */
        const uint8_t *plane = at.group + 64 + 512 + 128 * at.b + 64 * (l % 2);
        const uint8x16_t bits = vld1q_u8(plane + 32 * at.h + 16 * quarter);
        const uint8x16_t high = vdupq_n_u8(0x30);
        uint8x16_t up = l < 2 ? vshlq_n_u8(bits, 4) : vshlq_n_u8(bits, 2);
        first = vorrq_u8(first, vandq_u8(up, high));
        second = vorrq_u8(second, vandq_u8(l < 2 ? bits : vshrq_n_u8(bits, 2), high));
    }
    *x = vreinterpretq_s8_u8(first);
    *y = vreinterpretq_s8_u8(second);
}

GEMM_INLINE void multiply_half(const cvq_type type, const int rows, half_block at, code_tables *t,
                               activations (*a)[2], dots (*dot)[2]) {
    if (type == CVQ_TYPE_Q4H) {
        const uint16x8_t bits = vandq_u16(vshrq_n_u16(scale_words(at), 3), vdupq_n_u16(0x11));
        GEMM_UNROLL for (int j = 0; j < 2; j++) t->choice[j] = four_of_each(bits, j);
    }
#define LINE(l)                                                                                    \
    GEMM_UNROLL for (int j = 0; j < 2; j++) {                                                      \
        int8x16_t x, y;                                                                            \
        decode(type, at, l, j, t, &x, &y);                                                         \
        GEMM_UNROLL for (int i = 0; i < rows; i++) dots_add(dot[i][j], x, y, a[i][0], a[i][1], l); \
    }
    LINE(0)
    LINE(1)
    LINE(2)
    LINE(3)
#undef LINE
}

/* q8: half a panel by 128 columns. */
GEMM_INLINE void multiply_wide_half(const int rows, half_block at, const gemm_rows *a, size_t k,
                                    dots (*dot)[2]) {
    const uint8_t *codes = at.group + 64 + 2048 * at.b + 32 * at.h;
    for (size_t n = 0; n < CVQ_ACT_BLOCK; n += 32, codes += 512) {
        activations x[GEMV_MAX_ROWS][2];
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            GEMM_UNROLL for (size_t j = 0; j < 2; j++) x[i][j] =
                activations_load(a->q + (size_t)i * a->stride + k + n + 16 * j);
        }
#define LINE(l)                                                                                    \
    GEMM_UNROLL for (size_t j = 0; j < 2; j++) {                                                   \
        const uint8x16_t flip = vdupq_n_u8(128);                                                   \
        int8x16_t u = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes + 64 * l + 16 * j), flip));      \
        int8x16_t v =                                                                              \
            vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes + 256 + 64 * l + 16 * j), flip));          \
        GEMM_UNROLL for (int i = 0; i < rows; i++) dots_add(dot[i][j], u, v, x[i][0], x[i][1], l); \
    }
        LINE(0)
        LINE(1)
        LINE(2)
        LINE(3)
#undef LINE
    }
}

/* One block of half a panel: part += scales x sums. k: the block's first column. */
GEMM_INLINE void add_half(const cvq_type type, const int rows, const cvq_panels *w, half_block at,
                          code_tables *t, const gemm_rows *a, size_t k, float32x4_t (*part)[2]) {
    dots dot[GEMV_MAX_ROWS][2];
    activations x[GEMV_MAX_ROWS][2];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        int32x4_t start[2] = {vdupq_n_s32(SUM_BITS), vdupq_n_s32(SUM_BITS)};
        const size_t place = (size_t)i * a->stride + k;
        if (type != CVQ_TYPE_Q8) {
            half_starts(type, w, at, row_sums_of(type, a, place), start);
            x[i][0] = activations_load(a->q + place);
            x[i][1] = activations_load(a->q + place + 16);
        }
        GEMM_UNROLL for (int j = 0; j < 2; j++) dot[i][j] = dots_start(start[j]);
    }
    if (type == CVQ_TYPE_Q8)
        multiply_wide_half(rows, at, a, k, dot);
    else
        multiply_half(type, rows, at, t, x, dot);
    float32x4_t d[2];
    half_scales(type, at, d);
    GEMM_UNROLL for (int j = 0; j < 2; j++) {
        GEMM_UNROLL for (int i = 0; i < rows; i++) part_add(dots_end(dot[i][j]), d[j], &part[i][j]);
    }
}

/* Panels by the columns [k, end), which share the activations' scale; `halves` of each panel from
 * h on. */
GEMM_INLINE void add_columns(const cvq_type type, const int panels, const int rows,
                             const cvq_panels *w, const uint8_t *data, size_t apart, code_tables *t,
                             const gemm_rows *a, size_t k, size_t end, const size_t halves,
                             size_t h, float *c, size_t ldc) {
    const size_t columns = gemv_columns(type), blocks = gemv_blocks(type);
    float32x4_t part[GEMV_MAX_PANELS][2][GEMV_MAX_ROWS][2];
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        GEMM_UNROLL for (size_t n = 0; n < halves; n++) {
            GEMM_UNROLL for (int i = 0; i < rows; i++) part[p][n][i][0] = part[p][n][i][1] =
                vdupq_n_f32(0);
        }
    }
    for (size_t at = k; at < end; at += columns / blocks) {
        const uint8_t *group = data + gemv_head(type) + at / columns * gemv_bytes(type);
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            const size_t panel = (size_t)p * apart * w->panel_stride;
            GEMM_UNROLL for (size_t n = 0; n < halves; n++) {
                half_block x = {data + panel, group + panel, at / (columns / blocks) % blocks,
                                h + n};
                add_half(type, rows, w, x, t, a, at, part[p][n]);
            }
        }
    }
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        const float scale = a->scale[((size_t)i * a->stride + k) / CVQ_ACT_BLOCK];
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            GEMM_UNROLL for (size_t n = 0; n < halves; n++) {
                float *out = c + (size_t)i * ldc + CVQ_PANEL_ROWS * apart * (size_t)p + 8 * (h + n);
                part_end(part[p][n][i][0], scale, out, k == 0);
                part_end(part[p][n][i][1], scale, out + 4, k == 0);
            }
        }
    }
}

GEMM_INLINE void multiply(const cvq_type type, const int panels, const int rows,
                          const cvq_panels *w, const uint8_t *data, size_t apart,
                          const gemm_rows *a, float *c, size_t ldc) {
    const size_t halves = GEMV_HALVES(rows);
    code_tables t;
    if (type == CVQ_TYPE_Q4H) {
        t.table.val[0] = vld1q_u8(cvq_q4h_tables[0]);
        t.table.val[1] = vld1q_u8(cvq_q4h_tables[1]);
    } else if (cvq_type_has_codebook(type)) {
        t.table.val[0] = vld1q_u8(w->codebook->table);
    }
    for (size_t k = 0; k < w->k; k += CVQ_ACT_BLOCK) {
        const size_t end = k + CVQ_ACT_BLOCK < w->k ? k + CVQ_ACT_BLOCK : w->k;
        GEMM_UNROLL for (size_t h = 0; h < 2; h += halves)
            add_columns(type, panels, rows, w, data, apart, &t, a, k, end, halves, h, c, ldc);
    }
}

#endif
