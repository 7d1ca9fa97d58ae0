/* How second moments of K input channels lie: a block of columns after another, of each the lower
 * triangle, row by row; a single block where K <= CVQ_MOMENT_COLS, else blocks of
 * CVQ_MOMENT_BLOCK and what is left. As a file, for each matrix that has its own:
 *   "<tensor name>.count" I64 [1], of how many tokens,
 *   "<tensor name>.sum_sq" F32 [K], the sums of squares,
 *   "<tensor name>.correlation" F16 [values]: sum x_i x_j / sqrt(sum x_i^2 sum x_j^2), 0 where a
 *   channel is always 0. */
#ifndef CVQ_FORMATS_MOMENT_LAYOUT_H
#define CVQ_FORMATS_MOMENT_LAYOUT_H

#include "formats/model_tensors.h"

#define CVQ_MOMENT_COLS 4096
#define CVQ_MOMENT_BLOCK 2048

/* Columns of a block that is not the last. */
static inline size_t cvq_moment_block(size_t cols) {
    return cols <= CVQ_MOMENT_COLS ? cols : CVQ_MOMENT_BLOCK;
}
static inline size_t cvq_moment_width(size_t cols, size_t first) {
    const size_t block = cvq_moment_block(cols);
    return cols - first < block ? cols - first : block;
}
/* Entries of a triangle; cols is at most CVQ_MOMENT_COLS. */
static inline uint64_t cvq_triangle(size_t cols) {
    return (uint64_t)cols * (cols + 1) / 2;
}
static inline uint64_t cvq_moment_values(size_t cols) {
    const size_t block = cvq_moment_block(cols);
    return cols / block * cvq_triangle(block) + cvq_triangle(cols % block);
}
/* Whether this kind of tensor has moments of its own: the decoder's qkv, dense, gate and down. */
static inline bool cvq_moment_measured(cvq_tensor_kind kind) {
    return kind == CVQ_T_LANGUAGE_QKV || kind == CVQ_T_LANGUAGE_DENSE ||
           kind == CVQ_T_LANGUAGE_GATE || kind == CVQ_T_LANGUAGE_DOWN || kind == CVQ_T_VISION_QKV ||
           kind == CVQ_T_VISION_DENSE || kind == CVQ_T_VISION_GATE || kind == CVQ_T_VISION_DOWN;
}

#endif
