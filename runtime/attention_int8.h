/* Fast attention over int8 keys and values (runtime/kv_int8.h), in bounded memory: queries have a
 * scale per token and head, softmax weights 8 bits relative to the largest of 256 keys; grouped
 * queries; causal or full. Never in exact mode, whose attention is runtime/attention.h. */
#ifndef CVQ_RUNTIME_ATTENTION_INT8_H
#define CVQ_RUNTIME_ATTENTION_INT8_H

#include "runtime/kv_int8.h"

typedef struct cvq_attention_int8_call {
    const cvq_kv_int8 *kv;
    const float *q; /* [queries][ldq], head h at h x head_dim */
    size_t ldq, queries,
        heads; /* heads: a multiple of kv->heads; head h reads KV head h / (heads / kv->heads) */
    const size_t *visible; /* [queries]: a query sees keys 0 .. visible - 1, at least one; NULL: all
                              see all */
    float scale;
    float *out; /* [queries][ldo], heads as in q; may not overlap it */
    size_t ldo;
} cvq_attention_int8_call;

/* A query's result does not depend on which others are computed with it. A query that is not finite
 * gets NaN, as do all that see a block of 256 keys one of which is not (cvq_kv_int8_block). A head
 * that cvq_attention_fits fits here too. */
void cvq_attention_int8(const cvq_engine *e, const cvq_attention_int8_call *call);

#endif
