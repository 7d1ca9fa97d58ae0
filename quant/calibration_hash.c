#include "quant/calibration_hash.h"

cvq_status cvq_calibration_hash(const cvq_safetensors *file, uint8_t hash[CVQ_HASH_BYTES],
                                cvq_error *err) {
    if (cvq_safetensors_files(file) != 1)
        return cvq_fail(err, CVQ_UNSUPPORTED, cvq_safetensors_file_name(file, 0),
                        "is one of several shards; give the one file that cvq-calibrate wrote");
    return cvq_sha256_file(cvq_safetensors_file_map(file, 0), hash, err);
}
