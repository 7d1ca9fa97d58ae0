/* Attention in int8 for vectors of up to 8 floats, included once by each attention_SET.c but
 * AVX-512's. A tile is a panel of 16 lanes (keys for scores, dimensions for results) x 6 rows. The
 * file that includes this defines before:
 * ATTEND                        the kernel's name
 * V, I, W                       vectors of W floats, of W 32-bit integers
 * v_load, v_store, v_set, v_mul, v_sub, v_fma(a, b, c) = a b + c, v_max (b where a is a NaN),
 * v_addend(NAME)                v_set of one of the numbers of 2^x of degree 3
 * v_floor, v_whole              floats; v_whole converts integers
 * v_nearest                     to integers
 * v_raise(x, e)                 x 2^n for results within the normal numbers, e being n 2^23, where
 *                               a float's exponent is
 * v_split(x, e)                 of 1 <= x < 64: the fraction, and *e of what is whole
 * pack32(x, to)                 32 integers of 0 .. 255 as bytes
 * sum_bytes(p)                  of 32 bytes
 * v_largest                     across the vector
 * tile_codes, load_codes(steps, codes, ld, tile_codes)
 *                               a tile's codes, ld bytes from row to row, as the dots read them
 * key_dots, value_dots(steps, tile_codes, lines, step_bytes, dot)
 *                               dot[i] += sum over steps of codes[i][4 step ..] x a line; lines are
 *                               step_bytes apart
 * key_begin(kv, key), value_begin(total)
 *                               what their sums start from: the block's key_start, and 0; where
 *                               codes are taken as signed, or values as unsigned, what makes up
 *                               for that (total: the sum of the row's weights)
 * and where lines are to be brought into another form once for all tiles of a block:
 * PREPARED_ROWS                 for so many rows at least
 * prepare_lines(kv, attention_memory)
 *                               gives the attention_lines that are made in the memory
 * prepared_dots                 of keys or values, like key_dots */
#include <string.h>

#include "runtime/kernels/attention_kernel.h"

#define ROWS CVQ_ATTENTION_ROWS
#define PARTS (CVQ_PANEL_ROWS / W) /* vectors of a panel */
#ifndef PREPARED_ROWS
#define prepared_dots key_dots /* for the compiler: never called */
#endif

/* Scores of a panel of keys, and what is the largest so far in each lane. */
GEMM_INLINE void score_panel(const bool prepared, const cvq_attention_block *kv,
                             const attention_lines *lines, size_t panel, const tile_codes *q,
                             attention_tile *t, float (*largest)[W]) {
    I dot[ROWS][PARTS];
    const size_t key = panel * CVQ_PANEL_ROWS;
    GEMM_UNROLL for (int p = 0; p < PARTS; p++) {
        I start = key_begin(kv, key + W * (size_t)p);
        GEMM_UNROLL for (int i = 0; i < ROWS; i++) dot[i][p] = start;
    }
    const int8_t *line = lines->keys + panel * lines->key_panel;
    if (prepared)
        prepared_dots(kv->steps, q, line, lines->key_step, dot);
    else
        key_dots(kv->steps, q, line, lines->key_step, dot);
    GEMM_UNROLL for (int p = 0; p < PARTS; p++) {
        V scale = v_load(kv->key_scale + key + W * (size_t)p);
        GEMM_UNROLL for (int i = 0; i < ROWS; i++) {
            V score = v_mul(v_whole(dot[i][p]), scale);
            v_store(t->scores[i] + key + W * (size_t)p, score);
            v_store(largest[i], v_max(score, v_load(largest[i])));
        }
    }
}

/* The maximum where the row does not see all that was computed; 0 where it sees nothing. */
static float largest_of(const float *scores, size_t seen) {
    V most = v_set(-3e38f);
    size_t j = 0;
    for (; j + W <= seen; j += W) most = v_max(v_load(scores + j), most);
    float largest = seen > 0 ? v_largest(most) : 0;
    for (; j < seen; j++) largest = scores[j] > largest ? scores[j] : largest;
    return largest;
}

GEMM_INLINE V exp2_5(V x) {
    x = v_max(x, v_set(EXP2_LOWEST));
    V n = v_floor(x), f = v_sub(x, n), p = v_fma(v_set(EXP2_5E), f, v_set(EXP2_5D));
    p = v_fma(p, f, v_set(EXP2_5C));
    p = v_fma(p, f, v_set(EXP2_5B));
    p = v_fma(p, f, v_set(EXP2_5A));
    p = v_fma(p, f, v_set(1.0f));
    return v_raise(p, v_exponent(v_nearest(n)));
}

/* Maxima and the factors of what was and of what comes; a lane is a row. Rows that see nothing
 * keep what they have. */
static void update_state(const cvq_attention_rows *r, size_t row, attention_tile *t) {
    float scale[8] = {0}, old[8] = {0}, max[8];
    memcpy(scale, r->q_scale + row, ROWS * sizeof *scale);
    memcpy(old, r->max + row, ROWS * sizeof *old);
    for (size_t i = 0; i < 8; i += W) {
        V largest = v_load(t->block_max + i), factor = v_load(scale + i);
        V block_max = v_mul(largest, factor), most = v_max(v_load(old + i), block_max);
        v_store(t->offset + i, v_fma(v_sub(v_set(0), largest), factor, v_set(WEIGHT_TOP)));
        v_store(max + i, most);
        v_store(t->before + i, exp2_5(v_sub(v_load(old + i), most)));
        v_store(t->now + i, exp2_5(v_sub(block_max, most)));
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (r->seen[row + i] > 0) {
            r->max[row + i] = max[i];
        } else {
            t->before[i] = 1;
            t->now[i] = 0;
        }
    }
}

GEMM_INLINE I weights_of(const float *scores, V scale, V offset) {
    V x = v_max(v_fma(v_load(scores), scale, offset), v_set(WEIGHT_LOWEST));
    I e;
    V f = v_split(x, &e), p = v_fma(v_set(EXP2_3C), f, v_addend(EXP2_3B));
    p = v_fma(p, f, v_addend(EXP2_3A));
    p = v_fma(p, f, v_addend(EXP2_3D));
    return v_nearest(v_raise(p, e));
}

/* Weights of a row and their sum. */
static void weigh_row(const cvq_attention_rows *r, size_t row, size_t i, attention_tile *t) {
    V scale = v_set(r->q_scale[row + i]), offset = v_set(t->offset[i]);
    size_t seen = r->seen[row + i], keys = t->quads * ATTENTION_QUAD;
    for (size_t j = 0; j < keys; j += 32) {
        I x[32 / W];
        GEMM_UNROLL for (size_t p = 0; p < 32 / W; p++) x[p] =
            weights_of(t->scores[i] + j + p * W, scale, offset);
        pack32(x, t->weights[i] + j);
    }
    if (seen < keys) memset(t->weights[i] + seen, 0, keys - seen);
    uint32_t sum = 0;
    for (size_t j = 0; j < keys; j += 32) sum += sum_bytes(t->weights[i] + j);
    t->total[i] = (int32_t)sum;
}

GEMM_INLINE void add_panel(const bool prepared, const cvq_attention_block *kv,
                           const attention_lines *lines, size_t panel, const tile_codes *weights,
                           const attention_tile *t, float *out) {
    I dot[ROWS][PARTS];
    GEMM_UNROLL for (int i = 0; i < ROWS; i++) {
        GEMM_UNROLL for (int p = 0; p < PARTS; p++) dot[i][p] = value_begin(t->total[i]);
    }
    const int8_t *line = lines->values + panel * lines->value_panel;
    const size_t steps = t->quads * (ATTENTION_QUAD / 4);
    if (prepared)
        prepared_dots(steps, weights, line, lines->value_step, dot);
    else
        value_dots(steps, weights, line, lines->value_step, dot);
    GEMM_UNROLL for (int i = 0; i < ROWS; i++) {
        V before = v_set(t->before[i]), now = v_set(t->now[i]);
        float *at = out + ((size_t)i * kv->panels + panel) * CVQ_PANEL_ROWS;
        GEMM_UNROLL for (int p = 0; p < PARTS; p++) {
            V scale = v_load(kv->value_scale + panel * CVQ_PANEL_ROWS + W * (size_t)p);
            V old = v_mul(v_load(at + W * p), before);
            v_store(at + W * p, v_fma(v_whole(dot[i][p]), v_mul(scale, now), old));
        }
    }
}

GEMM_INLINE void attend(const bool prepared, const cvq_attention_block *kv,
                        const attention_lines *lines, const cvq_attention_rows *r, size_t rows) {
    attention_tile t;
    tile_codes codes;
    memset(t.block_max, 0, sizeof t.block_max);
    for (size_t row = 0; row < rows; row += ROWS) {
        t.quads = attention_quads(r->seen + row);
        if (t.quads == 0) continue;
        float largest[ROWS][W];
        for (size_t i = 0; i < ROWS; i++) v_store(largest[i], v_set(-3e38f));
        load_codes(kv->steps, r->q + row * 4 * kv->steps, 4 * kv->steps, &codes);
        for (size_t panel = 0; panel < t.quads * 4; panel++)
            score_panel(prepared, kv, lines, panel, &codes, &t, largest);
        for (size_t i = 0; i < ROWS; i++)
            t.block_max[i] = r->seen[row + i] < t.quads * ATTENTION_QUAD
                                 ? largest_of(t.scores[i], r->seen[row + i])
                                 : v_largest(v_load(largest[i]));
        update_state(r, row, &t);
        for (size_t i = 0; i < ROWS; i++) {
            float *sum = &r->sum[row + i];
            weigh_row(r, row, i, &t);
            *sum = fmaf((float)t.total[i], t.now[i], *sum * t.before[i]);
        }
        load_codes(t.quads * (ATTENTION_QUAD / 4), t.weights[0], CVQ_ATTENTION_KEYS, &codes);
        for (size_t panel = 0; panel < kv->panels; panel++)
            add_panel(prepared, kv, lines, panel, &codes, &t,
                      r->out + row * kv->panels * CVQ_PANEL_ROWS);
    }
}

#ifdef PREPARED_ROWS
static void attend_prepared(const cvq_attention_block *kv, const cvq_attention_rows *r,
                            size_t rows) {
    attention_memory memory;
    const attention_lines lines = prepare_lines(kv, &memory);
    attend(true, kv, &lines, r, rows);
}
#endif

void ATTEND(const cvq_attention_block *kv, const cvq_attention_rows *r, size_t rows) {
#ifdef PREPARED_ROWS
    if (rows >= PREPARED_ROWS && kv->steps <= ATTENTION_PREPARED_STEPS &&
        kv->panels <= ATTENTION_PREPARED_PANELS) {
        attend_prepared(kv, r, rows);
        return;
    }
#endif
    const attention_lines lines = attention_lines_of(kv);
    attend(false, kv, &lines, r, rows);
}
