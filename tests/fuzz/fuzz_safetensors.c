/* A .safetensors file: header, tensors, and their values as f32. */
#include "formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_safetensors *s = NULL;
    float values[256];
    if (cvq_safetensors_open(&s, fuzz_file(data, size, 0), NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    for (size_t i = 0; i < cvq_safetensors_count(s); i++) {
        const cvq_st_tensor *t = cvq_safetensors_at(s, i);
        const uint64_t count = t->size / cvq_st_dtype_size(t->dtype);
        const uint64_t last = count > 256 ? count - 256 : 0;
        (void)cvq_st_read_f32(t, last, count - last, values, NULL);
        if (!cvq_safetensors_find(s, t->name)) __builtin_trap();
    }
    cvq_safetensors_close(s);
    return 0;
}
