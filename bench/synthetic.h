/* Weights without a model file: bytes of any type with finite scales, at the shapes of a config, so
 * that the real model's work can be timed anywhere. The values are noise of the usual size; how
 * fast a kernel runs does not depend on them. */
#ifndef CVQ_BENCH_SYNTHETIC_H
#define CVQ_BENCH_SYNTHETIC_H

#include "runtime/weights.h"

/* Fills whole groups of a type (any but F32: scales around what makes weights of 0.02). The same
 * bytes for the same seed, any number of threads. size: a multiple of a group's bytes; for q4s,
 * whose panels have heads, of panel_bytes (otherwise its values are finite, of any size). */
void cvq_synthetic_fill(cvq_type type, uint32_t panel_rows, size_t panel_bytes, uint64_t seed,
                        uint8_t *bytes, size_t size, int threads);
/* Values evenly between -1 and 1. */
void cvq_synthetic_values(uint64_t seed, float *values, size_t n);

/* The released model with every size divided by 1, 2, 4, 8 or 16; numbers of layers stay. */
cvq_model_config cvq_scaled_config(uint32_t scale);

typedef enum cvq_synthetic_part {
    CVQ_SYNTHETIC_VIT,      /* patch embedding, ViT layers, adapter */
    CVQ_SYNTHETIC_LANGUAGE, /* language experts, final norm, lm_head, one row of embeddings */
    CVQ_SYNTHETIC_VISION    /* vision experts, final norm */
} cvq_synthetic_part;

/* Some layers of one part. What the part does not have, is empty in `weights` and must not run. */
typedef struct cvq_synthetic {
    cvq_model_config config; /* its numbers of layers are the layers that are here */
    cvq_weights weights;
    cvq_tensor position, embed_tokens;
    void **memory; /* [count] */
    size_t count;
} cvq_synthetic;

/* types [cvq_model_tensor_count(c)]: of each tensor of the whole model; those of its middle layer
 * are taken. */
cvq_status cvq_synthetic_open(cvq_synthetic *s, const cvq_model_config *c, const cvq_type *types,
                              cvq_synthetic_part part, uint32_t layers, int threads,
                              cvq_error *err);
void cvq_synthetic_close(cvq_synthetic *s);

#endif
