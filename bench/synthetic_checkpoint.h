/* A checkpoint in Hugging Face's form, of any shape, made of noise: what conversions are tried on
 * at full size. Names, shapes, types and the cut into files are the released model's. Matrices have
 * a spread like a trained model's: mostly small values, a few far out, and a few channels that are
 * larger than the others. */
#ifndef CVQ_BENCH_SYNTHETIC_CHECKPOINT_H
#define CVQ_BENCH_SYNTHETIC_CHECKPOINT_H

#include "bench/synthetic_file.h"
#include "formats/model_tensors.h"

/* Writes into a folder that is there, and refuses to replace a file. The same bytes for the same
 * config and seed. sparse: of each MiB of a matrix only the first 64 KiB have values, the rest is a
 * hole that takes no room on the disk and reads as zeros. */
cvq_status cvq_synthetic_checkpoint(const cvq_model_config *config,
                                    const cvq_synthetic_options *options, bool sparse,
                                    const char *dir, cvq_error *err);

/* Which file holds each tensor of the model, from 0 on, in shard [tensor count]; returns how many
 * files there are. */
size_t cvq_synthetic_shards(const cvq_model_config *config, size_t *shard);

#endif
