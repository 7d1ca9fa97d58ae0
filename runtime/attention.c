/* Attention with the f32 tile kernel: scores = Q x a block of keys, then probabilities x the block
 * of values. */
#include "runtime/attention.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"

#define LANES CVQ_PANEL_ROWS
#define MAX_ROWS 128 /* rows (queries x heads of a group) of a unit */

/* A thread's scratch memory: [rows][padded head] queries, the same of results, [rows][256] scores,
 * a tile of keys or values, and per row a maximum and a sum. */
typedef struct unit_memory {
    float *q, *o, *scores, *tile, *max, *sum;
} unit_memory;

static size_t rows_that_fit(size_t head_dim) {
    size_t padded = cvq_round_up(head_dim, LANES), tile = cvq_kv_tile_floats(head_dim);
    if (tile >= CVQ_SCRATCH_FLOATS) return 0;
    size_t rows = (CVQ_SCRATCH_FLOATS - tile) / (2 * padded + CVQ_KV_BLOCK + 2);
    return rows < MAX_ROWS ? rows : MAX_ROWS;
}

bool cvq_attention_fits(size_t head_dim) {
    return rows_that_fit(head_dim) > 0;
}

static unit_memory carve(float *scratch, size_t head_dim, size_t rows) {
    size_t padded = cvq_round_up(head_dim, LANES);
    unit_memory m;
    m.tile = scratch; /* first: it must be aligned */
    m.q = m.tile + cvq_kv_tile_floats(head_dim);
    m.o = m.q + rows * padded;
    m.scores = m.o + rows * padded;
    m.max = m.scores + rows * CVQ_KV_BLOCK;
    m.sum = m.max + rows;
    return m;
}

typedef struct attention_job {
    const cvq_engine *e;
    const cvq_attention_call *call;
    size_t group;                  /* query heads that share a KV head */
    size_t rows;                   /* of a full unit */
    size_t query_tiles, unit_rows; /* all (query, head of the group) pairs of a KV head, in tiles */
} attention_job;

/* Row r of a KV head's pairs: query r / group, head r % group of the group. */
static void load_queries(const attention_job *job, size_t kv_head, size_t first, size_t rows,
                         const unit_memory *m) {
    const cvq_attention_call *c = job->call;
    size_t d = c->kv->head_dim, padded = cvq_round_up(d, LANES);
    for (size_t r = 0; r < rows; r++) {
        size_t query = (first + r) / job->group, head = (first + r) % job->group;
        const float *from = c->q + query * c->ldq + (kv_head * job->group + head) * d;
        float *to = m->q + r * padded;
        memcpy(to, from, d * sizeof *to);
        job->e->k->scale(to, c->scale, d);
        memset(m->o + r * padded, 0, padded * sizeof(float));
        m->max[r] = -INFINITY;
        m->sum[r] = 0;
    }
}

/* Scores to probabilities of one row and block, with the results so far brought to the new maximum.
 * seen: keys of this block that the row sees. */
static void softmax_row(const cvq_kernels *k, float *scores, size_t keys, size_t seen, float *max,
                        float *sum, float *o, size_t padded) {
    if (seen == 0) {
        memset(scores, 0, keys * sizeof *scores);
        return;
    }
    for (size_t j = seen; j < keys; j++) scores[j] = -INFINITY;
    float block_max = k->max(scores, keys);
    if (block_max > *max) {
        float correction = *sum > 0 ? expf(*max - block_max) : 0;
        k->scale(o, correction, padded);
        *sum *= correction;
        *max = block_max;
    }
    *sum += k->exp_sum(scores, *max, keys);
}

static size_t seen_in_block(size_t visible, size_t block) {
    size_t before = block * CVQ_KV_BLOCK;
    if (visible <= before) return 0;
    return visible - before < CVQ_KV_BLOCK ? visible - before : CVQ_KV_BLOCK;
}

/* Up to so many rows, elements are converted for every product with a row: they come from memory,
 * whose speed is what counts then. */
#define FEW_ROWS 8

static cvq_tile_kv_fn *few_rows_kernel(const attention_job *job, size_t rows) {
    if (rows > FEW_ROWS || job->call->kv->type == CVQ_KV_F32) return NULL;
    return job->call->kv->type == CVQ_KV_F16 ? job->e->k->tile_kv_f16 : job->e->k->tile_kv_int8;
}

static void score_block(const attention_job *job, size_t kv_head, size_t block, size_t rows,
                        size_t panels, const unit_memory *m) {
    const cvq_kernels *k = job->e->k;
    const cvq_kv_cache *kv = job->call->kv;
    size_t d = kv->head_dim, padded = cvq_round_up(d, LANES);
    cvq_tile_kv_fn *few = few_rows_kernel(job, rows);
    if (few) {
        cvq_kv_panels keys = cvq_kv_key_panels(kv, block, kv_head);
        few(&keys, panels, m->q, padded, rows, m->scores, CVQ_KV_BLOCK, false);
        return;
    }
    const float *keys = cvq_kv_keys(kv, k, block, kv_head, panels, m->tile);
    for (size_t p = 0; p < panels; p++)
        k->tile_f32(keys + p * d * LANES, d, m->q, padded, rows, m->scores + p * LANES,
                    CVQ_KV_BLOCK, false);
}

static void add_values(const attention_job *job, size_t kv_head, size_t block, size_t rows,
                       size_t panels, const unit_memory *m) {
    const cvq_kernels *k = job->e->k;
    const cvq_kv_cache *kv = job->call->kv;
    size_t padded = cvq_round_up(kv->head_dim, LANES), keys = panels * LANES;
    cvq_tile_kv_fn *few = few_rows_kernel(job, rows);
    if (few) {
        cvq_kv_panels values = cvq_kv_value_panels(kv, block, kv_head, keys);
        few(&values, padded / LANES, m->scores, CVQ_KV_BLOCK, rows, m->o, padded, true);
        return;
    }
    const float *values = cvq_kv_values(kv, k, block, kv_head, panels, m->tile);
    for (size_t p = 0; p < padded / LANES; p++)
        k->tile_f32(values + p * CVQ_KV_BLOCK * LANES, keys, m->scores, CVQ_KV_BLOCK, rows,
                    m->o + p * LANES, padded, true);
}

static void attend_block(const attention_job *job, size_t kv_head, size_t block, size_t first,
                         size_t rows, size_t most, const unit_memory *m) {
    size_t padded = cvq_round_up(job->call->kv->head_dim, LANES);
    size_t panels = (seen_in_block(most, block) + LANES - 1) / LANES, keys = panels * LANES;
    score_block(job, kv_head, block, rows, panels, m);
    for (size_t r = 0; r < rows; r++)
        softmax_row(job->e->k, m->scores + r * CVQ_KV_BLOCK, keys,
                    seen_in_block(job->call->visible[(first + r) / job->group], block), &m->max[r],
                    &m->sum[r], m->o + r * padded, padded);
    add_values(job, kv_head, block, rows, panels, m);
}

static void attention_unit(void *context, size_t unit, int thread) {
    const attention_job *job = context;
    const cvq_attention_call *c = job->call;
    size_t d = c->kv->head_dim, padded = cvq_round_up(d, LANES);
    size_t kv_head = unit / job->query_tiles, first = unit % job->query_tiles * job->rows;
    size_t rows = job->unit_rows - first < job->rows ? job->unit_rows - first : job->rows;
    unit_memory m = carve(cvq_engine_scratch(job->e, thread), d, job->rows);
    load_queries(job, kv_head, first, rows, &m);
    size_t most = 0;
    for (size_t r = 0; r < rows; r++) {
        size_t visible = c->visible[(first + r) / job->group];
        if (visible > most) most = visible;
    }
    for (size_t block = 0; block * CVQ_KV_BLOCK < most; block++) {
        if (cvq_engine_stopped(job->e)) return;
        attend_block(job, kv_head, block, first, rows, most, &m);
    }
    for (size_t r = 0; r < rows; r++) {
        size_t query = (first + r) / job->group, head = (first + r) % job->group;
        job->e->k->scale(m.o + r * padded, 1.0f / m.sum[r], d);
        memcpy(c->out + query * c->ldo + (kv_head * job->group + head) * d, m.o + r * padded,
               d * sizeof(float));
    }
}

void cvq_attention(const cvq_engine *e, const cvq_attention_call *call) {
    attention_job job = {.e = e, .call = call, .group = call->heads / call->kv->heads};
    job.rows = rows_that_fit(call->kv->head_dim);
    job.unit_rows = call->queries * job.group;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): at least one row fits */
    job.query_tiles = (job.unit_rows + job.rows - 1) / job.rows;
    cvq_parallel_for(e->threads, call->kv->heads * job.query_tiles, attention_unit, &job);
    double seen = 0;
    for (size_t i = 0; i < call->queries; i++) seen += (double)call->visible[i];
    cvq_engine_worked(e, 2 * seen * (double)(call->heads * call->kv->head_dim));
}
