/* Matrix work in f32, plain C: weights taken apart, and the tile. It defines what the others
 * compute. */
#include <math.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

/* A group of bf16 is 64 columns: 32 lines of 16 rows x 2 columns. */
void unpack_bf16_16__scalar(const cvq_panels *w, size_t panel, size_t k0, size_t k1, float *out) {
    const uint8_t *data = w->data + panel * w->panel_stride + k0 * CVQ_PANEL_ROWS * 2;
    for (size_t k = 0; k < k1 - k0; k++)
        for (size_t r = 0; r < CVQ_PANEL_ROWS; r++) {
            const uint8_t *b = data + (k / 2 * CVQ_PANEL_ROWS + r) * 4 + k % 2 * 2;
            out[k * CVQ_PANEL_ROWS + r] = cvq_bf16_to_f32((uint16_t)(b[0] | b[1] << 8));
        }
}

void unpack_blocks_16__scalar(const cvq_panels *w, size_t panel, size_t k0, size_t k1, float *out) {
    const cvq_type_info *info = cvq_type_describe(w->type);
    const uint8_t *data = w->data + panel * w->panel_stride;
    uint8_t codes[CVQ_PANEL_ROWS * CVQ_MAX_GROUP];
    uint16_t scales[CVQ_MAX_BLOCKS * CVQ_PANEL_ROWS];
    float row_scales[CVQ_PANEL_ROWS];
    cvq_row_scales_unpack(w->type, CVQ_PANEL_ROWS, data, row_scales);
    for (size_t g = k0 / info->group; g < k1 / info->group; g++) {
        cvq_group_unpack(w->type, CVQ_PANEL_ROWS, data + cvq_group_offset(info, CVQ_PANEL_ROWS, g),
                         codes, scales);
        for (size_t k = 0; k < info->group; k++, out += CVQ_PANEL_ROWS)
            for (size_t r = 0; r < CVQ_PANEL_ROWS; r++) {
                cvq_block_scale s = cvq_scale_decode(w->type, w->codebook, row_scales[r],
                                                     scales[k / info->block * CVQ_PANEL_ROWS + r]);
                const size_t half = k % info->block / (info->block / 2);
                out[r] = s.d * (float)cvq_code_integer(&s, half, codes[r * info->group + k]);
            }
    }
}

void tile_f32_16x1__scalar(const float *w, size_t k, const float *a, size_t lda, size_t m, float *c,
                           size_t ldc, bool accumulate) {
    for (size_t i = 0; i < m; i++) {
        float sum[CVQ_PANEL_ROWS] = {0};
        for (size_t kk = 0; kk < k; kk++)
            for (size_t r = 0; r < CVQ_PANEL_ROWS; r++)
                sum[r] = fmaf(a[i * lda + kk], w[kk * CVQ_PANEL_ROWS + r], sum[r]);
        for (size_t r = 0; r < CVQ_PANEL_ROWS; r++)
            c[i * ldc + r] = accumulate ? c[i * ldc + r] + sum[r] : sum[r];
    }
}
