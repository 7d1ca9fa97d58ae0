/* The tokenizer table of a .cvq file; every piece of an accepted one is looked up, and merges
 * tried. */
#include "formats/tokenizer_table.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_tokenizer_table t;
    if (cvq_tokenizer_table_open(&t, data, size, "fuzz", NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    uint32_t sum = 0;
    for (uint32_t id = 0; id < t.num_tokens && id < 2000; id++) {
        uint32_t found = 0, rank, merged;
        size_t length;
        const uint8_t *piece = cvq_tokenizer_piece(&t, id, &length);
        for (size_t i = 0; i < length; i++) sum += piece[i];
        if (length > 0 && cvq_tokenizer_find(&t, piece, length, &found)) sum += found;
        if (cvq_tokenizer_merge(&t, id, (id * 7 + 1) % t.num_tokens, &rank, &merged)) sum += merged;
    }
    volatile uint32_t used = sum;
    (void)used;
    return 0;
}
