/* Where a file comes from: sizes and hashes of the checkpoint's files, licences, model card. */
#ifndef CVQ_CONVERT_PROVENANCE_H
#define CVQ_CONVERT_PROVENANCE_H

#include "formats/metadata.h"
#include "formats/safetensors.h"
#include "quant/quantize.h"

/* Fills files (config.json, generation_config.json, tokenizer.json, index, shards, licences: what
 * is there), licenses (LICENSE*, *LICENSE*, USE_POLICY*, NOTICE*: text files of at most 1 MiB) and
 * revision. Hashing reads every byte once: progress as bytes done of the total. */
cvq_status cvq_provenance_read(cvq_metadata *m, const char *dir, const cvq_safetensors *checkpoint,
                               const char *revision, int threads, cvq_quant_progress_fn progress,
                               void *context, cvq_error *err);

/* A commit or a tag: at most 100 printable ASCII characters without spaces. */
cvq_status cvq_revision_check(const char *revision, cvq_error *err);

/* A text for the metadata (a licence, a model card) from a file: valid UTF-8 without NUL, at most
 * CVQ_MAX_TEXT bytes. */
#define CVQ_MAX_TEXT (1u << 20)
cvq_status cvq_text_read(cvq_buffer *text, const char *path, cvq_error *err);

#endif
