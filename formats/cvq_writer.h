/* Writing a .cvq file: planned first (all sizes follow from config, types, tokenizer and metadata),
 * then the tensors' bytes in any order, by any number of threads, then the head. The caller owns
 * the file descriptor and the name under which the file finally appears. */
#ifndef CVQ_FORMATS_CVQ_WRITER_H
#define CVQ_FORMATS_CVQ_WRITER_H

#include "base/memory.h"
#include "formats/chunk_hash.h"
#include "formats/cvq_layout.h"

/* What a file is to be. All pointers are borrowed until the plan is made. */
typedef struct cvq_file_spec {
    const cvq_model_config *config;
    const cvq_type *types;         /* [cvq_model_tensor_count] */
    const cvq_codebook *codebooks; /* [the same]; NULL: the default table for q4t, q4s */
    const void *tokenizer;         /* a table by cvq_tokenizer_table_build */
    size_t tokenizer_size;
    const char *metadata; /* JSON text, see formats/metadata.h */
    size_t metadata_size;
} cvq_file_spec;

typedef struct cvq_writer cvq_writer;

/* Plans offsets and sizes. Nothing is written yet. */
cvq_status cvq_writer_plan(cvq_writer **out, const cvq_file_spec *spec, cvq_error *err);
size_t cvq_writer_tensor_count(const cvq_writer *w);
const cvq_tensor *cvq_writer_tensor(const cvq_writer *w, size_t i);
uint64_t cvq_writer_file_size(const cvq_writer *w);
/* SHA-256 of the head as it is planned: of all but the weights. */
cvq_status cvq_writer_plan_hash(const cvq_writer *w, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err);
/* Other metadata of the same length: what is known only when the weights have been read. */
cvq_status cvq_writer_set_metadata(cvq_writer *w, const char *text, size_t size, cvq_error *err);

/* fd must be open for reading and writing, and empty, or with `resume` have the planned size. Sets
 * the whole file's room aside. where names the file in errors. CVQ_WRITE_NOTHING as fd: the file is
 * only hashed, to learn what it would be. */
#define CVQ_WRITE_NOTHING (-1)
cvq_status cvq_writer_begin(cvq_writer *w, int fd, const char *where, bool resume, cvq_error *err);
/* Bytes of a tensor from `offset` in it, a multiple of CVQ_CHUNK_BYTES; size is one too, or reaches
 * the tensor's end. Each chunk comes once, in any order; several threads may bring different ones.
 * Hashes and writes. */
cvq_status cvq_writer_put(cvq_writer *w, size_t tensor, uint64_t offset, const void *data,
                          size_t size, cvq_error *err);
/* The chunks' hashes, [chunks][CVQ_HASH_BYTES], of a tensor whose bytes have all come. */
const uint8_t *cvq_writer_hashes(const cvq_writer *w, size_t tensor, size_t *chunks);
/* With `resume`: the tensor's bytes are in the file, and these are the hashes of its chunks. */
cvq_status cvq_writer_adopt(cvq_writer *w, size_t tensor, const uint8_t *hashes, size_t chunks,
                            cvq_error *err);
/* Writes the head, fsyncs and checks that the file has its planned size. id [CVQ_ID_BYTES] may be
 * NULL. */
cvq_status cvq_writer_finish(cvq_writer *w, uint8_t *id, cvq_error *err);
/* The head: as it is planned, and when it is finished as in the file. Borrowed. */
const uint8_t *cvq_writer_head(const cvq_writer *w, uint64_t *size);
void cvq_writer_free(cvq_writer *w);

#endif
