/* The search of q4s, whose blocks choose one of 31 levels of the row's scale, its sign, and one of
 * four offsets: each level on trial is tried with all of those. Which levels are worth a trial was
 * chosen by measurement: docs/quantization-trials.md. */
#include "quant/scale_search_internal.h"

#define LAST_LEVEL 31
/* The steps from zero at which a level may put the block's largest magnitude. */
#define NEAREST 48.0f
#define FURTHEST 86.0f
/* Of a level: NaN and infinity come of scales that no block has. */
#define SMALLEST 0x1p-60f

typedef struct search {
    const cvq_search_loops *loops;
    const cvq_search *s;
    cvq_search_midpoints table;
    float zero;
    float row; /* its scale in the block's units */
} search;

/* Keeps the level, with the offset and sign that suit it best, if that is better than the best. */
static void try_level(const search *t, int level, cvq_choice *best) {
    cvq_search_offsets o = {.d = t->row * (float)cvq_q4s_levels[level], .zero = t->zero};
    if (!(o.d > SMALLEST)) return;
    t->loops->try_offsets(t->s, &t->table, &o);
    for (int negative = 0; negative < 2; negative++)
        for (int k = 0; k < CVQ_SEARCH_OFFSETS; k++) {
            const float error = o.error[negative][k] * (o.d * o.d);
            if (!(error < best->error)) continue;
            best->error = error;
            best->scale = (uint16_t)(level | k << 5 | negative << 7);
        }
}

/* The first level that is not below so many, 1 .. 31. */
static int level_above(float levels) {
    int level = 1;
    while (level < LAST_LEVEL && (float)cvq_q4s_levels[level] < levels) level++;
    return level;
}

cvq_choice cvq_search_levels(const cvq_search_loops *loops, const cvq_codebook *codebook,
                             float row_scale, const cvq_search *s) {
    const search t = {loops, s, cvq_search_midpoints_of(codebook), codebook->zero,
                      row_scale * s->to_unit};
    const float peak = cvq_search_magnitude(s->peak);
    const int first = level_above(peak / FURTHEST / t.row);
    const int last = level_above(peak / NEAREST / t.row);
    cvq_choice best = {s->sum_wxx, 0};
    for (int level = first; level <= last; level++) try_level(&t, level, &best);
    return best;
}

float cvq_search_scale_error(const cvq_search_loops *loops, const cvq_search_midpoints *table,
                             float zero, const cvq_search *s, float d) {
    cvq_search_offsets o = {.d = d, .zero = zero};
    float least = s->sum_wxx;
    if (!(d > SMALLEST)) return least;
    loops->try_offsets(s, table, &o);
    for (int k = 0; k < 2 * CVQ_SEARCH_OFFSETS; k++) {
        const float error = o.error[k / CVQ_SEARCH_OFFSETS][k % CVQ_SEARCH_OFFSETS] * (d * d);
        if (error < least) least = error;
    }
    return least;
}
