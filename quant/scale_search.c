/* The search for one block's scale and codes: brings the block to a common magnitude, runs the
 * search of its type, and then assigns every code anew to the scale that will be stored. The result
 * is compared, in double precision and with what a reader will decode, with the plain scale that
 * maps the largest magnitude to the last code and with all zeros: it is never worse than either.
 *
 * Only + - * / on floats in a written order, no library functions: the same bytes come out on every
 * machine. */
#include "quant/scale_search_internal.h"

/* Below this a block is zero: half of the smallest f16, the smallest value but 0 of any type, is
 * 2^-25. */
#define SMALLEST 0x1p-26f
/* Powers of two beyond this are not taken out: with them 2^-exponent would be subnormal. */
#define MAX_EXPONENT 120
#define ROUNDS 2

/* 2^e, -126 <= e <= 127. */
static float power_of_two(int e) {
    return cvq_bits_f32((uint32_t)(e + 127) << 23);
}

/* floor(log2(v)) of a positive v, at most MAX_EXPONENT; -126 for subnormals. */
static int exponent_of(float v) {
    int e = (int)(cvq_f32_bits(v) >> 23) - 127;
    if (e < -126) e = -126;
    return e > MAX_EXPONENT ? MAX_EXPONENT : e;
}

static float magnitude(float v) {
    return cvq_bits_f32(cvq_f32_bits(v) & 0x7fffffffu);
}

bool cvq_search_prepare(cvq_search *s, uint32_t n, const float *x, const float *importance) {
    float peak = 0.0f, most = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        if (magnitude(x[i]) > magnitude(peak)) peak = x[i];
        if (importance && importance[i] > most) most = importance[i];
    }
    if (magnitude(peak) < SMALLEST) return false;
    const int exponent = exponent_of(magnitude(peak));
    const float to_unit = power_of_two(-exponent);
    const float weight_unit = most > 0.0f ? power_of_two(-exponent_of(most)) : 1.0f;
    float lane[CVQ_SEARCH_LANES] = {0};
    for (uint32_t i = 0; i < n; i++) {
        s->x[i] = x[i] * to_unit;
        s->w[i] = most > 0.0f ? importance[i] * weight_unit : 1.0f;
        s->wx[i] = s->w[i] * s->x[i];
        lane[i % CVQ_SEARCH_LANES] += s->wx[i] * s->x[i];
    }
    s->n = n;
    s->sum_wxx = cvq_search_join(lane);
    s->peak = peak * to_unit;
    s->to_unit = to_unit;
    s->from_unit = power_of_two(exponent);
    return true;
}

/* The nearest f16 that is finite. */
static uint16_t finite_f16(float d) {
    uint16_t h = cvq_f32_to_f16(d);
    return (h & 0x7fffu) > 0x7bffu ? (uint16_t)((h & 0x8000u) | 0x7bffu) : h;
}

/* Evenly spaced codes -zero .. zero - 1: nearest codes for d, the scale that suits them best, and
 * the error of that scale rounded to f16. (Not from the sums alone as for q4t: at 8 bits the error
 * is too small a difference of them.) */
static void evaluate(const cvq_search *s, float zero, float d, cvq_choice *best) {
    float q[CVQ_SEARCH_MAX_BLOCK];
    float xq[CVQ_SEARCH_LANES] = {0}, qq[CVQ_SEARCH_LANES] = {0}, lane[CVQ_SEARCH_LANES] = {0};
    const float per_step = 1.0f / d, half_up = zero + 0.5f, last = 2.0f * zero - 1.0f;
    for (uint32_t i = 0; i < s->n; i += CVQ_SEARCH_LANES)
        for (uint32_t j = 0; j < CVQ_SEARCH_LANES; j++) {
            float t = s->x[i + j] * per_step + half_up;
            t = t > 0.0f ? t : 0.0f;
            t = t < last ? t : last;
            float c = (float)(int32_t)t - zero;
            q[i + j] = c;
            xq[j] += s->wx[i + j] * c;
            qq[j] += s->w[i + j] * c * c;
        }
    const float wqq = cvq_search_join(qq);
    if (!(wqq > 0.0f)) return;
    const uint16_t scale = finite_f16(cvq_search_join(xq) / wqq * s->from_unit);
    const float stored = cvq_search_scale(s, scale);
    for (uint32_t i = 0; i < s->n; i += CVQ_SEARCH_LANES)
        for (uint32_t j = 0; j < CVQ_SEARCH_LANES; j++) {
            float e = s->x[i + j] - stored * q[i + j];
            lane[j] += s->w[i + j] * e * e;
        }
    const float error = cvq_search_join(lane);
    if (error < best->error) {
        best->error = error;
        best->scale = scale;
    }
}

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

static cvq_choice search_even(cvq_type type, float zero, const cvq_search *s) {
    const plan p = plan_for(type);
    cvq_choice best = {s->sum_wxx, 0};
    for (int end = 0; end < 2; end++) {
        const float d = s->peak / (end ? zero - 1.0f : -zero);
        for (int k = 0; k < p.count; k++)
            evaluate(s, zero, d * (p.first + (float)k * p.spacing), &best);
    }
    for (int round = 0; round < ROUNDS; round++) {
        const uint16_t before = best.scale;
        const float d = cvq_search_scale(s, before);
        if (d == 0.0f) break;
        evaluate(s, zero, d, &best);
        evaluate(s, zero, d * p.step, &best);
        evaluate(s, zero, d / p.step, &best);
        if (best.scale == before) break;
    }
    return best;
}

/* t = x / d + zero as a code: of evenly spaced ones, or of a table. */
static int code_at(const uint8_t *table, int count, float t) {
    if (table) {
        int c = 0;
        for (int j = 0; j + 1 < count; j++) c += t >= 0.5f * (float)(table[j] + table[j + 1]);
        return c;
    }
    t += 0.5f;
    t = t > 0.0f ? t : 0.0f;
    return (int)(t < (float)(count - 1) ? t : (float)(count - 1));
}

static int code_count(cvq_type type) {
    return cvq_type_has_table(type) ? 16 : 2 * (int)cvq_type_describe(type)->zero_point;
}

uint8_t cvq_nearest_code(cvq_type type, const cvq_codebook *codebook, cvq_block_scale s, float x) {
    const float zero = (float)s.zero, t = s.d == 0.0f ? zero : x / s.d + zero;
    return (uint8_t)code_at(cvq_type_has_table(type) ? codebook->table : NULL, code_count(type), t);
}

/* How scales and codes are read. */
typedef struct code_values {
    cvq_type type;
    int count; /* of codes */
    const cvq_codebook *codebook;
    const uint8_t *table; /* q4t's and q4s's, or NULL: code c stands for c */
    float row_scale;
} code_values;

/* Nearest codes for a scale as it will be stored; returns sum w (x - value)^2. */
static double assign(const cvq_search *s, const code_values *v, uint16_t scale, uint8_t *codes) {
    const cvq_block_scale b = cvq_scale_decode(v->type, v->codebook, v->row_scale, scale);
    const float d = b.d * s->to_unit, zero = (float)b.zero;
    double error = 0.0;
    for (uint32_t i = 0; i < s->n; i++) {
        const float t = d == 0.0f ? zero : s->x[i] / d + zero;
        const int c = code_at(v->table, v->count, t);
        codes[i] = (uint8_t)c;
        double q = (double)((float)(v->table ? v->table[c] : c) - zero);
        double e = (double)s->x[i] - (double)d * q;
        error += (double)s->w[i] * e * e;
    }
    return error;
}

/* The scale that maps the peak to the last code: of both signs alike for even codes, to the end
 * that is further from zero for q4t (offset 0). 0 for q4s, whose search tries all that is near. */
static uint16_t plain_scale(const cvq_search *s, const code_values *v) {
    if (v->type == CVQ_TYPE_Q4S) return 0;
    if (!v->table) return finite_f16(s->peak / (float)(v->count / 2 - 1) * s->from_unit);
    float low = -(float)v->codebook->zero, high = (float)v->table[15] + low;
    float d = s->peak / (-low > high ? low : high) * s->from_unit;
    /* To the nearest f16 with offset 0: down to it unless half a step or more above. */
    uint16_t h = finite_f16(d);
    uint16_t down = (uint16_t)(h & ~31u), up = (uint16_t)(down + 32u);
    return (h & 31u) >= 16u && (up & 0x7fffu) <= 0x7bffu ? up : down;
}

static cvq_choice search(const cvq_search *s, const code_values *v) {
    if (v->type == CVQ_TYPE_Q4T) return cvq_search_table(v->codebook, s);
    if (v->type == CVQ_TYPE_Q4S) return cvq_search_levels(v->codebook, v->row_scale, s);
    return search_even(v->type, (float)(v->count / 2), s);
}

void cvq_search_block(cvq_type type, const cvq_codebook *codebook, float row_scale, const float *x,
                      const float *importance, uint8_t *codes, uint16_t *scale) {
    const cvq_type_info *info = cvq_type_describe(type);
    const bool tabled = cvq_type_has_table(type);
    const code_values values = {type, code_count(type), codebook, tabled ? codebook->table : NULL,
                                row_scale};
    cvq_search s;
    uint8_t other[CVQ_SEARCH_MAX_BLOCK];
    /* Scales in the block's units are exact: an f16 times 2^-exponent with exponent in -26 .. 120
     * stays a multiple of 2^-144 and far from overflow. */
    if (!cvq_search_prepare(&s, info->block, x, importance) ||
        (type == CVQ_TYPE_Q4S && row_scale == 0.0f)) {
        s.n = info->block;
        s.to_unit = 1.0f;
        memset(s.x, 0, sizeof s.x);
        memset(s.w, 0, sizeof s.w);
        assign(&s, &values, 0, codes);
        *scale = 0;
        return;
    }
    cvq_choice best = search(&s, &values);
    double error = assign(&s, &values, best.scale, codes);
    const uint16_t plain = plain_scale(&s, &values);
    const uint16_t rivals[3] = {plain, plain ^ 0x8000u, 0};
    for (int i = 0; i < 3; i++) {
        if (tabled && i == 1) continue; /* its ends differ: the other sign is not as good */
        if (rivals[i] == 0 && error < 0.5 * (double)s.sum_wxx) continue;
        const double e = assign(&s, &values, rivals[i], other);
        if (e < error) {
            error = e;
            best.scale = rivals[i];
            memcpy(codes, other, s.n);
        }
    }
    *scale = best.scale;
}

float cvq_search_row_scale(const cvq_codebook *codebook, const float *x, const float *importance,
                           size_t n) {
    const float top = (float)cvq_q4s_levels[31];
    float most = 0.0f;
    for (size_t k = 0; k < n; k += 32) {
        cvq_search s;
        if (!cvq_search_prepare(&s, 32, x + k, importance ? importance + k : NULL)) continue;
        const float d = magnitude(cvq_search_free_scale(codebook, &s)) * s.from_unit;
        most = d > most ? d : most;
    }
    most /= top;
    /* 16 significant bits: scales of blocks are then exact products. */
    most = cvq_bits_f32((cvq_f32_bits(most) + 0x80u) & ~0xffu);
    return most < CVQ_MAX_ROW_SCALE ? most : 0x1.fffep63f;
}
