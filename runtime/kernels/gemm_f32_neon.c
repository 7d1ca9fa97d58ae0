/* Matrix work in f32 with NEON: weights to f32, and tiles of 6 rows of activations. */
#include "runtime/kernels/gemm_f32_tiles.h"
#include "runtime/kernels/gemm_int8_arm.h"

/* The second column of a line is the upper half of each lane. */
void unpack_bf16_16__neon(const cvq_panels *w, size_t panel, size_t k0, size_t k1, float *out) {
    const uint8_t *data = w->data + panel * w->panel_stride + k0 * CVQ_PANEL_ROWS * 2;
    const uint32x4_t upper = vdupq_n_u32(0xffff0000u);
    for (size_t k = 0; k < k1 - k0; k += 2)
        for (size_t j = 0; j < 4; j++) {
            uint32x4_t x = vreinterpretq_u32_u8(vld1q_u8(data + k * 32 + j * 16));
            float *to = out + k * CVQ_PANEL_ROWS + 4 * j;
            vst1q_f32(to, vreinterpretq_f32_u32(vshlq_n_u32(x, 16)));
            vst1q_f32(to + CVQ_PANEL_ROWS, vreinterpretq_f32_u32(vandq_u32(x, upper)));
        }
}

/* Unpacked lines of signed codes to floats. */
GEMM_INLINE void lines_to_f32(const gemm_chunk *chunk, size_t block, float *out) {
    const int32x4_t zero = vdupq_n_s32(chunk->zero);
    for (size_t l = 0; l < chunk->columns / 4; l++)
        for (size_t j = 0; j < 4; j++) {
            int32x4_t x = vreinterpretq_s32_u8(vld1q_u8(chunk->lines + 64 * l + 16 * j));
            float32x4_t scale = vld1q_f32(chunk->scale[4 * l / block] + 4 * j);
            int32x4_t codes[4] = {vshrq_n_s32(vshlq_n_s32(x, 24), 24),
                                  vshrq_n_s32(vshlq_n_s32(x, 16), 24),
                                  vshrq_n_s32(vshlq_n_s32(x, 8), 24), vshrq_n_s32(x, 24)};
            for (size_t i = 0; i < 4; i++)
                vst1q_f32(out + (4 * l + i) * CVQ_PANEL_ROWS + 4 * j,
                          vmulq_f32(scale, vcvtq_f32_s32(vsubq_s32(codes[i], zero))));
        }
}

#define UNPACK(TYPE, type, block)                                                                  \
    void unpack_##type##_16__neon(const cvq_panels *w, size_t panel, size_t k0, size_t k1,         \
                                  float *out) {                                                    \
        const cvq_type_info *info = cvq_type_describe(CVQ_TYPE_##TYPE);                            \
        gemm_chunk chunk;                                                                          \
        chunk.columns = k1 - k0;                                                                   \
        chunk.head = w->data + panel * w->panel_stride;                                            \
        unpack_##type(w, chunk.head + cvq_group_offset(info, CVQ_PANEL_ROWS, k0 / info->group),    \
                      &chunk);                                                                     \
        lines_to_f32(&chunk, block, out);                                                          \
    }
UNPACK(Q8, q8, 128)
UNPACK(Q6, q6, 32)
UNPACK(Q4T, q4t, 32)
UNPACK(Q4, q4, 32)
UNPACK(Q4S, q4s, 32)
UNPACK(Q4H, q4h, 32)

GEMM_INLINE void tile_rows(const size_t rows, const float *w, size_t k, const float *a, size_t lda,
                           float *c, size_t ldc, bool accumulate) {
    float32x4_t sum[6][4];
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) sum[i][j] = vdupq_n_f32(0);
    }
    for (size_t kk = 0; kk < k; kk++) {
        float32x4_t weights[4];
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) weights[j] = vld1q_f32(w + 16 * kk + 4 * j);
        GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
            GEMM_UNROLL for (size_t j = 0; j < 4; j++) sum[i][j] =
                vfmaq_n_f32(sum[i][j], weights[j], a[i * lda + kk]);
        }
    }
    GEMM_UNROLL for (size_t i = 0; i < rows; i++) {
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
            float *to = c + i * ldc + 4 * j;
            vst1q_f32(to, accumulate ? vaddq_f32(vld1q_f32(to), sum[i][j]) : sum[i][j]);
        }
    }
}

GEMM_F32_TILES(tile_f32_16x6__neon, 6, GEMM_F32_1_TO_6)
