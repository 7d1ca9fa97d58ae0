/* The search of q4h: each half of a block has its own table and offset, and both share a level, so
 * for each level on trial the best of either half is found by itself. Which levels and offsets are
 * worth a trial was chosen by measurement: docs/quantization-trials.md. */
#include "quant/scale_search_internal.h"

#define LEVELS 256
/* The steps from zero at which the level may put the block's largest magnitude. */
#define NEAREST 28.0f
#define FURTHEST 74.0f
#define STEP 3       /* of the levels tried first, with every other offset */
#define REFINED 5    /* the best of them, which are tried with the offsets in between too */
#define SURROUNDED 3 /* the best of those, whose neighbours are tried with all offsets */
#define MAX_TRIALS 16

/* A level, with the best choice for each half so far. */
typedef struct level_trial {
    int level;
    float error[2]; /* of each half, in the block's units */
    uint16_t bits[2];
} level_trial;

static float error_of(const level_trial *o) {
    return o->error[0] + o->error[1];
}

static float scale_of(const cvq_search *s, int level) {
    return cvq_scale_decode(CVQ_TYPE_Q4H, NULL, 1.0f, (uint16_t)(level << 8)).d * s->to_unit;
}

/* The last level whose scale is not above d, in the block's units; 0 if there is none. */
static int level_below(const cvq_search *s, float d) {
    const uint32_t bits = cvq_f32_bits(d * s->from_unit), first = 0x36800000u;
    const uint32_t level = bits > first ? (bits - first) >> 19 : 0;
    return (int)(level < LEVELS ? level : LEVELS - 1);
}

/* The best of what was tried for one half. */
static void keep_best(const cvq_search_halves *t, int half, level_trial *o) {
    for (int table = 0; table < 2; table++)
        for (int k = 0; k < 4; k++) {
            const float error = t->error[half][table][k] * (t->d * t->d);
            if (!(error < o->error[half])) continue;
            o->error[half] = error;
            o->bits[half] = (uint16_t)(table << 3 | (t->first + 2 * k));
        }
}

static void try_level(const cvq_search_loops *loops, const cvq_search *s, int first,
                      level_trial *o) {
    cvq_search_halves t = {.d = scale_of(s, o->level), .first = first};
    loops->try_halves(s, &t);
    keep_best(&t, 0, o);
    keep_best(&t, 1, o);
}

static level_trial start(int level) {
    return (level_trial){level, {0x1.fffffep127f, 0x1.fffffep127f}, {0, 0}};
}

/* Puts the best `count` of all first, the very best at the start. */
static void best_first(level_trial *trials, int all, int count) {
    for (int i = 0; i < count && i < all; i++) {
        int best = i;
        for (int k = i + 1; k < all; k++)
            if (error_of(&trials[k]) < error_of(&trials[best])) best = k;
        const level_trial o = trials[i];
        trials[i] = trials[best];
        trials[best] = o;
    }
}

cvq_choice cvq_search_half_tables(const cvq_search_loops *loops, const cvq_search *s) {
    const float peak = cvq_search_magnitude(s->peak);
    const int last = level_below(s, peak / NEAREST);
    level_trial trials[MAX_TRIALS];
    int count = 0;
    for (int level = level_below(s, peak / FURTHEST); level <= last && count < MAX_TRIALS;
         level += STEP) {
        trials[count] = start(level);
        try_level(loops, s, 0, &trials[count++]);
    }
    best_first(trials, count, REFINED);
    for (int i = 0; i < REFINED && i < count; i++) try_level(loops, s, 1, &trials[i]);
    best_first(trials, count < REFINED ? count : REFINED, SURROUNDED);
    level_trial best = trials[0];
    for (int i = 0; i < SURROUNDED && i < count; i++)
        for (int step = -1; step <= 1; step += 2) {
            level_trial o = start(trials[i].level + step);
            if (o.level < 0 || o.level >= LEVELS) continue;
            try_level(loops, s, 0, &o);
            try_level(loops, s, 1, &o);
            if (error_of(&o) < error_of(&best)) best = o;
        }
    return (cvq_choice){error_of(&best),
                        (uint16_t)(best.level << 8 | best.bits[1] << 4 | best.bits[0])};
}

uint16_t cvq_search_half(const float *x, const float *importance, uint16_t scale, size_t half) {
    const cvq_search_loops *loops = cvq_search_loops_best();
    const int shift = half ? 4 : 0;
    level_trial o = start(scale >> 8);
    cvq_search s;
    if (!loops->prepare(&s, 32, x, importance)) return scale;
    for (int first = 0; first < 2; first++) {
        cvq_search_halves t = {.d = scale_of(&s, o.level), .first = first};
        loops->try_halves(&s, &t);
        keep_best(&t, (int)half, &o);
    }
    return (uint16_t)((scale & ~(15u << shift)) | (unsigned)o.bits[half] << shift);
}
