/* The attention of one decoded token alone, over so many caches that none of the machine's holds
 * them: what it reads is bound by memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bench/measure.h"
#include "bench/synthetic.h"
#include "runtime/attention.h"

typedef struct kv_bench {
    cvq_engine e;
    cvq_kv_cache *caches;
    size_t num_caches, slots;
    double bytes; /* that a token reads of one */
    float *q, *out;
} kv_bench;

/* The first block's slots are noise, the others are copies. */
static cvq_status fill(cvq_kv_cache *kv, const cvq_kernels *k, size_t slots, cvq_error *err) {
    size_t width = kv->heads * kv->head_dim, first = slots < CVQ_KV_BLOCK ? slots : CVQ_KV_BLOCK;
    size_t bytes = cvq_kv_block_bytes(kv->type, kv->heads, kv->head_dim) - sizeof(cvq_kv_block);
    void *values;
    CVQ_TRY(cvq_kv_reserve(kv, slots, err));
    CVQ_TRY(cvq_alloc(&values, 2 * width, sizeof(float), "keys and values", err));
    for (size_t slot = 0; slot < first; slot++) {
        cvq_synthetic_values(slot, values, 2 * width);
        cvq_kv_store(kv, k, slot, values, (const float *)values + width);
    }
    for (size_t b = 1; b < kv->num_blocks; b++)
        memcpy(kv->blocks[b]->data, kv->blocks[0]->data, bytes);
    free(values);
    return CVQ_OK;
}

static cvq_status open_bench(kv_bench *a, cvq_bench *b, cvq_kv_type type, cvq_error *err) {
    const cvq_model_config *c = &b->config;
    size_t dim = cvq_head_dim(c), heads = c->num_kv_heads;
    size_t scale = type == CVQ_KV_Q8 ? sizeof(float) : 0, element = type == CVQ_KV_Q8 ? 1 : 2;
    void *p;
    a->bytes = 2.0 * (double)(a->slots * heads * (dim * element + scale));
    a->num_caches = (size_t)((double)b->pool_bytes / a->bytes) + 1;
    CVQ_TRY(cvq_engine_open(&a->e, cvq_kernels_for(b->level), b->threads, true, &b->stop, err));
    CVQ_TRY(cvq_alloc(&p, 2, c->hidden_size * sizeof(float), "a token", err));
    a->q = p;
    a->out = a->q + c->hidden_size;
    cvq_synthetic_values(7, a->q, c->hidden_size);
    CVQ_TRY(cvq_alloc(&p, a->num_caches, sizeof *a->caches, "caches", err));
    a->caches = p;
    for (size_t i = 0; i < a->num_caches; i++) cvq_kv_init(&a->caches[i], type, heads, dim);
    for (size_t i = 0; i < a->num_caches; i++) CVQ_TRY(fill(&a->caches[i], a->e.k, a->slots, err));
    return CVQ_OK;
}

static void close_bench(kv_bench *a) {
    for (size_t i = 0; a->caches && i < a->num_caches; i++) cvq_kv_free(&a->caches[i]);
    free(a->caches);
    free(a->q);
    cvq_engine_close(&a->e);
}

/* A run is a pass over all caches. */
static void attend(const kv_bench *a, const cvq_model_config *c) {
    cvq_attention_call call = {.q = a->q,
                               .ldq = c->hidden_size,
                               .queries = 1,
                               .heads = c->num_heads,
                               .visible = &a->slots,
                               .scale = 1.0f / sqrtf((float)cvq_head_dim(c)),
                               .out = a->out,
                               .ldo = c->hidden_size};
    for (size_t i = 0; i < a->num_caches; i++) {
        call.kv = &a->caches[i];
        cvq_attention(&a->e, &call);
    }
}

static cvq_status measure(cvq_bench *b, cvq_kv_type type, const char *name, size_t slots,
                          cvq_error *err) {
    const cvq_model_config *c = &b->config;
    kv_bench a = {.slots = slots};
    cvq_bench_times t = {0};
    cvq_status status = open_bench(&a, b, type, err);
    if (status == CVQ_OK) attend(&a, c);
    while (status == CVQ_OK && cvq_bench_more(b, &t)) {
        double start = cvq_bench_now(), passes = (double)a.num_caches;
        attend(&a, c);
        double seconds = cvq_bench_now() - start;
        cvq_bench_add(&t, seconds / passes);
        t.sum += seconds - seconds / passes; /* real time */
    }
    cvq_bench_row row = {.name = "decode_attention",
                         .phase = CVQ_BENCH_DECODE,
                         .shape = {1, slots, c->hidden_size},
                         .type = name,
                         .ops = 4 * (double)slots * c->hidden_size,
                         .bytes = a.bytes,
                         .bound = CVQ_PEAK_F32};
    close_bench(&a);
    return status == CVQ_OK ? cvq_bench_done(b, &row, &t, cvq_real_config.num_layers, err) : status;
}

cvq_status cvq_bench_kv(cvq_bench *b, cvq_error *err) {
    static const size_t slots[] = {2400, 8192};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        if (cvq_bench_wanted(b, "decode_attention", "f16", 1))
            CVQ_TRY(measure(b, CVQ_KV_F16, "f16", slots[i] / b->scale, err));
        if (cvq_bench_wanted(b, "decode_attention", "q8", 1))
            CVQ_TRY(measure(b, CVQ_KV_Q8, "q8", slots[i] / b->scale, err));
    }
    return CVQ_OK;
}
