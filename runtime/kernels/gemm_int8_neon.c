/* int8 matrix kernels with plain NEON: two lines of products fit 16 bits (2 x 128 x 127 = 32,512),
 * smull and smlal, then sadalp adds pairs of columns into 32 bits. A tile is one panel x 2 rows. */
#include "runtime/kernels/gemm_int8_arm.h"

START_OF(32)
START_OF(128)

GEMM_INLINE int8x8_t broadcast4(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return vreinterpret_s8_s32(vdup_n_s32(four));
}

GEMM_INLINE void tile(const size_t rows, const size_t block, const gemm_chunk *w,
                      const gemm_tile_rows *a, float *c, size_t ldc, bool first) {
    for (size_t k = 0; k < w->columns; k += CVQ_ACT_BLOCK, first = false) {
        const size_t end = k + CVQ_ACT_BLOCK < w->columns ? k + CVQ_ACT_BLOCK : w->columns;
        float32x4_t part[2][4];
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
            GEMM_UNROLL for (size_t j = 0; j < 4; j++) part[i][j] = vdupq_n_f32(0);
        }
        for (size_t b = k / block; b < end / block; b++) {
            /* Lanes: two columns' sums of two rows; eight for a panel. */
            int32x4_t dot[2][8];
            GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
                GEMM_UNROLL for (size_t j = 0; j < 8; j++) dot[i][j] = vdupq_n_s32(0);
            }
            const int8_t *line = (const int8_t *)w->lines + b * block * 16;
            const int8_t *q = a->q + b * block;
            for (size_t l = 0; l < block / 4; l += 2, line += 128) {
                int8x8_t four[2][2];
                GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
                    four[i][0] = broadcast4(q + i * a->stride + 4 * l);
                    four[i][1] = broadcast4(q + i * a->stride + 4 * l + 4);
                }
                GEMM_UNROLL for (size_t j = 0; j < 8; j++) {
                    int8x8_t w0 = vld1_s8(line + 8 * j), w1 = vld1_s8(line + 64 + 8 * j);
                    GEMM_UNROLL for (size_t i = 0; i < rows; i++) dot[i][j] =
                        vpadalq_s16(dot[i][j], vmlal_s8(vmull_s8(w0, four[i][0]), w1, four[i][1]));
                }
            }
            GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
                int32x4_t start = start_value(a, i, b);
                GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
                    int32x4_t sum = vpaddq_s32(dot[i][2 * j], dot[i][2 * j + 1]);
                    part_add(vaddq_s32(sum, start), vld1q_f32(w->scale[b] + 4 * j), &part[i][j]);
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
TILE(1, 128)
TILE(2, 128)

#define KERNEL_OF(type, block)                                                                     \
    static void unpack_##type##_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) { \
        unpack_##type(w, data, out);                                                               \
    }                                                                                              \
    void gemm_s8##type##_16x2__neon(const cvq_panels *w, size_t panel0, size_t num_panels,         \
                                    const cvq_act8 *a, size_t row0, size_t m, float *c,            \
                                    size_t ldc) {                                                  \
        static const gemm_plan plan = {.unpack = unpack_##type##_lines,                            \
                                       .start = start_##block,                                     \
                                       .start_lanes = START_LANES,                                 \
                                       .rows = 2,                                                  \
                                       .panels = 1,                                                \
                                       .tile = {{tile_##block##_1, tile_##block##_2}}};            \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, 128)
KERNEL_OF(q6, 32)
KERNEL_OF(q4t, 32)
KERNEL_OF(q4, 32)
KERNEL_OF(q4s, 32)
KERNEL_OF(q4h, 32)
