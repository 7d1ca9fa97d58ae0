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
static float multiply_block(const uint8_t *codes, float weight_scale, int zero, const cvq_act8 *a,
                            size_t at, size_t block, float c) {
    int32_t dot = 0, sum = 0;
    for (size_t k = 0; k < block; k++) dot += codes[k] * a->q[at + k];
    for (size_t k = 0; k < block; k += CVQ_ACT_SUM) sum += a->sum[(at + k) / CVQ_ACT_SUM];
    return fmaf(weight_scale * a->scale[at / CVQ_ACT_BLOCK], (float)(dot - zero * sum), c);
}

void gemm_int8_16x1__scalar(const cvq_panels *w, size_t panel0, size_t num_panels,
                            const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {
    const cvq_type_info *info = cvq_type_describe(w->type);
    size_t group = info->group, group_bytes = (size_t)info->row_bytes * CVQ_PANEL_ROWS;
    uint8_t codes[CVQ_PANEL_ROWS * CVQ_MAX_GROUP];
    uint16_t scales[2 * CVQ_PANEL_ROWS];
    for (size_t p = 0; p < num_panels; p++) {
        const uint8_t *data = w->data + (panel0 + p) * w->panel_stride;
        for (size_t i = 0; i < m; i++)
            memset(c + i * ldc + p * CVQ_PANEL_ROWS, 0, CVQ_PANEL_ROWS * sizeof *c);
        for (size_t k0 = 0; k0 < w->k; k0 += group) {
            cvq_group_unpack(w->type, CVQ_PANEL_ROWS, data + k0 / group * group_bytes, codes,
                             scales);
            if (w->type == CVQ_TYPE_Q4T)
                for (size_t j = 0; j < CVQ_PANEL_ROWS * group; j++)
                    codes[j] = w->codebook->table[codes[j]];
            for (size_t br = 0; br < 2 * CVQ_PANEL_ROWS; br++) { /* block and row */
                size_t b = br / CVQ_PANEL_ROWS, r = br % CVQ_PANEL_ROWS;
                int zero = w->type == CVQ_TYPE_Q4T ? w->codebook->zero - (scales[br] & 31)
                                                   : (int)info->zero_point;
                for (size_t i = 0; i < m; i++) {
                    float *out = &c[i * ldc + p * CVQ_PANEL_ROWS + r];
                    *out = multiply_block(
                        codes + r * group + b * info->block, cvq_f16_to_f32(scales[br]), zero, a,
                        (row0 + i) * a->stride + k0 + b * info->block, info->block, *out);
                }
            }
        }
    }
}
