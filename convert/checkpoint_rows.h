/* A checkpoint as a source of rows: every byte of its files is read once, in the order of the
 * files, and hashed on the way. */
#ifndef CVQ_CONVERT_CHECKPOINT_ROWS_H
#define CVQ_CONVERT_CHECKPOINT_ROWS_H

#include "convert/tensor_map.h"
#include "formats/chunk_hash.h"
#include "quant/quantize.h"

typedef struct cvq_checkpoint_rows cvq_checkpoint_rows;

/* Borrows all three. */
cvq_status cvq_checkpoint_rows_open(cvq_checkpoint_rows **out, const cvq_tensor_map *map,
                                    const cvq_safetensors *checkpoint,
                                    const cvq_model_config *config, cvq_error *err);
void cvq_checkpoint_rows_close(cvq_checkpoint_rows *rows);
/* Values are those that bf16 can hold, so that a file made in one step and one made from a bf16
 * file are the same. */
cvq_row_source cvq_checkpoint_rows_source(cvq_checkpoint_rows *rows);

/* SHA-256 of a file, [CVQ_HASH_BYTES], or NULL while not all of it has been read. */
const uint8_t *cvq_checkpoint_rows_hash(const cvq_checkpoint_rows *rows, size_t file);
/* The hash as it was found before. */
void cvq_checkpoint_rows_set_hash(cvq_checkpoint_rows *rows, size_t file, const uint8_t *hash);
/* Hashes what has no hash yet: reads files again whose tensors were read by a run before. */
cvq_status cvq_checkpoint_rows_finish(cvq_checkpoint_rows *rows, cvq_error *err);

/* Hash of names, sizes, times of change and headers: changes with the files, and reads no weights.
 */
cvq_status cvq_checkpoint_identity(const cvq_safetensors *s, uint8_t hash[CVQ_HASH_BYTES],
                                   cvq_error *err);

#endif
