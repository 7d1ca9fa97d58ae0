/* Keys and values of many tokens in int8, as attend_int8 reads them: keys have a scale each, values
 * one per dimension for 256 keys. A mean over tokens is taken off first: of the keys this changes
 * nothing under a softmax, to the results the values' mean is added again. */
#ifndef CVQ_RUNTIME_KV_INT8_H
#define CVQ_RUNTIME_KV_INT8_H

#include "runtime/kv_cache.h"

typedef struct cvq_kv_int8 {
    size_t heads, head_dim, tokens;
    uint8_t *blocks; /* [heads][blocks of 256 tokens], 64-byte aligned */
    float *means;    /* [heads][2][panels x 16] of keys and of values */
} cvq_kv_int8;

/* Keys and values of tokens in a row each. */
typedef struct cvq_kv_rows {
    const float *k, *v; /* [count][ld], head h at h x head_dim */
    size_t ld, count;
} cvq_kv_rows;

/* what: whom an error names. */
cvq_status cvq_kv_int8_alloc(cvq_kv_int8 *kv, size_t heads, size_t head_dim, size_t tokens,
                             const char *what, cvq_error *err);
void cvq_kv_int8_free(cvq_kv_int8 *kv);
uint64_t cvq_kv_int8_bytes(size_t heads, size_t head_dim, size_t tokens);

/* Fill kv with its tokens, rows->count of them. */
void cvq_kv_int8_store(const cvq_engine *e, cvq_kv_int8 *kv, const cvq_kv_rows *rows);
/* Fill kv with the first slots of a cache, less the means of rows, which may be any. */
void cvq_kv_int8_store_cached(const cvq_engine *e, cvq_kv_int8 *kv, const cvq_kv_cache *cache,
                              const cvq_kv_rows *rows);

/* Block b (keys 256 b ..) of a head for the kernel, and what was taken off the values [head_dim].
 * Where a key is not finite, or above 1e18, every result of its block is NaN. */
size_t cvq_kv_int8_blocks(const cvq_kv_int8 *kv);
cvq_attention_block cvq_kv_int8_block(const cvq_kv_int8 *kv, size_t head, size_t block);
const float *cvq_kv_int8_value_mean(const cvq_kv_int8 *kv, size_t head);

#endif
