/* The search of the types with a table: value = d (table[code] + o - zero). One evaluation takes a
 * scale and an offset, assigns the nearest code to each weight, solves for the scale that suits
 * these codes best, rounds it to what can be stored - in q4t to an f16 that ends in o, in q4s to a
 * level of the row's scale - and takes the error of that. Which scales and offsets are worth
 * evaluating was chosen by measurement: docs/quantization.md.
 *
 * Everything is written so that a compiler makes vectors of it without being allowed to reorder
 * anything: four weights travel as the bytes of one 32-bit lane, and sums have a fixed order. */
#include "quant/scale_search_internal.h"

/* All of it goes into the functions at the end, which are compiled for AVX2 as well: the same
 * operations in the same order, only more of them at once. */
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

INLINE cvq_choice search_table(const cvq_codebook *codebook, const cvq_search *s) {
    table t;
    table_init(&t, codebook);
    cvq_choice best = {s->sum_wxx, 0};
    try_ends(s, &t, &best);
    try_neighbours(s, &t, &best);
    return best;
}

/* ---------------------------------------------------------------- q4s */

#define OFFSETS 4 /* offset o moves the table by 5 + 4 o */
/* Free scales within this of the best error are worth rounding to levels. */
#define LEVEL_NEAR 1.5f

/* One end of the table at one offset, with the scale that its codes want. */
typedef struct free_scale {
    float d, error; /* before rounding */
} free_scale;

/* *wxq and *wqq of the nearest codes for d. */
INLINE void fit(const cvq_search *s, const table *t, float d, float shift, float *wxq, float *wqq) {
    uint32_t at[WORDS], values[WORDS];
    positions(s->x, 2.0f / d, -2.0f * shift, at);
    nearest(t, at, values);
    moments(s, values, shift, wxq, wqq);
}

INLINE float shift_of(const table *t, int offset) {
    return (float)(5 + 4 * offset) - t->zero;
}

/* The best scale with no regard to levels for each end and offset; returns the least error. */
INLINE float free_scales(const cvq_search *s, const table *t, free_scale *out) {
    static const float factors[] = {0.87f, 0.94f, 1.01f};
    float least = s->sum_wxx;
    for (int i = 0; i < 2 * OFFSETS; i++) {
        const float shift = shift_of(t, i / 2), end = (i & 1 ? t->last : 0.0f) + shift;
        out[i] = (free_scale){0.0f, s->sum_wxx};
        for (int f = 0; f < 3 && end != 0.0f; f++) {
            float wxq, wqq;
            fit(s, t, s->peak / end * factors[f], shift, &wxq, &wqq);
            if (!(wqq > 0.0f)) continue;
            const float d = wxq / wqq, error = s->sum_wxx - d * wxq;
            if (error < out[i].error && d != 0.0f) out[i] = (free_scale){d, error};
        }
        least = out[i].error < least ? out[i].error : least;
    }
    return least;
}

INLINE float search_free(const cvq_codebook *codebook, const cvq_search *s) {
    table t;
    free_scale found[2 * OFFSETS];
    table_init(&t, codebook);
    const float least = free_scales(s, &t, found);
    for (int i = 0; i < 2 * OFFSETS; i++)
        if (found[i].d != 0.0f && found[i].error == least) return found[i].d;
    return 0.0f;
}

/* The first level that is not below d / row, 1 .. 31. */
INLINE int level_above(float levels) {
    int level = 1;
    while (level < 31 && (float)cvq_q4s_levels[level] < levels) level++;
    return level;
}

/* The levels on both sides of a scale d, with the sign of d. row is in the block's units. */
INLINE void try_levels(const cvq_search *s, const table *t, float row, float d, int offset,
                       cvq_choice *best) {
    const bool negative = d / row < 0.0f;
    const int above = level_above(negative ? -d / row : d / row);
    const float shift = shift_of(t, offset);
    for (int level = above; level >= above - 1 && level > 0; level--) {
        const float value = (float)cvq_q4s_levels[level] * (negative ? -row : row);
        float wxq, wqq;
        fit(s, t, value, shift, &wxq, &wqq);
        const float error = s->sum_wxx - value * (2.0f * wxq - value * wqq);
        if (error < best->error) {
            best->error = error;
            best->scale = (uint16_t)(level | offset << 5 | (negative ? 128 : 0));
        }
    }
}

INLINE cvq_choice search_levels(const cvq_codebook *codebook, float row, const cvq_search *s) {
    table t;
    free_scale found[2 * OFFSETS];
    cvq_choice best = {s->sum_wxx, 0};
    table_init(&t, codebook);
    const float least = free_scales(s, &t, found);
    /* An exact fit may come out a little below zero. */
    const float limit = (least > 0.0f ? least * LEVEL_NEAR : 0.0f) + 1e-6f * s->sum_wxx;
    for (int i = 0; i < 2 * OFFSETS; i++)
        if (found[i].d != 0.0f && found[i].error <= limit)
            try_levels(s, &t, row, found[i].d, i / 2, &best);
    return best;
}

/* ---------------------------------------------------------------- compiled twice */

#if defined(__GNUC__) && defined(__x86_64__)
#define AVX2 __attribute__((target("avx2"))) static
AVX2 cvq_choice search_table_avx2(const cvq_codebook *codebook, const cvq_search *s) {
    return search_table(codebook, s);
}
AVX2 cvq_choice search_levels_avx2(const cvq_codebook *codebook, float row, const cvq_search *s) {
    return search_levels(codebook, row, s);
}
AVX2 float search_free_avx2(const cvq_codebook *codebook, const cvq_search *s) {
    return search_free(codebook, s);
}
#define CHOOSE(function, ...)                                                                      \
    (__builtin_cpu_supports("avx2") ? function##_avx2(__VA_ARGS__) : function(__VA_ARGS__))
#else
#define CHOOSE(function, ...) function(__VA_ARGS__)
#endif

cvq_choice cvq_search_table(const cvq_codebook *codebook, const cvq_search *s) {
    return CHOOSE(search_table, codebook, s);
}
cvq_choice cvq_search_levels(const cvq_codebook *codebook, float row_scale, const cvq_search *s) {
    return CHOOSE(search_levels, codebook, row_scale * s->to_unit, s);
}
float cvq_search_free_scale(const cvq_codebook *codebook, const cvq_search *s) {
    return CHOOSE(search_free, codebook, s);
}
