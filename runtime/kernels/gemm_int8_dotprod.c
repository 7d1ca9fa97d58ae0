/* int8 matrix kernels with the dot product extension: sdot by element multiplies a quarter of a
 * line (4 rows x 4 columns) by 4 of the 16 activations that one load brings. A tile is one panel x
 * 4 rows. */
#include "runtime/kernels/gemm_int8_arm.h"

GEMM_INLINE void tile(const size_t rows, const size_t block, const gemm_chunk *w,
                      const gemm_tile_rows *a, float *c, size_t ldc, bool first) {
    float32x4_t part[4][4];
    part_clear(rows, part);
    for (size_t b = 0; b < w->columns / block; b++) {
        int32x4_t dot[4][4];
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
            int32x4_t start = vdupq_n_s32(start_value(a, i, b));
            GEMM_UNROLL for (size_t j = 0; j < 4; j++) dot[i][j] = start;
        }
        const int8_t *line = (const int8_t *)w->lines + b * block * 16;
        const int8_t *q = a->q + b * block;
        for (size_t l = 0; l < block / 4; l += 4, line += 256) {
            int8x16_t x[4];
            GEMM_UNROLL for (size_t i = 0; i < rows; i++) x[i] =
                vld1q_s8(q + i * a->stride + 4 * l);
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
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
            GEMM_UNROLL for (size_t j = 0; j < 4; j++)
                part_add(dot[i][j], w->scale[b] + 4 * j, &part[i][j]);
        }
        part_end(rows, w, a, b, block, part, c, ldc, first);
    }
}

#define TILE(rows, block)                                                                          \
    static void tile_##block##_##rows(const gemm_chunk *w, const gemm_tile_rows *a, float *c,      \
                                      size_t ldc, bool first) {                                    \
        tile(rows, block, w, a, c, ldc, first);                                                    \
    }
#define TILES(block) TILE(1, block) TILE(2, block) TILE(3, block) TILE(4, block)
TILES(32)
TILES(128)

#define KERNEL_OF(type, block)                                                                     \
    static void unpack_##type##_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) { \
        unpack_##type(w, data, out);                                                               \
    }                                                                                              \
    void gemm_s8##type##_16x4__dotprod(const cvq_panels *w, size_t panel0, size_t num_panels,      \
                                       const cvq_act8 *a, size_t row0, size_t m, float *c,         \
                                       size_t ldc) {                                               \
        static const gemm_plan plan = {                                                            \
            .unpack = unpack_##type##_lines,                                                       \
            .start = cvq_gemm_start_##block,                                                       \
            .rows = 4,                                                                             \
            .panels = 1,                                                                           \
            .tile = {{tile_##block##_1, tile_##block##_2, tile_##block##_3, tile_##block##_4}}};   \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, 128)
KERNEL_OF(q6, 32)
KERNEL_OF(q4t, 32)
KERNEL_OF(q4, 32)
KERNEL_OF(q4s, 32)
KERNEL_OF(q4h, 32)
