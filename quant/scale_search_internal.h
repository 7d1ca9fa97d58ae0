/* What the searches for evenly spaced codes and for tables share: a block made ready for searching,
 * f16 scales in the block's own units, and the loops over its weights. */
#ifndef CVQ_QUANT_SCALE_SEARCH_INTERNAL_H
#define CVQ_QUANT_SCALE_SEARCH_INTERNAL_H

#include <string.h>

#include "base/half.h"
#include "quant/scale_search.h"

#define CVQ_SEARCH_MAX_BLOCK 128
#define CVQ_SEARCH_LANES 8 /* every sum over a block runs in this many lanes, joined as a tree */

/* A block whose largest magnitude is below this is zero: half of the smallest f16, the smallest
 * value but 0 of any type, is 2^-25. */
#define CVQ_SEARCH_SMALLEST 0x1p-26f

/* x and w are the caller's times powers of two, so that the largest |x| and the largest w lie in
 * [1, 256): no sum overflows, and nothing but the exponent of the scale depends on magnitudes. */
typedef struct cvq_search {
    uint32_t n; /* a multiple of 32 */
    float x[CVQ_SEARCH_MAX_BLOCK];
    float w[CVQ_SEARCH_MAX_BLOCK];
    float wx[CVQ_SEARCH_MAX_BLOCK];
    float sum_wxx;
    float peak;        /* the x of largest magnitude, with its sign; the first of equals */
    float to_unit;     /* a scale in these units = the real one x to_unit; a power of two */
    float from_unit;   /* 1 / to_unit */
    float weight_unit; /* w = the caller's x weight_unit; a power of two */
} cvq_search;

/* The best so far. scale is as the file has it; error is sum w (x - value)^2. */
typedef struct cvq_choice {
    float error;
    uint16_t scale;
} cvq_choice;

/* One order of additions for everyone: ((0+4)+(2+6)) + ((1+5)+(3+7)). */
static inline float cvq_search_join(const float lane[CVQ_SEARCH_LANES]) {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}
static inline float cvq_search_magnitude(float v) {
    return cvq_bits_f32(cvq_f32_bits(v) & 0x7fffffffu);
}
static inline float cvq_search_scale(const cvq_search *s, uint16_t f16) {
    return cvq_f16_to_f32(f16) * s->to_unit; /* exact: see cvq_search_block */
}

/* The nearest f16 that is finite. */
static inline uint16_t cvq_search_finite_f16(float d) {
    uint16_t h = cvq_f32_to_f16(d);
    return (h & 0x7fffu) > 0x7bffu ? (uint16_t)((h & 0x8000u) | 0x7bffu) : h;
}

/* A codebook as the loops want it. */
typedef struct cvq_search_midpoints {
    /* A weight at t = 2 (x / d + zero - o), cut to 0 .. 255 and down to an integer, belongs to the
     * first entry whose midpoint with the next is above it. Twice a midpoint is an integer, so
     * comparing integers loses nothing. Less 128: signed bytes compare in one instruction. The
     * last is not used. */
    int8_t below[16];
    uint8_t entry[16];
} cvq_search_midpoints;

static inline cvq_search_midpoints cvq_search_midpoints_of(const cvq_codebook *c) {
    cvq_search_midpoints t = {.below = {0}};
    memcpy(t.entry, c->table, sizeof t.entry);
    for (int j = 0; j < 15; j++) t.below[j] = (int8_t)(c->table[j] + c->table[j + 1] - 1 - 128);
    return t;
}

/* How scales and codes are read. */
typedef struct cvq_code_values {
    cvq_type type;
    int count; /* of codes */
    const cvq_codebook *codebook;
    float row_scale;
} cvq_code_values;

/* A scale and a shift of the table on trial, and what comes of them for the values q = entry +
 * shift nearest to x / d: sum w x q and sum w q^2. The scale that suits those best is wxq / wqq. */
typedef struct cvq_search_trial {
    float d, shift;
    float wxq, wqq;
} cvq_search_trial;

/* q4h: a scale on trial with both tables and every other offset, from `first` (0 or 1) on:
 * error[half][table][k] is the sum over that half of the block of w (x / d - q)^2 for the values q
 * nearest to x / d with offset first + 2 k. */
typedef struct cvq_search_halves {
    float d;
    int first;
    float error[2][2][4];
} cvq_search_halves;

/* q4s: a scale on trial, above 2^-60, with either sign and every offset o, which moves the table by
 * 5 + 4 o: error[negative][o] is the sum of w (x / +-d - q)^2 for the values q nearest to x / +-d.
 */
#define CVQ_SEARCH_OFFSETS 4
typedef struct cvq_search_offsets {
    float d, zero;
    float error[2][CVQ_SEARCH_OFFSETS];
} cvq_search_offsets;

/* Where the time goes: the loops over the weights of a block. Every set gives the same bits. */
typedef struct cvq_search_loops {
    /* False if the block is to be stored as zeros. */
    bool (*prepare)(cvq_search *s, uint32_t n, const float *x, const float *importance);
    /* Tables, blocks of 32: fills wxq and wqq of each trial; d is not 0. Many at once, since one
     * alone is a long chain of operations that wait for each other. */
    void (*try_table)(const cvq_search *s, const cvq_search_midpoints *t, cvq_search_trial *trials,
                      size_t count);
    void (*try_halves)(const cvq_search *s, cvq_search_halves *trial);
    void (*try_offsets)(const cvq_search *s, const cvq_search_midpoints *t,
                        cvq_search_offsets *trial);
    /* Evenly spaced codes -zero .. zero - 1: nearest codes for d, the scale that suits them best,
     * rounded to f16, and the error of that; kept in best if it is less. */
    void (*try_even)(const cvq_search *s, float zero, float d, cvq_choice *best);
    /* The nearest codes for a scale as it will be stored; returns sum w (x - value)^2. */
    double (*assign)(const cvq_search *s, const cvq_code_values *v, uint16_t scale, uint8_t *codes);
} cvq_search_loops;

extern const cvq_search_loops cvq_search_loops_plain;
#if defined(__x86_64__)
extern const cvq_search_loops cvq_search_loops_avx2;
#endif
/* The fastest that this machine can run. */
const cvq_search_loops *cvq_search_loops_best(void);

/* t = x / d + zero as a code: of evenly spaced ones, or of a table. */
static inline int cvq_code_at(const uint8_t *table, int count, float t) {
    if (table) {
        int c = 0;
        for (int j = 0; j + 1 < count; j++) c += t >= 0.5f * (float)(table[j] + table[j + 1]);
        return c;
    }
    t += 0.5f;
    t = t > 0.0f ? t : 0.0f;
    return (int)(t < (float)(count - 1) ? t : (float)(count - 1));
}

/* q4t, blocks of 32 (table_search.c). The codebook must be valid. */
cvq_choice cvq_search_table(const cvq_search_loops *loops, const cvq_codebook *codebook,
                            const cvq_search *s);
/* q4s (level_search.c). row_scale in real units, not 0. */
cvq_choice cvq_search_levels(const cvq_search_loops *loops, const cvq_codebook *codebook,
                             float row_scale, const cvq_search *s);
/* q4h (half_search.c). */
cvq_choice cvq_search_half_tables(const cvq_search_loops *loops, const cvq_search *s);
/* The least error (in the block's units) that a scale leaves, with q4s's offsets and either sign.
 */
float cvq_search_scale_error(const cvq_search_loops *loops, const cvq_search_midpoints *t,
                             float zero, const cvq_search *s, float d);

#endif
