/* From logits to the next id: greedy, or temperature, top-k, top-p; repetition penalty as Hugging
 * Face's. */
#ifndef CVQ_RUNTIME_SAMPLER_H
#define CVQ_RUNTIME_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct cvq_sampler cvq_sampler;

typedef struct cvq_sampler_options {
    float temperature;        /* 0: greedy */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* 0 or 1: off */
    float repetition_penalty; /* 0 or 1: off; divides positive logits and multiplies negative ones
                                 of every id seen, prompt included */
    uint64_t seed;            /* same seed, same answer, on every machine */
} cvq_sampler_options;

/* CVQ_INVALID_ARGUMENT names an option outside its range (temperature < 0, top_p outside [0, 1],
 * penalty < 0, NaN). */
cvq_status cvq_sampler_open(cvq_sampler **out, const cvq_sampler_options *options,
                            uint32_t vocab_size, cvq_error *err);
void cvq_sampler_close(cvq_sampler *s);
/* Count ids of the prompt (image slots are not to be passed) and of what was generated, for the
 * penalty. */
void cvq_sampler_seen(cvq_sampler *s, const int32_t *ids, size_t n);
/* Order as in Hugging Face: penalty, temperature, top-k, top-p, draw. Ties: the lowest id. logits
 * [vocab_size] are not changed. */
int32_t cvq_sampler_next(cvq_sampler *s, const float *logits);

#endif
