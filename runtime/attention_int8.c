/* Queries in int8, and units of up to 384 rows of a key head, so that keys and values are read
 * again seldom. */
#include "runtime/attention_int8.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/parallel.h"

#define LANES CVQ_PANEL_ROWS
#define KEYS CVQ_ATTENTION_KEYS
#define MAX_ROWS 384   /* of a unit; a multiple of CVQ_ATTENTION_ROWS */
#define TINY 0x1p-100f /* what is all below becomes zeros */
#define LOG2_E 1.44269504f
/* cvq_attention_fits asks for a tile of 256 keys of the head in a thread's scratch memory. */
_Static_assert(CVQ_SCRATCH_FLOATS / KEYS <= 4 * CVQ_ATTENTION_STEPS, "the kernel takes such heads");

static size_t steps_of(size_t d) {
    return (d + 3) / 4;
}
static size_t padded_of(size_t d) {
    return cvq_round_up(d, LANES);
}

/* Rows are pairs of a query and a head of the group that shares a key head: row r of a key head is
 * query r / group, head r % group. */
typedef struct attention_job {
    const cvq_engine *e;
    const cvq_attention_int8_call *call;
    size_t group;
    size_t rows, tiles; /* of a unit; units of a key head */
} attention_job;

/* A unit's rows in a thread's scratch memory. */
typedef struct unit_memory {
    float *out, *q_scale, *max, *sum;
    size_t *seen, *visible;
    uint8_t *q;
} unit_memory;

static size_t row_bytes(size_t d) {
    return padded_of(d) * sizeof(float) + 3 * sizeof(float) + 2 * sizeof(size_t) + 4 * steps_of(d);
}

static unit_memory carve(float *scratch, size_t d, size_t rows) {
    unit_memory m = {.out = scratch};
    m.seen = (size_t *)(void *)(m.out + rows * padded_of(d));
    m.visible = m.seen + rows;
    m.q_scale = (float *)(void *)(m.visible + rows);
    m.max = m.q_scale + rows;
    m.sum = m.max + rows;
    m.q = (uint8_t *)(m.sum + rows);
    return m;
}

/* The integer nearest to x, |x| <= 127, in the low byte: the sum's last bit counts ones. */
static uint32_t nearest(float x) {
    return cvq_f32_bits(x + 12582912.0f);
}

/* Any head size: codes plus 128, and their scale; NaN where the query is not finite. */
static float quantize_long(const float *x, size_t d, uint8_t *q) {
    float largest = 0, zero = 0;
    for (size_t i = 0; i < d; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    for (size_t i = 0; i < d; i++) zero += x[i] * 0.0f;
    float factor = largest > TINY && zero == 0 ? 127.0f / largest : 0;
    for (size_t i = 0; i < d; i++) q[i] = (uint8_t)((nearest(x[i] * factor) + 128) & 255);
    return zero == 0 ? (largest > TINY ? largest / 127.0f : 0) : NAN;
}

/* The same of heads that a block of activations holds, by its kernel. */
static float quantize_short(const cvq_kernels *k, const float *x, size_t d, uint8_t *q) {
    int8_t codes[CVQ_ACT_BLOCK];
    int32_t sums[CVQ_ACT_BLOCK / CVQ_ACT_SUM];
    float scale;
    cvq_act8 out = {codes, &scale, sums, CVQ_ACT_BLOCK};
    k->quantize_rows(x, d, 1, d, &out);
    for (size_t i = 0; i < d; i++) q[i] = (uint8_t)codes[i] ^ 128;
    return scale;
}

/* A query's scale takes in the softmax's and the base 2. */
static void load_queries(const attention_job *job, size_t kv_head, size_t first, size_t rows,
                         size_t padded_rows, const unit_memory *m) {
    const cvq_attention_int8_call *c = job->call;
    size_t d = c->kv->head_dim, bytes = 4 * steps_of(d);
    memset(m->out, 0, padded_rows * padded_of(d) * sizeof(float));
    memset(m->q, 128, padded_rows * bytes);
    for (size_t r = 0; r < padded_rows; r++) {
        m->max[r] = -1e30f;
        m->sum[r] = m->q_scale[r] = 0;
        m->visible[r] = 0;
        if (r >= rows) continue;
        size_t query = (first + r) / job->group, head = (first + r) % job->group;
        const float *x = c->q + query * c->ldq + (kv_head * job->group + head) * d;
        float scale = d <= CVQ_ACT_BLOCK ? quantize_short(job->e->k, x, d, m->q + r * bytes)
                                         : quantize_long(x, d, m->q + r * bytes);
        m->q_scale[r] = scale * (c->scale * LOG2_E);
        m->visible[r] = c->visible ? c->visible[query] : c->kv->tokens;
    }
}

static void store_results(const attention_job *job, size_t kv_head, size_t first, size_t rows,
                          const unit_memory *m) {
    const cvq_attention_int8_call *c = job->call;
    size_t d = c->kv->head_dim;
    const float *mean = cvq_kv_int8_value_mean(c->kv, kv_head);
    for (size_t r = 0; r < rows; r++) {
        size_t query = (first + r) / job->group, head = (first + r) % job->group;
        const float *from = m->out + r * padded_of(d);
        float *to = c->out + query * c->ldo + (kv_head * job->group + head) * d;
        float factor = 1.0f / m->sum[r];
        for (size_t i = 0; i < d; i++) to[i] = from[i] * factor + mean[i];
    }
}

/* Fills m->seen for a block; whether any row sees it. */
static bool see_block(const unit_memory *m, size_t rows, size_t block) {
    bool any = false;
    for (size_t i = 0; i < rows; i++) {
        size_t left = m->visible[i] > block * KEYS ? m->visible[i] - block * KEYS : 0;
        m->seen[i] = left < KEYS ? left : KEYS;
        any = any || left > 0;
    }
    return any;
}

static void attention_unit(void *context, size_t unit, int thread) {
    const attention_job *job = context;
    const cvq_kv_int8 *kv = job->call->kv;
    size_t all = job->call->queries * job->group;
    size_t kv_head = unit / job->tiles, first = unit % job->tiles * job->rows;
    size_t rows = all - first < job->rows ? all - first : job->rows;
    size_t padded = cvq_round_up(rows, CVQ_ATTENTION_ROWS);
    unit_memory m = carve(cvq_engine_scratch(job->e, thread), kv->head_dim, job->rows);
    load_queries(job, kv_head, first, rows, padded, &m);
    cvq_attention_rows r = {m.q, m.q_scale, m.seen, m.max, m.sum, m.out};
    for (size_t block = 0; block < cvq_kv_int8_blocks(kv); block++) {
        if (cvq_engine_stopped(job->e)) return;
        if (!see_block(&m, padded, block)) break;
        cvq_attention_block view = cvq_kv_int8_block(kv, kv_head, block);
        job->e->k->attend_int8(&view, &r, padded);
    }
    store_results(job, kv_head, first, rows, &m);
}

/* Rows of a unit: as many as fit, spread evenly over the units of a key head. */
static void plan_units(attention_job *job) {
    size_t rows = job->call->queries * job->group;
    size_t fit = CVQ_SCRATCH_FLOATS * sizeof(float) / row_bytes(job->call->kv->head_dim);
    if (fit > MAX_ROWS) fit = MAX_ROWS;
    fit -= fit % CVQ_ATTENTION_ROWS;
    size_t tiles = (rows + fit - 1) / fit;
    job->rows = cvq_round_up((rows + tiles - 1) / tiles, CVQ_ATTENTION_ROWS);
    job->tiles = (rows + job->rows - 1) / job->rows;
}

void cvq_attention_int8(const cvq_engine *e, const cvq_attention_int8_call *call) {
    attention_job job = {.e = e, .call = call, .group = call->heads / call->kv->heads};
    plan_units(&job);
    cvq_parallel_for(e->threads, call->kv->heads * job.tiles, attention_unit, &job);
    double seen = (double)call->queries * (double)call->kv->tokens;
    if (call->visible) {
        seen = 0;
        for (size_t i = 0; i < call->queries; i++) seen += (double)call->visible[i];
    }
    cvq_engine_worked(e, 2 * seen * (double)(call->heads * call->kv->head_dim));
}
