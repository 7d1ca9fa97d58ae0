/* The scale of a row of q4s. It follows the largest block, but a single large block puts all others
 * on the lowest levels, and where between two levels the blocks fall is left to chance; so smaller
 * scales are tried on some of the blocks, with the search that will be used, and the one with the
 * least error is taken. */
#include "quant/scale_search_internal.h"

#define BLOCK 32
#define MAX_BLOCKS (262144 / BLOCK) /* of the widest row that a config allows */
/* Tried are every fourth block, which stands for four, and all whose scale is more than this share
 * of the largest. */
#define EVERY 4
#define LARGE 0.5f
/* The shares of the largest block's scale that are tried beside it: docs/quantization.md. */
static const float shares[] = {0.97f, 0.91f, 0.82f, 0.73f, 0.64f, 0.55f};

/* A row, and each block's best scale with no regard to levels. */
typedef struct row {
    const cvq_search_loops *loops;
    const cvq_codebook *codebook;
    const float *x, *importance;
    size_t n;
    float most;
    float free[MAX_BLOCKS];
} row;

static bool weighs(const float *importance, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (importance[k] > 0.0f) return true;
    return false;
}

/* Block b, widened by zeros that weigh nothing. False if it is all zeros. */
static bool prepare(const row *r, size_t b, cvq_search *s) {
    float wide[BLOCK] = {0}, weight[BLOCK] = {0};
    const float *x = r->x + b * BLOCK, *w = r->importance ? r->importance + b * BLOCK : NULL;
    const size_t left = r->n - b * BLOCK, width = left < BLOCK ? left : BLOCK;
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

static bool counts(const row *r, size_t b) {
    const size_t left = r->n - b * BLOCK;
    if (r->free[b] <= LARGE * r->most && b % EVERY != 0) return false;
    return !r->importance || weighs(r->importance + b * BLOCK, left < BLOCK ? left : BLOCK);
}

/* The error of the blocks that are tried; some of it once that is no longer below `limit`. */
static double error_of(const row *r, float scale, double limit) {
    double sum = 0.0;
    for (size_t b = 0; b * BLOCK < r->n && sum < limit; b++) {
        const double times = r->free[b] > LARGE * r->most ? 1.0 : EVERY;
        cvq_search s;
        if (!counts(r, b) || !prepare(r, b, &s)) continue;
        const double unit = (double)s.from_unit * (double)s.from_unit / (double)s.weight_unit;
        const cvq_choice c = cvq_search_levels(r->loops, r->codebook, scale, &s);
        sum += (double)c.error * unit * times;
    }
    return sum;
}

float cvq_search_row_scale(const cvq_codebook *codebook, const float *x, const float *importance,
                           size_t n) {
    row r = {.loops = cvq_search_loops_best(),
             .codebook = codebook,
             .x = x,
             .importance = importance && weighs(importance, n) ? importance : NULL,
             .n = n};
    for (size_t b = 0; b * BLOCK < n; b++) {
        cvq_search s;
        r.free[b] = 0.0f;
        if (!prepare(&r, b, &s)) continue;
        r.free[b] =
            cvq_search_magnitude(cvq_search_free_scale(r.loops, codebook, &s)) * s.from_unit;
        if (r.free[b] > r.most) r.most = r.free[b];
    }
    const float largest = r.most / (float)cvq_q4s_levels[31];
    float best = rounded(largest);
    if (best == 0.0f) return best;
    double least = error_of(&r, best, 0x1p1023);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        const float scale = rounded(largest * shares[i]);
        const double error = error_of(&r, scale, least);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}
