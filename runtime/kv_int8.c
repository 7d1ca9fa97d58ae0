/* Means and quantization into the kernel's layout. */
#include "runtime/kv_int8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "base/parallel.h"

#define LANES CVQ_PANEL_ROWS
#define KEYS CVQ_ATTENTION_KEYS
#define LARGEST_SCALE (1e18f / 127.0f)
_Static_assert(KEYS == CVQ_KV_BLOCK, "a cache's block is a block here");

static size_t steps_of(size_t d) {
    return (d + 3) / 4;
}
static size_t panels_of(size_t d) {
    return (d + LANES - 1) / LANES;
}

size_t cvq_kv_int8_blocks(const cvq_kv_int8 *kv) {
    return (kv->tokens + KEYS - 1) / KEYS;
}

/* A block's parts: keys, values, scales and starts of keys, scales of values; all multiples of 64
 * bytes. */
static size_t block_bytes(size_t d) {
    return KEYS * 4 * steps_of(d) + KEYS * LANES * panels_of(d) + KEYS * 8 +
           panels_of(d) * LANES * sizeof(float);
}

typedef struct block_parts {
    int8_t *keys, *values;
    float *key_scale, *value_scale;
    int32_t *key_start;
} block_parts;

static block_parts parts_of(const cvq_kv_int8 *kv, size_t head, size_t block) {
    size_t d = kv->head_dim;
    uint8_t *p = kv->blocks + (head * cvq_kv_int8_blocks(kv) + block) * block_bytes(d);
    block_parts b = {.keys = (int8_t *)p};
    b.values = b.keys + KEYS * 4 * steps_of(d);
    b.key_scale = (float *)(void *)(b.values + KEYS * LANES * panels_of(d));
    b.key_start = (int32_t *)(void *)(b.key_scale + KEYS);
    b.value_scale = (float *)(void *)(b.key_start + KEYS);
    return b;
}

cvq_attention_block cvq_kv_int8_block(const cvq_kv_int8 *kv, size_t head, size_t block) {
    block_parts b = parts_of(kv, head, block);
    return (cvq_attention_block){.keys = b.keys,
                                 .key_scale = b.key_scale,
                                 .key_start = b.key_start,
                                 .values = b.values,
                                 .value_scale = b.value_scale,
                                 .steps = steps_of(kv->head_dim),
                                 .panels = panels_of(kv->head_dim)};
}

/* which: 0 of the keys, 1 of the values. */
static float *mean_of(const cvq_kv_int8 *kv, size_t head, size_t which) {
    return kv->means + (2 * head + which) * panels_of(kv->head_dim) * LANES;
}

const float *cvq_kv_int8_value_mean(const cvq_kv_int8 *kv, size_t head) {
    return mean_of(kv, head, 1);
}

uint64_t cvq_kv_int8_bytes(size_t heads, size_t head_dim, size_t tokens) {
    return (uint64_t)heads * ((tokens + KEYS - 1) / KEYS * block_bytes(head_dim) +
                              2 * panels_of(head_dim) * LANES * sizeof(float));
}

cvq_status cvq_kv_int8_alloc(cvq_kv_int8 *kv, size_t heads, size_t head_dim, size_t tokens,
                             const char *what, cvq_error *err) {
    void *p;
    *kv = (cvq_kv_int8){.heads = heads, .head_dim = head_dim, .tokens = tokens};
    CVQ_TRY(cvq_alloc(&p, heads * cvq_kv_int8_blocks(kv), block_bytes(head_dim), what, err));
    kv->blocks = p;
    CVQ_TRY(cvq_alloc(&p, heads * 2, panels_of(head_dim) * LANES * sizeof(float), what, err));
    kv->means = p;
    return CVQ_OK;
}

void cvq_kv_int8_free(cvq_kv_int8 *kv) {
    if (!kv) return;
    free(kv->blocks);
    free(kv->means);
    kv->blocks = NULL;
    kv->means = NULL;
}

/* ---------------------------------------------------------------- quantization */

typedef struct store_job {
    const cvq_engine *e;
    const cvq_kv_int8 *kv;
    const cvq_kv_rows *rows;
    const cvq_kv_cache *cache; /* NULL: the rows are the tokens */
} store_job;

#define HEADS_OF_UNIT 4 /* that are read side by side, so that less of a page is passed over */

/* Sums go by ascending token, whatever the number of threads. */
static void mean_unit(void *context, size_t unit, int thread) {
    const store_job *job = context;
    const cvq_kv_rows *rows = job->rows;
    (void)thread;
    size_t which = unit % 2, first = unit / 2 * HEADS_OF_UNIT, d = job->kv->head_dim;
    size_t end = first + HEADS_OF_UNIT < job->kv->heads ? first + HEADS_OF_UNIT : job->kv->heads;
    for (size_t head = first; head < end; head++)
        memset(mean_of(job->kv, head, which), 0, d * sizeof(float));
    for (size_t t = 0; t < rows->count; t++) {
        const float *x = (which ? rows->v : rows->k) + t * rows->ld;
        for (size_t head = first; head < end; head++)
            job->e->k->add(mean_of(job->kv, head, which), x + head * d, d);
    }
    for (size_t head = first; head < end; head++) {
        float *mean = mean_of(job->kv, head, which);
        for (size_t i = 0; i < d; i++) mean[i] /= (float)rows->count;
    }
}

/* keys: panels [head_dim][16]. */
static void store_keys(const store_job *job, size_t head, size_t panel, const float *x,
                       const block_parts *b) {
    size_t steps = steps_of(job->kv->head_dim);
    cvq_lane_codes out = {b->keys + panel * steps * 64, 64, b->key_scale + panel * LANES,
                          b->key_start + panel * LANES};
    job->e->k->quantize_lanes(x, LANES, job->kv->head_dim, mean_of(job->kv, head, 0), true, &out);
}

static void store_values(const store_job *job, size_t head, size_t panel, const float *x, size_t ld,
                         size_t keys, const block_parts *b) {
    cvq_lane_codes out = {b->values + panel * 64, panels_of(job->kv->head_dim) * 64,
                          b->value_scale + panel * LANES, NULL};
    job->e->k->quantize_lanes(x, ld, keys, mean_of(job->kv, head, 1) + panel * LANES, false, &out);
}

static void store_from_rows(const store_job *job, size_t head, size_t block, size_t keys,
                            const block_parts *b, float *scratch) {
    const cvq_kv_rows *rows = job->rows;
    size_t d = job->kv->head_dim, first = block * KEYS * rows->ld + head * d;
    for (size_t p = 0; p * LANES < keys; p++) {
        size_t n = keys - p * LANES < LANES ? keys - p * LANES : LANES;
        job->e->k->transpose16(rows->k + first + p * LANES * rows->ld, rows->ld, n, d, scratch);
        store_keys(job, head, p, scratch, b);
    }
    for (size_t p = 0; p < panels_of(d); p++) {
        const float *x = rows->v + first + p * LANES;
        size_t lanes = d - p * LANES, ld = rows->ld;
        if (lanes < LANES) { /* what lies behind is another head's */
            for (size_t j = 0; j < keys; j++)
                for (size_t i = 0; i < LANES; i++)
                    scratch[j * LANES + i] = i < lanes ? x[j * ld + i] : 0;
            x = scratch;
            ld = LANES;
        }
        store_values(job, head, p, x, ld, keys, b);
    }
}

static void store_from_cache(const store_job *job, size_t head, size_t block, size_t keys,
                             const block_parts *b, float *scratch) {
    size_t d = job->kv->head_dim, panels = (keys + LANES - 1) / LANES;
    const cvq_kernels *k = job->e->k;
    cvq_kv_scales scales = cvq_kv_block_scales(job->cache, block, head);
    const float *x = cvq_kv_keys(job->cache, k, block, head, panels, scratch);
    for (size_t i = 0; i < panels * d && scales.keys; i++)
        k->mul(scratch + i * LANES, scales.keys + i / d * LANES, LANES);
    for (size_t p = 0; p < panels; p++) store_keys(job, head, p, x + p * d * LANES, b);
    x = cvq_kv_values(job->cache, k, block, head, panels, scratch);
    for (size_t i = 0; i < panels_of(d) * KEYS && scales.values; i++)
        if (i % KEYS < panels * LANES)
            k->scale(scratch + i * LANES, scales.values[i % KEYS], LANES);
    for (size_t p = 0; p < panels_of(d); p++)
        store_values(job, head, p, x + p * KEYS * LANES, LANES, keys, b);
}

static void block_unit(void *context, size_t unit, int thread) {
    const store_job *job = context;
    const cvq_kv_int8 *kv = job->kv;
    size_t blocks = cvq_kv_int8_blocks(kv), head = unit / blocks, block = unit % blocks;
    size_t left = kv->tokens - block * KEYS, keys = left < KEYS ? left : KEYS;
    block_parts b = parts_of(kv, head, block);
    float *scratch = cvq_engine_scratch(job->e, thread);
    if (cvq_engine_stopped(job->e)) return;
    (job->cache ? store_from_cache : store_from_rows)(job, head, block, keys, &b, scratch);
    bool good = true;
    for (size_t i = 0; i < keys; i++) good = good && b.key_scale[i] < LARGEST_SCALE;
    for (size_t i = 0; !good && i < panels_of(kv->head_dim) * LANES; i++) b.value_scale[i] = NAN;
}

static void store(store_job *job) {
    const cvq_kv_int8 *kv = job->kv;
    size_t units = (kv->heads + HEADS_OF_UNIT - 1) / HEADS_OF_UNIT * 2;
    cvq_parallel_for(job->e->threads, units, mean_unit, job);
    cvq_parallel_for(job->e->threads, kv->heads * cvq_kv_int8_blocks(kv), block_unit, job);
}

void cvq_kv_int8_store(const cvq_engine *e, cvq_kv_int8 *kv, const cvq_kv_rows *rows) {
    store(&(store_job){.e = e, .kv = kv, .rows = rows});
}

void cvq_kv_int8_store_cached(const cvq_engine *e, cvq_kv_int8 *kv, const cvq_kv_cache *cache,
                              const cvq_kv_rows *rows) {
    store(&(store_job){.e = e, .kv = kv, .rows = rows, .cache = cache});
}
