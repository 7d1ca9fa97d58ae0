/* Matrix work on int8 activations, plain C: quantization of the activations, and the product. It
 * defines what the others compute. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

/* n <= 128 values; the block is padded with zeros. Magnitudes are compared as bit patterns, which
 * puts infinities and then NaNs above all numbers. */
static float quantize_block(const float *x, size_t n, int8_t *q, int32_t *sums) {
    uint32_t largest = 0;
    for (size_t k = 0; k < n; k++) {
        uint32_t magnitude = cvq_f32_bits(x[k]) & 0x7fffffffu;
        if (magnitude > largest) largest = magnitude;
    }
    memset(q, 0, CVQ_ACT_BLOCK);
    memset(sums, 0, CVQ_ACT_BLOCK / CVQ_ACT_SUM * sizeof *sums);
    if (largest >= 0x7f800000u) return cvq_bits_f32(0x7fc00000u);
    float max = cvq_bits_f32(largest);
    if (max < CVQ_ACT_TINY) return 0;
    float inverse = 127.0f / max;
    for (size_t k = 0; k < n; k++) {
        q[k] = (int8_t)lrintf(x[k] * inverse);
        sums[k / CVQ_ACT_SUM] += q[k];
    }
    return max / 127.0f;
}

void quantize_rows_128__scalar(const float *x, size_t ldx, size_t rows, size_t k,
                               const cvq_act8 *out) {
    for (size_t i = 0; i < rows; i++)
        for (size_t k0 = 0; k0 < out->stride; k0 += CVQ_ACT_BLOCK) {
            size_t n = k0 >= k ? 0 : k - k0 < CVQ_ACT_BLOCK ? k - k0 : CVQ_ACT_BLOCK;
            size_t at = i * out->stride + k0;
            out->scale[at / CVQ_ACT_BLOCK] = quantize_block(
                n ? x + i * ldx + k0 : NULL, n, out->q + at, out->sum + at / CVQ_ACT_SUM);
        }
}

/* One block of one row of a panel with one row of activations. */
static float multiply_block(const uint8_t *codes, const cvq_block_scale *w, const cvq_act8 *a,
                            size_t at, size_t block, float part) {
    int32_t dot = 0;
    for (size_t k = 0; k < block; k++)
        dot += cvq_code_integer(w, k / (block / 2), codes[k]) * a->q[at + k];
    return fmaf(w->d, (float)dot, part);
}

#define ROWS 8 /* of activations at a time */

/* The sums of 128 columns, so far or in full. */
typedef float partial_sums[ROWS][CVQ_PANEL_ROWS];

/* One group of a panel with m rows of activations, whose first value is number `at`. */
static void multiply_group(const cvq_panels *w, const float *row_scales, const uint8_t *bytes,
                           const cvq_act8 *a, size_t at, size_t m, partial_sums part, float *c,
                           size_t ldc) {
    const cvq_type_info *info = cvq_type_describe(w->type);
    uint8_t codes[CVQ_PANEL_ROWS * CVQ_MAX_GROUP];
    uint16_t scales[CVQ_MAX_BLOCKS * CVQ_PANEL_ROWS];
    cvq_group_unpack(w->type, CVQ_PANEL_ROWS, bytes, codes, scales);
    for (size_t b = 0; b < info->group / info->block; b++, at += info->block) {
        for (size_t r = 0; r < CVQ_PANEL_ROWS; r++) {
            const cvq_block_scale s = cvq_scale_decode(w->type, w->codebook, row_scales[r],
                                                       scales[b * CVQ_PANEL_ROWS + r]);
            for (size_t i = 0; i < m; i++)
                part[i][r] = multiply_block(codes + r * info->group + b * info->block, &s, a,
                                            at + i * a->stride, info->block, part[i][r]);
        }
        const size_t done = at % a->stride + info->block;
        if (done % CVQ_ACT_BLOCK != 0 && done != w->k) continue;
        for (size_t i = 0; i < m; i++)
            for (size_t r = 0; r < CVQ_PANEL_ROWS; r++) {
                float scale = a->scale[(at + i * a->stride) / CVQ_ACT_BLOCK];
                c[i * ldc + r] = fmaf(part[i][r], scale, c[i * ldc + r]);
                part[i][r] = 0;
            }
    }
}

/* One panel, at most ROWS rows of activations from number `row` on. */
static void multiply_panel(const cvq_panels *w, const uint8_t *data, const cvq_act8 *a, size_t row,
                           size_t m, float *c, size_t ldc) {
    const cvq_type_info *info = cvq_type_describe(w->type);
    float row_scales[CVQ_PANEL_ROWS];
    partial_sums part = {{0}};
    cvq_row_scales_unpack(w->type, CVQ_PANEL_ROWS, data, row_scales);
    for (size_t i = 0; i < m; i++) memset(c + i * ldc, 0, CVQ_PANEL_ROWS * sizeof *c);
    for (size_t k0 = 0; k0 < w->k; k0 += info->group)
        multiply_group(w, row_scales,
                       data + cvq_group_offset(info, CVQ_PANEL_ROWS, k0 / info->group), a,
                       row * a->stride + k0, m, part, c, ldc);
}

void gemm_int8_16x1__scalar(const cvq_panels *w, size_t panel0, size_t num_panels,
                            const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {
    for (size_t p = 0; p < num_panels; p++)
        for (size_t i = 0; i < m; i += ROWS)
            multiply_panel(w, w->data + (panel0 + p) * w->panel_stride, a, row0 + i,
                           m - i < ROWS ? m - i : ROWS, c + i * ldc + p * CVQ_PANEL_ROWS, ldc);
}
