/* Attention in int8 with AVX-512 VNNI. Tiles of 4 panels x 6 rows, for scores (lanes are keys) as
 * for results (lanes are dimensions): 24 integer sums in registers, 10 loads for 24 dot products.
 * A row's 256 scores and weights stay in L1 in between. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "runtime/kernels/attention_kernel.h"
#include "runtime/kernels/gemm_int8.h"

#define ROWS CVQ_ATTENTION_ROWS
#define PANELS 4

GEMM_INLINE __m512i load_line(const void *p) {
    return _mm512_loadu_si512(p);
}
GEMM_INLINE __m512i broadcast4(const uint8_t *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm512_set1_epi32(four);
}
/* Assembly, since for the intrinsic gcc 12 copies every accumulator twice. */
GEMM_INLINE __m512i dot4(__m512i sum, __m512i codes, __m512i line) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(line));
    return sum;
}

/* dot[i][p] += sum over steps of codes[i][4 step ..] x line(step, p). */
GEMM_INLINE void multiply(const int panels, size_t steps, const uint8_t *codes, size_t ld,
                          const int8_t *lines, size_t step_bytes, size_t panel_bytes,
                          __m512i dot[ROWS][PANELS]) {
    for (size_t s = 0; s < steps; s++, codes += 4, lines += step_bytes) {
        __m512i line[PANELS];
        GEMM_UNROLL for (int p = 0; p < panels; p++) line[p] =
            load_line(lines + (size_t)p * panel_bytes);
        GEMM_UNROLL for (int i = 0; i < ROWS; i++) {
            __m512i four = broadcast4(codes + (size_t)i * ld);
            GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p] = dot4(dot[i][p], four, line[p]);
        }
    }
}

/* Scores of 64 keys, and what is the largest so far in each lane. */
static void score_quad(const cvq_attention_block *kv, size_t quad, const uint8_t *q,
                       attention_tile *t, __m512 *largest) {
    __m512i dot[ROWS][PANELS];
    const size_t key = quad * ATTENTION_QUAD, panel_bytes = kv->steps * 64;
    GEMM_UNROLL for (int p = 0; p < PANELS; p++) {
        __m512i start = load_line(kv->key_start + key + 16 * (size_t)p);
        GEMM_UNROLL for (int i = 0; i < ROWS; i++) dot[i][p] = start;
    }
    multiply(PANELS, kv->steps, q, 4 * kv->steps, kv->keys + quad * PANELS * panel_bytes, 64,
             panel_bytes, dot);
    __m512 scale[PANELS];
    GEMM_UNROLL for (int p = 0; p < PANELS; p++) scale[p] =
        _mm512_loadu_ps(kv->key_scale + key + 16 * (size_t)p);
    GEMM_UNROLL for (int i = 0; i < ROWS; i++) {
        __m512 most = quad == 0 ? _mm512_set1_ps(-3e38f) : largest[i];
        GEMM_UNROLL for (int p = 0; p < PANELS; p++) {
            __m512 score = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[i][p]), scale[p]);
            _mm512_store_ps(t->scores[i] + key + 16 * p, score);
            most = _mm512_max_ps(score, most);
        }
        largest[i] = most;
    }
}

/* The maximum where the row does not see all that was computed; 0 where it sees nothing. */
static float largest_seen(const float *scores, size_t seen) {
    __m512 largest = _mm512_set1_ps(-3e38f);
    if (seen == 0) return 0;
    for (size_t j = 0; j < seen; j += 16) {
        __mmask16 lanes = (__mmask16)(seen - j >= 16 ? 0xffffu : (1u << (seen - j)) - 1);
        largest = _mm512_mask_max_ps(largest, lanes, _mm512_load_ps(scores + j), largest);
    }
    return _mm512_reduce_max_ps(largest);
}

GEMM_INLINE __m512 exp2_5(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(EXP2_LOWEST));
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(EXP2_5E), f, _mm512_set1_ps(EXP2_5D));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(EXP2_5C));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(EXP2_5B));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(EXP2_5A));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* Maxima and the factors of what was and of what comes; a lane is a row. Rows that see nothing
 * keep what they have. */
static void update_state(const cvq_attention_rows *r, size_t row, attention_tile *t) {
    const __mmask16 rows = (1u << ROWS) - 1;
    __mmask16 sees = 0;
    for (size_t i = 0; i < ROWS; i++)
        sees = (__mmask16)(sees | (unsigned)(r->seen[row + i] > 0) << i);
    __m512 scale = _mm512_maskz_loadu_ps(rows, r->q_scale + row);
    __m512 old = _mm512_maskz_loadu_ps(rows, r->max + row);
    __m512 largest = _mm512_load_ps(t->block_max), block_max = _mm512_mul_ps(largest, scale);
    __m512 max = _mm512_mask_max_ps(old, sees, old, block_max);
    _mm512_store_ps(t->offset, _mm512_fnmadd_ps(largest, scale, _mm512_set1_ps(WEIGHT_TOP)));
    _mm512_store_ps(t->before, exp2_5(_mm512_sub_ps(old, max)));
    _mm512_store_ps(t->now, _mm512_maskz_mov_ps(sees, exp2_5(_mm512_sub_ps(block_max, max))));
    _mm512_mask_storeu_ps(r->max + row, rows, max);
}

GEMM_INLINE __m512i weights_of(const float *scores, __m512 scale, __m512 offset) {
    __m512 x = _mm512_fmadd_ps(_mm512_load_ps(scores), scale, offset);
    x = _mm512_max_ps(x, _mm512_set1_ps(WEIGHT_LOWEST));
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(EXP2_3C), f, _mm512_set1_ps(EXP2_3B));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(EXP2_3A));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(EXP2_3D));
    return _mm512_cvtps_epi32(_mm512_scalef_ps(p, x));
}

/* Weights of a row and their sum. Packing puts 4 keys of each of 4 vectors side by side: the
 * permutation undoes that. */
static void weigh_row(const cvq_attention_rows *r, size_t row, size_t i, attention_tile *t) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512 scale = _mm512_set1_ps(r->q_scale[row + i]), offset = _mm512_set1_ps(t->offset[i]);
    __m512i sum = _mm512_setzero_si512();
    size_t seen = r->seen[row + i];
    for (size_t quad = 0; quad < t->quads; quad++) {
        const float *scores = t->scores[i] + quad * ATTENTION_QUAD;
        __m512i a = weights_of(scores, scale, offset), b = weights_of(scores + 16, scale, offset);
        __m512i c = weights_of(scores + 32, scale, offset);
        __m512i d = weights_of(scores + 48, scale, offset);
        __m512i x = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        x = _mm512_permutexvar_epi32(order, x);
        size_t first = quad * ATTENTION_QUAD;
        if (seen < first + ATTENTION_QUAD)
            x = _mm512_maskz_mov_epi8(seen <= first ? 0 : ((__mmask64)1 << (seen - first)) - 1, x);
        _mm512_store_si512(t->weights[i] + first, x);
        sum = dot4(sum, x, ones);
    }
    t->total[i] = _mm512_reduce_add_epi32(sum);
}

GEMM_INLINE void add_panels(const int panels, const cvq_attention_block *kv, size_t panel,
                            const attention_tile *t, float *out) {
    __m512i dot[ROWS][PANELS];
    GEMM_UNROLL for (int i = 0; i < ROWS; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p] = _mm512_setzero_si512();
    }
    multiply(panels, t->quads * (ATTENTION_QUAD / 4), t->weights[0], CVQ_ATTENTION_KEYS,
             kv->values + panel * 64, kv->panels * 64, 64, dot);
    out += panel * CVQ_PANEL_ROWS;
    GEMM_UNROLL for (int i = 0; i < ROWS; i++) {
        __m512 before = _mm512_set1_ps(t->before[i]), now = _mm512_set1_ps(t->now[i]);
        GEMM_UNROLL for (int p = 0; p < panels; p++) {
            float *at = out + (size_t)i * kv->panels * CVQ_PANEL_ROWS + 16 * p;
            __m512 scale = _mm512_loadu_ps(kv->value_scale + panel * CVQ_PANEL_ROWS + 16 * p);
            __m512 old = _mm512_mul_ps(_mm512_loadu_ps(at), before);
            _mm512_storeu_ps(
                at, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[i][p]), _mm512_mul_ps(scale, now), old));
        }
    }
}

static void add_values(const cvq_attention_block *kv, const attention_tile *t, float *out) {
    size_t panel = 0;
    for (; panel + 4 <= kv->panels; panel += 4) add_panels(4, kv, panel, t, out);
    switch (kv->panels - panel) {
    case 3:
        add_panels(3, kv, panel, t, out);
        break;
    case 2:
        add_panels(2, kv, panel, t, out);
        break;
    case 1:
        add_panels(1, kv, panel, t, out);
        break;
    default:
        break;
    }
}

void attend_int8_6x64__avx512(const cvq_attention_block *kv, const cvq_attention_rows *r,
                              size_t rows) {
    attention_tile t;
    memset(t.block_max, 0, sizeof t.block_max);
    for (size_t row = 0; row < rows; row += ROWS) {
        t.quads = attention_quads(r->seen + row);
        if (t.quads == 0) continue;
        __m512 largest[ROWS];
        for (size_t quad = 0; quad < t.quads; quad++)
            score_quad(kv, quad, r->q + row * 4 * kv->steps, &t, largest);
        for (size_t i = 0; i < ROWS; i++)
            t.block_max[i] = r->seen[row + i] < t.quads * ATTENTION_QUAD
                                 ? largest_seen(t.scores[i], r->seen[row + i])
                                 : _mm512_reduce_max_ps(largest[i]);
        update_state(r, row, &t);
        for (size_t i = 0; i < ROWS; i++) {
            float *sum = &r->sum[row + i];
            weigh_row(r, row, i, &t);
            *sum = fmaf((float)t.total[i], t.now[i], *sum * t.before[i]);
        }
        add_values(kv, &t, r->out + row * kv->panels * CVQ_PANEL_ROWS);
    }
}
