/* Means, quantization into the kernel's layout, and units of up to 384 queries of a head, so that
 * keys and values are read again seldom. */
#include "runtime/attention_int8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/parallel.h"

#define LANES CVQ_PANEL_ROWS
#define KEYS CVQ_ATTENTION_KEYS
#define MAX_ROWS 384 /* of a unit; a multiple of CVQ_ATTENTION_ROWS */
#define LARGEST 1e18f
#define TINY 0x1p-100f /* what is all below becomes zeros */
/* cvq_attention_fits asks for a tile of 256 keys of the head in a thread's scratch memory. */
_Static_assert(CVQ_SCRATCH_FLOATS / KEYS <= 4 * CVQ_ATTENTION_STEPS, "the kernel takes such heads");
#define LOG2_E 1.44269504f

static size_t steps_of(size_t d) {
    return (d + 3) / 4;
}
static size_t panels_of(size_t d) {
    return (d + LANES - 1) / LANES;
}
static size_t num_blocks(const cvq_kv_int8 *kv) {
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

static block_parts block_of(const cvq_kv_int8 *kv, size_t head, size_t block) {
    size_t d = kv->head_dim;
    uint8_t *p = kv->blocks + (head * num_blocks(kv) + block) * block_bytes(d);
    block_parts b = {.keys = (int8_t *)p};
    b.values = b.keys + KEYS * 4 * steps_of(d);
    b.key_scale = (float *)(void *)(b.values + KEYS * LANES * panels_of(d));
    b.key_start = (int32_t *)(void *)(b.key_scale + KEYS);
    b.value_scale = (float *)(void *)(b.key_start + KEYS);
    return b;
}

static float *mean_of(const cvq_kv_int8 *kv, size_t head, size_t which) {
    return kv->means + (2 * head + which) * panels_of(kv->head_dim) * LANES;
}

uint64_t cvq_kv_int8_bytes(size_t heads, size_t head_dim, size_t tokens) {
    return (uint64_t)heads * ((tokens + KEYS - 1) / KEYS * block_bytes(head_dim) +
                              2 * panels_of(head_dim) * LANES * sizeof(float));
}

cvq_status cvq_kv_int8_alloc(cvq_kv_int8 *kv, size_t heads, size_t head_dim, size_t tokens,
                             cvq_error *err) {
    void *p;
    *kv = (cvq_kv_int8){.heads = heads, .head_dim = head_dim, .tokens = tokens};
    CVQ_TRY(cvq_alloc(&p, heads * num_blocks(kv), block_bytes(head_dim), "vision encoder", err));
    kv->blocks = p;
    CVQ_TRY(cvq_alloc(&p, heads * 2, panels_of(head_dim) * LANES * sizeof(float), "vision encoder",
                      err));
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

/* The integer nearest to x, |x| <= 127, in the low byte: the sum's last bit counts ones. */
static uint32_t nearest(float x) {
    return cvq_f32_bits(x + 12582912.0f);
}

typedef struct attention_job {
    const cvq_engine *e;
    const cvq_attention_int8_call *call;
    size_t rows, tiles; /* of a unit; units of a head */
} attention_job;

static void mean_unit(void *context, size_t unit, int thread) {
    const attention_job *job = context;
    const cvq_attention_int8_call *c = job->call;
    (void)thread;
    size_t head = unit / 2, d = c->kv->head_dim;
    const float *x = (unit % 2 ? c->v : c->k) + head * d;
    float *mean = mean_of(c->kv, head, unit % 2);
    memset(mean, 0, d * sizeof *mean);
    for (size_t t = 0; t < c->kv->tokens; t++, x += c->ld)
        for (size_t i = 0; i < d; i++) mean[i] += x[i];
    for (size_t i = 0; i < d; i++) mean[i] /= (float)c->kv->tokens;
}

static float largest_magnitude(const float *x, size_t n) {
    float largest = 0;
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        largest = a > largest ? a : largest;
    }
    return largest;
}

static void store_key(const cvq_kv_int8 *kv, const block_parts *b, size_t key, const float *x,
                      float largest, int8_t *bytes) {
    size_t d = kv->head_dim, steps = steps_of(d);
    float factor = largest > TINY ? 127.0f / largest : 0;
    int32_t sum = 0;
    for (size_t i = 0; i < d; i++) bytes[i] = (int8_t)(nearest(x[i] * factor) & 255);
    for (size_t i = 0; i < d; i++) sum += bytes[i];
    int8_t *to = b->keys + (key / LANES * steps * LANES + key % LANES) * 4;
    for (size_t s = 0; s < steps; s++) memcpy(to + s * LANES * 4, bytes + 4 * s, 4);
    b->key_scale[key] = largest > TINY ? largest / 127.0f : 0;
    b->key_start[key] = -128 * sum;
}

/* Returns the largest magnitude, its mean taken off; infinity where the mean is not finite. */
static float store_keys(const attention_job *job, size_t head, size_t first, size_t keys,
                        const block_parts *b, float *scratch) {
    const cvq_attention_int8_call *c = job->call;
    size_t d = c->kv->head_dim;
    const float *mean = mean_of(c->kv, head, 0);
    float *x = scratch, most = 0;
    int8_t *bytes = (int8_t *)(void *)(scratch + cvq_round_up(d, LANES));
    memset(bytes, 0, cvq_round_up(d, LANES));
    for (size_t i = 0; i < d; i++)
        if (!isfinite(mean[i])) most = INFINITY;
    for (size_t key = 0; key < keys; key++) {
        const float *from = c->k + (first + key) * c->ld + head * d;
        for (size_t i = 0; i < d; i++) x[i] = from[i] - mean[i];
        float largest = largest_magnitude(x, d);
        store_key(c->kv, b, key, x, largest, bytes);
        most = largest > most ? largest : most;
    }
    return most;
}

/* Four bytes of 4 keys stand together, so that a key group is a row of 32-bit words. */
static void store_values(const attention_job *job, size_t head, size_t first, size_t keys,
                         const block_parts *b, float *scratch) {
    const cvq_attention_int8_call *c = job->call;
    size_t d = c->kv->head_dim, padded = panels_of(d) * LANES;
    const float *mean = mean_of(c->kv, head, 1), *from = c->v + first * c->ld + head * d;
    float *factor = scratch, *none = scratch + padded;
    memset(factor, 0, padded * sizeof *factor);
    for (size_t key = 0; key < keys; key++)
        for (size_t i = 0; i < d; i++) {
            float a = fabsf(from[key * c->ld + i] - mean[i]);
            factor[i] = a > factor[i] ? a : factor[i];
        }
    for (size_t i = 0; i < padded; i++) {
        b->value_scale[i] = factor[i] > TINY ? factor[i] / 127.0f : 0;
        factor[i] = factor[i] > TINY ? 127.0f / factor[i] : 0;
        if (i < d) none[i] = mean[i]; /* a key that is not there is zero */
    }
    for (size_t group = 0; 4 * group < keys; group++) {
        const float *x[4];
        for (size_t j = 0; j < 4; j++)
            x[j] = 4 * group + j < keys ? from + (4 * group + j) * c->ld : none;
        uint32_t *to = (uint32_t *)(void *)(b->values + group * padded * 4);
        for (size_t i = 0; i < d; i++) {
            uint32_t word = 0;
            for (int j = 0; j < 4; j++)
                word |= (nearest((x[j][i] - mean[i]) * factor[i]) & 255) << 8 * j;
            to[i] = word;
        }
    }
}

static void block_unit(void *context, size_t unit, int thread) {
    const attention_job *job = context;
    const cvq_kv_int8 *kv = job->call->kv;
    size_t head = unit / num_blocks(kv), block = unit % num_blocks(kv), first = block * KEYS;
    size_t keys = kv->tokens - first < KEYS ? kv->tokens - first : KEYS;
    block_parts b = block_of(kv, head, block);
    float *scratch = cvq_engine_scratch(job->e, thread);
    if (cvq_engine_stopped(job->e)) return;
    float most = store_keys(job, head, first, keys, &b, scratch);
    store_values(job, head, first, keys, &b, scratch);
    for (size_t i = 0; !(most < LARGEST) && i < kv->head_dim; i++) b.value_scale[i] = NAN;
}

/* ---------------------------------------------------------------- attention */

/* A unit's rows in a thread's scratch memory. */
typedef struct unit_memory {
    float *out, *q_scale, *max, *sum;
    size_t *seen;
    uint8_t *q;
} unit_memory;

static size_t row_bytes(size_t d) {
    return panels_of(d) * LANES * sizeof(float) + 3 * sizeof(float) + sizeof(size_t) +
           4 * steps_of(d);
}

static unit_memory carve(float *scratch, size_t d, size_t rows) {
    unit_memory m = {.out = scratch};
    m.seen = (size_t *)(void *)(m.out + rows * panels_of(d) * LANES);
    m.q_scale = (float *)(void *)(m.seen + rows);
    m.max = m.q_scale + rows;
    m.sum = m.max + rows;
    m.q = (uint8_t *)(m.sum + rows);
    return m;
}

/* A query's scale takes in the softmax's and the base 2; NaN where the query is not finite. */
static void load_query(const cvq_attention_int8_call *c, const float *from, size_t d, float *scale,
                       uint8_t *q) {
    float largest = largest_magnitude(from, d), zero = 0;
    for (size_t i = 0; i < d; i++) zero += from[i] * 0.0f;
    float factor = largest > TINY && zero == 0 ? 127.0f / largest : 0;
    *scale = zero == 0 ? (largest > TINY ? largest / 127.0f : 0) * (c->scale * LOG2_E) : NAN;
    for (size_t i = 0; i < d; i++) q[i] = (uint8_t)((nearest(from[i] * factor) + 128) & 255);
}

static void load_queries(const attention_job *job, size_t head, size_t first, size_t rows,
                         size_t padded_rows, const unit_memory *m) {
    const cvq_attention_int8_call *c = job->call;
    size_t d = c->kv->head_dim, bytes = 4 * steps_of(d);
    memset(m->out, 0, padded_rows * panels_of(d) * LANES * sizeof(float));
    memset(m->q, 128, padded_rows * bytes);
    for (size_t r = 0; r < padded_rows; r++) {
        m->max[r] = -1e30f;
        m->sum[r] = m->q_scale[r] = 0;
        if (r < rows)
            load_query(c, c->q + (first + r) * c->ld + head * d, d, &m->q_scale[r],
                       m->q + r * bytes);
    }
}

static void store_results(const attention_job *job, size_t head, size_t first, size_t rows,
                          const unit_memory *m) {
    const cvq_attention_int8_call *c = job->call;
    size_t d = c->kv->head_dim;
    const float *mean = mean_of(c->kv, head, 1);
    for (size_t r = 0; r < rows; r++) {
        const float *from = m->out + r * panels_of(d) * LANES;
        float *to = c->out + (first + r) * c->ldo + head * d, factor = 1.0f / m->sum[r];
        for (size_t i = 0; i < d; i++) to[i] = from[i] * factor + mean[i];
    }
}

static void attention_unit(void *context, size_t unit, int thread) {
    const attention_job *job = context;
    const cvq_kv_int8 *kv = job->call->kv;
    size_t d = kv->head_dim, head = unit / job->tiles, first = unit % job->tiles * job->rows;
    size_t rows = kv->tokens - first < job->rows ? kv->tokens - first : job->rows;
    size_t padded = (rows + CVQ_ATTENTION_ROWS - 1) / CVQ_ATTENTION_ROWS * CVQ_ATTENTION_ROWS;
    unit_memory m = carve(cvq_engine_scratch(job->e, thread), d, job->rows);
    load_queries(job, head, first, rows, padded, &m);
    cvq_attention_rows r = {m.q, m.q_scale, m.seen, m.max, m.sum, m.out};
    for (size_t block = 0; block < num_blocks(kv); block++) {
        if (cvq_engine_stopped(job->e)) return;
        size_t left = kv->tokens - block * KEYS;
        for (size_t i = 0; i < padded; i++) m.seen[i] = i >= rows ? 0 : left < KEYS ? left : KEYS;
        block_parts b = block_of(kv, head, block);
        cvq_attention_block view = {.keys = b.keys,
                                    .key_scale = b.key_scale,
                                    .key_start = b.key_start,
                                    .values = b.values,
                                    .value_scale = b.value_scale,
                                    .steps = steps_of(d),
                                    .panels = panels_of(d)};
        job->e->k->attend_int8(&view, &r, padded);
    }
    store_results(job, head, first, rows, &m);
}

/* Rows of a unit: as many as fit, spread evenly over the units of a head. */
static void plan_units(attention_job *job) {
    const cvq_kv_int8 *kv = job->call->kv;
    size_t fit = CVQ_SCRATCH_FLOATS * sizeof(float) / row_bytes(kv->head_dim);
    if (fit > MAX_ROWS) fit = MAX_ROWS;
    fit -= fit % CVQ_ATTENTION_ROWS;
    size_t tiles = (kv->tokens + fit - 1) / fit, rows = (kv->tokens + tiles - 1) / tiles;
    job->rows = (rows + CVQ_ATTENTION_ROWS - 1) / CVQ_ATTENTION_ROWS * CVQ_ATTENTION_ROWS;
    job->tiles = (kv->tokens + job->rows - 1) / job->rows;
}

void cvq_attention_int8(const cvq_engine *e, const cvq_attention_int8_call *call) {
    attention_job job = {.e = e, .call = call};
    const cvq_kv_int8 *kv = call->kv;
    plan_units(&job);
    cvq_parallel_for(e->threads, kv->heads * 2, mean_unit, &job);
    cvq_parallel_for(e->threads, kv->heads * num_blocks(kv), block_unit, &job);
    cvq_parallel_for(e->threads, kv->heads * job.tiles, attention_unit, &job);
    cvq_engine_worked(e, 2 * (double)kv->tokens * (double)kv->tokens *
                             (double)(kv->heads * kv->head_dim));
}
