/* Fast attention of tokens among themselves (the ViT's) in int8, in bounded memory. Queries and
 * keys have a scale per token and head, values one per dimension for 256 keys, softmax weights 8
 * bits relative to the largest of 256 keys. Means over the tokens are taken off first: of the keys
 * this changes nothing under a softmax, to the results the values' mean is added again. Never in
 * exact mode, whose attention is runtime/attention.h. */
#ifndef CVQ_RUNTIME_ATTENTION_INT8_H
#define CVQ_RUNTIME_ATTENTION_INT8_H

#include "base/status.h"
#include "runtime/engine.h"

/* Keys and values in int8: by head and 256 keys as attend_int8 reads them, and the means. */
typedef struct cvq_kv_int8 {
    size_t heads, head_dim, tokens;
    uint8_t *blocks; /* [heads][blocks of 256 tokens], 64-byte aligned */
    float *means;    /* [heads][2][panels x 16] of keys and of values */
} cvq_kv_int8;

typedef struct cvq_attention_int8_call {
    const cvq_kv_int8 *kv;  /* its contents are replaced */
    const float *q, *k, *v; /* [tokens][ld], head h at h x head_dim */
    size_t ld;
    float scale;
    float *out; /* [tokens][ldo]; may not overlap the inputs */
    size_t ldo;
} cvq_attention_int8_call;

cvq_status cvq_kv_int8_alloc(cvq_kv_int8 *kv, size_t heads, size_t head_dim, size_t tokens,
                             cvq_error *err);
void cvq_kv_int8_free(cvq_kv_int8 *kv);
uint64_t cvq_kv_int8_bytes(size_t heads, size_t head_dim, size_t tokens);

/* A token whose query is not finite gets NaN, as do all where a key or value is not (or a key's
 * magnitude is above 1e18). A head that cvq_attention_fits fits here too. */
void cvq_attention_int8(const cvq_engine *e, const cvq_attention_int8_call *call);

#endif
