/* One .cvq file from its parts: planned, begun or taken up again, filled, finished. What
 * cvq_convert and cvq_requantize share. */
#ifndef CVQ_CONVERT_WRITE_MODEL_H
#define CVQ_CONVERT_WRITE_MODEL_H

#include "convert/checkpoint_rows.h"
#include "convert/convert.h"
#include "convert/provenance.h"

/* Everything that decides the bytes of a file but the options of quantization. */
typedef struct cvq_model_parts {
    const cvq_model_config *config;
    const cvq_type *types;
    const void *tokenizer;
    size_t tokenizer_size;
    cvq_metadata *metadata;
    cvq_row_source rows;
    uint8_t source[CVQ_HASH_BYTES]; /* identity of the source */
    /* A checkpoint, whose files' hashes go into the metadata once they are known; or NULL both. */
    cvq_checkpoint_rows *checkpoint_rows;
    const cvq_safetensors *checkpoint;
} cvq_model_parts;

cvq_status cvq_write_model(const cvq_model_parts *parts, const cvq_convert_options *options,
                           const cvq_convert_target *target, cvq_convert_result *result,
                           cvq_error *err);

#endif
