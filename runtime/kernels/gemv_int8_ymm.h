/* What the kernels for few rows of AVX2 and AVX-VNNI share: everything but the products, which the
 * file that includes this one brings. A line is two halves, rows 0..7 and 8..15 of the panel. */
#ifndef CVQ_RUNTIME_KERNELS_GEMV_INT8_YMM_H
#define CVQ_RUNTIME_KERNELS_GEMV_INT8_YMM_H

#include <immintrin.h>
#include <string.h>

#include "runtime/kernels/gemv_int8.h"

typedef struct line {
    __m256i half[2];
} line;

GEMM_INLINE __m256i load_half(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
GEMM_INLINE __m256i broadcast4(const void *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

/* 16-bit zero points as vpmaddwd takes them: the other half of a lane is 0. scales: of 8 rows. */
GEMM_INLINE __m256i zero_points(const cvq_type type, const cvq_panels *w, const uint8_t *scales) {
    if (type == CVQ_TYPE_Q8) return _mm256_set1_epi32(0x10000 - 128);
    if (type == CVQ_TYPE_Q6) return _mm256_set1_epi32(0x10000 - 32);
    if (type == CVQ_TYPE_Q4) return _mm256_set1_epi32(0x10000 - 8);
    __m128i offset =
        _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)scales), _mm_set1_epi16(31));
    return _mm256_cvtepu16_epi32(_mm_sub_epi16(offset, _mm_set1_epi16(w->codebook->zero)));
}

/* Lines l and l + 4 (columns 4l.. and 16 + 4l..) of block b of a group. */
GEMM_INLINE void decode(const cvq_type type, const uint8_t *group, const size_t b, const size_t l,
                        __m256i table, line *x, line *y) {
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);
    GEMM_UNROLL for (int h = 0; h < 2; h++) {
        __m256i both = load_half(group + 64 + 256 * b + 64 * l + 32 * h);
        __m256i first = _mm256_and_si256(both, low);
        __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        if (type == CVQ_TYPE_Q4T) {
            first = _mm256_shuffle_epi8(table, first);
            second = _mm256_shuffle_epi8(table, second);
        }
        if (type == CVQ_TYPE_Q6) { /* high bits: line l % 2, at bits 2 (l / 2) and 4 further up */
            __m256i bits = load_half(group + 64 + 512 + 128 * b + 64 * (l % 2) + 32 * h);
            __m256i bx = l < 2 ? _mm256_slli_epi16(bits, 4) : _mm256_slli_epi16(bits, 2);
            __m256i by = l < 2 ? bits : _mm256_srli_epi16(bits, 2);
            first = _mm256_or_si256(first, _mm256_and_si256(bx, high));
            second = _mm256_or_si256(second, _mm256_and_si256(by, high));
        }
        x->half[h] = first;
        y->half[h] = second;
    }
}

typedef struct sums {
    __m256 row[GEMV_MAX_ROWS][GEMV_MAX_PANELS][2];
} sums;

/* A block's end: sum += scales x (float)dot. k: the block's first column. */
GEMM_INLINE void add_block(const int panels, const int rows, const uint8_t *const *scales,
                           const gemm_rows *a, size_t k, __m256i (*dot)[GEMV_MAX_PANELS][2],
                           sums *s) {
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        GEMM_UNROLL for (int h = 0; h < 2; h++) {
            __m256 weight = _mm256_cvtph_ps(
                _mm_loadu_si128((const __m128i *)(const void *)(scales[p] + 16 * h)));
            GEMM_UNROLL for (int i = 0; i < rows; i++) {
                float scale = a->scale[((size_t)i * a->stride + k) / CVQ_ACT_BLOCK];
                s->row[i][p][h] =
                    _mm256_fmadd_ps(_mm256_mul_ps(weight, _mm256_set1_ps(scale)),
                                    _mm256_cvtepi32_ps(dot[i][p][h]), s->row[i][p][h]);
            }
        }
    }
}

/* The level's own: adds the products of a block to `dot`, where that of 128 columns has to see to
 * the zero point. k: the block's first column. */
GEMM_INLINE void multiply_block_of_32(const cvq_type type, const int panels, const int rows,
                                      const uint8_t *const *group, const size_t b, __m256i table,
                                      const gemm_rows *a, size_t k,
                                      __m256i (*dot)[GEMV_MAX_PANELS][2]);
GEMM_INLINE void multiply_block_of_128(const int panels, const int rows,
                                       const uint8_t *const *group, const size_t b,
                                       const gemm_rows *a, size_t k,
                                       __m256i (*dot)[GEMV_MAX_PANELS][2]);

GEMM_INLINE void block_of_32(const cvq_type type, const int panels, const int rows,
                             const cvq_panels *w, const uint8_t *const *group, const size_t b,
                             __m256i table, const gemm_rows *a, size_t k, sums *s) {
    __m256i dot[GEMV_MAX_ROWS][GEMV_MAX_PANELS][2];
    const uint8_t *scales[GEMV_MAX_PANELS];
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        scales[p] = group[p] + 32 * b;
        GEMM_UNROLL for (int h = 0; h < 2; h++) {
            __m256i zeros = zero_points(type, w, scales[p] + 16 * h);
            GEMM_UNROLL for (int i = 0; i < rows; i++) dot[i][p][h] = _mm256_madd_epi16(
                zeros, broadcast4(&a->sum[((size_t)i * a->stride + k) / CVQ_ACT_SUM]));
        }
    }
    multiply_block_of_32(type, panels, rows, group, b, table, a, k, dot);
    add_block(panels, rows, scales, a, k, dot, s);
}

GEMM_INLINE void block_of_128(const int panels, const int rows, const uint8_t *const *group,
                              const size_t b, const gemm_rows *a, size_t k, sums *s) {
    __m256i dot[GEMV_MAX_ROWS][GEMV_MAX_PANELS][2];
    const uint8_t *scales[GEMV_MAX_PANELS];
    GEMM_UNROLL for (int p = 0; p < panels; p++) scales[p] = group[p] + 32 * b;
    multiply_block_of_128(panels, rows, group, b, a, k, dot);
    add_block(panels, rows, scales, a, k, dot, s);
}

GEMM_INLINE void multiply(const cvq_type type, const int panels, const int rows,
                          const cvq_panels *w, const uint8_t *data, const gemm_rows *a, float *c,
                          size_t ldc) {
    const size_t columns = gemv_columns(type), bytes = gemv_bytes(type);
    __m256i table = _mm256_setzero_si256();
    if (type == CVQ_TYPE_Q4T)
        table = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)(const void *)w->codebook->table));
    sums s;
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) s.row[i][p][0] = s.row[i][p][1] =
            _mm256_setzero_ps();
    }
    for (size_t k = 0; k < w->k; k += columns, data += bytes) {
        const uint8_t *group[GEMV_MAX_PANELS];
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            group[p] = data + (size_t)p * w->panel_stride;
            if (type != CVQ_TYPE_Q8) gemv_ask(group[p], bytes);
        }
        GEMM_UNROLL for (size_t b = 0; b < 2; b++) {
            if (type == CVQ_TYPE_Q8)
                block_of_128(panels, rows, group, b, a, k + 128 * b, &s);
            else
                block_of_32(type, panels, rows, w, group, b, table, a, k + 32 * b, &s);
        }
    }
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            GEMM_UNROLL for (int h = 0; h < 2; h++)
                _mm256_storeu_ps(c + (size_t)i * ldc + CVQ_PANEL_ROWS * p + 8 * h, s.row[i][p][h]);
        }
    }
}

#endif
