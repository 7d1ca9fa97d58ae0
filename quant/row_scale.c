/* The scale of a row of q4s. It has to serve all blocks: with a large one the smallest blocks lie
 * below the lowest level, with a small one the largest above the highest. So some of the blocks are
 * tried with scales as far apart as levels are, each of which is a level of several row scales; the
 * row scale that leaves those blocks the least error is taken. */
#include "quant/scale_search_internal.h"

#define BLOCK 32
#define LEVELS 31
/* Blocks that are tried: evenly spread ones, which stand for their neighbours, and, for themselves,
 * those with the largest weights and those with the weightiest. */
#define SPREAD 16
#define MOST 8
#define SAMPLES (SPREAD + 2 * MOST)
/* Scales that are tried: step i is the first over 1.06^i, and a row's scale puts its highest level
 * at one of the first SHARES. Three times, a third of a step apart. */
#define SHARES 32
#define STEPS (SHARES + LEVELS - 1)
#define STARTS 3
#define STEP (1.0f / 1.06f)
#define THIRD_OF_STEP 0.980764627f
/* The steps from zero at which a scale may put a block's largest magnitude: a narrower range than
 * that in which level_search.c then looks, as here only row scales are compared. */
#define NEAREST 54.0f
#define FURTHEST 72.0f

typedef struct row {
    const cvq_search_loops *loops;
    cvq_search_midpoints table;
    float zero;
    const float *x, *importance;
    size_t n, blocks;
} row;

/* A block that is tried. */
typedef struct sample {
    cvq_search s;
    double unit;        /* of its errors, times the blocks it stands for */
    float error[STEPS]; /* with each step; below 0: not tried yet */
    int first, last;    /* the steps that suit it */
} sample;

typedef struct ranked {
    float value;
    size_t block;
} ranked;

static bool weighs(const float *importance, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (importance[k] > 0.0f) return true;
    return false;
}

/* Block b, widened by zeros that weigh nothing. False if it is all zeros, or weighs nothing. */
static bool prepare(const row *r, size_t b, cvq_search *s) {
    float wide[BLOCK] = {0}, weight[BLOCK] = {0};
    const float *x = r->x + b * BLOCK, *w = r->importance ? r->importance + b * BLOCK : NULL;
    const size_t left = r->n - b * BLOCK, width = left < BLOCK ? left : BLOCK;
    if (w && !weighs(w, width)) return false;
    if (width == BLOCK) return r->loops->prepare(s, BLOCK, x, w);
    for (size_t k = 0; k < width; k++) {
        wide[k] = x[k];
        weight[k] = w ? w[k] : 1.0f;
    }
    return r->loops->prepare(s, BLOCK, wide, weight);
}

/* 16 significant bits: scales of blocks are then exact products. */
static float rounded(float scale) {
    const float v = cvq_bits_f32((cvq_f32_bits(scale) + 0x80u) & ~0xffu);
    return v < CVQ_MAX_ROW_SCALE ? v : 0x1.fffep63f;
}

/* ---------------------------------------------------------------- which blocks are tried */

/* Keeps the MOST largest, falling; of equals the first. */
static void keep_most(ranked *most, size_t block, float value) {
    size_t at = MOST;
    while (at > 0 && value > most[at - 1].value) at--;
    if (at == MOST) return;
    memmove(most + at + 1, most + at, (MOST - 1 - at) * sizeof *most);
    most[at] = (ranked){value, block};
}

static float largest_product(const float *x, const float *w, size_t n) {
    float most = 0.0f;
    for (size_t k = 0; k < n; k++) {
        const float v = cvq_search_magnitude(x[k]) * (w ? w[k] : 1.0f);
        most = v > most ? v : most;
    }
    return most;
}

static bool is_among(const size_t *blocks, size_t count, size_t block) {
    for (size_t i = 0; i < count; i++)
        if (blocks[i] == block) return true;
    return false;
}

/* Fills blocks [SAMPLES], those that stand for themselves first: `alone` of them. Returns how many
 * there are, and the row's largest magnitude. */
static size_t choose_blocks(const row *r, size_t *blocks, size_t *alone, float *peak) {
    ranked large[MOST] = {{0}}, heavy[MOST] = {{0}};
    size_t count = 0;
    for (size_t b = 0; b < r->blocks; b++) {
        const size_t first = b * BLOCK, left = r->n - first, width = left < BLOCK ? left : BLOCK;
        const float *x = r->x + first, *w = r->importance ? r->importance + first : NULL;
        keep_most(large, b, largest_product(x, NULL, width));
        if (w) keep_most(heavy, b, largest_product(x, w, width));
    }
    for (int i = 0; i < MOST; i++) {
        if (large[i].value > 0.0f && !is_among(blocks, count, large[i].block))
            blocks[count++] = large[i].block;
        if (heavy[i].value > 0.0f && !is_among(blocks, count, heavy[i].block))
            blocks[count++] = heavy[i].block;
    }
    *alone = count;
    *peak = large[0].value;
    const size_t every = (r->blocks + SPREAD - 1) / SPREAD;
    for (size_t b = every / 2; b < r->blocks; b += every)
        if (!is_among(blocks, *alone, b)) blocks[count++] = b;
    return count;
}

/* ---------------------------------------------------------------- what comes of row scales */

static void start_steps(const float *steps, sample *o) {
    const float peak = cvq_search_magnitude(o->s.peak) * o->s.from_unit;
    o->first = 0;
    while (o->first < STEPS - 1 && steps[o->first] * NEAREST > peak) o->first++;
    o->last = o->first;
    while (o->last < STEPS - 1 && steps[o->last] * FURTHEST > peak) o->last++;
    for (int i = 0; i < STEPS; i++) o->error[i] = -1.0f;
}

/* The error of a block with a share, whose levels are the steps [share, share + LEVELS). Only steps
 * that suit the block are tried, or the nearest to those. */
static double share_error(const row *r, const float *steps, int share, sample *o) {
    const int lowest = share + LEVELS - 1;
    int from = o->first < share ? share : o->first, to = o->last < lowest ? o->last : lowest;
    if (from > to) from = to = o->first > lowest ? lowest : share;
    float least = o->s.sum_wxx;
    for (int i = from; i <= to; i++) {
        if (o->error[i] < 0.0f)
            o->error[i] = cvq_search_scale_error(r->loops, &r->table, r->zero, &o->s,
                                                 steps[i] * o->s.to_unit);
        least = o->error[i] < least ? o->error[i] : least;
    }
    return (double)least * o->unit;
}

/* The best of the scales that put the highest level at `first` or up to SHARES - 1 steps below it,
 * if it leaves less than *least. */
static void try_shares(const row *r, float first, sample *samples, size_t count, double *least,
                       float *best) {
    float steps[STEPS] = {first};
    for (int i = 1; i < STEPS; i++) steps[i] = steps[i - 1] * STEP;
    for (size_t i = 0; i < count; i++) start_steps(steps, &samples[i]);
    for (int share = 0; share < SHARES; share++) {
        double sum = 0.0;
        for (size_t i = 0; i < count && sum < *least; i++)
            sum += share_error(r, steps, share, &samples[i]);
        if (!(sum < *least)) continue;
        *least = sum;
        *best = steps[share];
    }
}

/* The blocks that are tried, ready for it; returns how many of them have anything that weighs. */
static size_t make_samples(const row *r, sample *samples, float *peak) {
    size_t blocks[SAMPLES], alone, kept = 0;
    const size_t count = choose_blocks(r, blocks, &alone, peak), spread = count - alone;
    const double each = (double)(r->blocks - alone) / (double)(spread ? spread : 1);
    for (size_t i = 0; i < count; i++) {
        sample *o = &samples[kept];
        if (!prepare(r, blocks[i], &o->s)) continue;
        o->unit = (double)o->s.from_unit * (double)o->s.from_unit / (double)o->s.weight_unit;
        if (i >= alone) o->unit *= each;
        kept++;
    }
    return kept;
}

float cvq_search_row_scale(const cvq_codebook *codebook, const float *x, const float *importance,
                           size_t n) {
    const row r = {.loops = cvq_search_loops_best(),
                   .table = cvq_search_midpoints_of(codebook),
                   .zero = codebook->zero,
                   .x = x,
                   .importance = importance && weighs(importance, n) ? importance : NULL,
                   .n = n,
                   .blocks = (n + BLOCK - 1) / BLOCK};
    sample samples[SAMPLES];
    float peak;
    const size_t count = make_samples(&r, samples, &peak);
    if (peak < CVQ_SEARCH_SMALLEST) return 0.0f;
    double least = 0x1p1023;
    float first = peak / NEAREST, best = first;
    for (int start = 0; start < STARTS; start++) {
        try_shares(&r, first, samples, count, &least, &best);
        first *= THIRD_OF_STEP;
    }
    return rounded(best / (float)cvq_q4s_levels[LEVELS]);
}
