/* The search for one block's scale and codes: brings the block to a common magnitude, runs the
 * search of its type, and then assigns every code anew to the scale that will be stored. The result
 * is compared, in double precision and with what a reader will decode, with the plain scale that
 * maps the largest magnitude to the last code and with all zeros: it is never worse than either.
 *
 * Only + - * / on floats in a written order, no library functions: the same bytes come out on every
 * machine. */
#include <string.h>

#include "quant/scale_search_internal.h"

#define ROUNDS 2

/* Which scales are tried: the peak at either end of the codes (so of either sign, as the ends
 * differ) times `count` factors from `first` on, then neighbours a `step` away. */
typedef struct plan {
    int count;
    float first, spacing, step;
} plan;

static plan plan_for(cvq_type type) {
    switch (type) {
    case CVQ_TYPE_Q8:
        return (plan){3, 0.985f, 0.0075f, 1.002f};
    case CVQ_TYPE_Q6:
        return (plan){6, 0.90f, 0.02f, 1.006f};
    default:
        return (plan){8, 0.76f, 0.035f, 1.015f};
    }
}

static cvq_choice search_even(const cvq_search_loops *loops, cvq_type type, float zero,
                              const cvq_search *s) {
    const plan p = plan_for(type);
    cvq_choice best = {s->sum_wxx, 0};
    for (int end = 0; end < 2; end++) {
        const float d = s->peak / (end ? zero - 1.0f : -zero);
        for (int k = 0; k < p.count; k++)
            loops->try_even(s, zero, d * (p.first + (float)k * p.spacing), &best);
    }
    for (int round = 0; round < ROUNDS; round++) {
        const uint16_t before = best.scale;
        const float d = cvq_search_scale(s, before);
        if (d == 0.0f) break;
        loops->try_even(s, zero, d, &best);
        loops->try_even(s, zero, d * p.step, &best);
        loops->try_even(s, zero, d / p.step, &best);
        if (best.scale == before) break;
    }
    return best;
}

/* Types with tables have no zero point of their own. */
static int code_count(cvq_type type) {
    const int zero = (int)cvq_type_describe(type)->zero_point;
    return zero ? 2 * zero : 16;
}

uint8_t cvq_nearest_code(cvq_type type, const cvq_block_scale *s, size_t half, float x) {
    const float zero = (float)s->zero[half], t = s->d == 0.0f ? zero : x / s->d + zero;
    return (uint8_t)cvq_code_at(s->table[half], code_count(type), t);
}

/* The scale that maps the peak to the last code: of both signs alike for even codes, to the end
 * that is further from zero for q4t (offset 0). 0 for q4s and q4h, whose searches try all that is
 * near. */
static uint16_t plain_scale(const cvq_search *s, const cvq_code_values *v) {
    if (v->type == CVQ_TYPE_Q4S || v->type == CVQ_TYPE_Q4H) return 0;
    if (v->type != CVQ_TYPE_Q4T)
        return cvq_search_finite_f16(s->peak / (float)(v->count / 2 - 1) * s->from_unit);
    float low = -(float)v->codebook->zero, high = (float)v->codebook->table[15] + low;
    float d = s->peak / (-low > high ? low : high) * s->from_unit;
    /* To the nearest f16 with offset 0: down to it unless half a step or more above. */
    uint16_t h = cvq_search_finite_f16(d);
    uint16_t down = (uint16_t)(h & ~31u), up = (uint16_t)(down + 32u);
    return (h & 31u) >= 16u && (up & 0x7fffu) <= 0x7bffu ? up : down;
}

static cvq_choice search(const cvq_search_loops *loops, const cvq_search *s,
                         const cvq_code_values *v) {
    if (v->type == CVQ_TYPE_Q4T) return cvq_search_table(loops, v->codebook, s);
    if (v->type == CVQ_TYPE_Q4S) return cvq_search_levels(loops, v->codebook, v->row_scale, s);
    if (v->type == CVQ_TYPE_Q4H) return cvq_search_half_tables(loops, s);
    return search_even(loops, v->type, (float)(v->count / 2), s);
}

void cvq_search_block(cvq_type type, const cvq_codebook *codebook, float row_scale, const float *x,
                      const float *importance, uint8_t *codes, uint16_t *scale) {
    const cvq_search_loops *loops = cvq_search_loops_best();
    const cvq_type_info *info = cvq_type_describe(type);
    const bool tabled = info->zero_point == 0;
    const cvq_code_values values = {type, code_count(type), codebook, row_scale};
    cvq_search s;
    uint8_t other[CVQ_SEARCH_MAX_BLOCK];
    /* Scales in the block's units are exact: an f16 times 2^-exponent with exponent in -26 .. 120
     * stays a multiple of 2^-144 and far from overflow. */
    if (!loops->prepare(&s, info->block, x, importance) ||
        (type == CVQ_TYPE_Q4S && row_scale == 0.0f)) {
        s.n = info->block;
        s.to_unit = 1.0f;
        memset(s.x, 0, sizeof s.x);
        memset(s.w, 0, sizeof s.w);
        loops->assign(&s, &values, 0, codes);
        *scale = 0;
        return;
    }
    cvq_choice best = search(loops, &s, &values);
    double error = loops->assign(&s, &values, best.scale, codes);
    const uint16_t plain = plain_scale(&s, &values);
    const uint16_t rivals[3] = {plain, plain ^ 0x8000u, 0};
    for (int i = 0; i < 3; i++) {
        if (tabled && i == 1) continue; /* its ends differ: the other sign is not as good */
        if (rivals[i] == 0 && error < 0.5 * (double)s.sum_wxx) continue;
        const double e = loops->assign(&s, &values, rivals[i], other);
        if (e < error) {
            error = e;
            best.scale = rivals[i];
            memcpy(codes, other, s.n);
        }
    }
    *scale = best.scale;
}

/* An f16 so many steps further from zero, or nearer; itself where that is no finite number of the
 * same sign. */
static uint16_t f16_moved(uint16_t scale, int steps) {
    const int magnitude = (scale & 0x7fff) + steps;
    return magnitude < 0 || magnitude > 0x7bff ? scale : (uint16_t)((scale & 0x8000) | magnitude);
}

/* A step of an even type's scale: 0.8 to 1.6% of q4's, a third of that of q6's. */
static uint16_t even_moved(cvq_type type, uint16_t scale, int by) {
    return f16_moved(scale, by * (type == CVQ_TYPE_Q4 ? 16 : 5));
}

/* A scale whose level or offset, `bits` bits from `shift` up, is `by` away; itself if there is
 * none.
 */
static uint16_t field_moved(uint16_t scale, int shift, int bits, int by) {
    const int field = (scale >> shift & ((1 << bits) - 1)) + by;
    return (uint16_t)(field < 0 || field >> bits ? scale : scale + by * (1 << shift));
}

size_t cvq_search_near(cvq_type type, uint16_t scale, uint16_t near[CVQ_SEARCH_NEAR]) {
    size_t count = 0;
    for (int by = -1; by <= 1; by += 2) {
        uint16_t o = scale;
        if (type == CVQ_TYPE_Q4H) o = field_moved(scale, 8, 8, by);
        if (type == CVQ_TYPE_Q4 || type == CVQ_TYPE_Q6) o = even_moved(type, scale, by);
        if (o != scale) near[count++] = o;
    }
    for (int offset = -1; offset <= 1; offset++)
        for (int by = -1; by <= 1; by++) {
            uint16_t o = scale;
            if (type == CVQ_TYPE_Q4T) o = f16_moved(field_moved(scale, 0, 5, offset), 32 * by);
            if (type == CVQ_TYPE_Q4S) o = field_moved(field_moved(scale, 5, 2, offset), 0, 5, by);
            if (o != scale) near[count++] = o;
        }
    return count;
}
