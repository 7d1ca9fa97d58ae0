/* Opening a .cvq file: everything but the weights is checked at once (size, head hash, sections,
 * exact coverage, config, every tensor against the config, tokenizer table), and nothing is trusted
 * before. */
#ifndef CVQ_FORMATS_CVQ_READER_H
#define CVQ_FORMATS_CVQ_READER_H

#include "base/file_map.h"
#include "formats/cvq_layout.h"
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

/* Called for each damaged range, in order: a tensor's number, or SIZE_MAX for padding that is not
 * zero; offset from the file's start. Damaged chunks that lie side by side in a tensor are one
 * range. Called from the caller's thread. */
typedef void (*cvq_damage_fn)(void *context, size_t tensor, uint64_t offset, uint64_t size);
/* Bytes done of the total; nonzero stops with CVQ_CANCELLED. Called from the caller's thread. */
typedef int (*cvq_verify_progress_fn)(void *context, uint64_t done, uint64_t total);
/* Hash every chunk and look at all padding. Damage is reported through `damage` (may be NULL) and
 * ends in CVQ_MISMATCH. */
cvq_status cvq_reader_verify(const cvq_reader *r, int threads, cvq_damage_fn damage,
                             cvq_verify_progress_fn progress, void *context, cvq_error *err);

#endif
