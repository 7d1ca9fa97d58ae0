/* The tokenizer as a validated binary table, so that opening a model parses nothing: pieces and
 * merges stand sorted and are searched where they lie in the mapped file. docs/format.md gives the
 * layout. */
#ifndef CVQ_FORMATS_TOKENIZER_TABLE_H
#define CVQ_FORMATS_TOKENIZER_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

#define CVQ_TOKENIZER_MAX_TOKENS (1u << 20)
#define CVQ_TOKENIZER_MAX_MERGES (1u << 21)

/* What a table is made from. */
typedef struct cvq_tokenizer_source {
    uint32_t num_tokens;  /* ids 0 .. num_tokens - 1; an id without a piece has length 0 and is no
                             special */
    const uint8_t *bytes; /* all pieces one after another, as raw bytes (not GPT-2's stand-ins) */
    const uint32_t *offsets; /* [num_tokens + 1] */
    const uint8_t
        *special;        /* [num_tokens] 1 for added tokens (not empty), which text never matches */
    uint32_t num_merges; /* in order of rank */
    const uint32_t *merges; /* [num_merges][3] left id, right id, merged id */
    bool ignore_merges;     /* a whole pre-token that is a piece is one token */
} cvq_tokenizer_source;

cvq_status cvq_tokenizer_table_build(cvq_buffer *out, const cvq_tokenizer_source *source,
                                     cvq_error *err);

/* A view of a table; borrows its bytes. Pieces are numbered: first the ordinary ones, sorted by
 * their bytes, then the others by id. All integers in the file are little-endian; accessors read
 * them unaligned. Only the accessors below look inside. */
typedef struct cvq_tokenizer_table {
    uint32_t num_tokens, num_merges;
    bool ignore_merges;
    const uint8_t *offsets;     /* u32 [num_tokens + 1] of pieces, into bytes */
    const uint8_t *ids;         /* u32 [num_tokens] of pieces */
    const uint8_t *numbers;     /* u32 [num_tokens] of ids: the inverse */
    const uint8_t *merge_first; /* u32 [num_sorted + 1] the merges of each left piece */
    const uint8_t *merges;      /* u32 [num_merges][3] right piece, rank, merged piece */
    const uint8_t *bytes;       /* [num_bytes] */
    uint32_t num_bytes, num_sorted;
    uint32_t first_byte[257]; /* first_byte[b] is the first piece that starts with b */
    uint32_t byte_ids[256];   /* the token of each single byte: every byte has one */
} cvq_tokenizer_table;

/* Checks everything: sizes, offsets rising, order of both sorted arrays, ids in range, pieces of
 * merges adding up, a token for every byte. where names the file. */
cvq_status cvq_tokenizer_table_open(cvq_tokenizer_table *t, const uint8_t *data, size_t size,
                                    const char *where, cvq_error *err);

/* The piece of an id (specials too); *length 0 for an id that has none or is out of range. */
const uint8_t *cvq_tokenizer_piece(const cvq_tokenizer_table *t, uint32_t id, size_t *length);
bool cvq_tokenizer_is_special(const cvq_tokenizer_table *t, uint32_t id);
/* The ordinary token whose piece is exactly these bytes. */
bool cvq_tokenizer_find(const cvq_tokenizer_table *t, const uint8_t *bytes, size_t length,
                        uint32_t *id);
/* The merge of two adjacent tokens. */
bool cvq_tokenizer_merge(const cvq_tokenizer_table *t, uint32_t left, uint32_t right,
                         uint32_t *rank, uint32_t *merged);

#endif
