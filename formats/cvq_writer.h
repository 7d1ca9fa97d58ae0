/* Writing a .cvq file: planned first (all sizes follow from config, types, tokenizer and metadata),
 * then the tensors' bytes in order, then the head. The caller owns the file descriptor and the name
 * under which the file finally appears. */
#ifndef CVQ_FORMATS_CVQ_WRITER_H
#define CVQ_FORMATS_CVQ_WRITER_H

#include "base/memory.h"
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

/* fd must be open for writing, empty. where names the file in errors. */
cvq_status cvq_writer_begin(cvq_writer *w, int fd, const char *where, cvq_error *err);
/* The next bytes of the data: tensors in order, each in any number of pieces, none across two
 * tensors. Hashes as it goes. */
cvq_status cvq_writer_append(cvq_writer *w, const void *data, size_t size, cvq_error *err);
/* Pads, writes the head, fsyncs and checks that the file has its planned size. id [CVQ_ID_BYTES]
 * may be NULL. */
cvq_status cvq_writer_finish(cvq_writer *w, uint8_t *id, cvq_error *err);
void cvq_writer_free(cvq_writer *w);

#endif
