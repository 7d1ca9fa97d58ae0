/* For targets whose inputs are JSON, lines of JSON, or begin with it as .safetensors files do. */
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/mutate.h"

#define LENGTH_BYTES 8

/* A stretch of the input becomes other text; what is behind it moves. */
static size_t mutate_within(uint8_t *data, size_t size, size_t most, size_t at, size_t length,
                            uint64_t *state, size_t *now) {
    static uint8_t text[1 << 16];
    const size_t rest = size - length, behind = size - at - length;
    const size_t room = most - rest < sizeof text ? most - rest : sizeof text;
    *now = length;
    if (length > room) return size;
    memcpy(text, data + at, length);
    *now = mutate_json_text(text, length, room, state);
    memmove(data + at + *now, data + at + length, behind);
    memcpy(data + at, text, *now);
    return rest + *now;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    uint64_t state = seed + 1u;
    size_t now, at = 0, length = size;
    if (size > most || size == 0 || mutate_below(&state, 5) == 0)
        return LLVMFuzzerMutate(data, size, most);
    const uint64_t stated = size < LENGTH_BYTES ? 0 : cvq_load_le(data, LENGTH_BYTES);
    if (stated > 1 && stated <= size - LENGTH_BYTES && data[LENGTH_BYTES] == '{') {
        length = (size_t)stated;
        size = mutate_within(data, size, most, LENGTH_BYTES, length, &state, &now);
        cvq_store_le(data, now, LENGTH_BYTES);
        return size;
    }
    if (mutate_below(&state, 2) == 0) { /* one line of it */
        at = mutate_below(&state, (uint32_t)size);
        while (at > 0 && data[at - 1] != '\n') at--;
        const uint8_t *end = memchr(data + at, '\n', size - at);
        length = end ? (size_t)(end - data) - at : size - at;
    }
    return mutate_within(data, size, most, at, length, &state, &now);
}
