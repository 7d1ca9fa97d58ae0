/* Llama-3's decoder with CogVLM2's two experts. Rows of a stretch are ordered by expert - language
 * rows (bos, eoi, text) first, then vision rows (boi and patches) - so that each expert's weights
 * are read once; attention goes by slots and does not care. */
#include "runtime/language.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "runtime/attention.h"
#include "runtime/attention_int8.h"
#include "runtime/residency.h"

#define MLP_ROWS 512

/* ---------------------------------------------------------------- memory */

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static size_t act_bytes(const cvq_model_config *c, size_t rows) {
    size_t mlp_rows = rows < MLP_ROWS ? rows : MLP_ROWS;
    return larger(cvq_input_bytes(rows, c->hidden_size),
                  cvq_input_next(mlp_rows, c->hidden_size) +
                      cvq_input_bytes(mlp_rows, c->intermediate_size));
}

uint64_t cvq_decoder_work_bytes(const cvq_model_config *c, size_t rows, bool fast) {
    size_t mlp_rows = rows < MLP_ROWS ? rows : MLP_ROWS, half = cvq_head_dim(c) / 2;
    uint64_t floats = (uint64_t)rows * (2 * c->hidden_size + cvq_qkv_rows(c) + 2 * half) +
                      (uint64_t)mlp_rows * c->intermediate_size;
    uint64_t kv = cvq_kv_int8_bytes(c->num_kv_heads, cvq_head_dim(c), cvq_image_slots(c));
    return floats * sizeof(float) + act_bytes(c, rows) + 2 * rows * sizeof(size_t) +
           (fast ? kv : 0);
}

double cvq_decoder_work(const cvq_model_config *c, size_t first, size_t count) {
    double h = c->hidden_size, rows = (double)count;
    double seen = rows * ((double)first + (rows + 1) / 2);
    double row = h * ((double)cvq_qkv_rows(c) + h + 3 * (double)c->intermediate_size);
    return (double)c->num_layers * (rows * row + 2 * seen * h);
}

static void free_buffers(cvq_decoder *d) {
    free(d->x);
    free(d->qkv);
    free(d->y);
    free(d->hidden);
    free(d->cos);
    free(d->sin);
    free(d->act);
    free(d->slots);
    free(d->visible);
    d->x = d->qkv = d->y = d->hidden = d->cos = d->sin = NULL;
    d->act = NULL;
    d->slots = d->visible = NULL;
    d->max_rows = 0;
}

static cvq_status floats(float **out, size_t rows, size_t cols, cvq_error *err) {
    void *p;
    CVQ_TRY(cvq_alloc(&p, rows, cols * sizeof(float), "decoder", err));
    *out = p;
    return CVQ_OK;
}

static cvq_status reserve_rows(cvq_decoder *d, size_t rows, cvq_error *err) {
    if (rows <= d->max_rows) return CVQ_OK;
    const cvq_model_config *c = d->weights->config;
    size_t mlp_rows = rows < MLP_ROWS ? rows : MLP_ROWS, half = cvq_head_dim(c) / 2;
    free_buffers(d);
    CVQ_TRY(floats(&d->x, rows, c->hidden_size, err));
    CVQ_TRY(floats(&d->qkv, rows, cvq_qkv_rows(c), err));
    CVQ_TRY(floats(&d->y, rows, c->hidden_size, err));
    CVQ_TRY(floats(&d->hidden, mlp_rows, c->intermediate_size, err));
    CVQ_TRY(floats(&d->cos, rows, half, err));
    CVQ_TRY(floats(&d->sin, rows, half, err));
    CVQ_TRY(cvq_alloc(&d->act, act_bytes(c, rows), 1, "decoder", err));
    void *p;
    CVQ_TRY(cvq_alloc(&p, rows, sizeof(size_t), "decoder", err));
    d->slots = p;
    CVQ_TRY(cvq_alloc(&p, rows, sizeof(size_t), "decoder", err));
    d->visible = p;
    d->max_rows = rows;
    return CVQ_OK;
}

cvq_status cvq_decoder_open(cvq_decoder *d, const cvq_engine *e, const cvq_weights *w,
                            cvq_kv_type kv, const cvq_rotary *rotary, cvq_error *err) {
    const cvq_model_config *c = w->config;
    void *caches;
    CVQ_TRY(cvq_alloc(&caches, c->num_layers, sizeof(cvq_kv_cache), "KV cache", err));
    *d = (cvq_decoder){.engine = e, .weights = w, .rotary = *rotary, .kv = caches};
    for (size_t n = 0; n < c->num_layers; n++)
        cvq_kv_init(&d->kv[n], kv, c->num_kv_heads, cvq_head_dim(c));
    return CVQ_OK;
}

void cvq_decoder_close(cvq_decoder *d) {
    if (!d || !d->weights) return;
    for (size_t n = 0; d->kv && n < d->weights->config->num_layers; n++) cvq_kv_free(&d->kv[n]);
    free(d->kv);
    free_buffers(d);
    cvq_kv_int8_free(&d->kv_int8);
    *d = (cvq_decoder){0};
}

/* ---------------------------------------------------------------- rows */

/* Rows of one expert; place: how many rows of this expert come before the first of them in the
 * whole sequence. */
typedef struct span {
    size_t first, count, place;
} span;

/* How the rows of a stretch are split: language rows [0, language), vision rows [language, count).
 */
typedef struct row_plan {
    size_t count, language;
    size_t language_before, vision_before; /* rows of the sequence before the stretch */
} row_plan;

static bool is_vision_slot(const cvq_stretch *s, size_t slot) {
    return slot >= 1 && slot < s->image_slots; /* the last image slot, eoi, is a language token */
}

static span language_rows(const row_plan *p) {
    return (span){0, p->language, p->language_before};
}

static span vision_rows(const row_plan *p) {
    return (span){p->language, p->count - p->language, p->vision_before};
}

/* Room for keys and values of all slots up to the stretch's last vision slot, which see no later
 * ones. */
static cvq_status reserve_int8(cvq_decoder *d, const row_plan *p, cvq_error *err) {
    const cvq_model_config *c = d->weights->config;
    if (!d->engine->fast || p->language == p->count) return CVQ_OK;
    size_t tokens = d->slots[p->count - 1] + 1;
    if (d->kv_int8.tokens == tokens) return CVQ_OK;
    cvq_kv_int8_free(&d->kv_int8);
    return cvq_kv_int8_alloc(&d->kv_int8, c->num_kv_heads, cvq_head_dim(c), tokens, "decoder", err);
}

static row_plan plan_rows(cvq_decoder *d, const cvq_stretch *s) {
    row_plan p = {.count = s->count};
    size_t image = s->first < s->image_slots ? s->first : s->image_slots; /* vision: 1 .. image */
    p.vision_before = image > 0 ? image - 1 : 0;
    p.language_before = s->first - p.vision_before;
    for (size_t i = 0; i < s->count; i++)
        if (!is_vision_slot(s, s->first + i)) d->slots[p.language++] = s->first + i;
    for (size_t i = 0, row = p.language; i < s->count; i++)
        if (is_vision_slot(s, s->first + i)) d->slots[row++] = s->first + i;
    return p;
}

static cvq_status embed_rows(cvq_decoder *d, const cvq_stretch *s, const row_plan *p,
                             cvq_error *err) {
    const cvq_model_config *c = d->weights->config;
    size_t hidden = c->hidden_size, half = d->rotary.half;
    for (size_t row = 0; row < p->count; row++) {
        size_t slot = d->slots[row];
        float *x = d->x + row * hidden;
        if (slot >= 1 && slot <= s->image_slots) {
            memcpy(x, s->embedding + (slot - 1) * hidden, hidden * sizeof(float));
        } else {
            size_t id = (size_t)s->ids[slot - s->first];
            CVQ_TRY(cvq_residency_embedding(d->engine->residency, id, err));
            cvq_table_row(&d->weights->embed_tokens, id, cvq_engine_scratch(d->engine, 0), x);
        }
        d->visible[row] = slot + 1;
        cvq_rotary_angles(&d->rotary, cvq_slot_position(slot, s->image_slots), d->cos + row * half,
                          d->sin + row * half);
    }
    return CVQ_OK;
}

/* A tap in order of slots, whatever the order of rows. */
static void show_rows(const cvq_decoder *d, const cvq_stretch *s, const row_plan *p,
                      const char *name) {
    const cvq_engine *e = d->engine;
    size_t hidden = d->weights->config->hidden_size, language = 0, vision = p->language;
    if (!cvq_engine_wants(e, name)) return;
    for (size_t i = 0; i < s->count; i++) {
        size_t row = is_vision_slot(s, s->first + i) ? vision++ : language++;
        cvq_engine_show(e, name, s->first + i, 1, hidden, d->x + row * hidden, hidden);
    }
}

typedef struct norm_job {
    const cvq_norm *norm;
    const float *x;
    float *y;
    size_t n;
} norm_job;

static void norm_row(void *context, const cvq_engine *e, size_t row) {
    const norm_job *job = context;
    e->k->rms_norm(job->x + row * job->n, job->norm->weight, job->norm->eps, job->n,
                   job->y + row * job->n);
}

/* y = RMSNorm(x), rows [first, first + count). */
static void normalize(const cvq_decoder *d, const cvq_norm *norm, size_t first, size_t count) {
    size_t n = d->weights->config->hidden_size;
    norm_job job = {norm, d->x + first * n, d->y + first * n, n};
    cvq_engine_rows(d->engine, count, norm_row, &job);
}

/* ---------------------------------------------------------------- a layer */

static void project_qkv(const cvq_decoder *d, const cvq_expert *expert, span rows) {
    size_t hidden = d->weights->config->hidden_size, width = cvq_qkv_rows(d->weights->config);
    cvq_input in = cvq_input_of(d->y + rows.first * hidden, hidden, rows.count, hidden, d->act);
    in.place = rows.place;
    cvq_linear(d->engine, &expert->qkv, &in, CVQ_THEN_STORE, d->qkv + rows.first * width, width);
}

typedef struct rotate_job {
    const cvq_decoder *d;
    const cvq_kv_cache *kv;
} rotate_job;

/* Rotate the row's queries and keys, then put key and value into the cache. */
static void rotate_row(void *context, const cvq_engine *e, size_t row) {
    const rotate_job *job = context;
    const cvq_decoder *d = job->d;
    const cvq_model_config *c = d->weights->config;
    size_t dim = cvq_head_dim(c), half = d->rotary.half, q = c->num_heads * dim;
    size_t kv = c->num_kv_heads * dim;
    float *r = d->qkv + row * cvq_qkv_rows(c);
    for (size_t h = 0; h < c->num_heads + c->num_kv_heads; h++)
        e->k->rotate(r + h * dim, d->cos + row * half, d->sin + row * half, half);
    cvq_kv_store(job->kv, e->k, d->slots[row], r + q, r + q + kv);
}

static void attend_f32(const cvq_decoder *d, size_t layer, span rows) {
    const cvq_model_config *c = d->weights->config;
    cvq_attention_call call = {.kv = &d->kv[layer],
                               .q = d->qkv + rows.first * cvq_qkv_rows(c),
                               .ldq = cvq_qkv_rows(c),
                               .queries = rows.count,
                               .heads = c->num_heads,
                               .visible = d->visible + rows.first,
                               .scale = 1.0f / sqrtf((float)cvq_head_dim(c)),
                               .out = d->y + rows.first * c->hidden_size,
                               .ldo = c->hidden_size};
    if (rows.count > 0) cvq_attention(d->engine, &call);
}

/* all: the stretch's vision rows, whose means are taken off. */
static void attend_int8(cvq_decoder *d, size_t layer, span rows, span all) {
    const cvq_model_config *c = d->weights->config;
    size_t width = cvq_qkv_rows(c), dim = cvq_head_dim(c);
    const float *keys = d->qkv + all.first * width + c->num_heads * dim;
    cvq_kv_rows tokens = {keys, keys + c->num_kv_heads * dim, width, all.count};
    if (rows.count == 0) return;
    cvq_kv_int8_store_cached(d->engine, &d->kv_int8, &d->kv[layer], &tokens);
    cvq_attention_int8_call call = {.kv = &d->kv_int8,
                                    .q = d->qkv + rows.first * width,
                                    .ldq = width,
                                    .queries = rows.count,
                                    .heads = c->num_heads,
                                    .visible = d->visible + rows.first,
                                    .scale = 1.0f / sqrtf((float)dim),
                                    .out = d->y + rows.first * c->hidden_size,
                                    .ldo = c->hidden_size};
    cvq_attention_int8(d->engine, &call);
}

/* x += dense(y) */
static void project_out(const cvq_decoder *d, const cvq_expert *expert, span rows) {
    size_t hidden = d->weights->config->hidden_size;
    cvq_input in = cvq_input_of(d->y + rows.first * hidden, hidden, rows.count, hidden, d->act);
    in.place = rows.place;
    cvq_linear(d->engine, &expert->dense, &in, CVQ_THEN_ADD, d->x + rows.first * hidden, hidden);
}

/* x += down(silu(gate(y)) * up(y)) */
static void mlp(const cvq_decoder *d, const cvq_expert *expert, span rows) {
    size_t hidden = d->weights->config->hidden_size, wide = d->weights->config->intermediate_size;
    for (size_t done = 0; done < rows.count; done += MLP_ROWS) {
        size_t row = rows.first + done, n = rows.count - done;
        if (n > MLP_ROWS) n = MLP_ROWS;
        cvq_input y = cvq_input_of(d->y + row * hidden, hidden, n, hidden, d->act);
        y.place = rows.place + done;
        cvq_input h =
            cvq_input_of(d->hidden, wide, n, wide, (uint8_t *)d->act + cvq_input_next(n, hidden));
        h.place = y.place;
        cvq_linear_gated(d->engine, &expert->gate, &expert->up, &y, d->hidden, &expert->down, &h);
        cvq_linear(d->engine, &expert->down, &h, CVQ_THEN_ADD, d->x + row * hidden, hidden);
    }
}

/* language and vision: the rows whose hidden state is wanted after the layer; the others only leave
 * their keys and values. Vision rows attend in int8 in fast mode: a picture is always computed as a
 * whole, so that its scales and means are always the same. Text, which is computed in pieces of any
 * length or decoded, would depend on them. */
static void layer(cvq_decoder *d, size_t n, const row_plan *p, span language, span vision) {
    const cvq_decoder_layer *l = &d->weights->layers[n];
    normalize(d, &l->input_norm, 0, p->count);
    project_qkv(d, &l->language, language_rows(p));
    project_qkv(d, &l->vision, vision_rows(p));
    rotate_job rotate = {d, &d->kv[n]};
    cvq_engine_rows(d->engine, p->count, rotate_row, &rotate);

    attend_f32(d, n, language);
    if (d->engine->fast)
        attend_int8(d, n, vision, vision_rows(p));
    else
        attend_f32(d, n, vision);
    project_out(d, &l->language, language);
    project_out(d, &l->vision, vision);
    normalize(d, &l->post_norm, language.first, language.count);
    normalize(d, &l->post_norm, vision.first, vision.count);
    mlp(d, &l->language, language);
    mlp(d, &l->vision, vision);
}

/* ---------------------------------------------------------------- all layers */

/* Hidden states of all rows, normalised, in order of slots, into qkv (free by now, and wide
 * enough). */
static void gather_all(const cvq_decoder *d, const cvq_stretch *s, const row_plan *p) {
    size_t hidden = d->weights->config->hidden_size, language = 0, vision = p->language;
    for (size_t i = 0; i < s->count; i++) {
        size_t row = is_vision_slot(s, s->first + i) ? vision++ : language++;
        memcpy(d->qkv + i * hidden, d->y + row * hidden, hidden * sizeof(float));
    }
}

/* The part of rows that is this row. */
static span last_of(span rows, size_t row) {
    bool in = row >= rows.first && row - rows.first < rows.count;
    return (span){row, in, rows.place + (in ? row - rows.first : 0)};
}

cvq_status cvq_decoder_run(cvq_decoder *d, const cvq_stretch *s, bool every, const float **hidden,
                           cvq_step_fn step, void *context, cvq_error *err) {
    const cvq_model_config *c = d->weights->config;
    CVQ_TRY(reserve_rows(d, s->count, err));
    for (size_t n = 0; n < c->num_layers; n++)
        CVQ_TRY(cvq_kv_own(&d->kv[n], s->first, s->first + s->count, err));
    row_plan p = plan_rows(d, s);
    CVQ_TRY(reserve_int8(d, &p, err));
    CVQ_TRY(embed_rows(d, s, &p, err));
    /* The last slot is the last row of its expert. */
    size_t last = is_vision_slot(s, s->first + s->count - 1) ? p.count - 1 : p.language - 1;
    for (size_t n = 0; n < c->num_layers; n++) {
        span language = language_rows(&p), vision = vision_rows(&p);
        if (n + 1 == c->num_layers && !every) {
            language = last_of(language, last);
            vision = last_of(vision, last);
        }
        CVQ_TRY(cvq_residency_enter(d->engine->residency, cvq_station_decoder(c, n),
                                    p.language < p.count, err));
        layer(d, n, &p, language, vision);
        CVQ_TRY(cvq_engine_check(d->engine, err));
        if (every) {
            char name[32];
            snprintf(name, sizeof name, "layer.%zu", n);
            show_rows(d, s, &p, name);
        }
        if (step && step(context, n + 1, c->num_layers))
            return cvq_fail(err, CVQ_CANCELLED, NULL, "cancelled while reading the prompt");
    }
    if (every) {
        normalize(d, &d->weights->final_norm, 0, p.count);
        gather_all(d, s, &p);
        *hidden = d->qkv;
        cvq_engine_show(d->engine, "hidden", s->first, p.count, c->hidden_size, d->qkv,
                        c->hidden_size);
    } else {
        normalize(d, &d->weights->final_norm, last, 1);
        *hidden = d->y + last * c->hidden_size;
    }
    return CVQ_OK;
}

cvq_status cvq_decoder_logits(cvq_decoder *d, const float *hidden, size_t rows, float *logits,
                              cvq_error *err) {
    const cvq_model_config *c = d->weights->config;
    cvq_input in = cvq_input_of(hidden, c->hidden_size, rows, c->hidden_size, d->act);
    CVQ_TRY(cvq_residency_enter(d->engine->residency, cvq_station_head(c), false, err));
    cvq_linear(d->engine, &d->weights->lm_head, &in, CVQ_THEN_STORE, logits, c->vocab_size);
    return cvq_engine_check(d->engine, err);
}
