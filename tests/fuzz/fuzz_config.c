/* config.json, and the same bytes as generation_config.json. */
#include "convert/checkpoint_config.h"
#include "formats/model_tensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_model_config config = {0};
    cvq_generation_defaults defaults;
    const char *folder = fuzz_folder("config.json", data, size);
    if (cvq_checkpoint_config_read(&config, folder, NULL) == CVQ_OK) {
        fuzz_accepted();
        cvq_tensor_spec spec;
        const size_t count = cvq_model_tensor_count(&config);
        cvq_model_tensor_spec(&config, 0, &spec);
        cvq_model_tensor_spec(&config, count - 1, &spec);
    }
    folder = fuzz_folder("generation_config.json", data, size);
    (void)cvq_generation_config_read(&defaults, &config, folder, NULL);
    return 0;
}
