/* A tokenizer of Llama 3's form and size without its vocabulary, which cannot be shipped: single
 * bytes, numbers of up to three digits, and the words of an invented language with and without a
 * space in front, each reached by merges. */
#ifndef CVQ_BENCH_SYNTHETIC_TOKENIZER_H
#define CVQ_BENCH_SYNTHETIC_TOKENIZER_H

#include "formats/json.h"
#include "formats/model_config.h"
#include "formats/tokenizer_table.h"

/* Every id of the config's vocabulary: ordinary pieces below bos_id (of which there must be at
 * least 256), special ones from there on. Real size: 128,000, 256 and at most 280,147 merges. */
typedef struct cvq_synthetic_tokenizer {
    cvq_tokenizer_source source; /* points into what follows */
    cvq_buffer bytes, offsets, special, merges;
} cvq_synthetic_tokenizer;

cvq_status cvq_synthetic_tokenizer_open(cvq_synthetic_tokenizer *t, const cvq_model_config *config,
                                        cvq_error *err);
/* As a checkpoint's tokenizer.json; NULL without memory. Release with cJSON_Delete. */
cJSON *cvq_synthetic_tokenizer_json(const cvq_synthetic_tokenizer *t);
void cvq_synthetic_tokenizer_close(cvq_synthetic_tokenizer *t);

#endif
