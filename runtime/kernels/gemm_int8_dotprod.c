/* int8 matrix kernels with the dot product extension: sdot by element multiplies a quarter of a
 * line (4 rows x 4 columns) by 4 of the 16 activations that one load brings. A tile is one panel x
 * 4 rows, or with blocks of 32 columns 3 rows: 12 sums of integers and 12 of floats. */
#include "runtime/kernels/gemm_int8_arm.h"

START_OF(32)
START_OF(128)

/* Block b: its sums of integers. */
GEMM_INLINE void multiply_block(const size_t rows, const size_t block, const gemm_chunk *w,
                                const gemm_tile_rows *a, size_t b, int32x4_t (*dot)[4]) {
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) dot[i][j] = start_value(a, i, b);
    }
    const int8_t *line = (const int8_t *)w->lines + b * block * 16;
    const int8_t *q = a->q + b * block;
    for (size_t l = 0; l < block / 4; l += 4, line += 256) {
        int8x16_t x[4];
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) x[i] = vld1q_s8(q + i * a->stride + 4 * l);
#define LINE(n)                                                                                    \
    GEMM_UNROLL for (size_t j = 0; j < 4; j++) {                                                   \
        int8x16_t weights = vld1q_s8(line + 64 * n + 16 * j);                                      \
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) dot[i][j] =                                  \
            vdotq_laneq_s32(dot[i][j], weights, x[i], n);                                          \
    }
        LINE(0)
        LINE(1)
        LINE(2)
        LINE(3)
#undef LINE
    }
}

GEMM_INLINE void tile(const size_t rows, const size_t block, const gemm_chunk *w,
                      const gemm_tile_rows *a, float *c, size_t ldc, bool first) {
    for (size_t k = 0; k < w->columns; k += CVQ_ACT_BLOCK, first = false) {
        const size_t end = k + CVQ_ACT_BLOCK < w->columns ? k + CVQ_ACT_BLOCK : w->columns;
        float32x4_t part[4][4];
        GEMM_UNROLL for (size_t i = 0; block < CVQ_ACT_BLOCK && i < rows; i++) {
            GEMM_UNROLL for (size_t j = 0; j < 4; j++) part[i][j] = part_start();
        }
        for (size_t b = k / block; b < end / block; b++) {
            int32x4_t dot[4][4];
            multiply_block(rows, block, w, a, b, dot);
            GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
                const float32x4_t scale = vld1q_f32(w->scale[b] + 4 * j);
                GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
                    if (block == CVQ_ACT_BLOCK) part[i][j] = part_start();
                    part_add(dot[i][j], scale, &part[i][j]);
                }
            }
        }
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
            const float scale = a->scale[i * a->scale_stride + k / CVQ_ACT_BLOCK];
            GEMM_UNROLL for (size_t j = 0; j < 4; j++)
                part_end(part[i][j], scale, c + i * ldc + 4 * j, first);
        }
    }
}

#define TILE(rows, block)                                                                          \
    static void tile_##block##_##rows(const gemm_chunk *w, const gemm_tile_rows *a, float *c,      \
                                      size_t ldc, bool first) {                                    \
        tile(rows, block, w, a, c, ldc, first);                                                    \
    }
TILE(1, 32)
TILE(2, 32)
TILE(3, 32)
TILE(1, 128)
TILE(2, 128)
TILE(3, 128)
TILE(4, 128)

#define NAMES_3 tile_32_1, tile_32_2, tile_32_3
#define NAMES_4 tile_128_1, tile_128_2, tile_128_3, tile_128_4
#define KERNEL_OF(type, block, many)                                                               \
    static void unpack_##type##_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) { \
        unpack_##type(w, data, out);                                                               \
    }                                                                                              \
    void gemm_s8##type##_16x##many##__dotprod(const cvq_panels *w, size_t panel0,                  \
                                              size_t num_panels, const cvq_act8 *a, size_t row0,   \
                                              size_t m, float *c, size_t ldc) {                    \
        static const gemm_plan plan = {.unpack = unpack_##type##_lines,                            \
                                       .start = start_##block,                                     \
                                       .start_lanes = START_LANES,                                 \
                                       .rows = many,                                               \
                                       .panels = 1,                                                \
                                       .tile = {{NAMES_##many}}};                                  \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, 128, 4)
KERNEL_OF(q6, 32, 3)
KERNEL_OF(q4t, 32, 3)
KERNEL_OF(q4, 32, 3)
KERNEL_OF(q4s, 32, 3)
KERNEL_OF(q4h, 32, 3)
