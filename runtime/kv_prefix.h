/* The first slots of a KV cache, kept beyond it: whole blocks are shared with the cache, the slots
 * of a last, broken block are copied. Nobody writes to a prefix once it is made, so that any number
 * of caches may take it up. */
#ifndef CVQ_RUNTIME_KV_PREFIX_H
#define CVQ_RUNTIME_KV_PREFIX_H

#include "runtime/kv_cache.h"

typedef struct cvq_kv_prefix {
    size_t keys;
    cvq_kv_cache whole; /* [keys / CVQ_KV_BLOCK] blocks */
    uint8_t *rows;      /* [keys % CVQ_KV_BLOCK][cvq_kv_row_bytes] */
} cvq_kv_prefix;

/* Zeros, to be filled by way of cvq_kv_prefix_piece. Start with {0}; on failure still to be freed,
 * here and below. */
cvq_status cvq_kv_prefix_alloc(cvq_kv_prefix *p, cvq_kv_type type, size_t heads, size_t head_dim,
                               size_t keys, cvq_error *err);
/* Of a cache that holds so many. */
cvq_status cvq_kv_prefix_take(cvq_kv_prefix *p, const cvq_kv_cache *c, size_t keys, cvq_error *err);
/* Instead of what a cache of the same shape holds in these slots. */
cvq_status cvq_kv_prefix_give(const cvq_kv_prefix *p, cvq_kv_cache *c, cvq_error *err);
void cvq_kv_prefix_free(cvq_kv_prefix *p);

/* All bytes of a prefix, in pieces: the whole blocks, then the rows. */
size_t cvq_kv_prefix_pieces(const cvq_kv_prefix *p);
uint8_t *cvq_kv_prefix_piece(const cvq_kv_prefix *p, size_t i, size_t *size);

#endif
