/* int8 matrix kernels with the matrix multiplication extension: smmla multiplies 2 rows of
 * activations by 2 rows of weights over 8 columns. After unpacking, two lines are zipped so that a
 * register holds 2 rows x 8 columns, and activations are packed in the same way. A tile is half a
 * panel x 6 rows: 12 sums of integers and 12 of floats, which stay in pairs until their 128 columns
 * end. With an odd number the last row is computed twice and stored once. */
#include "runtime/kernels/gemm_int8_arm.h"

#define PAIRS 3

/* Lines 2n and 2n + 1 become eight pieces of 2 rows x 8 columns. */
GEMM_INLINE void zip_lines(gemm_chunk *chunk) {
    for (size_t l = 0; l < chunk->columns / 4; l += 2) {
        uint8_t *line = chunk->storage + 64 * l;
        uint32x4_t first[4], second[4];
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
            first[j] = vreinterpretq_u32_u8(vld1q_u8(line + 16 * j));
            second[j] = vreinterpretq_u32_u8(vld1q_u8(line + 64 + 16 * j));
        }
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
            vst1q_u8(line + 32 * j, vreinterpretq_u8_u32(vzip1q_u32(first[j], second[j])));
            vst1q_u8(line + 32 * j + 16, vreinterpretq_u8_u32(vzip2q_u32(first[j], second[j])));
        }
    }
}

/* Scales in the places of a pair's sums, two rows of weights twice: [block][8][4], behind the
 * lines. */
#define PAIR_SCALES (GEMM_CHUNK_Q8 * CVQ_PANEL_ROWS)
GEMM_INLINE void pair_up_scales(const size_t block, gemm_chunk *chunk) {
    float *to = (float *)(void *)(chunk->storage + PAIR_SCALES);
    for (size_t b = 0; b < chunk->columns / block; b++)
        for (size_t j = 0; j < CVQ_PANEL_ROWS; j += 2, to += 4) {
            float32x2_t two = vld1_f32(chunk->scale[b] + j);
            vst1q_f32(to, vcombine_f32(two, two));
        }
}

/* 8 columns of a row every 16 bytes. */
static void pack_half(const int8_t *q, int8_t *out) {
    for (size_t k = 0; k < GEMM_CHUNK_Q8; k += 16) {
        int8x16_t x = vld1q_s8(q + k);
        vst1_s8(out + 2 * k, vget_low_s8(x));
        vst1_s8(out + 2 * k + 16, vget_high_s8(x));
    }
}

/* Two rows' starts of each block of 256 columns, each twice. */
GEMM_INLINE void start_pairs(const size_t block, const int32_t *sums, size_t stride, size_t rows,
                             int32_t zero, int32_t *out) {
    for (size_t i = 0; i < rows; i += 2, sums += 2 * stride, out += 2 * START_STRIDE) {
        int32x4_t s[2], t[2];
        start_lanes(block, sums, zero, s);
        start_lanes(block, i + 1 < rows ? sums + stride : sums, zero, t);
        GEMM_UNROLL for (int j = 0; j < 2; j++) {
            int64x2_t low = vreinterpretq_s64_s32(vzip1q_s32(s[j], s[j]));
            int64x2_t low2 = vreinterpretq_s64_s32(vzip1q_s32(t[j], t[j]));
            vst1q_s32(out + 16 * j, vreinterpretq_s32_s64(vzip1q_s64(low, low2)));
            vst1q_s32(out + 16 * j + 4, vreinterpretq_s32_s64(vzip2q_s64(low, low2)));
            if (block == 128) break;
            int64x2_t high = vreinterpretq_s64_s32(vzip2q_s32(s[j], s[j]));
            int64x2_t high2 = vreinterpretq_s64_s32(vzip2q_s32(t[j], t[j]));
            vst1q_s32(out + 16 * j + 8, vreinterpretq_s32_s64(vzip1q_s64(high, high2)));
            vst1q_s32(out + 16 * j + 12, vreinterpretq_s32_s64(vzip2q_s64(high, high2)));
        }
    }
}
static void start_32(const int32_t *sums, size_t stride, size_t rows, size_t columns, int32_t zero,
                     int32_t *out) {
    (void)columns; /* at most GEMM_CHUNK_Q8, as activations are packed */
    start_pairs(32, sums, stride, rows, zero, out);
}
static void start_128(const int32_t *sums, size_t stride, size_t rows, size_t columns, int32_t zero,
                      int32_t *out) {
    (void)columns;
    start_pairs(128, sums, stride, rows, zero, out);
}

/* Block b of half a panel. Lanes: row 0 x weights 0 and 1, row 1 x weights 0 and 1. */
GEMM_INLINE void multiply_block(const size_t pairs, const size_t block, const gemm_chunk *w,
                                const size_t half, const gemm_tile_rows *a, size_t b,
                                int32x4_t (*dot)[4]) {
    GEMM_UNROLL for (size_t p = 0; p < pairs; p++) {
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) dot[p][j] = start_value(a, 2 * p, b);
    }
    const int8_t *line = (const int8_t *)w->lines + b * block * 16 + 64 * half;
    const int8_t *q = a->q + 2 * b * block;
    for (size_t l = 0; l < block / 8; l += 4, line += 512, q += 64) {
        GEMM_UNROLL for (size_t n = 0; n < 4; n++) {
            int8x16_t x[PAIRS];
            GEMM_UNROLL for (size_t p = 0; p < pairs; p++) x[p] =
                vld1q_s8(q + 2 * p * GEMM_CHUNK_Q8 + 16 * n);
            GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
                int8x16_t weights = vld1q_s8(line + 128 * n + 16 * j);
                GEMM_UNROLL for (size_t p = 0; p < pairs; p++) dot[p][j] =
                    vmmlaq_s32(dot[p][j], x[p], weights);
            }
        }
    }
}

/* The end of 128 columns: rows are taken out of their pairs. */
GEMM_INLINE void end_pairs(const size_t rows, float32x4_t (*part)[4], const gemm_tile_rows *a,
                           size_t k, float *c, size_t ldc, bool fresh) {
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
        const float scale = a->scale[i * a->scale_stride + k / CVQ_ACT_BLOCK];
        GEMM_UNROLL for (size_t j = 0; j < 2; j++) {
            float64x2_t left = vreinterpretq_f64_f32(part[i / 2][2 * j]);
            float64x2_t right = vreinterpretq_f64_f32(part[i / 2][2 * j + 1]);
            float64x2_t row = i % 2 ? vzip2q_f64(left, right) : vzip1q_f64(left, right);
            part_end(vreinterpretq_f32_f64(row), scale, c + i * ldc + 4 * j, fresh);
        }
    }
}

GEMM_INLINE void tile(const size_t rows, const size_t block, const gemm_chunk *w,
                      const gemm_tile_rows *a, float *c, size_t ldc, bool first) {
    const size_t pairs = (rows + 1) / 2;
    const float *scales = (const float *)(const void *)(w->storage + PAIR_SCALES);
    for (size_t half = 0; half < 2; half++)
        for (size_t k = 0; k < w->columns; k += CVQ_ACT_BLOCK) {
            const size_t end = k + CVQ_ACT_BLOCK < w->columns ? k + CVQ_ACT_BLOCK : w->columns;
            float32x4_t part[PAIRS][4];
            GEMM_UNROLL for (size_t p = 0; p < pairs; p++) {
                GEMM_UNROLL for (size_t j = 0; j < 4; j++) part[p][j] = part_start();
            }
            for (size_t b = k / block; b < end / block; b++) {
                int32x4_t dot[PAIRS][4];
                multiply_block(pairs, block, w, half, a, b, dot);
                GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
                    const float32x4_t scale = vld1q_f32(scales + 32 * b + 16 * half + 4 * j);
                    GEMM_UNROLL for (size_t p = 0; p < pairs; p++)
                        part_add(dot[p][j], scale, &part[p][j]);
                }
            }
            end_pairs(rows, part, a, k, c + 8 * half, ldc, first && k == 0);
        }
}

#define TILE(rows, block)                                                                          \
    static void tile_##block##_##rows(const gemm_chunk *w, const gemm_tile_rows *a, float *c,      \
                                      size_t ldc, bool first) {                                    \
        tile(rows, block, w, a, c, ldc, first);                                                    \
    }
#define TILES(block)                                                                               \
    TILE(1, block)                                                                                 \
    TILE(2, block) TILE(3, block) TILE(4, block) TILE(5, block) TILE(6, block)
TILES(32)
TILES(128)

#define KERNEL_OF(type, block)                                                                     \
    static void unpack_##type##_pairs(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) { \
        unpack_##type(w, data, out);                                                               \
        zip_lines(out);                                                                            \
        pair_up_scales(block, out);                                                                \
    }                                                                                              \
    void gemm_s8##type##_16x6__i8mm(const cvq_panels *w, size_t panel0, size_t num_panels,         \
                                    const cvq_act8 *a, size_t row0, size_t m, float *c,            \
                                    size_t ldc) {                                                  \
        static const gemm_plan plan = {                                                            \
            .unpack = unpack_##type##_pairs,                                                       \
            .start = start_##block,                                                                \
            .start_lanes = START_LANES,                                                            \
            .pack = pack_half,                                                                     \
            .activation_bytes = 1,                                                                 \
            .pairs = true,                                                                         \
            .rows = 6,                                                                             \
            .panels = 1,                                                                           \
            .tile = {{tile_##block##_1, tile_##block##_2, tile_##block##_3, tile_##block##_4,      \
                      tile_##block##_5, tile_##block##_6}}};                                       \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, 128)
KERNEL_OF(q6, 32)
KERNEL_OF(q4t, 32)
KERNEL_OF(q4, 32)
KERNEL_OF(q4s, 32)
KERNEL_OF(q4h, 32)
