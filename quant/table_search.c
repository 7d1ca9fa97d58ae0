/* q4t's search: value = d (table[code] + o - zero), where the offset o is the five lowest mantissa
 * bits of the f16 scale d. One evaluation takes a scale and an offset, assigns the nearest code to
 * each weight, solves for the scale that suits these codes best, rounds it to an f16 that ends in
 * o, and takes the error of what would be stored. Which scales and offsets are worth evaluating was
 * chosen by measurement: docs/quantization.md.
 *
 * Everything is written so that a compiler makes vectors of it without being allowed to reorder
 * anything: four weights travel as the bytes of one 32-bit lane, and sums have a fixed order. */
#include "quant/scale_search_internal.h"

/* All of it goes into the two functions at the end, so that one of them can be compiled for AVX2:
 * the same operations in the same order, only more of them at once. */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#define BLOCK 32
#define WORDS (BLOCK / 4)
#define MAX_OFFSET 31
#define OFFSET_STEP 2
#define ROUNDS 4
/* A scale puts the weight of largest magnitude at an end of the table times one of these: the first
 * everywhere, the others where the first came within NEAR of the best error. */
static const float first_factor = 0.94f;
static const float other_factors[2] = {0.87f, 1.01f};
#define NEAR 2.0f
/* Neighbours in scale: about one step of an f16 whose last five bits are taken. */
#define STEP 1.03f

typedef struct table {
    /* A weight at t = 2 (x / d + zero - o), cut to 0 .. 255 and down to an integer, belongs to the
     * first entry whose midpoint with the next is above it. Twice a midpoint is an integer, so
     * comparing integers loses nothing. Less 128: signed bytes compare in one instruction. */
    int8_t below[15];
    int8_t rise[15]; /* table[j + 1] - table[j] */
    float zero;
    float last; /* table[15]; table[0] is 0 */
} table;

static void table_init(table *t, const cvq_codebook *c) {
    for (int j = 0; j < 15; j++) {
        t->below[j] = (int8_t)(c->table[j] + c->table[j + 1] - 1 - 128);
        t->rise[j] = (int8_t)(c->table[j + 1] - c->table[j]);
    }
    t->zero = (float)c->zero;
    t->last = (float)c->table[15];
}

/* Doubled and cut positions of the 32 weights: byte k of word j is weight 8 k + j, less 128. */
INLINE void positions(const float *x, float per_step, float start, uint32_t *words) {
    for (int j = 0; j < WORDS; j++) {
        float a = x[j] * per_step + start, b = x[8 + j] * per_step + start;
        float c = x[16 + j] * per_step + start, d = x[24 + j] * per_step + start;
        a = a > 0.0f ? a : 0.0f;
        b = b > 0.0f ? b : 0.0f;
        c = c > 0.0f ? c : 0.0f;
        d = d > 0.0f ? d : 0.0f;
        a = a < 255.0f ? a : 255.0f;
        b = b < 255.0f ? b : 255.0f;
        c = c < 255.0f ? c : 255.0f;
        d = d < 255.0f ? d : 255.0f;
        words[j] = ((uint32_t)(int32_t)a | (uint32_t)(int32_t)b << 8 | (uint32_t)(int32_t)c << 16 |
                    (uint32_t)(int32_t)d << 24) ^
                   0x80808080u;
    }
}

/* The nearest entries' values, 0 .. 127, byte by byte. */
INLINE void nearest(const table *t, const uint32_t *at, uint32_t *values) {
    int8_t position[BLOCK], value[BLOCK] = {0};
    memcpy(position, at, BLOCK);
    for (int j = 0; j < 15; j++) {
        const int8_t below = t->below[j], rise = t->rise[j];
        for (int i = 0; i < BLOCK; i++)
            value[i] = (int8_t)(value[i] + (-(position[i] > below) & rise));
    }
    memcpy(values, value, BLOCK);
}

/* *wxq = sum w x q and *wqq = sum w q^2 for q = value + shift. */
INLINE void moments(const cvq_search *s, const uint32_t *values, float shift, float *wxq,
                    float *wqq) {
    const float *w = s->w, *wx = s->wx;
    float first[WORDS], second[WORDS];
    for (int j = 0; j < WORDS; j++) {
        float a = (float)(int32_t)(values[j] & 255) + shift;
        float b = (float)(int32_t)(values[j] >> 8 & 255) + shift;
        float c = (float)(int32_t)(values[j] >> 16 & 255) + shift;
        float d = (float)(int32_t)(values[j] >> 24) + shift;
        first[j] = (wx[j] * a + wx[8 + j] * b) + (wx[16 + j] * c + wx[24 + j] * d);
        second[j] = (w[j] * a * a + w[8 + j] * b * b) + (w[16 + j] * c * c + w[24 + j] * d * d);
    }
    *wxq = cvq_search_join(first);
    *wqq = cvq_search_join(second);
}

/* The f16 nearest to d among those whose five lowest bits are `offset`; finite. */
INLINE uint16_t encode(float d, uint32_t offset) {
    const uint32_t bits = cvq_f32_bits(d), sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    /* The place among the f16 numbers, 0x0000 the first, in 1/8192: they are evenly spaced below
     * 2^-14, and from there on an f32's bits count them. */
    int64_t place = (int64_t)magnitude - 0x38000000;
    if (magnitude < 0x38800000u) place = (int64_t)(cvq_bits_f32(magnitude) * 0x1p37f);
    int64_t nearest_step = (place - ((int64_t)offset << 13) + (1 << 17)) / (1 << 18);
    if (place < (int64_t)offset << 13) nearest_step = 0;
    if (nearest_step > 0x3df) nearest_step = 0x3df; /* 0x7be0 + offset: the last below infinity */
    return (uint16_t)(sign | (uint32_t)nearest_step << 5 | offset);
}

/* Returns the error of what the scale d (in the block's units) with this offset leads to, and keeps
 * it if it is the best. d is not 0. */
INLINE float evaluate(const cvq_search *s, const table *t, float d, int offset, cvq_choice *best) {
    uint32_t at[WORDS], values[WORDS];
    const float shift = (float)offset - t->zero, per_step = 2.0f / d;
    float wxq, wqq;
    positions(s->x, per_step, -2.0f * shift, at);
    nearest(t, at, values);
    moments(s, values, shift, &wxq, &wqq);
    if (!(wqq > 0.0f)) return s->sum_wxx;
    const float fit = wxq / wqq, bound = s->sum_wxx - fit * wxq;
    if (bound >= best->error) return bound; /* no rounding makes it better than unrounded */
    const uint16_t scale = encode(fit * s->from_unit, (uint32_t)offset);
    const float stored = cvq_search_scale(s, scale);
    const float error = s->sum_wxx - stored * (2.0f * wxq - stored * wqq);
    if (error < best->error) {
        best->error = error;
        best->scale = scale;
    }
    return error;
}

/* The scale that puts the peak at an end (0 or 15) of the table moved by offset; 0 if that end is
 * then 0 itself. */
INLINE float scale_at_end(const cvq_search *s, const table *t, int end, int offset) {
    float q = (end ? t->last : 0.0f) - t->zero + (float)offset;
    return q == 0.0f ? 0.0f : s->peak / q;
}

INLINE void try_ends(const cvq_search *s, const table *t, cvq_choice *best) {
    float error[2][MAX_OFFSET / OFFSET_STEP + 1];
    for (int end = 0; end < 2; end++)
        for (int o = 0; o <= MAX_OFFSET; o += OFFSET_STEP) {
            float d = scale_at_end(s, t, end, o);
            error[end][o / OFFSET_STEP] =
                d == 0.0f ? s->sum_wxx : evaluate(s, t, d * first_factor, o, best);
        }
    const float limit = best->error * NEAR;
    for (int end = 0; end < 2; end++)
        for (int o = 0; o <= MAX_OFFSET; o += OFFSET_STEP) {
            float d = scale_at_end(s, t, end, o);
            if (d == 0.0f || error[end][o / OFFSET_STEP] > limit) continue;
            for (int f = 0; f < 2; f++) evaluate(s, t, d * other_factors[f], o, best);
        }
}

/* Step to better neighbours of the best until there is none. */
INLINE void try_neighbours(const cvq_search *s, const table *t, cvq_choice *best) {
    for (int round = 0; round < ROUNDS; round++) {
        const cvq_choice before = *best;
        const float d = cvq_search_scale(s, before.scale);
        if (d == 0.0f) return;
        for (int change = -1; change <= 1; change++) {
            int offset = (int)(before.scale & 31u) + change;
            if (offset < 0 || offset > MAX_OFFSET) continue;
            evaluate(s, t, d, offset, best);
            evaluate(s, t, d * STEP, offset, best);
            evaluate(s, t, d / STEP, offset, best);
        }
        if (best->scale == before.scale) return;
    }
}

INLINE cvq_choice search(const cvq_codebook *codebook, const cvq_search *s) {
    table t;
    table_init(&t, codebook);
    cvq_choice best = {s->sum_wxx, 0};
    try_ends(s, &t, &best);
    try_neighbours(s, &t, &best);
    return best;
}

#if defined(__GNUC__) && defined(__x86_64__)
__attribute__((target("avx2"))) static cvq_choice search_avx2(const cvq_codebook *codebook,
                                                              const cvq_search *s) {
    return search(codebook, s);
}

cvq_choice cvq_search_table(const cvq_codebook *codebook, const cvq_search *s) {
    return __builtin_cpu_supports("avx2") ? search_avx2(codebook, s) : search(codebook, s);
}
#else
cvq_choice cvq_search_table(const cvq_codebook *codebook, const cvq_search *s) {
    return search(codebook, s);
}
#endif
