/* Whole layers at the model's sizes, run as a session runs them, on synthetic weights: the vision
 * encoder's with its attention alone and the adapter, a decoder layer over a picture's tokens, and
 * one token through enough decoder layers that no cache holds their weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "bench/measure.h"
#include "bench/synthetic.h"
#include "runtime/attention.h"
#include "runtime/attention_int8.h"
#include "runtime/language.h"
#include "runtime/vision.h"

#define DECODE_CONTEXT 2400

/* Layers take turns: the time of each, from one step to the next. */
typedef struct step_clock {
    cvq_bench *b;
    double last;
    double *seconds; /* [total steps] */
} step_clock;

static int took_step(void *context, uint64_t done, uint64_t total) {
    step_clock *c = context;
    (void)total;
    double now = cvq_bench_now();
    c->seconds[done - 1] = now - c->last;
    c->last = now;
    return cvq_bench_check(c->b, NULL) != CVQ_OK;
}

/* What a part's weights come to: matrices only, of one layer. */
typedef struct weight_sum {
    double params, bytes;
    const char *type; /* of the largest matrix */
} weight_sum;

static weight_sum sum_part(const cvq_bench *b, cvq_part part, bool layered) {
    weight_sum sum = {.type = ""};
    size_t first, count;
    uint32_t layers = part == CVQ_PART_VIT ? b->config.vit_num_layers : b->config.num_layers;
    uint64_t largest = 0;
    cvq_model_part_range(&b->config, part, layered ? layers / 2 : 0, &first, &count);
    for (size_t i = first; i < first + count; i++) {
        cvq_tensor_spec spec;
        uint64_t bytes = 0;
        cvq_model_tensor_spec(&b->config, i, &spec);
        if (spec.role != CVQ_ROLE_MATRIX) continue;
        cvq_tensor_bytes(b->types[i], CVQ_PANEL_ROWS, spec.rows, spec.cols, &bytes);
        sum.params += (double)spec.rows * (double)spec.cols;
        sum.bytes += (double)bytes;
        if (bytes > largest) {
            sum.type = cvq_type_describe(b->types[i])->name;
            largest = bytes;
        }
    }
    return sum;
}

static bool is_fast(const weight_sum *w) {
    return strcmp(w->type, "bf16") != 0;
}

static cvq_peak_kind arithmetic(bool fast) {
    return fast ? CVQ_PEAK_INT8 : CVQ_PEAK_F32;
}

/* Products of queries and keys, and of probabilities and values. */
static double attention_ops(double visible, double width) {
    return 4 * visible * width;
}

/* ---------------------------------------------------------------- the vision encoder */

static double vit_attention_ops(const cvq_model_config *c) {
    double tokens = c->vit_num_positions;
    return attention_ops(tokens * tokens, c->vit_hidden_size);
}

/* Tokens, and keys and values in the form of either precision. */
typedef struct attention_bench {
    cvq_engine e;
    float *qkv, *out; /* [tokens][3 d], [tokens][d] */
    cvq_kv_int8 kv_int8;
    cvq_kv_cache kv;
    size_t *visible;
} attention_bench;

static cvq_status open_attention(attention_bench *a, cvq_bench *b, bool fast, cvq_error *err) {
    size_t tokens = b->config.vit_num_positions, d = b->config.vit_hidden_size;
    size_t heads = b->config.vit_num_heads;
    void *p;
    cvq_kv_init(&a->kv, CVQ_KV_F32, heads, d / heads);
    CVQ_TRY(cvq_engine_open(&a->e, cvq_kernels_for(b->level), b->threads, fast, &b->stop, err));
    CVQ_TRY(cvq_alloc(&p, tokens, 3 * d * sizeof(float), "tokens", err));
    a->qkv = p;
    CVQ_TRY(cvq_alloc(&p, tokens, d * sizeof(float), "tokens", err));
    a->out = p;
    cvq_synthetic_values(3, a->qkv, tokens * 3 * d);
    if (fast) return cvq_kv_int8_alloc(&a->kv_int8, heads, d / heads, tokens, "tokens", err);
    CVQ_TRY(cvq_alloc(&p, tokens, sizeof(size_t), "tokens", err));
    a->visible = p;
    CVQ_TRY(cvq_kv_reserve(&a->kv, tokens, err));
    for (size_t i = 0; i < tokens; i++) {
        const float *row = a->qkv + i * 3 * d;
        a->visible[i] = tokens;
        cvq_kv_store(&a->kv, a->e.k, i, row + d, row + 2 * d);
    }
    return CVQ_OK;
}

static void close_attention(attention_bench *a) {
    free(a->qkv);
    free(a->out);
    free(a->visible);
    cvq_kv_free(&a->kv);
    cvq_kv_int8_free(&a->kv_int8);
    cvq_engine_close(&a->e);
}

/* As runtime/vision.c calls it. */
static void attend(attention_bench *a, const cvq_model_config *c) {
    size_t tokens = c->vit_num_positions, d = c->vit_hidden_size, heads = c->vit_num_heads;
    size_t head_dim = d / heads;
    float scale = 1.0f / sqrtf((float)head_dim);
    cvq_kv_rows rows = {a->qkv + d, a->qkv + 2 * d, 3 * d, tokens};
    cvq_attention_int8_call fast = {.kv = &a->kv_int8,
                                    .q = a->qkv,
                                    .ldq = 3 * d,
                                    .queries = tokens,
                                    .heads = heads,
                                    .scale = scale,
                                    .out = a->out,
                                    .ldo = d};
    cvq_attention_call exact = {.kv = &a->kv,
                                .q = a->qkv,
                                .ldq = 3 * d,
                                .queries = tokens,
                                .heads = heads,
                                .visible = a->visible,
                                .scale = scale,
                                .out = a->out,
                                .ldo = d};
    if (!a->e.fast) {
        cvq_attention(&a->e, &exact);
        return;
    }
    cvq_kv_int8_store(&a->e, &a->kv_int8, &rows);
    cvq_attention_int8(&a->e, &fast);
}

static cvq_status measure_attention(cvq_bench *b, attention_bench *a, cvq_error *err) {
    size_t tokens = b->config.vit_num_positions, d = b->config.vit_hidden_size;
    attend(a, &b->config);
    cvq_bench_times t = {0};
    while (cvq_bench_more(b, &t)) {
        double start = cvq_bench_now();
        attend(a, &b->config);
        cvq_bench_add(&t, cvq_bench_now() - start);
    }
    cvq_bench_row row = {.name = "vit_attention",
                         .phase = CVQ_BENCH_ENCODE,
                         .shape = {tokens, tokens, d},
                         .type = a->e.fast ? "int8" : "f32",
                         .ops = vit_attention_ops(&b->config),
                         .bytes = 4.0 * 4 * (double)tokens * (double)d,
                         .bound = arithmetic(a->e.fast)};
    return cvq_bench_done(b, &row, &t, cvq_real_config.vit_num_layers, err);
}

cvq_status cvq_bench_attention(cvq_bench *b, cvq_error *err) {
    weight_sum vit = sum_part(b, CVQ_PART_VIT, true);
    bool fast = is_fast(&vit);
    if (!cvq_bench_wanted(b, "vit_attention", fast ? "int8" : "f32", b->config.vit_num_positions))
        return CVQ_OK;
    attention_bench a = {0};
    cvq_status status = open_attention(&a, b, fast, err);
    if (status == CVQ_OK) status = measure_attention(b, &a, err);
    close_attention(&a);
    return status;
}

static cvq_status vit_rows(cvq_bench *b, const double *seconds, uint32_t layers, cvq_error *err) {
    const cvq_model_config *c = &b->config;
    double tokens = c->vit_num_positions, merged = (double)cvq_image_slots(c) - 2;
    weight_sum vit = sum_part(b, CVQ_PART_VIT, true), ad = sum_part(b, CVQ_PART_ADAPTER, false);
    cvq_bench_times t = {0}, once = {0};
    for (uint32_t n = 1; n < layers; n++) cvq_bench_add(&t, seconds[1 + n]); /* 0: warm-up */
    cvq_bench_row row = {.name = "vit_layer",
                         .phase = CVQ_BENCH_ENCODE,
                         .shape = {c->vit_num_positions, c->vit_hidden_size, c->vit_hidden_size},
                         .type = vit.type,
                         .ops = 2 * tokens * vit.params + vit_attention_ops(c),
                         .bytes = vit.bytes + 8 * tokens * c->vit_hidden_size,
                         .bound = arithmetic(is_fast(&vit))};
    if (cvq_bench_wanted(b, row.name, row.type, row.shape[0]))
        CVQ_TRY(cvq_bench_done(b, &row, &t, cvq_real_config.vit_num_layers, err));
    cvq_bench_add(&once, seconds[1 + layers]);
    row = (cvq_bench_row){
        .name = "adapter",
        .phase = CVQ_BENCH_ENCODE,
        .shape = {cvq_image_slots(c) - 2, c->hidden_size, 4 * (size_t)c->vit_hidden_size},
        .type = ad.type,
        .ops = 2 * merged * ad.params,
        .bytes = ad.bytes + merged * (16.0 * c->vit_hidden_size + 4.0 * c->hidden_size),
        .bound = arithmetic(is_fast(&ad))};
    if (!cvq_bench_wanted(b, row.name, row.type, row.shape[0])) return CVQ_OK;
    return cvq_bench_done(b, &row, &once, 1, err);
}

static cvq_status encode_some(cvq_bench *b, const cvq_engine *e, const cvq_synthetic *s,
                              cvq_error *err) {
    size_t pixels = 3 * (size_t)s->config.image_size * s->config.image_size;
    uint32_t layers = s->config.vit_num_layers;
    void *rgb = NULL, *out = NULL, *seconds = NULL;
    cvq_status status = cvq_alloc(&rgb, pixels, 1, "picture", err);
    if (status == CVQ_OK)
        status = cvq_alloc(&out, cvq_image_slots(&s->config), s->config.hidden_size * sizeof(float),
                           "encoding", err);
    if (status == CVQ_OK) status = cvq_alloc(&seconds, layers + 2, sizeof(double), "times", err);
    if (status != CVQ_OK) goto done;
    for (size_t i = 0; i < pixels; i++) ((uint8_t *)rgb)[i] = (uint8_t)(i * i >> 7);
    step_clock clock = {b, cvq_bench_now(), seconds};
    status = cvq_vision_encode(e, &s->weights, rgb, out, took_step, &clock, err);
    if (status == CVQ_OK) status = vit_rows(b, seconds, layers, err);
done:
    free(rgb);
    free(out);
    free(seconds);
    return status;
}

cvq_status cvq_bench_vit(cvq_bench *b, cvq_error *err) {
    weight_sum vit = sum_part(b, CVQ_PART_VIT, true), ad = sum_part(b, CVQ_PART_ADAPTER, false);
    if (!cvq_bench_wanted(b, "vit_layer", vit.type, b->config.vit_num_positions) &&
        !cvq_bench_wanted(b, "adapter", ad.type, cvq_image_slots(&b->config) - 2))
        return CVQ_OK;
    cvq_engine e = {0};
    cvq_synthetic s = {0};
    cvq_status status = cvq_synthetic_open(&s, &b->config, b->types, CVQ_SYNTHETIC_VIT,
                                           (uint32_t)b->min_runs + 1, b->threads, err);
    if (status == CVQ_OK)
        status = cvq_engine_open(&e, cvq_kernels_for(b->level), b->threads, s.weights.quantized,
                                 &b->stop, err);
    if (status == CVQ_OK) status = encode_some(b, &e, &s, err);
    cvq_engine_close(&e);
    cvq_synthetic_close(&s);
    return status;
}

/* ---------------------------------------------------------------- the decoder */

/* An engine and a decoder over synthetic layers of one expert. */
typedef struct decoder_bench {
    cvq_bench *b;
    cvq_engine engine;
    cvq_synthetic s;
    cvq_decoder decoder;
    cvq_kv_type kv;
} decoder_bench;

static cvq_status open_decoder(decoder_bench *d, cvq_synthetic_part part, uint32_t layers,
                               cvq_error *err) {
    cvq_bench *b = d->b;
    CVQ_TRY(cvq_synthetic_open(&d->s, &b->config, b->types, part, layers, b->threads, err));
    bool fast = d->s.weights.quantized;
    d->kv = fast ? CVQ_KV_F16 : CVQ_KV_F32;
    CVQ_TRY(
        cvq_engine_open(&d->engine, cvq_kernels_for(b->level), b->threads, fast, &b->stop, err));
    cvq_rotary rotary = {cvq_head_dim(&b->config) / 2, d->s.weights.inv_freq, true};
    return cvq_decoder_open(&d->decoder, &d->engine, &d->s.weights, d->kv, &rotary, err);
}

static void close_decoder(decoder_bench *d) {
    cvq_decoder_close(&d->decoder);
    cvq_engine_close(&d->engine);
    cvq_synthetic_close(&d->s);
}

/* Bytes of the keys and values that one query of a layer reads. */
static double kv_bytes(const decoder_bench *d, size_t keys) {
    const cvq_model_config *c = &d->s.config;
    return 2.0 * (double)keys * c->num_kv_heads * (double)cvq_head_dim(c) *
           (d->kv == CVQ_KV_F16 ? 2 : 4);
}

static cvq_status measure_prefill(decoder_bench *d, const weight_sum *vision, cvq_error *err) {
    const cvq_model_config *c = &d->s.config;
    size_t rows = cvq_image_slots(c);
    void *embedding = NULL;
    double seconds[16];
    CVQ_TRY(cvq_alloc(&embedding, rows, c->hidden_size * sizeof(float), "embeddings", err));
    cvq_synthetic_values(5, embedding, rows * c->hidden_size);
    /* As many slots as a picture has, all of the vision expert; slot 0 (bos) stays zero. */
    cvq_stretch stretch = {
        .first = 1, .count = rows, .image_slots = rows + 1, .embedding = embedding};
    step_clock clock = {d->b, cvq_bench_now(), seconds};
    const float *hidden;
    cvq_status status =
        cvq_decoder_run(&d->decoder, &stretch, true, &hidden, took_step, &clock, err);
    free(embedding);
    CVQ_TRY(status);
    cvq_bench_times t = {0};
    for (uint32_t n = 1; n < c->num_layers; n++) cvq_bench_add(&t, seconds[n]); /* 0: warm-up */
    double visible = (double)rows * ((double)rows + 3) / 2;                     /* 2 .. rows + 1 */
    cvq_bench_row row = {.name = "decoder_layer_prefill",
                         .phase = CVQ_BENCH_PREFILL,
                         .shape = {rows, c->hidden_size, c->hidden_size},
                         .type = vision->type,
                         .ops = 2 * (double)rows * vision->params +
                                attention_ops(visible, c->hidden_size),
                         .bytes = vision->bytes + 8.0 * (double)rows * c->hidden_size,
                         .bound = arithmetic(is_fast(vision))};
    return cvq_bench_done(d->b, &row, &t, cvq_real_config.num_layers, err);
}

cvq_status cvq_bench_prefill(cvq_bench *b, cvq_error *err) {
    weight_sum vision = sum_part(b, CVQ_PART_VISION, true);
    if (!cvq_bench_wanted(b, "decoder_layer_prefill", vision.type, cvq_image_slots(&b->config)))
        return CVQ_OK;
    decoder_bench d = {.b = b};
    cvq_status status = open_decoder(&d, CVQ_SYNTHETIC_VISION, (uint32_t)b->min_runs + 1, err);
    if (status == CVQ_OK) status = measure_prefill(&d, &vision, err);
    close_decoder(&d);
    return status;
}

/* Keys and values of all slots before the token's, so that reading them costs what it does. */
static cvq_status fill_cache(decoder_bench *d, size_t context, cvq_error *err) {
    const cvq_model_config *c = &d->s.config;
    size_t width = c->num_kv_heads * cvq_head_dim(c);
    void *values;
    CVQ_TRY(cvq_alloc(&values, 2 * width, sizeof(float), "keys and values", err));
    float *key = values, *value = key + width;
    cvq_status status = CVQ_OK;
    for (uint32_t n = 0; status == CVQ_OK && n < c->num_layers; n++) {
        status = cvq_kv_reserve(&d->decoder.kv[n], context + 1, err);
        for (size_t slot = 0; status == CVQ_OK && slot < context; slot++) {
            cvq_synthetic_values(n * context + slot, key, 2 * width);
            cvq_kv_store(&d->decoder.kv[n], d->engine.k, slot, key, value);
        }
    }
    free(values);
    return status;
}

/* One token after the other through all layers and lm_head, so that each finds the caches as
 * decoding leaves them. */
static cvq_status decode_tokens(decoder_bench *d, size_t context, cvq_bench_times *layers,
                                cvq_bench_times *head, cvq_error *err) {
    void *logits;
    CVQ_TRY(cvq_alloc(&logits, d->s.config.vocab_size, sizeof(float), "logits", err));
    const int32_t id = 0;
    cvq_stretch stretch = {.first = context, .count = 1, .ids = &id};
    cvq_status status = CVQ_OK;
    for (bool warm = false; status == CVQ_OK && cvq_bench_more(d->b, layers); warm = true) {
        const float *hidden;
        double start = cvq_bench_now();
        status = cvq_decoder_run(&d->decoder, &stretch, false, &hidden, NULL, NULL, err);
        double between = cvq_bench_now();
        if (status == CVQ_OK) status = cvq_decoder_logits(&d->decoder, hidden, 1, logits, err);
        if (status != CVQ_OK || !warm) continue;
        cvq_bench_add(layers, (between - start) / d->s.config.num_layers);
        cvq_bench_add(head, cvq_bench_now() - between);
        layers->sum += (between - start) - layers->values[layers->count - 1]; /* real time */
    }
    free(logits);
    if (status == CVQ_OK) status = cvq_bench_check(d->b, err);
    return status;
}

static cvq_status measure_decode(decoder_bench *d, const weight_sum *language,
                                 const weight_sum *lm_head, cvq_error *err) {
    const cvq_model_config *c = &d->s.config;
    size_t context = DECODE_CONTEXT / d->b->scale;
    CVQ_TRY(fill_cache(d, context, err));
    cvq_bench_times layers = {0}, head = {0};
    CVQ_TRY(decode_tokens(d, context, &layers, &head, err));
    cvq_bench_row row = {.name = "decoder_layer_decode",
                         .phase = CVQ_BENCH_DECODE,
                         .shape = {1, c->hidden_size, c->hidden_size},
                         .type = language->type,
                         .ops = 2 * language->params +
                                attention_ops((double)context + 1, c->hidden_size),
                         .bytes = language->bytes + kv_bytes(d, context + 1),
                         .bound = arithmetic(is_fast(language))};
    if (cvq_bench_wanted(d->b, row.name, row.type, 1))
        CVQ_TRY(cvq_bench_done(d->b, &row, &layers, cvq_real_config.num_layers, err));
    row = (cvq_bench_row){.name = "lm_head",
                          .phase = CVQ_BENCH_DECODE,
                          .shape = {1, c->vocab_size, c->hidden_size},
                          .type = lm_head->type,
                          .ops = 2 * lm_head->params,
                          .bytes = lm_head->bytes + 4.0 * ((double)c->vocab_size + c->hidden_size),
                          .bound = arithmetic(is_fast(lm_head))};
    if (!cvq_bench_wanted(d->b, row.name, row.type, 1)) return CVQ_OK;
    return cvq_bench_done(d->b, &row, &head, 1, err);
}

cvq_status cvq_bench_decode(cvq_bench *b, cvq_error *err) {
    weight_sum language = sum_part(b, CVQ_PART_LANGUAGE, true);
    weight_sum lm_head = sum_part(b, CVQ_PART_HEAD, false);
    if (!cvq_bench_wanted(b, "decoder_layer_decode", language.type, 1) &&
        !cvq_bench_wanted(b, "lm_head", lm_head.type, 1))
        return CVQ_OK;
    uint32_t layers = (uint32_t)((double)b->pool_bytes / language.bytes) + 1;
    if (layers > cvq_real_config.num_layers) layers = cvq_real_config.num_layers;
    decoder_bench d = {.b = b};
    cvq_status status = open_decoder(&d, CVQ_SYNTHETIC_LANGUAGE, layers, err);
    if (status == CVQ_OK) status = measure_decode(&d, &language, &lm_head, err);
    close_decoder(&d);
    return status;
}
