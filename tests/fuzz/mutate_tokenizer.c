/* For tokenizer tables: another that is right, or other bytes. */
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/random_tokenizer.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    uint64_t state = seed + 1u;
    cvq_buffer table = {0};
    if (mutate_below(&state, 8) == 0 && random_tokenizer(&table, &state, NULL) == CVQ_OK &&
        table.size <= most) {
        memcpy(data, table.data, table.size);
        size = table.size;
    } else {
        size = LLVMFuzzerMutate(data, size, most);
    }
    cvq_buffer_free(&table);
    return size;
}
