/* Softmax attention in bounded memory: keys go by in blocks of 256 with a running maximum and sum
 * (FlashAttention's recurrence), whatever their number; grouped queries; causal or full; any head
 * size. */
#ifndef CVQ_RUNTIME_ATTENTION_H
#define CVQ_RUNTIME_ATTENTION_H

#include "runtime/kv_cache.h"

typedef struct cvq_attention_call {
    const cvq_kv_cache *kv;
    const float *q; /* [queries][ldq], head h at h x head_dim */
    size_t ldq, queries,
        heads; /* heads: a multiple of kv->heads; head h reads KV head h / (heads / kv->heads) */
    const size_t *visible; /* [queries]: a query sees keys 0 .. visible - 1, at least one */
    float scale;
    float *out; /* [queries][ldo], heads as in q */
    size_t ldo;
} cvq_attention_call;

/* A query's result does not depend on which others are computed with it. */
void cvq_attention(const cvq_engine *e, const cvq_attention_call *call);
/* Whether a head of this size fits in the scratch memory of a thread. */
bool cvq_attention_fits(size_t head_dim);

#endif
