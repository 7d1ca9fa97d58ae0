/* A tokenizer table of the fuzzer's choosing that readers accept. */
#ifndef CVQ_TESTS_FUZZ_RANDOM_TOKENIZER_H
#define CVQ_TESTS_FUZZ_RANDOM_TOKENIZER_H

#include "tests/unit/small_file.h"

#define RANDOM_MERGES 32u
#define RANDOM_SPECIALS 4u
#define RANDOM_TOKENS (256u + RANDOM_MERGES + RANDOM_SPECIALS)

typedef struct random_pieces {
    uint8_t bytes[1 << 14];
    uint32_t offsets[RANDOM_TOKENS + 1], merges[RANDOM_MERGES][3];
    uint8_t special[RANDOM_TOKENS];
    uint32_t num_tokens, num_merges;
} random_pieces;

/* A piece of two earlier ones, of often used letters every other time. False: too long. */
static inline bool random_merge(random_pieces *p, uint32_t first_byte, uint64_t *state) {
    static const char letters[] = " abcst're13\n\xc3\xa9";
    const bool plain = small_random(state) % 2 == 0;
    uint32_t *merge = p->merges[p->num_merges];
    size_t size = p->offsets[p->num_tokens];
    for (int i = 0; i < 2; i++) {
        const uint8_t letter = (uint8_t)letters[small_random(state) % (sizeof letters - 1)];
        merge[i] = plain ? (letter - first_byte) & 255u : small_random(state) % p->num_tokens;
        const size_t start = p->offsets[merge[i]], length = p->offsets[merge[i] + 1] - start;
        if (size + length > sizeof p->bytes / 2) return false;
        memcpy(p->bytes + size, p->bytes + start, length);
        size += length;
    }
    /* Two ways to the same piece are one token with two merges. */
    const size_t length = size - p->offsets[p->num_tokens];
    for (merge[2] = 0; merge[2] < p->num_tokens; merge[2]++) {
        const uint32_t at = p->offsets[merge[2]];
        if (p->offsets[merge[2] + 1] - at == length &&
            memcmp(p->bytes + at, p->bytes + p->offsets[p->num_tokens], length) == 0)
            break;
    }
    for (uint32_t i = 0; i < p->num_merges; i++)
        if (memcmp(p->merges[i], merge, 2 * sizeof *merge) == 0) return true; /* there already */
    p->num_merges++;
    if (merge[2] == p->num_tokens) p->offsets[++p->num_tokens] = (uint32_t)size;
    return true;
}

/* 256 bytes in a turned order, pieces by up to 32 merges, up to 4 specials. The state must not be
 * 0. */
static inline cvq_status random_tokenizer(cvq_buffer *table, uint64_t *state, cvq_error *err) {
    random_pieces p = {.num_tokens = 256};
    const uint32_t first_byte = small_random(state) % 256;
    const uint32_t merges = small_random(state) % (RANDOM_MERGES + 1);
    const uint32_t specials = small_random(state) % (RANDOM_SPECIALS + 1);
    for (uint32_t i = 0; i < 256; i++) {
        p.bytes[i] = (uint8_t)(i + first_byte);
        p.offsets[i + 1] = i + 1;
    }
    for (uint32_t i = 0; i < merges && random_merge(&p, first_byte, state); i++) continue;
    for (uint32_t i = 0; i < specials; i++) {
        const uint32_t at = p.offsets[p.num_tokens];
        memcpy(p.bytes + at, "<s0>", 4);
        p.bytes[at + 2] = (uint8_t)('0' + i);
        p.special[p.num_tokens++] = 1;
        p.offsets[p.num_tokens] = at + 4;
    }
    const cvq_tokenizer_source source = {.num_tokens = p.num_tokens,
                                         .bytes = p.bytes,
                                         .offsets = p.offsets,
                                         .special = p.special,
                                         .num_merges = p.num_merges,
                                         .merges = p.merges[0],
                                         .ignore_merges = small_random(state) % 2 == 0};
    return cvq_tokenizer_table_build(table, &source, err);
}

#endif
