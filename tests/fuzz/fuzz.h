/* What fuzz targets share. A target is one file fuzz_NAME.c with LLVMFuzzerTestOneInput, which
 * feeds bytes to one door of cvq that strangers' files come through, and uses what was accepted.
 * Built with libFuzzer by `make fuzz`; without, replay.c gives it a folder of files
 * (tests/test_fuzz.py). */
#ifndef CVQ_TESTS_FUZZ_H
#define CVQ_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* To be called for each input that the door let in. Of a corpus that has none, nothing is tried of
 * what lies behind: as it happens to a seed when a format changes. */
void fuzz_accepted(void);
extern size_t fuzz_num_accepted;

/* The path of a file with these bytes, extended by zeros to `length` if that is more (sparse). The
 * same file each time, so that nothing is left behind; replaced by the next call. */
const char *fuzz_file(const uint8_t *data, size_t size, uint64_t length);
/* For readers that are called back for bytes: the next `size` of a cvq_cursor, or what is left of
 * it. */
size_t fuzz_take(void *cursor, void *data, size_t size);
/* A folder of the process's own, where this file now has these bytes; at most 4 names. */
const char *fuzz_folder(const char *name, const uint8_t *data, size_t size);

#endif
