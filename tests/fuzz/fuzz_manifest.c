/* A manifest; the extents of an accepted one cover the file that it names without gaps. A file of
 * zeros is verified by it, and each of its contents found again as an update looks for them. */
#include "formats/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define ZEROS 5000 /* bytes; padding of so many matches, and hardly anything else */

static void verify(const cvq_extents *e) {
    static cvq_file_map zeros;
    if (!zeros.data && cvq_file_map_open(&zeros, fuzz_file(NULL, 0, ZEROS), NULL) != CVQ_OK)
        abort();
    bool *good = calloc(e->count, sizeof *good);
    if (!good ||
        cvq_extents_check(e, &zeros, 1, good, &(cvq_extents_watch){0}, "fuzz", NULL) != CVQ_OK)
        __builtin_trap();
    for (size_t i = 0; i < e->count; i++) {
        const cvq_extent *x = &e->items[i];
        if (good[i] && x->offset + x->size > ZEROS) __builtin_trap();
        if (!good[i] && !x->hash && x->offset + x->size <= ZEROS) __builtin_trap();
    }
    if (cvq_extents_damage(e, good, NULL, NULL) > e->count) __builtin_trap();
    free(good);
}

/* Leaves the manifest's extents in order of their hashes. */
static void find_contents(cvq_manifest *m) {
    cvq_extents_sort_by_hash(&m->extents);
    for (size_t i = 0; i < m->extents.count; i++) {
        const cvq_extent *x = &m->extents.items[i];
        const cvq_extent *found = cvq_extents_find(&m->extents, x);
        if (!found || found->size != x->size || memcmp(found->hash, x->hash, CVQ_HASH_BYTES) != 0)
            __builtin_trap();
    }
}

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
    verify(&m.extents);
    find_contents(&m);
    cvq_manifest_free(&m);
    return 0;
}
