/* The search of the types with a table: value = d (table[code] + o - zero). One evaluation takes a
 * scale and an offset, assigns the nearest code to each weight, solves for the scale that suits
 * these codes best, rounds it to what can be stored - in q4t to an f16 that ends in o, in q4s to a
 * level of the row's scale - and takes the error of that. Which scales and offsets are worth
 * evaluating was chosen by measurement: docs/quantization.md. */
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
    search out = {.s = s, .try_table = loops->try_table, .zero = c->zero, .last = c->table[15]};
    memcpy(out.table.entry, c->table, sizeof out.table.entry);
    for (int j = 0; j < 15; j++)
        out.table.below[j] = (int8_t)(c->table[j] + c->table[j + 1] - 1 - 128);
    return out;
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

/* ---------------------------------------------------------------- q4s */

#define OFFSETS 4 /* offset o moves the table by 5 + 4 o */
#define FACTORS 3
/* Free scales within this of the best error are worth rounding to levels. */
#define LEVEL_NEAR 1.5f

/* One end of the table at one offset, with the scale that its codes want. */
typedef struct free_scale {
    float d, error; /* before rounding */
} free_scale;

static float shift_of(const search *t, int offset) {
    return (float)(5 + 4 * offset) - t->zero;
}

/* The best scale with no regard to levels for each end and offset; returns the least error. */
static float free_scales(const search *t, free_scale *out) {
    static const float factors[FACTORS] = {0.87f, 0.94f, 1.01f};
    const cvq_search *s = t->s;
    cvq_search_trial trials[2 * OFFSETS * FACTORS];
    int place[2 * OFFSETS * FACTORS]; /* in out */
    float least = s->sum_wxx;
    size_t count = 0;
    for (int i = 0; i < 2 * OFFSETS; i++) {
        const float shift = shift_of(t, i / 2), end = (i & 1 ? t->last : 0.0f) + shift;
        out[i] = (free_scale){0.0f, s->sum_wxx};
        for (int f = 0; f < FACTORS && end != 0.0f; f++) {
            place[count] = i;
            trials[count++] = (cvq_search_trial){.d = s->peak / end * factors[f], .shift = shift};
        }
    }
    t->try_table(s, &t->table, trials, count);
    for (size_t k = 0; k < count; k++) {
        free_scale *o = &out[place[k]];
        if (!(trials[k].wqq > 0.0f)) continue;
        const float d = trials[k].wxq / trials[k].wqq, error = s->sum_wxx - d * trials[k].wxq;
        if (error < o->error && d != 0.0f) *o = (free_scale){d, error};
        least = o->error < least ? o->error : least;
    }
    return least;
}

float cvq_search_free_scale(const cvq_search_loops *loops, const cvq_codebook *codebook,
                            const cvq_search *s) {
    const search t = start(loops, codebook, s);
    free_scale found[2 * OFFSETS];
    const float least = free_scales(&t, found);
    for (int i = 0; i < 2 * OFFSETS; i++)
        if (found[i].d != 0.0f && found[i].error == least) return found[i].d;
    return 0.0f;
}

/* The first level that is not below d / row, 1 .. 31. */
static int level_above(float levels) {
    int level = 1;
    while (level < 31 && (float)cvq_q4s_levels[level] < levels) level++;
    return level;
}

/* A level on trial, as the file has it. */
typedef struct level_trials {
    cvq_search_trial trials[4 * OFFSETS];
    uint16_t scales[4 * OFFSETS];
    size_t count;
} level_trials;

/* The levels on both sides of a scale d, with the sign of d. row is in the block's units. */
static void add_levels(const search *t, float row, float d, int offset, level_trials *out) {
    const bool negative = d / row < 0.0f;
    const int above = level_above(negative ? -d / row : d / row);
    for (int level = above; level >= above - 1 && level > 0; level--) {
        out->scales[out->count] = (uint16_t)(level | offset << 5 | (negative ? 128 : 0));
        out->trials[out->count++] =
            (cvq_search_trial){.d = (float)cvq_q4s_levels[level] * (negative ? -row : row),
                               .shift = shift_of(t, offset)};
    }
}

cvq_choice cvq_search_levels(const cvq_search_loops *loops, const cvq_codebook *codebook,
                             float row_scale, const cvq_search *s) {
    const search t = start(loops, codebook, s);
    const float row = row_scale * s->to_unit;
    free_scale found[2 * OFFSETS];
    level_trials near = {.count = 0};
    cvq_choice best = {s->sum_wxx, 0};
    const float least = free_scales(&t, found);
    /* An exact fit may come out a little below zero. */
    const float limit = (least > 0.0f ? least * LEVEL_NEAR : 0.0f) + 1e-6f * s->sum_wxx;
    for (int i = 0; i < 2 * OFFSETS; i++)
        if (found[i].d != 0.0f && found[i].error <= limit)
            add_levels(&t, row, found[i].d, i / 2, &near);
    t.try_table(s, &t.table, near.trials, near.count);
    for (size_t k = 0; k < near.count; k++) {
        const cvq_search_trial *o = &near.trials[k];
        const float error = s->sum_wxx - o->d * (2.0f * o->wxq - o->d * o->wqq);
        if (error < best.error) best = (cvq_choice){error, near.scales[k]};
    }
    return best;
}
