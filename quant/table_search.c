/* The search of q4t: value = d (table[code] + o - zero). One evaluation takes a scale and an
 * offset, assigns the nearest code to each weight, solves for the scale that suits these codes
 * best, rounds it to what can be stored, an f16 that ends in o, and takes the error of that. Which
 * scales and offsets are worth evaluating was chosen by measurement: docs/quantization-trials.md.
 */
#include "quant/scale_search_internal.h"

#define MAX_OFFSET 31
#define OFFSET_STEP 2
#define MAX_ENDS (2 * (MAX_OFFSET / OFFSET_STEP + 1))
#define ROUNDS 4
/* A scale puts the weight of largest magnitude at an end of the table times one of these: the first
 * everywhere, the others where the first came within NEAR of the best error. */
static const float first_factor = 0.94f;
static const float other_factors[2] = {0.87f, 1.01f};
#define NEAR 2.0f
/* Neighbours in scale: about one step of an f16 whose last five bits are taken. */
#define STEP 1.03f

/* What a search goes by. */
typedef struct search {
    const cvq_search *s;
    cvq_search_midpoints table;
    void (*try_table)(const cvq_search *s, const cvq_search_midpoints *t, cvq_search_trial *trials,
                      size_t count);
    float zero; /* of the table */
    float last; /* its last entry; the first is 0 */
} search;

static search start(const cvq_search_loops *loops, const cvq_codebook *c, const cvq_search *s) {
    return (search){s, cvq_search_midpoints_of(c), loops->try_table, c->zero, c->table[15]};
}

/* The f16 nearest to d among those whose five lowest bits are `offset`; finite. */
static uint16_t encode(float d, uint32_t offset) {
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

static cvq_search_trial trial_of(const search *t, float d, int offset) {
    return (cvq_search_trial){.d = d, .shift = (float)offset - t->zero};
}

/* Returns the error of what the trial led to, and keeps it if it is the best. */
static float judge(const search *t, const cvq_search_trial *trial, cvq_choice *best) {
    const cvq_search *s = t->s;
    const float wxq = trial->wxq, wqq = trial->wqq;
    if (!(wqq > 0.0f)) return s->sum_wxx;
    const float fit = wxq / wqq, bound = s->sum_wxx - fit * wxq;
    if (bound >= best->error) return bound; /* no rounding makes it better than unrounded */
    const uint16_t scale = encode(fit * s->from_unit, (uint32_t)(trial->shift + t->zero));
    const float stored = cvq_search_scale(s, scale);
    const float error = s->sum_wxx - stored * (2.0f * wxq - stored * wqq);
    if (error < best->error) {
        best->error = error;
        best->scale = scale;
    }
    return error;
}

static void judge_all(const search *t, cvq_search_trial *trials, size_t count, cvq_choice *best) {
    t->try_table(t->s, &t->table, trials, count);
    for (size_t i = 0; i < count; i++) judge(t, &trials[i], best);
}

/* The scale that puts the peak at an end (0 or 15) of the table moved by offset; 0 if that end is
 * then 0 itself. */
static float scale_at_end(const search *t, int end, int offset) {
    float q = (end ? t->last : 0.0f) - t->zero + (float)offset;
    return q == 0.0f ? 0.0f : t->s->peak / q;
}

static void try_ends(const search *t, cvq_choice *best) {
    cvq_search_trial first[MAX_ENDS], others[2 * MAX_ENDS];
    float at_end[MAX_ENDS], error[MAX_ENDS];
    size_t ends = 0, count = 0;
    for (int end = 0; end < 2; end++)
        for (int o = 0; o <= MAX_OFFSET; o += OFFSET_STEP) {
            const float d = scale_at_end(t, end, o);
            if (d == 0.0f) continue;
            at_end[ends] = d;
            first[ends++] = trial_of(t, d * first_factor, o);
        }
    t->try_table(t->s, &t->table, first, ends);
    for (size_t i = 0; i < ends; i++) error[i] = judge(t, &first[i], best);
    const float limit = best->error * NEAR;
    for (size_t i = 0; i < ends; i++)
        for (int f = 0; f < 2 && !(error[i] > limit); f++)
            others[count++] =
                (cvq_search_trial){.d = at_end[i] * other_factors[f], .shift = first[i].shift};
    judge_all(t, others, count, best);
}

/* Step to better neighbours of the best until there is none. */
static void try_neighbours(const search *t, cvq_choice *best) {
    for (int round = 0; round < ROUNDS; round++) {
        const cvq_choice before = *best;
        const float d = cvq_search_scale(t->s, before.scale);
        cvq_search_trial trials[9];
        size_t count = 0;
        if (d == 0.0f) return;
        for (int change = -1; change <= 1; change++) {
            const int offset = (int)(before.scale & 31u) + change;
            if (offset < 0 || offset > MAX_OFFSET) continue;
            trials[count++] = trial_of(t, d, offset);
            trials[count++] = trial_of(t, d * STEP, offset);
            trials[count++] = trial_of(t, d / STEP, offset);
        }
        judge_all(t, trials, count, best);
        if (best->scale == before.scale) return;
    }
}

cvq_choice cvq_search_table(const cvq_search_loops *loops, const cvq_codebook *codebook,
                            const cvq_search *s) {
    const search t = start(loops, codebook, s);
    cvq_choice best = {s->sum_wxx, 0};
    try_ends(&t, &best);
    try_neighbours(&t, &best);
    return best;
}
