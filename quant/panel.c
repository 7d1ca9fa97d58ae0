/* One panel of a tensor, from values to the bytes of the file: a search for each row of each block,
 * and what padding holds. Pad columns weigh nothing in the search and get the code of zero under
 * the block's scale; pad rows have scale 0. */
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "quant/quantize.h"
#include "quant/scale_search.h"

#define MAX_BLOCK (CVQ_MAX_GROUP / 2)

typedef struct block_place {
    size_t col;   /* its first column */
    size_t width; /* columns that are not padding: 0 .. info->block */
} block_place;

static block_place place_of(const cvq_type_info *info, size_t cols, size_t block) {
    const size_t col = block * info->block;
    const size_t left = cols > col ? cols - col : 0;
    return (block_place){col, left < info->block ? left : info->block};
}

/* A block of a row, widened by zeros that weigh nothing if padding is part of it. importance is the
 * whole row's or NULL; w is the memory for it. Returns the block's importance. */
static const float *widen(const float *row, const float *importance, block_place at, uint32_t block,
                          float *x, float *w) {
    memset(x, 0, block * sizeof *x);
    memset(w, 0, block * sizeof *w);
    for (size_t k = 0; k < at.width; k++) {
        x[k] = row[at.col + k];
        w[k] = importance ? importance[at.col + k] : 1.0f;
    }
    return importance || at.width < block ? w : NULL;
}

/* One row of one block. */
static void quantize_block(const cvq_tensor *t, const cvq_type_info *info, float row_scale,
                           const float *row, const float *importance, block_place at,
                           uint8_t *codes, uint16_t *scale) {
    float x[MAX_BLOCK], w[MAX_BLOCK];
    const float *weights = widen(row, importance, at, info->block, x, w);
    cvq_search_block(t->type, &t->codebook, row_scale, x, weights, codes, scale);
    cvq_pad_codes(t->type, &t->codebook, *scale, at.width, codes);
}

static void quantize_blocks(const cvq_tensor *t, const float *rows, size_t count,
                            const float *importance, uint8_t *panel) {
    const cvq_type_info *info = cvq_type_describe(t->type);
    const size_t height = t->panel_rows, cols = t->spec.cols;
    const size_t groups = cvq_padded_cols(info, cols) / info->group;
    const size_t blocks = info->group / info->block;
    uint8_t codes[CVQ_PANEL_ROWS * CVQ_MAX_GROUP];
    uint16_t scales[CVQ_MAX_BLOCKS * CVQ_PANEL_ROWS];
    float row_scales[CVQ_PANEL_ROWS] = {0};
    for (size_t r = 0; r < count && info->head_bytes; r++)
        row_scales[r] = cvq_search_row_scale(&t->codebook, rows + r * cols, importance, cols);
    cvq_row_scales_pack(t->type, t->panel_rows, row_scales, panel);
    for (size_t g = 0; g < groups; g++) {
        for (size_t r = 0; r < height; r++) {
            for (size_t b = 0; b < blocks; b++) {
                uint8_t *to = codes + r * info->group + b * info->block;
                uint16_t *scale = &scales[b * height + r];
                if (r < count) {
                    quantize_block(t, info, row_scales[r], rows + r * cols, importance,
                                   place_of(info, cols, blocks * g + b), to, scale);
                } else {
                    *scale = 0;
                    cvq_pad_codes(t->type, &t->codebook, 0, 0, to);
                }
            }
        }
        cvq_group_pack(t->type, t->panel_rows, codes, scales,
                       panel + cvq_group_offset(info, t->panel_rows, g));
    }
}

void cvq_panel_quantize(const cvq_tensor *t, const float *rows, size_t count,
                        const float *importance, uint8_t *panel) {
    const size_t cols = t->spec.cols;
    if (t->type == CVQ_TYPE_F32) {
        for (size_t k = 0; k < cols; k++) cvq_store_le(panel + 4 * k, cvq_f32_bits(rows[k]), 4);
    } else if (t->type == CVQ_TYPE_BF16) {
        cvq_panel_encode_bf16(t->panel_rows, rows, cols, cols, panel);
    } else {
        quantize_blocks(t, rows, count, importance, panel);
    }
}
