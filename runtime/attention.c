/* Attention with the f32 tile kernel: scores = Q x a block of keys, then probabilities x the block
 * of values. */
#include "runtime/attention.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"

#define LANES CVQ_PANEL_ROWS
#define MAX_ROWS 128   /* rows (queries x heads of a group) of a unit */
#define RANGE_BLOCKS 4 /* blocks of keys that are gathered before what was gathered is joined */

/* What rows have gathered of some keys: [rows][padded head] results, not yet divided by the sum,
 * and per row a maximum and a sum. */
typedef struct gathered {
    float *o, *max, *sum;
} gathered;

/* A thread's scratch memory: [rows][padded head] queries, [rows][256] scores, a tile of keys or
 * values, what the rows gathered of all keys so far and of a range of them. */
typedef struct unit_memory {
    float *q, *scores, *tile;
    gathered all, range;
} unit_memory;

static size_t gathered_floats(size_t head_dim, size_t rows) {
    return rows * (cvq_round_up(head_dim, LANES) + 2);
}

static gathered gathered_at(float *memory, size_t head_dim, size_t rows) {
    gathered g = {.o = memory, .max = memory + rows * cvq_round_up(head_dim, LANES)};
    g.sum = g.max + rows;
    return g;
}

static size_t rows_that_fit(size_t head_dim) {
    size_t padded = cvq_round_up(head_dim, LANES), tile = cvq_kv_tile_floats(head_dim);
    if (tile >= CVQ_SCRATCH_FLOATS) return 0;
    size_t rows = (CVQ_SCRATCH_FLOATS - tile) / (3 * padded + CVQ_KV_BLOCK + 4);
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
    m.scores = m.q + rows * padded;
    float *rest = m.scores + rows * CVQ_KV_BLOCK;
    m.all = gathered_at(rest, head_dim, rows);
    m.range = gathered_at(rest + gathered_floats(head_dim, rows), head_dim, rows);
    return m;
}

typedef struct attention_job {
    const cvq_engine *e;
    const cvq_attention_call *call;
    size_t group;                  /* query heads that share a KV head */
    size_t rows;                   /* of a full unit */
    size_t query_tiles, unit_rows; /* all (query, head of the group) pairs of a KV head, in tiles */
    size_t ranges;                 /* of keys that are units of their own; 1: all in one unit */
    size_t kept;                   /* ranges whose results a thread's scratch memory keeps */
} attention_job;

/* The rows of a tile. */
typedef struct row_run {
    size_t kv_head, first, count;
    size_t most; /* keys that one of them sees */
} row_run;

/* Row r of a KV head's pairs: query r / group, head r % group of the group. */
static void load_queries(const attention_job *job, const row_run *rows, float *q) {
    const cvq_attention_call *c = job->call;
    size_t d = c->kv->head_dim, padded = cvq_round_up(d, LANES);
    for (size_t r = 0; r < rows->count; r++) {
        size_t query = (rows->first + r) / job->group, head = (rows->first + r) % job->group;
        const float *from = c->q + query * c->ldq + (rows->kv_head * job->group + head) * d;
        memcpy(q + r * padded, from, d * sizeof *q);
        job->e->k->scale(q + r * padded, c->scale, d);
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
                       size_t panels, const unit_memory *m, float *o) {
    const cvq_kernels *k = job->e->k;
    const cvq_kv_cache *kv = job->call->kv;
    size_t padded = cvq_round_up(kv->head_dim, LANES), keys = panels * LANES;
    cvq_tile_kv_fn *few = few_rows_kernel(job, rows);
    if (few) {
        cvq_kv_panels values = cvq_kv_value_panels(kv, block, kv_head, keys);
        few(&values, padded / LANES, m->scores, CVQ_KV_BLOCK, rows, o, padded, true);
        return;
    }
    const float *values = cvq_kv_values(kv, k, block, kv_head, panels, m->tile);
    for (size_t p = 0; p < padded / LANES; p++)
        k->tile_f32(values + p * CVQ_KV_BLOCK * LANES, keys, m->scores, CVQ_KV_BLOCK, rows,
                    o + p * LANES, padded, true);
}

/* Scales of q8 are those of keys and of values, not of their elements: scores take the one, and
 * probabilities the other. */
static void multiply_rows(const attention_job *job, size_t rows, size_t keys, const float *scales,
                          float *scores) {
    for (size_t r = 0; r < rows && scales; r++)
        job->e->k->mul(scores + r * CVQ_KV_BLOCK, scales, keys);
}

static void attend_block(const attention_job *job, const row_run *rows, size_t block,
                         const unit_memory *m, const gathered *g) {
    size_t padded = cvq_round_up(job->call->kv->head_dim, LANES);
    size_t panels = (seen_in_block(rows->most, block) + LANES - 1) / LANES, keys = panels * LANES;
    cvq_kv_scales scales = cvq_kv_block_scales(job->call->kv, block, rows->kv_head);
    score_block(job, rows->kv_head, block, rows->count, panels, m);
    multiply_rows(job, rows->count, keys, scales.keys, m->scores);
    for (size_t r = 0; r < rows->count; r++)
        softmax_row(job->e->k, m->scores + r * CVQ_KV_BLOCK, keys,
                    seen_in_block(job->call->visible[(rows->first + r) / job->group], block),
                    &g->max[r], &g->sum[r], g->o + r * padded, padded);
    multiply_rows(job, rows->count, keys, scales.values, m->scores);
    add_values(job, rows->kv_head, block, rows->count, panels, m, g->o);
}

/* Of nothing but the keys of one range. */
static void gather(const attention_job *job, const row_run *rows, size_t range,
                   const unit_memory *m, const gathered *g) {
    size_t padded = cvq_round_up(job->call->kv->head_dim, LANES);
    memset(g->o, 0, rows->count * padded * sizeof *g->o);
    for (size_t r = 0; r < rows->count; r++) {
        g->max[r] = -INFINITY;
        g->sum[r] = 0;
    }
    for (size_t b = range * RANGE_BLOCKS; b < (range + 1) * RANGE_BLOCKS; b++) {
        if (b * CVQ_KV_BLOCK >= rows->most || cvq_engine_stopped(job->e)) return;
        attend_block(job, rows, b, m, g);
    }
}

/* Adds what the rows gathered of the next range. */
static void join(const attention_job *job, const row_run *rows, const gathered *all,
                 const gathered *range) {
    const cvq_kernels *k = job->e->k;
    size_t padded = cvq_round_up(job->call->kv->head_dim, LANES);
    for (size_t r = 0; r < rows->count; r++) {
        float *o = all->o + r * padded, *next = range->o + r * padded;
        if (range->sum[r] == 0) continue; /* none that the row sees */
        if (range->max[r] > all->max[r]) {
            float correction = expf(all->max[r] - range->max[r]);
            k->scale(o, correction, padded);
            all->sum[r] *= correction;
            all->max[r] = range->max[r];
        } else {
            float correction = expf(range->max[r] - all->max[r]);
            k->scale(next, correction, padded);
            range->sum[r] *= correction;
        }
        k->add(o, next, padded);
        all->sum[r] += range->sum[r];
    }
}

static void finish(const attention_job *job, const row_run *rows, const gathered *all) {
    const cvq_attention_call *c = job->call;
    size_t d = c->kv->head_dim, padded = cvq_round_up(d, LANES);
    for (size_t r = 0; r < rows->count; r++) {
        size_t query = (rows->first + r) / job->group, head = (rows->first + r) % job->group;
        job->e->k->scale(all->o + r * padded, 1.0f / all->sum[r], d);
        memcpy(c->out + query * c->ldo + (rows->kv_head * job->group + head) * d,
               all->o + r * padded, d * sizeof(float));
    }
}

static row_run run_of(const attention_job *job, size_t tile) {
    size_t first = tile % job->query_tiles * job->rows;
    row_run rows = {.kv_head = tile / job->query_tiles, .first = first};
    rows.count = job->unit_rows - first < job->rows ? job->unit_rows - first : job->rows;
    for (size_t r = 0; r < rows.count; r++) {
        size_t visible = job->call->visible[(first + r) / job->group];
        if (visible > rows.most) rows.most = visible;
    }
    return rows;
}

static size_t ranges_of(size_t keys) {
    return (keys + RANGE_BLOCKS * CVQ_KV_BLOCK - 1) / (RANGE_BLOCKS * CVQ_KV_BLOCK);
}

/* Ranges follow one another; the first is what the others are joined to. */
static void attention_unit(void *context, size_t unit, int thread) {
    const attention_job *job = context;
    row_run rows = run_of(job, unit);
    unit_memory m = carve(cvq_engine_scratch(job->e, thread), job->call->kv->head_dim, job->rows);
    load_queries(job, &rows, m.q);
    gather(job, &rows, 0, &m, &m.all);
    for (size_t range = 1; range < ranges_of(rows.most); range++) {
        gather(job, &rows, range, &m, &m.range);
        join(job, &rows, &m.all, &m.range);
    }
    finish(job, &rows, &m.all);
}

/* ---------------------------------------------------------------- ranges by several threads */

/* What is kept of a unit, from the end of some thread's scratch memory backwards. */
static gathered kept_of(const attention_job *job, size_t unit) {
    size_t d = job->call->kv->head_dim, size = gathered_floats(d, job->unit_rows);
    float *end = cvq_engine_scratch(job->e, (int)(unit / job->kept)) + CVQ_SCRATCH_FLOATS;
    return gathered_at(end - (unit % job->kept + 1) * size, d, job->unit_rows);
}

static void range_unit(void *context, size_t unit, int thread) {
    const attention_job *job = context;
    row_run rows = run_of(job, unit / job->ranges);
    unit_memory m = carve(cvq_engine_scratch(job->e, thread), job->call->kv->head_dim, job->rows);
    gathered kept = kept_of(job, unit);
    load_queries(job, &rows, m.q);
    gather(job, &rows, unit % job->ranges, &m, &kept);
}

static void join_ranges(const attention_job *job) {
    for (size_t tile = 0; tile < job->call->kv->heads; tile++) {
        row_run rows = run_of(job, tile);
        gathered all = kept_of(job, tile * job->ranges);
        for (size_t range = 1; range < job->ranges; range++) {
            gathered next = kept_of(job, tile * job->ranges + range);
            join(job, &rows, &all, &next);
        }
        finish(job, &rows, &all);
    }
}

/* With few rows there may be more threads than key heads, or a number that does not divide them. */
static void plan_ranges(attention_job *job) {
    const cvq_attention_call *c = job->call;
    size_t d = c->kv->head_dim, threads = (size_t)job->e->threads, most = 0;
    job->ranges = 1;
    if (job->unit_rows > FEW_ROWS || threads == 1 || c->kv->heads >= 4 * threads) return;
    for (size_t i = 0; i < c->queries; i++)
        if (c->visible[i] > most) most = c->visible[i];
    size_t used = cvq_kv_tile_floats(d) + job->rows * (cvq_round_up(d, LANES) + CVQ_KV_BLOCK) +
                  2 * gathered_floats(d, job->rows);
    job->kept = (CVQ_SCRATCH_FLOATS - used) / gathered_floats(d, job->unit_rows);
    if (c->kv->heads * ranges_of(most) <= threads * job->kept) job->ranges = ranges_of(most);
}

void cvq_attention(const cvq_engine *e, const cvq_attention_call *call) {
    attention_job job = {.e = e, .call = call, .group = call->heads / call->kv->heads};
    job.unit_rows = call->queries * job.group;
    job.rows = rows_that_fit(call->kv->head_dim);
    if (job.rows > job.unit_rows) job.rows = job.unit_rows;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): at least one row fits */
    job.query_tiles = (job.unit_rows + job.rows - 1) / job.rows;
    plan_ranges(&job);
    if (job.ranges > 1) {
        cvq_parallel_for(e->threads, call->kv->heads * job.ranges, range_unit, &job);
        join_ranges(&job);
    } else {
        cvq_parallel_for(e->threads, call->kv->heads * job.query_tiles, attention_unit, &job);
    }
    double seen = 0;
    for (size_t i = 0; i < call->queries; i++) seen += (double)call->visible[i];
    cvq_engine_worked(e, 2 * seen * (double)(call->heads * call->kv->head_dim));
}
