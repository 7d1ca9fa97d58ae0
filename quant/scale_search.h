/* Which codes and scales stand for a block of weights: a search that minimises sum of importance x
 * error^2, with the f16 rounding of the scale (and q4t's offset bits in it) inside the search.
 * Plain C whose result does not depend on threads or instruction set. */
#ifndef CVQ_QUANT_SCALE_SEARCH_H
#define CVQ_QUANT_SCALE_SEARCH_H

#include "formats/block_types.h"

/* One block: n = the type's block length. x[n] finite; importance[n] >= 0, or NULL for all 1. Codes
 * are unsigned; an all-zero block gives scale 0 and codes at the zero point. row_scale: of the row
 * that the block is part of, for q4s. */
void cvq_search_block(cvq_type type, const cvq_codebook *codebook, float row_scale, const float *x,
                      const float *importance, uint8_t *codes, uint16_t *scale);
/* The code nearest to x under a scale, in one half of a block. */
uint8_t cvq_nearest_code(cvq_type type, const cvq_block_scale *s, size_t half, float x);
/* The scales next to one, of types with blocks of 32, for a caller that judges scales by more than
 * the block's own error. q4h: its levels, with the tables and offsets of the scale. Returns how
 * many. */
#define CVQ_SEARCH_NEAR 8
size_t cvq_search_near(cvq_type type, uint16_t scale, uint16_t near[CVQ_SEARCH_NEAR]);
/* q4h: the scale with the table and offset that suit one half of the block best at its level. */
uint16_t cvq_search_half(const float *x, const float *importance, uint16_t scale, size_t half);
/* q4s: the scale of a row of n columns. 0 if all are zero. */
float cvq_search_row_scale(const cvq_codebook *codebook, const float *x, const float *importance,
                           size_t n);

#endif
