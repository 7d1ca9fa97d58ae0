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
/* q4s: the scale of a row of whole blocks, n columns. 0 if all are zero. */
float cvq_search_row_scale(const cvq_codebook *codebook, const float *x, const float *importance,
                           size_t n);

#endif
