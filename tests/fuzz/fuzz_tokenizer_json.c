/* tokenizer.json; a table that is made of it must be one that the reader accepts. */
#include "convert/tokenizer_import.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_buffer table = {0};
    cvq_tokenizer_table view;
    if (cvq_tokenizer_import(&table, fuzz_file(data, size, 0), 1000, NULL) == CVQ_OK) {
        fuzz_accepted();
        if (cvq_tokenizer_table_open(&view, table.data, table.size, "fuzz", NULL) != CVQ_OK)
            __builtin_trap();
    }
    cvq_buffer_free(&table);
    return 0;
}
