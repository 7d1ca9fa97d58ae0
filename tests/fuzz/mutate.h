/* Mutations that keep an input's structure, for libFuzzer: with bytes alone, what a parser refuses
 * at once is all that is ever tried of most formats. Linked where there is a fuzzer (Makefile);
 * mutate_json.c, mutate_cvq.c and mutate_tokenizer.c each define its LLVMFuzzerCustomMutator. */
#ifndef CVQ_TESTS_FUZZ_MUTATE_H
#define CVQ_TESTS_FUZZ_MUTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/small_file.h"

/* libFuzzer's: of `size` bytes at data, at most `most`; the new size. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

/* A number below `limit` (not 0). The state must not be 0. */
static inline uint32_t mutate_below(uint64_t *state, uint32_t limit) {
    return small_random(state) % limit;
}

/* Change JSON text, or what is like it, in place: values copied, moved, deleted, given again, keys
 * renamed, numbers set to what lies at an edge. The new size, at most `most`; `size` where nothing
 * could be done. */
size_t mutate_json_text(uint8_t *text, size_t size, size_t most, uint64_t *state);

#endif
