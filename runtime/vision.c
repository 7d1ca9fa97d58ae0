/* EVA2-CLIP-E with norms after the sub-layers, then conv 2 x 2 and the GLU adapter
 * (docs/architecture.md; formulas as in the released modeling code). */
#include "runtime/vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "runtime/attention.h"
#include "runtime/attention_int8.h"
#include "runtime/residency.h"
#include "runtime/resize.h"

/* MLPs run over so many rows at a time, so that their wide hidden layer never exists whole. */
#define MLP_ROWS 512

/* Work buffers; sizes in floats. */
typedef struct vision_memory {
    float *x;      /* [tokens][D] the residual stream; at the end the adapter's [n][H] */
    float *qkv;    /* [tokens][3 D]; before the layers patches, after them conv's and the adapter's
                      input */
    float *y;      /* [tokens][D] */
    float *hidden; /* [MLP_ROWS][the wider MLP] */
    void *act;     /* int8 activations of the largest input */
    cvq_kv_int8 kv_int8; /* fast */
    cvq_kv_cache kv;     /* exact */
    size_t *visible;     /* [tokens], exact */
} vision_memory;

typedef struct vision_sizes {
    size_t tokens, d, heads, mlp, patch_cols, merged, hidden, adapter_mlp;
    size_t x, qkv, y, hidden_floats, act_bytes;
} vision_sizes;

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static vision_sizes sizes_of(const cvq_model_config *c) {
    vision_sizes s = {.tokens = c->vit_num_positions,
                      .d = c->vit_hidden_size,
                      .heads = c->vit_num_heads,
                      .mlp = c->vit_intermediate_size,
                      .patch_cols = (size_t)c->in_channels * c->patch_size * c->patch_size,
                      .merged = cvq_image_slots(c) - 2,
                      .hidden = c->hidden_size,
                      .adapter_mlp = c->intermediate_size};
    size_t conv_cols = 4 * s.d;
    s.x = larger(s.tokens * s.d, s.merged * s.hidden);
    s.qkv = larger(larger(s.tokens * 3 * s.d, (s.tokens - 1) * s.patch_cols),
                   larger(s.merged * conv_cols, 3 * (size_t)c->image_size * c->image_size));
    s.y = larger(larger(s.tokens * s.d, 3 * (size_t)c->image_size * c->image_size), s.merged * s.d);
    s.hidden_floats = MLP_ROWS * larger(s.mlp, s.adapter_mlp);
    s.act_bytes = larger(cvq_input_bytes(s.tokens, larger(s.d, s.patch_cols)),
                         cvq_input_bytes(s.merged, larger(conv_cols, s.hidden)));
    s.act_bytes = larger(s.act_bytes, cvq_input_next(MLP_ROWS, larger(s.d, s.hidden)) +
                                          cvq_input_bytes(MLP_ROWS, larger(s.mlp, s.adapter_mlp)));
    return s;
}

uint64_t cvq_vision_work_bytes(const cvq_model_config *c, bool fast) {
    vision_sizes s = sizes_of(c);
    uint64_t blocks = (s.tokens + CVQ_KV_BLOCK - 1) / CVQ_KV_BLOCK;
    uint64_t kv = fast ? cvq_kv_int8_bytes(s.heads, s.d / s.heads, s.tokens)
                       : blocks * cvq_kv_block_bytes(CVQ_KV_F32, s.heads, s.d / s.heads) +
                             s.tokens * sizeof(size_t);
    return (uint64_t)(s.x + s.qkv + s.y + s.hidden_floats) * sizeof(float) + s.act_bytes + kv;
}

static void memory_free(vision_memory *m) {
    free(m->x);
    free(m->qkv);
    free(m->y);
    free(m->hidden);
    free(m->act);
    free(m->visible);
    cvq_kv_free(&m->kv);
    cvq_kv_int8_free(&m->kv_int8);
}

static cvq_status memory_alloc(vision_memory *m, const vision_sizes *s, bool fast, cvq_error *err) {
    void *p;
    cvq_kv_init(&m->kv, CVQ_KV_F32, s->heads, s->d / s->heads);
    CVQ_TRY(cvq_alloc(&p, s->x, sizeof(float), "vision encoder", err));
    m->x = p;
    CVQ_TRY(cvq_alloc(&p, s->qkv, sizeof(float), "vision encoder", err));
    m->qkv = p;
    CVQ_TRY(cvq_alloc(&p, s->y, sizeof(float), "vision encoder", err));
    m->y = p;
    CVQ_TRY(cvq_alloc(&p, s->hidden_floats, sizeof(float), "vision encoder", err));
    m->hidden = p;
    CVQ_TRY(cvq_alloc(&m->act, s->act_bytes, 1, "vision encoder", err));
    if (fast)
        return cvq_kv_int8_alloc(&m->kv_int8, s->heads, s->d / s->heads, s->tokens,
                                 "vision encoder", err);
    CVQ_TRY(cvq_alloc(&p, s->tokens, sizeof(size_t), "vision encoder", err));
    m->visible = p;
    for (size_t i = 0; i < s->tokens; i++) m->visible[i] = s->tokens;
    return cvq_kv_reserve(&m->kv, s->tokens, err);
}

/* ---------------------------------------------------------------- patches */

/* planes [3][S][S] to rows of 14 x 14 patches: column c x 196 + y x 14 + x, as the convolution's
 * weight is laid out. */
static void gather_patches(const cvq_model_config *c, const float *planes, float *rows) {
    size_t size = c->image_size, patch = c->patch_size, grid = cvq_patch_grid(c);
    for (size_t gy = 0; gy < grid; gy++)
        for (size_t gx = 0; gx < grid; gx++)
            for (size_t ch = 0; ch < c->in_channels; ch++)
                for (size_t y = 0; y < patch; y++, rows += patch)
                    memcpy(rows, planes + (ch * size + gy * patch + y) * size + gx * patch,
                           patch * sizeof(float));
}

static void embed_patches(const cvq_engine *e, const cvq_weights *w, const vision_sizes *s,
                          const uint8_t *rgb, vision_memory *m) {
    const cvq_model_config *c = w->config;
    float *planes = m->y;
    cvq_normalize_pixels(rgb, c->image_size, planes);
    cvq_engine_show(e, "pixels", 0, 1, 3 * (size_t)c->image_size * c->image_size, planes,
                    3 * (size_t)c->image_size * c->image_size);
    gather_patches(c, planes, m->qkv);
    cvq_input patches = cvq_input_of(m->qkv, s->patch_cols, s->tokens - 1, s->patch_cols, m->act);
    memcpy(m->x, w->cls, s->d * sizeof(float));
    cvq_linear(e, &w->patch_proj, &patches, CVQ_THEN_STORE, m->x + s->d, s->d);
    float *scratch = cvq_engine_scratch(e, 0), *row = scratch + cvq_round_up(s->d, CVQ_MAX_GROUP);
    for (size_t i = 0; i < s->tokens; i++) {
        cvq_table_row(&w->position, i, scratch, row);
        e->k->add(m->x + i * s->d, row, s->d);
    }
    cvq_engine_show(e, "vision.patch_embedding", 0, s->tokens, s->d, m->x, s->d);
}

/* ---------------------------------------------------------------- a layer */

typedef struct add_norm_job {
    const cvq_norm *norm;
    float *x, *y;
    size_t n;
} add_norm_job;

/* x += LayerNorm(y) */
static void add_norm_row(void *context, const cvq_engine *e, size_t row) {
    const add_norm_job *job = context;
    float *y = job->y + row * job->n;
    e->k->layer_norm(y, job->norm->weight, job->norm->bias, job->norm->eps, job->n, y);
    e->k->add(job->x + row * job->n, y, job->n);
}

typedef struct store_job {
    const cvq_kv_cache *kv;
    const float *qkv;
    size_t d;
} store_job;

static void store_row(void *context, const cvq_engine *e, size_t row) {
    const store_job *job = context;
    const float *r = job->qkv + row * 3 * job->d;
    cvq_kv_store(job->kv, e->k, row, r + job->d, r + 2 * job->d);
}

/* m->qkv to m->y */
static void attend_exact(const cvq_engine *e, const vision_sizes *s, vision_memory *m,
                         float scale) {
    store_job store = {&m->kv, m->qkv, s->d};
    cvq_engine_rows(e, s->tokens, store_row, &store);
    cvq_attention_call call = {.kv = &m->kv,
                               .q = m->qkv,
                               .ldq = 3 * s->d,
                               .queries = s->tokens,
                               .heads = s->heads,
                               .visible = m->visible,
                               .scale = scale,
                               .out = m->y,
                               .ldo = s->d};
    cvq_attention(e, &call);
}

static void attend_fast(const cvq_engine *e, const vision_sizes *s, vision_memory *m, float scale) {
    cvq_kv_rows tokens = {m->qkv + s->d, m->qkv + 2 * s->d, 3 * s->d, s->tokens};
    cvq_kv_int8_store(e, &m->kv_int8, &tokens);
    cvq_attention_int8_call call = {.kv = &m->kv_int8,
                                    .q = m->qkv,
                                    .ldq = 3 * s->d,
                                    .queries = s->tokens,
                                    .heads = s->heads,
                                    .scale = scale,
                                    .out = m->y,
                                    .ldo = s->d};
    cvq_attention_int8(e, &call);
}

static void self_attention(const cvq_engine *e, const cvq_vit_layer *l, const vision_sizes *s,
                           vision_memory *m) {
    cvq_input x = cvq_input_of(m->x, s->d, s->tokens, s->d, m->act);
    cvq_linear(e, &l->qkv, &x, CVQ_THEN_STORE, m->qkv, 3 * s->d);
    (e->fast ? attend_fast : attend_exact)(e, s, m, 1.0f / sqrtf((float)(s->d / s->heads)));
    cvq_input attended = cvq_input_of(m->y, s->d, s->tokens, s->d, m->act);
    cvq_linear(e, &l->dense, &attended, CVQ_THEN_STORE, m->qkv, s->d);
    add_norm_job job = {&l->input_norm, m->x, m->qkv, s->d};
    cvq_engine_rows(e, s->tokens, add_norm_row, &job);
}

static void mlp(const cvq_engine *e, const cvq_vit_layer *l, const vision_sizes *s,
                vision_memory *m) {
    for (size_t row = 0; row < s->tokens; row += MLP_ROWS) {
        size_t n = s->tokens - row < MLP_ROWS ? s->tokens - row : MLP_ROWS;
        cvq_input x = cvq_input_of(m->x + row * s->d, s->d, n, s->d, m->act);
        x.place = row;
        cvq_input h =
            cvq_input_of(m->hidden, s->mlp, n, s->mlp, (uint8_t *)m->act + cvq_input_next(n, s->d));
        h.place = row;
        cvq_linear_chain(e, &l->fc1, &x, CVQ_THEN_GELU, m->hidden, &l->fc2, &h);
        cvq_linear(e, &l->fc2, &h, CVQ_THEN_STORE, m->y + row * s->d, s->d);
    }
    add_norm_job job = {&l->post_norm, m->x, m->y, s->d};
    cvq_engine_rows(e, s->tokens, add_norm_row, &job);
}

/* ---------------------------------------------------------------- adapter */

/* Tokens without cls as a grid; each 2 x 2 square becomes a row: column d x 4 + y x 2 + x, as
 * conv's weight is laid out. */
static void gather_squares(const cvq_model_config *c, const float *tokens, size_t d, float *rows) {
    size_t grid = cvq_patch_grid(c);
    for (size_t gy = 0; gy < grid; gy += 2)
        for (size_t gx = 0; gx < grid; gx += 2, rows += 4 * d)
            for (size_t i = 0; i < 4; i++) {
                const float *from = tokens + ((gy + i / 2) * grid + gx + i % 2) * d;
                for (size_t k = 0; k < d; k++) rows[4 * k + i] = from[k];
            }
}

typedef struct norm_gelu_job {
    const cvq_norm *norm;
    float *x;
    size_t n;
} norm_gelu_job;

static void norm_gelu_row(void *context, const cvq_engine *e, size_t row) {
    const norm_gelu_job *job = context;
    float *x = job->x + row * job->n;
    e->k->layer_norm(x, job->norm->weight, job->norm->bias, job->norm->eps, job->n, x);
    e->k->gelu(x, job->n);
}

static void adapter(const cvq_engine *e, const cvq_weights *w, const vision_sizes *s,
                    vision_memory *m, float *out) {
    gather_squares(w->config, m->x + s->d, s->d, m->qkv);
    cvq_input squares = cvq_input_of(m->qkv, 4 * s->d, s->merged, 4 * s->d, m->act);
    cvq_linear(e, &w->conv, &squares, CVQ_THEN_STORE, m->y, s->d);
    cvq_engine_show(e, "vision.conv", 0, s->merged, s->d, m->y, s->d);
    cvq_input merged = cvq_input_of(m->y, s->d, s->merged, s->d, m->act);
    cvq_linear(e, &w->adapter_proj, &merged, CVQ_THEN_STORE, m->x, s->hidden);
    norm_gelu_job job = {&w->adapter_norm, m->x, s->hidden};
    cvq_engine_rows(e, s->merged, norm_gelu_row, &job);
    memcpy(out, w->boi, s->hidden * sizeof(float));
    float *patches = out + s->hidden;
    for (size_t row = 0; row < s->merged; row += MLP_ROWS) {
        size_t n = s->merged - row < MLP_ROWS ? s->merged - row : MLP_ROWS;
        cvq_input x = cvq_input_of(m->x + row * s->hidden, s->hidden, n, s->hidden, m->act);
        x.place = row;
        cvq_input h = cvq_input_of(m->hidden, s->adapter_mlp, n, s->adapter_mlp,
                                   (uint8_t *)m->act + cvq_input_next(n, s->hidden));
        h.place = row;
        cvq_linear_gated(e, &w->adapter_gate, &w->adapter_up, &x, m->hidden, &w->adapter_down, &h);
        cvq_linear(e, &w->adapter_down, &h, CVQ_THEN_STORE, patches + row * s->hidden, s->hidden);
    }
    memcpy(patches + s->merged * s->hidden, w->eoi, s->hidden * sizeof(float));
    cvq_engine_show(e, "vision.out", 0, s->merged + 2, s->hidden, out, s->hidden);
}

/* ---------------------------------------------------------------- all of it */

uint64_t cvq_vision_steps(const cvq_model_config *c) {
    return (uint64_t)c->vit_num_layers + 2;
}

double cvq_vision_work(const cvq_model_config *c) {
    vision_sizes s = sizes_of(c);
    double tokens = (double)s.tokens, d = (double)s.d, merged = (double)s.merged;
    double hidden = (double)s.hidden;
    double layer = tokens * d * (4 * d + 2 * (double)s.mlp + 2 * tokens);
    return (double)c->vit_num_layers * layer +
           merged * (4 * d * d + d * hidden + 3 * hidden * (double)s.adapter_mlp);
}

static cvq_status took_step(const cvq_engine *e, cvq_step_fn step, void *context, uint64_t done,
                            uint64_t total, cvq_error *err) {
    CVQ_TRY(cvq_engine_check(e, err));
    if (step && step(context, done, total))
        return cvq_fail(err, CVQ_CANCELLED, NULL, "cancelled while encoding the picture");
    return CVQ_OK;
}

static cvq_status encode(const cvq_engine *e, const cvq_weights *w, const vision_sizes *s,
                         const uint8_t *rgb, vision_memory *m, float *out, cvq_step_fn step,
                         void *context, cvq_error *err) {
    uint64_t total = cvq_vision_steps(w->config);
    CVQ_TRY(cvq_residency_enter(e->residency, cvq_station_patch(), true, err));
    embed_patches(e, w, s, rgb, m);
    CVQ_TRY(took_step(e, step, context, 1, total, err));
    for (size_t n = 0; n < w->config->vit_num_layers; n++) {
        CVQ_TRY(cvq_residency_enter(e->residency, cvq_station_vit(n), true, err));
        self_attention(e, &w->vit_layers[n], s, m);
        mlp(e, &w->vit_layers[n], s, m);
        char name[32];
        snprintf(name, sizeof name, "vision.layer.%zu", n);
        cvq_engine_show(e, name, 0, s->tokens, s->d, m->x, s->d);
        CVQ_TRY(took_step(e, step, context, n + 2, total, err));
    }
    CVQ_TRY(cvq_residency_enter(e->residency, cvq_station_adapter(w->config), true, err));
    adapter(e, w, s, m, out);
    return took_step(e, step, context, total, total, err);
}

cvq_status cvq_vision_encode(const cvq_engine *e, const cvq_weights *w, const uint8_t *rgb,
                             float *out, cvq_step_fn step, void *context, cvq_error *err) {
    vision_sizes s = sizes_of(w->config);
    vision_memory m = {0};
    cvq_status status = memory_alloc(&m, &s, e->fast, err);
    if (status == CVQ_OK) status = encode(e, w, &s, rgb, &m, out, step, context, err);
    memory_free(&m);
    return status;
}
