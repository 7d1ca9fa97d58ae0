/* Which calibration file it was: its SHA-256, as it stands in the metadata of what it helped make.
 */
#ifndef CVQ_QUANT_CALIBRATION_HASH_H
#define CVQ_QUANT_CALIBRATION_HASH_H

#include "formats/chunk_hash.h"
#include "formats/safetensors.h"

/* Reads all of it. Shards of a folder have no such hash: CVQ_UNSUPPORTED. */
cvq_status cvq_calibration_hash(const cvq_safetensors *file, uint8_t hash[CVQ_HASH_BYTES],
                                cvq_error *err);

#endif
