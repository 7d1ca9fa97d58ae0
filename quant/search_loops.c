/* The loops for any machine, and which set of them is used. */
#include "quant/search_loops_template.h"

/* (Not from the moments alone as for tables: at 8 bits the error is too small a difference of
 * them.) */
static void try_even(const cvq_search *s, float zero, float d, cvq_choice *best) {
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
    const uint16_t scale = cvq_search_finite_f16(cvq_search_join(xq) / wqq * s->from_unit);
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

#define BLOCK 32
#define WORDS (BLOCK / 4)

/* Four weights travel as the bytes of one 32-bit lane. */

/* Doubled and cut positions of the 32 weights: byte k of word j is weight 8 k + j, less 128. */
static void positions(const float *x, float per_step, float start, uint32_t *words) {
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
static void nearest(const cvq_search_midpoints *t, const uint32_t *at, uint32_t *values) {
    int8_t position[BLOCK], value[BLOCK] = {0};
    memcpy(position, at, BLOCK);
    for (int j = 0; j < 15; j++) {
        const int8_t below = t->below[j];
        const int8_t rise = (int8_t)(t->entry[j + 1] - t->entry[j]);
        for (int i = 0; i < BLOCK; i++)
            value[i] = (int8_t)(value[i] + (-(position[i] > below) & rise));
    }
    memcpy(values, value, BLOCK);
}

static void sum_moments(const cvq_search *s, const uint32_t *values, cvq_search_trial *out) {
    const float *w = s->w, *wx = s->wx, shift = out->shift;
    float first[WORDS], second[WORDS];
    for (int j = 0; j < WORDS; j++) {
        float a = (float)(int32_t)(values[j] & 255) + shift;
        float b = (float)(int32_t)(values[j] >> 8 & 255) + shift;
        float c = (float)(int32_t)(values[j] >> 16 & 255) + shift;
        float d = (float)(int32_t)(values[j] >> 24) + shift;
        first[j] = (wx[j] * a + wx[8 + j] * b) + (wx[16 + j] * c + wx[24 + j] * d);
        second[j] = (w[j] * a * a + w[8 + j] * b * b) + (w[16 + j] * c * c + w[24 + j] * d * d);
    }
    out->wxq = cvq_search_join(first);
    out->wqq = cvq_search_join(second);
}

static void try_table(const cvq_search *s, const cvq_search_midpoints *t, cvq_search_trial *trials,
                      size_t count) {
    for (cvq_search_trial *o = trials; o < trials + count; o++) {
        uint32_t at[WORDS], values[WORDS];
        positions(s->x, 2.0f / o->d, -2.0f * o->shift, at);
        nearest(t, at, values);
        sum_moments(s, values, o);
    }
}

/* q4h: positions as bytes, in halves of a step and cut to 0 .. 255, moved by an offset; then the
 * entries nearest to them, moved back, so that they can be held against t. */
static void nearest_moved(const uint8_t *at, const uint8_t *table, int offset, uint8_t *entry) {
    int8_t moved[BLOCK], value[BLOCK];
    const uint8_t by = (uint8_t)(4 * offset);
    for (int i = 0; i < BLOCK; i++) moved[i] = (int8_t)((at[i] > by ? at[i] - by : 0) - 128);
    for (int i = 0; i < BLOCK; i++) value[i] = (int8_t)table[0];
    for (int j = 0; j < 15; j++) {
        const int8_t below = (int8_t)(table[j] + table[j + 1] - 1 - 128);
        const int8_t rise = (int8_t)(table[j + 1] - table[j]);
        for (int i = 0; i < BLOCK; i++)
            value[i] = (int8_t)(value[i] + (-(moved[i] > below) & rise));
    }
    for (int i = 0; i < BLOCK; i++) entry[i] = (uint8_t)(value[i] + 2 * offset);
}

static float half_error(const float *t, const float *w, const uint8_t *entry) {
    float lane[CVQ_SEARCH_LANES];
    for (int j = 0; j < CVQ_SEARCH_LANES; j++) {
        const float a = t[j] - (float)entry[j], b = t[8 + j] - (float)entry[8 + j];
        lane[j] = w[j] * a * a + w[8 + j] * b * b;
    }
    return cvq_search_join(lane);
}

static void try_halves(const cvq_search *s, cvq_search_halves *o) {
    const float per_step = 1.0f / o->d;
    float t[BLOCK];
    uint8_t at[BLOCK], entry[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        t[i] = s->x[i] * per_step + (float)CVQ_Q4H_ZERO;
        float twice = t[i] + t[i];
        twice = twice > 0.0f ? twice : 0.0f;
        at[i] = (uint8_t)(int32_t)(twice < 255.0f ? twice : 255.0f);
    }
    for (int table = 0; table < 2; table++)
        for (int k = 0; k < 4; k++) {
            nearest_moved(at, cvq_q4h_tables[table], o->first + 2 * k, entry);
            for (int half = 0; half < 2; half++)
                o->error[half][table][k] =
                    half_error(t + 16 * half, s->w + 16 * half, entry + 16 * half);
        }
}

/* q4s: positions in halves of a step, of all 32 weights under one sign. */
static void halves_of(const float *t, int16_t *at) {
    for (int i = 0; i < BLOCK; i++) {
        float twice = t[i] + t[i];
        twice = twice > -1000.0f ? twice : -1000.0f;
        at[i] = (int16_t)(int32_t)(twice < 1000.0f ? twice : 1000.0f);
    }
}

static float offset_error(const float *t, const float *w, const uint8_t *entry) {
    float lane[CVQ_SEARCH_LANES];
    for (int j = 0; j < CVQ_SEARCH_LANES; j++) {
        const float a = t[j] - (float)entry[j], b = t[8 + j] - (float)entry[8 + j];
        const float c = t[16 + j] - (float)entry[16 + j], d = t[24 + j] - (float)entry[24 + j];
        lane[j] = (w[j] * a * a + w[8 + j] * b * b) + (w[16 + j] * c * c + w[24 + j] * d * d);
    }
    return cvq_search_join(lane);
}

static void try_offsets(const cvq_search *s, const cvq_search_midpoints *m, cvq_search_offsets *o) {
    const float per_step = 1.0f / o->d, start = o->zero - 5.0f;
    for (int negative = 0; negative < 2; negative++) {
        float t[BLOCK];
        int16_t at[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            const float x = s->x[i] * per_step;
            t[i] = negative ? start - x : start + x;
        }
        halves_of(t, at);
        for (int k = 0; k < CVQ_SEARCH_OFFSETS; k++) {
            uint8_t moved[BLOCK], entry[BLOCK];
            uint32_t words[WORDS];
            for (int i = 0; i < BLOCK; i++) {
                const int v = at[i] - 8 * k;
                moved[i] = (uint8_t)((v < 0 ? 0 : v > 255 ? 255 : v) ^ 128);
            }
            memcpy(words, moved, BLOCK);
            nearest(m, words, words);
            memcpy(entry, words, BLOCK);
            for (int i = 0; i < BLOCK; i++) entry[i] = (uint8_t)(entry[i] + 4 * k);
            o->error[negative][k] = offset_error(t, s->w, entry);
        }
    }
}

const cvq_search_loops cvq_search_loops_plain = {prepare,     try_table, try_halves,
                                                 try_offsets, try_even,  assign};

const cvq_search_loops *cvq_search_loops_best(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return &cvq_search_loops_avx2;
#endif
    return &cvq_search_loops_plain;
}
