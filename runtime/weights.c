/* Binding the file's tensors. The reader has checked every shape and type against the config; here
 * they get names that code can read. */
#include "runtime/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

typedef struct binder {
    const cvq_reader *reader;
    const cvq_model_config *config;
    bool quantized;
} binder;

static size_t index_of(const binder *b, cvq_tensor_kind kind, size_t layer) {
    return cvq_model_tensor_index(b->config, kind, (uint32_t)layer);
}

static const float *vector(const binder *b, cvq_tensor_kind kind, size_t layer) {
    /* f32 tensors start on 64 KiB boundaries, so they are aligned. */
    return (const float *)(const void *)cvq_reader_data(b->reader, index_of(b, kind, layer));
}

static cvq_matrix matrix(binder *b, cvq_tensor_kind kind, size_t layer) {
    size_t i = index_of(b, kind, layer);
    const cvq_tensor *t = cvq_reader_tensor(b->reader, i);
    const cvq_type_info *type = cvq_type_describe(t->type);
    if (t->type != CVQ_TYPE_BF16) b->quantized = true;
    cvq_matrix m = {
        .rows = (size_t)t->spec.rows, .cols = (size_t)t->spec.cols, .name = t->spec.name};
    m.panels = (cvq_panels){.data = cvq_reader_data(b->reader, i),
                            .codebook = &t->codebook,
                            .panel_stride = cvq_panel_bytes(type, CVQ_PANEL_ROWS, m.cols),
                            .k = cvq_padded_cols(type, m.cols),
                            .type = t->type};
    return m;
}

static cvq_matrix matrix_with_bias(binder *b, cvq_tensor_kind kind, cvq_tensor_kind bias,
                                   size_t layer) {
    cvq_matrix m = matrix(b, kind, layer);
    m.bias = vector(b, bias, layer);
    return m;
}

static cvq_table table(const binder *b, cvq_tensor_kind kind) {
    size_t i = index_of(b, kind, 0);
    return (cvq_table){cvq_reader_tensor(b->reader, i), cvq_reader_data(b->reader, i)};
}

static cvq_decoder_layer decoder_layer(binder *b, size_t n) {
    float eps = b->config->rms_norm_eps;
    cvq_decoder_layer l = {
        .input_norm = {vector(b, CVQ_T_INPUT_NORM, n), NULL, eps},
        .post_norm = {vector(b, CVQ_T_POST_NORM, n), NULL, eps},
        .language = {.qkv = matrix(b, CVQ_T_LANGUAGE_QKV, n),
                     .dense = matrix(b, CVQ_T_LANGUAGE_DENSE, n),
                     .gate = matrix(b, CVQ_T_LANGUAGE_GATE, n),
                     .up = matrix(b, CVQ_T_LANGUAGE_UP, n),
                     .down = matrix(b, CVQ_T_LANGUAGE_DOWN, n)},
        .vision = {.qkv = matrix_with_bias(b, CVQ_T_VISION_QKV, CVQ_T_VISION_QKV_BIAS, n),
                   .dense = matrix(b, CVQ_T_VISION_DENSE, n),
                   .gate = matrix(b, CVQ_T_VISION_GATE, n),
                   .up = matrix(b, CVQ_T_VISION_UP, n),
                   .down = matrix(b, CVQ_T_VISION_DOWN, n)},
    };
    return l;
}

static cvq_vit_layer vit_layer(binder *b, size_t n) {
    float eps = b->config->vit_layer_norm_eps;
    cvq_vit_layer l = {
        .qkv = matrix_with_bias(b, CVQ_T_VIT_QKV, CVQ_T_VIT_QKV_BIAS, n),
        .dense = matrix_with_bias(b, CVQ_T_VIT_DENSE, CVQ_T_VIT_DENSE_BIAS, n),
        .input_norm = {vector(b, CVQ_T_VIT_INPUT_NORM, n), vector(b, CVQ_T_VIT_INPUT_NORM_BIAS, n),
                       eps},
        .post_norm = {vector(b, CVQ_T_VIT_POST_NORM, n), vector(b, CVQ_T_VIT_POST_NORM_BIAS, n),
                      eps},
        .fc1 = matrix_with_bias(b, CVQ_T_VIT_FC1, CVQ_T_VIT_FC1_BIAS, n),
        .fc2 = matrix_with_bias(b, CVQ_T_VIT_FC2, CVQ_T_VIT_FC2_BIAS, n),
    };
    return l;
}

static void bind_vision(cvq_weights *w, binder *b) {
    w->patch_proj = matrix_with_bias(b, CVQ_T_PATCH_PROJ, CVQ_T_PATCH_BIAS, 0);
    w->cls = vector(b, CVQ_T_CLS, 0);
    w->position = table(b, CVQ_T_POSITION);
    for (size_t n = 0; n < b->config->vit_num_layers; n++) w->vit_layers[n] = vit_layer(b, n);
    w->conv = matrix_with_bias(b, CVQ_T_CONV, CVQ_T_CONV_BIAS, 0);
    w->adapter_proj = matrix(b, CVQ_T_ADAPTER_PROJ, 0);
    w->adapter_norm = (cvq_norm){vector(b, CVQ_T_ADAPTER_NORM, 0),
                                 vector(b, CVQ_T_ADAPTER_NORM_BIAS, 0), CVQ_ADAPTER_NORM_EPS};
    w->adapter_gate = matrix(b, CVQ_T_ADAPTER_GATE, 0);
    w->adapter_up = matrix(b, CVQ_T_ADAPTER_UP, 0);
    w->adapter_down = matrix(b, CVQ_T_ADAPTER_DOWN, 0);
    w->boi = vector(b, CVQ_T_BOI, 0);
    w->eoi = vector(b, CVQ_T_EOI, 0);
}

/* One for all layers: conversion has refused checkpoints whose layers differ. */
static cvq_status bind_inv_freq(cvq_weights *w, const binder *b, cvq_error *err) {
    size_t half = cvq_head_dim(b->config) / 2, i = index_of(b, CVQ_T_INV_FREQ, 0);
    const cvq_tensor *t = cvq_reader_tensor(b->reader, i);
    const cvq_type_info *type = cvq_type_describe(t->type);
    const uint8_t *first = cvq_reader_data(b->reader, i);
    for (size_t n = 1; n < b->config->num_layers; n++) {
        size_t other = index_of(b, CVQ_T_INV_FREQ, n);
        const cvq_tensor *o = cvq_reader_tensor(b->reader, other);
        if (o->type != t->type ||
            memcmp(first, cvq_reader_data(b->reader, other), (size_t)t->size) != 0)
            return cvq_fail(err, CVQ_UNSUPPORTED, o->spec.name,
                            "differs from the first layer's; all layers must share one");
    }
    size_t padded = cvq_padded_cols(type, half);
    void *p;
    CVQ_TRY(cvq_alloc(&p, padded, sizeof(float), "rotary frequencies", err));
    w->inv_freq = p;
    w->inv_freq_bf16 = t->type == CVQ_TYPE_BF16;
    cvq_panel_decode(t->type, 1, &t->codebook, first, half, w->inv_freq, padded);
    for (size_t k = 0; k < half; k++)
        if (!isfinite(w->inv_freq[k]))
            return cvq_fail(err, CVQ_FORMAT, t->spec.name, "value %zu is not finite", k);
    return CVQ_OK;
}

cvq_status cvq_weights_open(cvq_weights *w, const cvq_reader *reader, cvq_error *err) {
    binder b = {reader, cvq_reader_config(reader), false};
    *w = (cvq_weights){.config = b.config};
    void *layers, *vit_layers;
    CVQ_TRY(cvq_alloc(&layers, b.config->num_layers, sizeof *w->layers, "layers", err));
    w->layers = layers;
    cvq_status status =
        cvq_alloc(&vit_layers, b.config->vit_num_layers, sizeof *w->vit_layers, "layers", err);
    if (status == CVQ_OK) {
        w->vit_layers = vit_layers;
        for (size_t n = 0; n < b.config->num_layers; n++) w->layers[n] = decoder_layer(&b, n);
        w->final_norm = (cvq_norm){vector(&b, CVQ_T_FINAL_NORM, 0), NULL, b.config->rms_norm_eps};
        w->lm_head = matrix(&b, CVQ_T_LM_HEAD, 0);
        w->embed_tokens = table(&b, CVQ_T_EMBED_TOKENS);
        bind_vision(w, &b);
        w->quantized = b.quantized;
        status = bind_inv_freq(w, &b, err);
    }
    if (status != CVQ_OK) cvq_weights_close(w);
    return status;
}

void cvq_weights_close(cvq_weights *w) {
    if (!w) return;
    free(w->layers);
    free(w->vit_layers);
    free(w->inv_freq);
    *w = (cvq_weights){0};
}

void cvq_table_row(const cvq_table *t, size_t row, float *scratch, float *out) {
    const cvq_type_info *type = cvq_type_describe(t->tensor->type);
    size_t cols = (size_t)t->tensor->spec.cols;
    cvq_panel_decode(t->tensor->type, 1, &t->tensor->codebook,
                     t->data + row * cvq_panel_bytes(type, 1, cols), cols, scratch,
                     cvq_padded_cols(type, cols));
    memcpy(out, scratch, cols * sizeof *out);
}
