/* The head of a .cvq file as it is: nearly everything ends at its hash (see fuzz_cvq_mended.c). */
#include "formats/cvq_reader.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_reader *r = NULL;
    if (cvq_reader_open(&r, fuzz_file(data, size, 0), NULL) != CVQ_OK) return 0;
    cvq_buffer json = {0};
    (void)cvq_reader_metadata(r, &json, NULL);
    (void)cvq_reader_verify(r, 1, NULL, NULL, NULL, NULL);
    cvq_buffer_free(&json);
    cvq_reader_close(r);
    return 0;
}
