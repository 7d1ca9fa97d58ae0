/* --imatrix: importance of input channels, for the small file's config. */
#include "quant/importance.h"

#include "tests/fuzz/fuzz.h"
#include "tests/unit/small_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const cvq_model_config config = small_config();
    cvq_importance *i = NULL;
    if (cvq_importance_open(&i, fuzz_file(data, size, 0), &config, NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    for (size_t t = 0; t < cvq_model_tensor_count(&config); t++) {
        const float *weights = cvq_importance_of(i, t);
        if (weights && !(weights[0] >= 0)) __builtin_trap();
    }
    cvq_importance_free(i);
    return 0;
}
