/* What the kernels for few rows of AVX2 and AVX-VNNI share: everything but the products, which the
 * file that includes this one brings. A line is two halves, rows 0..7 and 8..15 of the panel. */
#ifndef CVQ_RUNTIME_KERNELS_GEMV_INT8_YMM_H
#define CVQ_RUNTIME_KERNELS_GEMV_INT8_YMM_H

#include <immintrin.h>
#include <string.h>

#include "runtime/kernels/block_scales_ymm.h"
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

/* Rows 8h .. 8h + 7 of block b of a group: zero points of 16 bits as vpmaddwd takes them, less than
 * 0 and with 0 in the other half of a lane. Not of q4h. */
GEMM_INLINE __m256i zero_points(const cvq_type type, const cvq_panels *w, const uint8_t *group,
                                const size_t b, const int h) {
    if (type == CVQ_TYPE_Q8) return _mm256_set1_epi32(0x10000 - 128);
    if (type == CVQ_TYPE_Q6) return _mm256_set1_epi32(0x10000 - 32);
    if (type == CVQ_TYPE_Q4) return _mm256_set1_epi32(0x10000 - 8);
    if (type == CVQ_TYPE_Q4S)
        return _mm256_add_epi16(q4s_offsets(q4s_lanes(group + 16 * b + 8 * h)),
                                _mm256_set1_epi32((5 - w->codebook->zero) & 0xffff));
    const uint8_t *scales = group + 32 * b + 16 * h;
    __m128i offset =
        _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)scales), _mm_set1_epi16(31));
    return _mm256_cvtepu16_epi32(_mm_sub_epi16(offset, _mm_set1_epi16(w->codebook->zero)));
}

/* d of all rows, 8 in each. Not of q4h. */
GEMM_INLINE void scales_of(const cvq_type type, const uint8_t *head, const uint8_t *group,
                           const size_t b, __m256 d[2]) {
    if (type == CVQ_TYPE_Q4S) {
        q4s_scales(head, group + 16 * b, d);
        return;
    }
    GEMM_UNROLL for (int h = 0; h < 2; h++) {
        const uint8_t *scales = group + 32 * b + 16 * h;
        d[h] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)scales));
    }
}

/* Lines l and l + 4 (columns 4l.. and 16 + 4l..) of block b of a group. */
GEMM_INLINE void decode(const cvq_type type, const uint8_t *group, const size_t b, const size_t l,
                        __m256i table, line *x, line *y) {
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);
    GEMM_UNROLL for (int h = 0; h < 2; h++) {
        __m256i both = load_half(group + 64 + 256 * b + 64 * l + 32 * h);
        __m256i first = _mm256_and_si256(both, low);
        __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        if (cvq_type_has_codebook(type)) {
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
    __m256 part[GEMV_MAX_ROWS][GEMV_MAX_PANELS][2]; /* of 128 columns, before their scale */
} sums;

/* The panels of which a group is at hand. */
typedef struct places {
    const uint8_t *head[GEMV_MAX_PANELS], *group[GEMV_MAX_PANELS];
} places;

/* A block's end: part += scales x (float)dot. */
GEMM_INLINE void add_block(const cvq_type type, const int panels, const int rows, const places *w,
                           const size_t b, __m256i (*dot)[GEMV_MAX_PANELS][2], sums *s) {
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        __m256 weight[2];
        scales_of(type, w->head[p], w->group[p], b, weight);
        GEMM_UNROLL for (int h = 0; h < 2; h++) {
            GEMM_UNROLL for (int i = 0; i < rows; i++) s->part[i][p][h] =
                _mm256_fmadd_ps(weight[h], _mm256_cvtepi32_ps(dot[i][p][h]), s->part[i][p][h]);
        }
    }
}

/* The end of 128 columns, of which k is one: sum += part x the activations' scale. */
GEMM_INLINE void add_part(const int panels, const int rows, const gemm_rows *a, size_t k, sums *s) {
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        const __m256 scale = _mm256_set1_ps(a->scale[((size_t)i * a->stride + k) / CVQ_ACT_BLOCK]);
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            GEMM_UNROLL for (int h = 0; h < 2; h++) {
                s->row[i][p][h] = _mm256_fmadd_ps(s->part[i][p][h], scale, s->row[i][p][h]);
                s->part[i][p][h] = _mm256_setzero_ps();
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

/* A sum plus codes times four activations, eight rows by four columns. */
GEMM_INLINE __m256i add_products(__m256i sum, __m256i codes, const int8_t *four);

/* q4h: half a panel at a time, whose choice of tables then stays in registers. With a->sum as
 * q4h_pairs makes it, S and T for the halves of the columns, 2 (o S + p T) is (o 16 S + 16 p T) / 8
 * for offsets o and p, which lie as o and 16 p in the word. */
GEMM_INLINE void block_of_q4h(const int panels, const int rows, const places *at, const size_t b,
                              const q4h_tables *tables, const gemm_rows *a, size_t k, sums *s) {
    const __m256i low = _mm256_set1_epi8(15), offset_bits = _mm256_set1_epi32(7 | 0x70 << 16);
    const __m256i zeros =
        _mm256_set1_epi32((int)((uint32_t)-CVQ_Q4H_ZERO << 16 | (-CVQ_Q4H_ZERO / 16 & 0xffff)));
    __m256i pairs[GEMV_MAX_ROWS], start[GEMV_MAX_ROWS];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        pairs[i] = broadcast4(&a->sum[((size_t)i * a->stride + k) / CVQ_ACT_SUM]);
        start[i] = _mm256_madd_epi16(pairs[i], zeros);
    }
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        GEMM_UNROLL for (int h = 0; h < 2; h++) {
            const uint8_t *codes = at->group[p] + 64 + 256 * b + 32 * h;
            gemv_ask(CVQ_TYPE_Q4H, at->group[p], 2 * b + (size_t)h);
            const __m256i words = q4h_words(at->group[p] + 32 * b + 16 * h);
            const __m256i bytes = q4h_bytes(words);
            const __m256i first = q4h_narrow(bytes, 0), second = q4h_narrow(bytes, 1);
            const __m256i offsets = _mm256_and_si256(bytes, offset_bits);
            __m256i dot[GEMV_MAX_ROWS], more[GEMV_MAX_ROWS];
            GEMM_UNROLL for (int i = 0; i < rows; i++) {
                dot[i] = start[i];
                more[i] = _mm256_srai_epi32(_mm256_madd_epi16(offsets, pairs[i]), 3);
            }
            GEMM_UNROLL for (size_t l = 0; l < 4; l++) {
                __m256i x = load_half(codes + 64 * l);
                __m256i y = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
                x = q4h_entries(_mm256_and_si256(x, low), tables, first);
                y = q4h_entries(y, tables, second);
                GEMM_UNROLL for (int i = 0; i < rows; i++) {
                    const int8_t *q = a->q + (size_t)i * a->stride + k + 4 * l;
                    dot[i] = add_products(dot[i], x, q);
                    more[i] = add_products(more[i], y, q + 16);
                }
            }
            const __m256 d = q4h_scales(words);
            GEMM_UNROLL for (int i = 0; i < rows; i++) {
                const __m256 sum = _mm256_cvtepi32_ps(_mm256_add_epi32(dot[i], more[i]));
                s->part[i][p][h] = _mm256_fmadd_ps(d, sum, s->part[i][p][h]);
            }
        }
    }
}

GEMM_INLINE void block_of_32(const cvq_type type, const int panels, const int rows,
                             const cvq_panels *w, const places *at, const size_t b, __m256i table,
                             const gemm_rows *a, size_t k, sums *s) {
    __m256i dot[GEMV_MAX_ROWS][GEMV_MAX_PANELS][2];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        __m256i sum = broadcast4(&a->sum[((size_t)i * a->stride + k) / CVQ_ACT_SUM]);
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            GEMM_UNROLL for (int h = 0; h < 2; h++) dot[i][p][h] =
                _mm256_madd_epi16(zero_points(type, w, at->group[p], b, h), sum);
        }
    }
    multiply_block_of_32(type, panels, rows, at->group, b, table, a, k, dot);
    add_block(type, panels, rows, at, b, dot, s);
}

GEMM_INLINE void block_of_128(const int panels, const int rows, const places *at, const size_t b,
                              const gemm_rows *a, size_t k, sums *s) {
    __m256i dot[GEMV_MAX_ROWS][GEMV_MAX_PANELS][2];
    multiply_block_of_128(panels, rows, at->group, b, a, k, dot);
    add_block(CVQ_TYPE_Q8, panels, rows, at, b, dot, s);
}

GEMM_INLINE void multiply(const cvq_type type, const int panels, const int rows,
                          const cvq_panels *w, const uint8_t *data, size_t apart,
                          const gemm_rows *a, float *c, size_t ldc) {
    const size_t columns = gemv_columns(type), bytes = gemv_bytes(type);
    const size_t blocks = gemv_blocks(type), block = columns / blocks;
    __m256i table = _mm256_setzero_si256();
    if (cvq_type_has_codebook(type)) table = load_table(w->codebook->table);
    const q4h_tables tables = q4h_tables_load();
    places at;
    sums s;
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        at.head[p] = data + (size_t)p * apart * w->panel_stride;
        GEMM_UNROLL for (int i = 0; i < rows; i++) s.row[i][p][0] = s.row[i][p][1] =
            s.part[i][p][0] = s.part[i][p][1] = _mm256_setzero_ps();
    }
    data += gemv_head(type);
    for (size_t k = 0; k < w->k; k += columns, data += bytes) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) at.group[p] =
            data + (size_t)p * apart * w->panel_stride;
        GEMM_UNROLL for (size_t b = 0; b < blocks; b++) {
            if (type == CVQ_TYPE_Q8)
                block_of_128(panels, rows, &at, b, a, k + block * b, &s);
            else if (type == CVQ_TYPE_Q4H)
                block_of_q4h(panels, rows, &at, b, &tables, a, k + block * b, &s);
            else
                block_of_32(type, panels, rows, w, &at, b, table, a, k + block * b, &s);
            if (gemv_ends_part(w, k + block * (b + 1)))
                add_part(panels, rows, a, k + block * b, &s);
        }
    }
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            GEMM_UNROLL for (int h = 0; h < 2; h++) _mm256_storeu_ps(
                c + (size_t)i * ldc + (size_t)p * apart * CVQ_PANEL_ROWS + 8 * h, s.row[i][p][h]);
        }
    }
}

/* ---------------------------------------------------------------- q4h's activations */

/* Of 16,384 columns and their padding. */
#define GEMV_PAIRS ((16384 + CVQ_MAX_GROUP) / CVQ_ACT_SUM)

/* For every 32 columns two numbers of 16 bits: 16 x the sum of the first half, and the sum of the
 * second. */
GEMM_INLINE void q4h_pairs(const int8_t *q, size_t columns, int32_t *pairs) {
    const __m256i ones = _mm256_set1_epi8(1);
    for (size_t k = 0; k < columns; k += CVQ_ACT_SUM) {
        __m256i x = _mm256_maddubs_epi16(ones, load_half((const uint8_t *)q + k)); /* of 2 each */
        x = _mm256_madd_epi16(x, _mm256_set1_epi16(1));
        x = _mm256_add_epi32(x, _mm256_shuffle_epi32(x, 0x4e));
        x = _mm256_add_epi32(x, _mm256_shuffle_epi32(x, 0xb1));
        int32_t first = _mm256_extract_epi32(x, 0), second = _mm256_extract_epi32(x, 4);
        pairs[k / CVQ_ACT_SUM] =
            (int32_t)((uint32_t)second << 16 | ((uint32_t)first * 16 & 0xffff));
    }
}

/* many: the kernel for many rows, which serves where there is no room for all pairs. */
GEMM_INLINE void gemv_q4h(const gemv_plan *plan, cvq_gemm_int8_fn *many, const cvq_panels *w,
                          size_t panel0, size_t num_panels, const cvq_act8 *a, size_t row0,
                          size_t m, float *c, size_t ldc) {
    int32_t pairs[GEMV_MAX_ROWS * GEMV_PAIRS];
    if (a->stride > GEMV_PAIRS * CVQ_ACT_SUM) {
        many(w, panel0, num_panels, a, row0, m, c, ldc);
        return;
    }
    gemv_ask_first(w, panel0, num_panels, GEMV_AHEAD);
    for (size_t i = 0, rows; i < m; i += rows) {
        rows = m - i < GEMV_MAX_ROWS ? m - i : GEMV_MAX_ROWS;
        size_t at = (row0 + i) * a->stride;
        for (size_t r = 0; r < rows; r++)
            q4h_pairs(a->q + at + r * a->stride, w->k, pairs + r * a->stride / CVQ_ACT_SUM);
        cvq_act8 part = {a->q + at, a->scale + at / CVQ_ACT_BLOCK, pairs, a->stride};
        gemv_run(plan, w, panel0, num_panels, &part, 0, rows, c + i * ldc, ldc);
    }
}

#define GEMV_KERNEL_Q4H(suffix, many)                                                              \
    GEMV_PLAN(q4h, Q4H)                                                                            \
    void gemv_q4h_##suffix(const cvq_panels *w, size_t panel0, size_t num_panels,                  \
                           const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {       \
        gemv_q4h(&q4h_plan, many, w, panel0, num_panels, a, row0, m, c, ldc);                      \
    }

#endif
