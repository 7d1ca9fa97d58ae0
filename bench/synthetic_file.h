/* A whole .cvq file of noise, of any shape and recipe, without a checkpoint: what loading, memory
 * and speed at full size are tried on. It is valid in every byte and hash, and the model runs with
 * finite values, but means nothing. */
#ifndef CVQ_BENCH_SYNTHETIC_FILE_H
#define CVQ_BENCH_SYNTHETIC_FILE_H

#include "bench/synthetic.h"
#include "quant/recipe.h"

/* Bytes done of the total; nonzero stops with CVQ_CANCELLED. */
typedef int (*cvq_synthetic_progress_fn)(void *context, uint64_t done, uint64_t total);

typedef struct cvq_synthetic_options {
    uint64_t seed;
    int threads;
    cvq_synthetic_progress_fn progress; /* or NULL */
    void *progress_context;
} cvq_synthetic_options;

/* Writes to fd (empty, open for reading and writing); where names it. The same bytes for the same
 * config, recipe and seed. id [CVQ_ID_BYTES]. */
cvq_status cvq_synthetic_file(const cvq_model_config *config, const cvq_recipe *recipe,
                              const cvq_synthetic_options *options, int fd, const char *where,
                              uint8_t *id, cvq_error *err);

/* Values of vectors that let a model run: norms around 1, the rest around 0, the rotary
 * frequencies as they are. values [spec->cols] */
void cvq_synthetic_vector(const cvq_model_config *config, const cvq_tensor_spec *spec,
                          uint64_t seed, float *values);

#endif
