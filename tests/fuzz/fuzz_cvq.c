/* The head of a .cvq file as it is, the weights zeros: nearly everything ends at its hash (see
 * fuzz_cvq_mended.c). */
#include "formats/cvq_reader.h"

#include "base/checked.h"
#include "formats/cvq_head_internal.h"
#include "tests/fuzz/fuzz.h"

#define MOST_FILE (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_reader *r = NULL;
    const uint64_t stated = size < CVQ_HEADER_BYTES ? 0 : cvq_load_le(data + 16, 8);
    const char *path = fuzz_file(data, size, stated <= MOST_FILE ? stated : 0);
    if (cvq_reader_open(&r, path, NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    cvq_buffer json = {0};
    (void)cvq_reader_metadata(r, &json, NULL);
    (void)cvq_reader_verify(r, 1, NULL, NULL, NULL, NULL);
    cvq_buffer_free(&json);
    cvq_reader_close(r);
    return 0;
}
