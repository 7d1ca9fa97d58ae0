/* What the head says about the model: the CONFIG and INDEX sections. */
#ifndef CVQ_FORMATS_CVQ_INDEX_INTERNAL_H
#define CVQ_FORMATS_CVQ_INDEX_INTERNAL_H

#include "formats/cvq_layout.h"

#define CVQ_CONFIG_BYTES 116u
#define CVQ_INDEX_ENTRY_BYTES 200u

void cvq_config_encode(const cvq_model_config *config, uint8_t bytes[CVQ_CONFIG_BYTES]);
/* Also checks the config. */
cvq_status cvq_config_decode(cvq_model_config *config, const uint8_t *bytes, uint64_t size,
                             const char *where, cvq_error *err);

/* Where the next tensor goes. */
typedef struct cvq_place {
    uint64_t offset; /* end of the tensor before, or start of the data */
    uint64_t chunk;
} cvq_place;

/* Of a tensor with spec, type and panel_rows: fills size, offset and first_chunk, and moves on. */
cvq_status cvq_tensor_place(cvq_tensor *t, cvq_place *next, const char *where, cvq_error *err);

void cvq_index_entry_encode(const cvq_tensor *t, uint8_t bytes[CVQ_INDEX_ENTRY_BYTES]);
/* Exactly the model's tensors, each where it must be: *tensors (release with free) and *count;
 * `next` comes in as the start of the data and goes out as its end. */
cvq_status cvq_index_decode(cvq_tensor **tensors, size_t *count, cvq_place *next,
                            const cvq_model_config *config, const uint8_t *bytes, uint64_t size,
                            const char *where, cvq_error *err);

#endif
