/* model.safetensors.index.json of a folder without shards. */
#include "formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_safetensors *s = NULL;
    if (cvq_safetensors_open(&s, fuzz_folder("model.safetensors.index.json", data, size), NULL) ==
        CVQ_OK)
        cvq_safetensors_close(s);
    return 0;
}
