/* The vision encoder and adapter: a resized picture to the embeddings of its slots. */
#ifndef CVQ_RUNTIME_VISION_H
#define CVQ_RUNTIME_VISION_H

#include "runtime/weights.h"

/* After each of `total` steps; nonzero stops with CVQ_CANCELLED. */
typedef int (*cvq_step_fn)(void *context, uint64_t done, uint64_t total);

/* rgb: image_size x image_size x 3. out [image slots][hidden_size]: boi, one for each 2 x 2
 * patches, eoi. */
cvq_status cvq_vision_encode(const cvq_engine *e, const cvq_weights *w, const uint8_t *rgb,
                             float *out, cvq_step_fn step, void *context, cvq_error *err);
/* How many steps, and how many multiplications of matrices and attention beside the patches'. */
uint64_t cvq_vision_steps(const cvq_model_config *c);
double cvq_vision_work(const cvq_model_config *c);
/* Bytes of the work buffers that encoding takes and gives back. */
uint64_t cvq_vision_work_bytes(const cvq_model_config *c, bool fast);

#endif
