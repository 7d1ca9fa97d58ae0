/* The metadata of a .cvq file, as JSON; what is accepted prints to something that reads back the
 * same. */
#include "formats/metadata.h"

#include <string.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_metadata m = {0}, again = {0};
    cvq_buffer first = {0}, second = {0};
    if (cvq_metadata_parse(&m, (const char *)data, size, "fuzz", NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    if (cvq_metadata_print(&m, &first, NULL) != CVQ_OK ||
        cvq_metadata_parse(&again, (const char *)first.data, first.size, "fuzz", NULL) != CVQ_OK ||
        cvq_metadata_print(&again, &second, NULL) != CVQ_OK || first.size != second.size ||
        memcmp(first.data, second.data, first.size) != 0)
        __builtin_trap();
    cvq_buffer_free(&first);
    cvq_buffer_free(&second);
    cvq_metadata_free(&m);
    cvq_metadata_free(&again);
    return 0;
}
