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

#endif
