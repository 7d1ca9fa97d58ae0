/* Opening a .cvq file: everything but the weights is checked at once (size, head hash, sections,
 * exact coverage, config, every tensor against the config, tokenizer table), and nothing is trusted
 * before. */
#ifndef CVQ_FORMATS_CVQ_READER_H
#define CVQ_FORMATS_CVQ_READER_H

#include "base/file_map.h"
#include "formats/cvq_layout.h"
#include "formats/extents.h"
#include "formats/tokenizer_table.h"

typedef struct cvq_reader cvq_reader;

cvq_status cvq_reader_open(cvq_reader **out, const char *path, cvq_error *err);
void cvq_reader_close(cvq_reader *r);

/* All borrowed from the reader. */
const char *cvq_reader_path(const cvq_reader *r);
const uint8_t *cvq_reader_id(const cvq_reader *r); /* [CVQ_ID_BYTES] */
uint64_t cvq_reader_file_size(const cvq_reader *r);
const cvq_file_map *cvq_reader_map(const cvq_reader *r);
const cvq_model_config *cvq_reader_config(const cvq_reader *r);
const cvq_tokenizer_table *cvq_reader_tokenizer(const cvq_reader *r);
void cvq_reader_tokenizer_bytes(const cvq_reader *r, const uint8_t **data, size_t *size);
size_t cvq_reader_tensor_count(const cvq_reader *r);
const cvq_tensor *cvq_reader_tensor(const cvq_reader *r, size_t i);
const uint8_t *cvq_reader_data(const cvq_reader *r, size_t i); /* the tensor's bytes, mapped */
const uint8_t *cvq_reader_chunk_hash(const cvq_reader *r, uint64_t chunk);

/* The metadata (see formats/metadata.h), decompressed: a NUL-terminated JSON text in the buffer. */
cvq_status cvq_reader_metadata(const cvq_reader *r, cvq_buffer *json, cvq_error *err);

/* The data in extents, with the hashes of the chunk table (borrowed from the reader). */
cvq_status cvq_reader_extents(const cvq_reader *r, cvq_extents *out, cvq_error *err);
/* Hash every chunk and look at all padding (the head was checked when it was opened). Damage is
 * reported through `damage` (may be NULL), in order, and ends in CVQ_MISMATCH. Both functions are
 * called from the caller's thread. */
cvq_status cvq_reader_verify(const cvq_reader *r, int threads, cvq_damage_fn damage,
                             cvq_extents_progress_fn progress, void *context, cvq_error *err);

#endif
