/* Where a file comes from: sizes and hashes of the checkpoint's files, licences, model card. */
#ifndef CVQ_CONVERT_PROVENANCE_H
#define CVQ_CONVERT_PROVENANCE_H

#include "formats/chunk_hash.h"
#include "formats/metadata.h"
#include "formats/safetensors.h"

/* Fills files (config.json, generation_config.json, tokenizer.json, index, shards, licences: what
 * is there), licenses (LICENSE*, *LICENSE*, USE_POLICY*, NOTICE*: text files of at most 1 MiB) and
 * revision. The shards' hashes are all zeros until cvq_provenance_set_hash, whose bytes they are as
 * long as: shards are hashed while they are converted. */
cvq_status cvq_provenance_read(cvq_metadata *m, const char *dir, const cvq_safetensors *checkpoint,
                               const char *revision, cvq_error *err);
void cvq_provenance_set_hash(cvq_metadata *m, const char *name, const uint8_t hash[CVQ_HASH_BYTES]);

/* A commit or a tag: at most 100 printable ASCII characters without spaces. */
cvq_status cvq_revision_check(const char *revision, cvq_error *err);

/* A text for the metadata (a licence, a model card) from a file: valid UTF-8 without NUL, at most
 * CVQ_MAX_TEXT bytes. */
#define CVQ_MAX_TEXT (1u << 20)
cvq_status cvq_text_read(cvq_buffer *text, const char *path, cvq_error *err);

#endif
