/* int8 matrix kernels for few rows with AVX-512 VNNI. A line of 64 codes is a plane's line and a
 * mask or shift (q4), and a shuffle (q4t, q4s) or two
 * (q4h), or two more bits (q6), or the file's own (q8).
 *
 * Zero points: an accumulator starts at (zero point) x (sum of the block's activations), one
 * vpmaddwd with a broadcast; where that is a row's own (an offset), the zero points come from the
 * scales' bits by three operations a block. */
#include <immintrin.h>
#include <string.h>

#include "runtime/kernels/block_scales_zmm.h"
#include "runtime/kernels/gemv_int8.h"

GEMM_INLINE __m512i load_line(const uint8_t *p) {
    return _mm512_loadu_si512((const void *)p);
}
GEMM_INLINE __m512i broadcast4(const void *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}

/* Assembly, since for the intrinsic gcc 12 copies every accumulator twice. */
GEMM_INLINE __m512i dot4(__m512i sum, __m512i codes, __m512i activations) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(activations));
    return sum;
}

/* What a type needs in registers all along a panel. */
typedef struct constants {
    __m512i table, narrow; /* narrow: q4h */
    q4s_levels levels;
} constants;

GEMM_INLINE constants constants_load(const cvq_type type, const cvq_panels *w) {
    const __m512i none = _mm512_setzero_si512();
    constants t = {none, none, {_mm512_setzero_ps(), _mm512_setzero_ps()}};
    if (cvq_type_has_codebook(type)) t.table = load_table(w->codebook->table);
    if (type == CVQ_TYPE_Q4H) {
        t.table = load_table(cvq_q4h_tables[0]);
        t.narrow = load_table(cvq_q4h_tables[1]);
    }
    if (type == CVQ_TYPE_Q4S) t.levels = q4s_levels_load();
    return t;
}

/* Of a block's 16 rows. */
typedef struct block_scales {
    __m512 d;
    __m512i zero; /* less than 0, 16 bits as vpmaddwd takes them: the other half of a lane is 0 */
    q4h_halves halves;
} block_scales;

GEMM_INLINE block_scales scales_of(const cvq_type type, const cvq_panels *w, const constants *t,
                                   const uint8_t *head, const uint8_t *group, const size_t b) {
    block_scales s = {0};
    if (type == CVQ_TYPE_Q4S) {
        const __m512i lanes = q4s_lanes(group + 16 * b);
        const __m512i least = _mm512_set1_epi32((5 - w->codebook->zero) & 0xffff);
        s.d = q4s_scales(t->levels, head, lanes);
        s.zero = _mm512_add_epi16(q4s_offsets(lanes), least);
        return s;
    }
    const int zero = type == CVQ_TYPE_Q8    ? 128
                     : type == CVQ_TYPE_Q6  ? 32
                     : type == CVQ_TYPE_Q4H ? CVQ_Q4H_ZERO
                                            : 8;
    s.zero = _mm512_set1_epi32(0x10000 - zero);
    if (type == CVQ_TYPE_Q4H) {
        const __m512i lanes = q4h_lanes(group + 32 * b);
        s.d = q4h_scales(lanes);
        s.halves = q4h_halves_of(lanes);
        return s;
    }
    const __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)(group + 32 * b));
    s.d = _mm512_cvtph_ps(halves);
    if (type == CVQ_TYPE_Q4T) {
        const __m256i offset = _mm256_and_si256(halves, _mm256_set1_epi16(31));
        s.zero =
            _mm512_cvtepu16_epi32(_mm256_sub_epi16(offset, _mm256_set1_epi16(w->codebook->zero)));
    }
    return s;
}

/* Lines l and l + 4 (columns 4l.. and 16 + 4l..) of block b of a group. */
GEMM_INLINE void decode(const cvq_type type, const uint8_t *group, const size_t b, const size_t l,
                        const constants *t, const block_scales *scales, __m512i *x, __m512i *y) {
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    __m512i both = load_line(group + 64 + 256 * b + 64 * l);
    *x = _mm512_and_si512(both, low);
    *y = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    if (cvq_type_has_codebook(type)) {
        *x = _mm512_shuffle_epi8(t->table, *x);
        *y = _mm512_shuffle_epi8(t->table, *y);
    }
    if (type == CVQ_TYPE_Q4H) {
        *x = q4h_entries(*x, t->table, t->narrow, &scales->halves, 0);
        *y = q4h_entries(*y, t->table, t->narrow, &scales->halves, 1);
    }
    if (type == CVQ_TYPE_Q6) { /* high bits: line l % 2, at bits 2 (l / 2) and 4 further up */
        __m512i h = load_line(group + 64 + 512 + 128 * b + 64 * (l % 2));
        __m512i hx = l < 2 ? _mm512_slli_epi16(h, 4) : _mm512_slli_epi16(h, 2);
        __m512i hy = l < 2 ? h : _mm512_srli_epi16(h, 2);
        *x = _mm512_or_si512(*x, _mm512_and_si512(hx, high));
        *y = _mm512_or_si512(*y, _mm512_and_si512(hy, high));
    }
}

typedef struct sums {
    __m512 row[GEMV_MAX_ROWS][GEMV_MAX_PANELS];
    __m512 part[GEMV_MAX_ROWS][GEMV_MAX_PANELS]; /* of 128 columns, before their scale */
} sums;

/* A block's end: part += scales x (float)dot. */
GEMM_INLINE void add_block(const int panels, const int rows, const block_scales *scales,
                           __m512i (*dot)[GEMV_MAX_PANELS], sums *s) {
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        GEMM_UNROLL for (int i = 0; i < rows; i++) s->part[i][p] =
            _mm512_fmadd_ps(scales[p].d, _mm512_cvtepi32_ps(dot[i][p]), s->part[i][p]);
    }
}

/* The end of 128 columns, of which k is one: sum += part x the activations' scale. */
GEMM_INLINE void add_part(const int panels, const int rows, const gemm_rows *a, size_t k, sums *s) {
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        const __m512 scale = _mm512_set1_ps(a->scale[((size_t)i * a->stride + k) / CVQ_ACT_BLOCK]);
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            s->row[i][p] = _mm512_fmadd_ps(s->part[i][p], scale, s->row[i][p]);
            s->part[i][p] = _mm512_setzero_ps();
        }
    }
}

/* A block of 32 columns; scales and groups: of the panels. */
GEMM_INLINE void block_of_32(const cvq_type type, const int panels, const int rows,
                             const block_scales *scales, const uint8_t *const *group,
                             const size_t b, const constants *t, const gemm_rows *a, size_t k,
                             sums *s) {
    __m512i dot[GEMV_MAX_ROWS][GEMV_MAX_PANELS];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        __m512i sum = broadcast4(&a->sum[((size_t)i * a->stride + k) / CVQ_ACT_SUM]);
        GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p] =
            _mm512_madd_epi16(scales[p].zero, sum);
    }
    GEMM_UNROLL for (size_t l = 0; l < 4; l++) {
        __m512i x[GEMV_MAX_PANELS], y[GEMV_MAX_PANELS];
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            if (l % 2 == 0) gemv_ask(type, group[p], 2 * b + l / 2);
            decode(type, group[p], b, l, t, &scales[p], &x[p], &y[p]);
        }
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            const int8_t *q = a->q + (size_t)i * a->stride + k + 4 * l;
            __m512i first = broadcast4(q), second = broadcast4(q + 16);
            GEMM_UNROLL for (int p = 0; p < panels; p++) {
                dot[i][p] = dot4(dot[i][p], x[p], first);
                dot[i][p] = dot4(dot[i][p], y[p], second);
            }
        }
    }
    add_block(panels, rows, scales, dot, s);
}

/* A block of 128 columns of q8. */
GEMM_INLINE void block_of_128(const int panels, const int rows, const block_scales *scales,
                              const uint8_t *const *group, const size_t b, const gemm_rows *a,
                              size_t k, sums *s) {
    __m512i dot[GEMV_MAX_ROWS][GEMV_MAX_PANELS];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        const int32_t *sum = a->sum + ((size_t)i * a->stride + k) / CVQ_ACT_SUM;
        __m512i all = _mm512_set1_epi32(sum[0] + sum[1] + sum[2] + sum[3]);
        GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p] =
            _mm512_madd_epi16(scales[p].zero, all);
    }
    const int8_t *q = a->q + k;
    for (size_t at = 64 + 2048 * b; at < 64 + 2048 * (b + 1); at += 512, q += 32) {
        GEMM_UNROLL for (size_t l = 0; l < 8; l++) {
            __m512i x[GEMV_MAX_PANELS];
            GEMM_UNROLL for (int p = 0; p < panels; p++) {
                __builtin_prefetch(group[p] + at + 64 * l + GEMV_AHEAD_Q8);
                x[p] = load_line(group[p] + at + 64 * l);
            }
            GEMM_UNROLL for (int i = 0; i < rows; i++) {
                __m512i four = broadcast4(q + (size_t)i * a->stride + 4 * l);
                GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p] =
                    dot4(dot[i][p], x[p], four);
            }
        }
    }
    add_block(panels, rows, scales, dot, s);
}

GEMM_INLINE void multiply(const cvq_type type, const int panels, const int rows,
                          const cvq_panels *w, const uint8_t *data, size_t apart,
                          const gemm_rows *a, float *c, size_t ldc) {
    const size_t columns = gemv_columns(type), bytes = gemv_bytes(type);
    const size_t blocks = gemv_blocks(type), block = columns / blocks;
    const constants t = constants_load(type, w);
    const uint8_t *head[GEMV_MAX_PANELS], *group[GEMV_MAX_PANELS];
    sums s;
    GEMM_UNROLL for (int p = 0; p < panels; p++) {
        head[p] = data + (size_t)p * apart * w->panel_stride;
        GEMM_UNROLL for (int i = 0; i < rows; i++) s.row[i][p] = s.part[i][p] = _mm512_setzero_ps();
    }
    data += gemv_head(type);
    for (size_t k = 0; k < w->k; k += columns, data += bytes) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) group[p] =
            data + (size_t)p * apart * w->panel_stride;
        GEMM_UNROLL for (size_t b = 0; b < blocks; b++) {
            block_scales scales[GEMV_MAX_PANELS];
            GEMM_UNROLL for (int p = 0; p < panels; p++) scales[p] =
                scales_of(type, w, &t, head[p], group[p], b);
            if (type == CVQ_TYPE_Q8)
                block_of_128(panels, rows, scales, group, b, a, k + block * b, &s);
            else
                block_of_32(type, panels, rows, scales, group, b, &t, a, k + block * b, &s);
            if (gemv_ends_part(w, k + block * (b + 1)))
                add_part(panels, rows, a, k + block * b, &s);
        }
    }
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++)
            _mm512_storeu_ps(c + (size_t)i * ldc + (size_t)p * apart * CVQ_PANEL_ROWS, s.row[i][p]);
    }
}

GEMV_KERNEL(q8, Q8, 16x4__avx512)
GEMV_KERNEL(q6, Q6, 16x4__avx512)
GEMV_KERNEL(q4t, Q4T, 16x4__avx512)
GEMV_KERNEL(q4, Q4, 16x4__avx512)
GEMV_KERNEL(q4s, Q4S, 16x4__avx512)
GEMV_KERNEL(q4h, Q4H, 16x4__avx512)
