/* The numbers that make up one CogVLM2: what config.json says, as the .cvq file keeps it and the
 * runtime reads it. */
#ifndef CVQ_FORMATS_MODEL_CONFIG_H
#define CVQ_FORMATS_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CVQ_MAX_EOS 8

typedef enum cvq_template_kind {
    CVQ_TEMPLATE_CHAT = 0,
    CVQ_TEMPLATE_VQA = 1,
    CVQ_TEMPLATE_BASE = 2
} cvq_template_kind;

typedef struct cvq_model_config {
    /* decoder */
    uint32_t hidden_size, num_layers, num_heads, num_kv_heads, intermediate_size, vocab_size;
    uint32_t max_positions; /* sequence slots: 8192 */
    float rms_norm_eps;
    uint32_t bos_id, pad_id, num_eos, eos_ids[CVQ_MAX_EOS];
    uint32_t template_version; /* cvq_template_kind: the template used when none is asked for */
    /* vision: EVA2-CLIP-E */
    uint32_t vit_hidden_size, vit_num_layers, vit_num_heads, vit_intermediate_size;
    uint32_t image_size, patch_size, in_channels,
        vit_num_positions; /* positions = (image_size / patch_size)^2 + 1 */
    float vit_layer_norm_eps;
} cvq_model_config;

/* The released model, 19 billion parameters: what its config.json and generation_config.json say.
 */
extern const cvq_model_config cvq_real_config;

/* Hard-coded in the released code, not in config.json. */
#define CVQ_ROPE_THETA 500000.0f
#define CVQ_ADAPTER_NORM_EPS 1e-5f

/* Every bound that later code relies on (docs/format.md lists them); the first one broken is named
 * with its field. */
cvq_status cvq_model_config_check(const cvq_model_config *c, const char *where, cvq_error *err);

/* Of a checked config. */
static inline size_t cvq_head_dim(const cvq_model_config *c) {
    return c->hidden_size / c->num_heads;
}
static inline size_t cvq_vit_head_dim(const cvq_model_config *c) {
    return c->vit_hidden_size / c->vit_num_heads;
}
static inline size_t cvq_qkv_rows(const cvq_model_config *c) {
    return c->hidden_size + 2 * (size_t)c->num_kv_heads * cvq_head_dim(c);
}
static inline size_t cvq_patch_grid(const cvq_model_config *c) {
    return c->image_size / c->patch_size;
} /* patches along one side */
/* boi, one slot for each 2 x 2 patches, eoi: 2306 in the real model. */
static inline size_t cvq_image_slots(const cvq_model_config *c) {
    size_t g = cvq_patch_grid(c) / 2;
    return g * g + 2;
}

/* Slots of the longest sequence. max_positions counts slots; a limit that has no room for a picture
 * can only mean text, so the picture's slots come on top. */
static inline size_t cvq_max_context(const cvq_model_config *c) {
    size_t picture = cvq_image_slots(c) + 2;
    return c->max_positions < picture ? c->max_positions + picture : c->max_positions;
}

#endif
