/* The importance of input channels, as cvq-calibrate writes it: per matrix "<tensor name>.sum_sq"
 * F32 [K] and "<tensor name>.count" I64 [1]. */
#ifndef CVQ_QUANT_IMPORTANCE_H
#define CVQ_QUANT_IMPORTANCE_H

#include "formats/chunk_hash.h"
#include "formats/model_tensors.h"

typedef struct cvq_importance cvq_importance;
/* Every tensor in the file must be one of the model's matrices with its K; values finite and not
 * negative. */
cvq_status cvq_importance_open(cvq_importance **out, const char *path,
                               const cvq_model_config *config, cvq_error *err);
/* SHA-256 of the file. */
const uint8_t *cvq_importance_hash(const cvq_importance *i);
void cvq_importance_free(cvq_importance *i);
/* Mean square of each input channel, [cols], or NULL where the file has none (or count 0) for this
 * tensor, and for the vision expert's queries, keys and values, which are better off without. */
const float *cvq_importance_of(const cvq_importance *i, size_t tensor);
/* Whether the file has this tensor, and how many tokens it saw. */
bool cvq_importance_has(const cvq_importance *i, size_t tensor, uint64_t *tokens);

#endif
