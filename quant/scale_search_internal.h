/* What the searches for evenly spaced codes and for q4t's table share: a block made ready for
 * searching, and f16 scales in the block's own units. */
#ifndef CVQ_QUANT_SCALE_SEARCH_INTERNAL_H
#define CVQ_QUANT_SCALE_SEARCH_INTERNAL_H

#include "base/half.h"
#include "quant/scale_search.h"

#define CVQ_SEARCH_MAX_BLOCK 128
#define CVQ_SEARCH_LANES 8 /* every sum over a block runs in this many lanes, joined as a tree */

/* x and w are the caller's times powers of two, so that the largest |x| and the largest w lie in
 * [1, 256): no sum overflows, and nothing but the exponent of the scale depends on magnitudes. */
typedef struct cvq_search {
    uint32_t n; /* a multiple of 32 */
    float x[CVQ_SEARCH_MAX_BLOCK];
    float w[CVQ_SEARCH_MAX_BLOCK];
    float wx[CVQ_SEARCH_MAX_BLOCK];
    float sum_wxx;
    float peak;      /* the x of largest magnitude, with its sign; the first of equals */
    float to_unit;   /* a scale in these units = the real one x to_unit; a power of two */
    float from_unit; /* 1 / to_unit */
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
static inline float cvq_search_scale(const cvq_search *s, uint16_t f16) {
    return cvq_f16_to_f32(f16) * s->to_unit; /* exact: see cvq_search_block */
}

/* False if the block is to be stored as zeros. */
bool cvq_search_prepare(cvq_search *s, uint32_t n, const float *x, const float *importance);

/* q4t and q4s, blocks of 32 (table_search.c). The codebook must be valid. q4s: row_scale in real
 * units, not 0. */
cvq_choice cvq_search_table(const cvq_codebook *codebook, const cvq_search *s);
cvq_choice cvq_search_levels(const cvq_codebook *codebook, float row_scale, const cvq_search *s);
/* The scale (in the block's units, of either sign) that the best codes with any scale would have,
 * with q4s's offsets; 0 if that is no better than zeros. */
float cvq_search_free_scale(const cvq_codebook *codebook, const cvq_search *s);

#endif
