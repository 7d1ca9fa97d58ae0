/* A manifest; the extents of an accepted one cover the file that it names without gaps. */
#include "formats/manifest.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_manifest m;
    if (cvq_manifest_parse(&m, (const char *)data, size, "fuzz", NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    uint64_t end = 0;
    for (size_t i = 0; i < m.extents.count; i++) {
        const cvq_extent *x = &m.extents.items[i];
        if (x->offset != end || x->size == 0 || !cvq_manifest_owner(&m, x->owner)) __builtin_trap();
        end += x->size;
    }
    if (end != m.file_bytes) __builtin_trap();
    cvq_manifest_free(&m);
    return 0;
}
