/* The loops that compilers do well, in plain C, included once for each set that compiles them.
 * A compiler makes vectors of them without being allowed to reorder anything: sums run in
 * CVQ_SEARCH_LANES lanes joined in a fixed order, or, in double precision, one after another. */
#include <string.h>

#include "quant/scale_search_internal.h"

/* Powers of two beyond this are not taken out: with them 2^-exponent would be subnormal. */
#define MAX_EXPONENT 120

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

/* The value of largest magnitude, the first of equals, with its sign. */
static float peak_of(uint32_t n, const float *x) {
    uint32_t most = 0, at = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t bits = cvq_f32_bits(x[i]) & 0x7fffffffu; /* in the order of magnitudes */
        most = bits > most ? bits : most;
    }
    while ((cvq_f32_bits(x[at]) & 0x7fffffffu) != most) at++;
    return x[at];
}

static bool prepare(cvq_search *s, uint32_t n, const float *x, const float *importance) {
    const float peak = peak_of(n, x);
    float most = 0.0f;
    for (uint32_t i = 0; importance && i < n; i++)
        most = importance[i] > most ? importance[i] : most;
    if (cvq_search_magnitude(peak) < CVQ_SEARCH_SMALLEST) return false;
    const int exponent = exponent_of(cvq_search_magnitude(peak));
    const float to_unit = power_of_two(-exponent);
    const float weight_unit = most > 0.0f ? power_of_two(-exponent_of(most)) : 1.0f;
    float lane[CVQ_SEARCH_LANES] = {0};
    for (uint32_t i = 0; i < n; i++) {
        s->x[i] = x[i] * to_unit;
        s->w[i] = most > 0.0f ? importance[i] * weight_unit : 1.0f;
        s->wx[i] = s->w[i] * s->x[i];
    }
    for (uint32_t i = 0; i < n; i += CVQ_SEARCH_LANES)
        for (uint32_t j = 0; j < CVQ_SEARCH_LANES; j++) lane[j] += s->wx[i + j] * s->x[i + j];
    s->n = n;
    s->sum_wxx = cvq_search_join(lane);
    s->peak = peak * to_unit;
    s->to_unit = to_unit;
    s->from_unit = power_of_two(exponent);
    s->weight_unit = weight_unit;
    return true;
}

/* out[i] = the code of t[i], as cvq_code_at. */
static void codes_at(const uint8_t *table, int count, uint32_t n, const float *t, int32_t *out) {
    if (!table) {
        for (uint32_t i = 0; i < n; i++) out[i] = cvq_code_at(NULL, count, t[i]);
        return;
    }
    memset(out, 0, n * sizeof *out);
    for (int j = 0; j + 1 < count; j++) {
        const float middle = 0.5f * (float)(table[j] + table[j + 1]);
        for (uint32_t i = 0; i < n; i++) out[i] += t[i] >= middle;
    }
}

static double assign(const cvq_search *s, const cvq_code_values *v, uint16_t scale,
                     uint8_t *codes) {
    const cvq_block_scale b = cvq_scale_decode(v->type, v->codebook, v->row_scale, scale);
    const float d = b.d * s->to_unit;
    float t[CVQ_SEARCH_MAX_BLOCK];
    int32_t code[CVQ_SEARCH_MAX_BLOCK], entry[CVQ_SEARCH_MAX_BLOCK];
    double square[CVQ_SEARCH_MAX_BLOCK], error = 0.0;
    for (uint32_t half = 0; half < 2; half++) {
        const uint32_t first = half * s->n / 2, end = first + s->n / 2;
        const uint8_t *table = b.table[half];
        const float zero = (float)b.zero[half];
        for (uint32_t i = first; i < end; i++) t[i] = d == 0.0f ? zero : s->x[i] / d + zero;
        codes_at(table, v->count, s->n / 2, t + first, code + first);
        for (uint32_t i = first; i < end; i++) entry[i] = table ? table[code[i]] : code[i];
        for (uint32_t i = first; i < end; i++) {
            const double q = (double)((float)entry[i] - zero);
            const double e = (double)s->x[i] - (double)d * q;
            square[i] = (double)s->w[i] * e * e;
        }
    }
    for (uint32_t i = 0; i < s->n; i++) codes[i] = (uint8_t)code[i];
    for (uint32_t i = 0; i < s->n; i++) error += square[i];
    return error;
}
