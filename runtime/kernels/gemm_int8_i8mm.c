/* int8 matrix kernels with the matrix multiplication extension: smmla multiplies 2 rows of
 * activations by 2 rows of weights over 8 columns. After unpacking, two lines are zipped so that a
 * register holds 2 rows x 8 columns. A tile is one panel x 4 rows; with an odd number the last row
 * is computed twice and stored once. */
#include "runtime/kernels/gemm_int8_arm.h"

/* Lines 2n and 2n + 1 become eight pieces of 2 rows x 8 columns. */
GEMM_INLINE void zip_lines(gemm_chunk *chunk) {
    for (size_t l = 0; l < chunk->columns / 4; l += 2) {
        uint8_t *line = chunk->storage + 64 * l;
        uint32x4_t first[4], second[4];
        for (size_t j = 0; j < 4; j++) {
            first[j] = vreinterpretq_u32_u8(vld1q_u8(line + 16 * j));
            second[j] = vreinterpretq_u32_u8(vld1q_u8(line + 64 + 16 * j));
        }
        for (size_t j = 0; j < 4; j++) {
            vst1q_u8(line + 32 * j, vreinterpretq_u8_u32(vzip1q_u32(first[j], second[j])));
            vst1q_u8(line + 32 * j + 16, vreinterpretq_u8_u32(vzip2q_u32(first[j], second[j])));
        }
    }
}

GEMM_INLINE void tile(const size_t rows, const size_t block, const gemm_chunk *w,
                      const gemm_tile_rows *a, float *c, size_t ldc, bool first) {
    const size_t pairs = (rows + 1) / 2;
    float32x4_t part[4][4];
    part_clear(rows, part);
    for (size_t b = 0; b < w->columns / block; b++) {
        int32x4_t dot[2][8]; /* lanes: row 0 x weights 0 and 1, row 1 x weights 0 and 1 */
        GEMM_UNROLL for (size_t p = 0; p < pairs; p++) {
            size_t other = 2 * p + 1 < rows ? 2 * p + 1 : 2 * p;
            int32x4_t start = vcombine_s32(vdup_n_s32(start_value(a, 2 * p, b)),
                                           vdup_n_s32(start_value(a, other, b)));
            GEMM_UNROLL for (size_t j = 0; j < 8; j++) dot[p][j] = start;
        }
        const int8_t *line = (const int8_t *)w->lines + b * block * 16;
        const int8_t *q = a->q + b * block;
        for (size_t l = 0; l < block / 4; l += 2, line += 128) {
            int8x16_t x[2];
            GEMM_UNROLL for (size_t p = 0; p < pairs; p++) {
                size_t other = 2 * p + 1 < rows ? 2 * p + 1 : 2 * p;
                x[p] = vcombine_s8(vld1_s8(q + 2 * p * a->stride + 4 * l),
                                   vld1_s8(q + other * a->stride + 4 * l));
            }
            GEMM_UNROLL for (size_t j = 0; j < 8; j++) {
                int8x16_t weights = vld1q_s8(line + 16 * j);
                GEMM_UNROLL for (size_t p = 0; p < pairs; p++) dot[p][j] =
                    vmmlaq_s32(dot[p][j], x[p], weights);
            }
        }
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
            GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
                int64x2_t left = vreinterpretq_s64_s32(dot[i / 2][2 * j]);
                int64x2_t right = vreinterpretq_s64_s32(dot[i / 2][2 * j + 1]);
                int64x2_t sum = i % 2 ? vzip2q_s64(left, right) : vzip1q_s64(left, right);
                part_add(vreinterpretq_s32_s64(sum), w->scale[b] + 4 * j, &part[i][j]);
            }
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
    static void unpack_##type##_zipped(const cvq_panels *w, const uint8_t *data,                   \
                                       gemm_chunk *out) {                                          \
        unpack_##type(w, data, out);                                                               \
        zip_lines(out);                                                                            \
    }                                                                                              \
    void gemm_s8##type##_16x4__i8mm(const cvq_panels *w, size_t panel0, size_t num_panels,         \
                                    const cvq_act8 *a, size_t row0, size_t m, float *c,            \
                                    size_t ldc) {                                                  \
        static const gemm_plan plan = {                                                            \
            .unpack = unpack_##type##_zipped,                                                      \
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
