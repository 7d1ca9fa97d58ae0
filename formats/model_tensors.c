/* The list of a model's tensors, from one table of kinds. */
#include "formats/model_tensors.h"

#include <stdio.h>
#include <string.h>

/* Sizes that shapes are made of. */
typedef enum size_name {
    NONE,
    ONE,
    HIDDEN,
    QKV,
    MLP,
    VOCAB,
    HALF_HEAD,
    VIT,
    VIT_QKV,
    VIT_MLP,
    CHANNELS,
    PATCH,
    TWO,
    POSITIONS
} size_name;

typedef struct kind_info {
    cvq_part part;
    cvq_role role;
    const char *name; /* %u is the layer */
    size_name dims[CVQ_MAX_DIMS];
} kind_info;

#define LAYER "model.layers.%u."
#define VISION "model.vision."
#define BLOCK VISION "transformer.layers.%u."

/* In the order of cvq_tensor_kind, which is the order of the file; a line a tensor. */
/* clang-format off */
static const kind_info kinds[CVQ_TENSOR_KINDS] = {
#define KIND(kind, part, role, name, ...)                                                          \
    [CVQ_T_##kind] = {CVQ_PART_##part, CVQ_ROLE_##role, name, {__VA_ARGS__}},
    KIND(INPUT_NORM, LANGUAGE, VECTOR, LAYER "input_layernorm.weight", HIDDEN)
    KIND(INV_FREQ, LANGUAGE, INV_FREQ, LAYER "self_attn.rotary_emb.inv_freq", HALF_HEAD)
    KIND(LANGUAGE_QKV, LANGUAGE, MATRIX, LAYER "self_attn.language_expert_query_key_value.weight", QKV, HIDDEN)
    KIND(LANGUAGE_DENSE, LANGUAGE, MATRIX, LAYER "self_attn.language_expert_dense.weight", HIDDEN, HIDDEN)
    KIND(POST_NORM, LANGUAGE, VECTOR, LAYER "post_attention_layernorm.weight", HIDDEN)
    KIND(LANGUAGE_GATE, LANGUAGE, MATRIX, LAYER "mlp.language_mlp.gate_proj.weight", MLP, HIDDEN)
    KIND(LANGUAGE_UP, LANGUAGE, MATRIX, LAYER "mlp.language_mlp.up_proj.weight", MLP, HIDDEN)
    KIND(LANGUAGE_DOWN, LANGUAGE, MATRIX, LAYER "mlp.language_mlp.down_proj.weight", HIDDEN, MLP)

    KIND(FINAL_NORM, HEAD, VECTOR, "model.norm.weight", HIDDEN)
    KIND(LM_HEAD, HEAD, MATRIX, "lm_head.weight", VOCAB, HIDDEN)

    KIND(EMBED_TOKENS, EMBEDDING, TABLE, "model.embed_tokens.weight", VOCAB, HIDDEN)

    KIND(VISION_QKV, VISION, MATRIX, LAYER "self_attn.vision_expert_query_key_value.weight", QKV, HIDDEN)
    KIND(VISION_QKV_BIAS, VISION, VECTOR, LAYER "self_attn.vision_expert_query_key_value.bias", QKV)
    KIND(VISION_DENSE, VISION, MATRIX, LAYER "self_attn.vision_expert_dense.weight", HIDDEN, HIDDEN)
    KIND(VISION_GATE, VISION, MATRIX, LAYER "mlp.vision_mlp.gate_proj.weight", MLP, HIDDEN)
    KIND(VISION_UP, VISION, MATRIX, LAYER "mlp.vision_mlp.up_proj.weight", MLP, HIDDEN)
    KIND(VISION_DOWN, VISION, MATRIX, LAYER "mlp.vision_mlp.down_proj.weight", HIDDEN, MLP)

    KIND(CONV, ADAPTER, MATRIX, VISION "conv.weight", VIT, VIT, TWO, TWO)
    KIND(CONV_BIAS, ADAPTER, VECTOR, VISION "conv.bias", VIT)
    KIND(ADAPTER_PROJ, ADAPTER, MATRIX, VISION "linear_proj.linear_proj.weight", HIDDEN, VIT)
    KIND(ADAPTER_NORM, ADAPTER, VECTOR, VISION "linear_proj.norm1.weight", HIDDEN)
    KIND(ADAPTER_NORM_BIAS, ADAPTER, VECTOR, VISION "linear_proj.norm1.bias", HIDDEN)
    KIND(ADAPTER_GATE, ADAPTER, MATRIX, VISION "linear_proj.gate_proj.weight", MLP, HIDDEN)
    KIND(ADAPTER_UP, ADAPTER, MATRIX, VISION "linear_proj.dense_h_to_4h.weight", MLP, HIDDEN)
    KIND(ADAPTER_DOWN, ADAPTER, MATRIX, VISION "linear_proj.dense_4h_to_h.weight", HIDDEN, MLP)
    KIND(BOI, ADAPTER, VECTOR, VISION "boi", ONE, ONE, HIDDEN)
    KIND(EOI, ADAPTER, VECTOR, VISION "eoi", ONE, ONE, HIDDEN)

    KIND(PATCH_PROJ, VIT_PATCH, MATRIX, VISION "patch_embedding.proj.weight", VIT, CHANNELS, PATCH, PATCH)
    KIND(PATCH_BIAS, VIT_PATCH, VECTOR, VISION "patch_embedding.proj.bias", VIT)
    KIND(CLS, VIT_PATCH, VECTOR, VISION "patch_embedding.cls_embedding", ONE, VIT)
    KIND(POSITION, VIT_PATCH, TABLE, VISION "patch_embedding.position_embedding.weight", POSITIONS, VIT)

    KIND(VIT_QKV, VIT, MATRIX, BLOCK "attention.query_key_value.weight", VIT_QKV, VIT)
    KIND(VIT_QKV_BIAS, VIT, VECTOR, BLOCK "attention.query_key_value.bias", VIT_QKV)
    KIND(VIT_DENSE, VIT, MATRIX, BLOCK "attention.dense.weight", VIT, VIT)
    KIND(VIT_DENSE_BIAS, VIT, VECTOR, BLOCK "attention.dense.bias", VIT)
    KIND(VIT_INPUT_NORM, VIT, VECTOR, BLOCK "input_layernorm.weight", VIT)
    KIND(VIT_INPUT_NORM_BIAS, VIT, VECTOR, BLOCK "input_layernorm.bias", VIT)
    KIND(VIT_FC1, VIT, MATRIX, BLOCK "mlp.fc1.weight", VIT_MLP, VIT)
    KIND(VIT_FC1_BIAS, VIT, VECTOR, BLOCK "mlp.fc1.bias", VIT_MLP)
    KIND(VIT_FC2, VIT, MATRIX, BLOCK "mlp.fc2.weight", VIT, VIT_MLP)
    KIND(VIT_FC2_BIAS, VIT, VECTOR, BLOCK "mlp.fc2.bias", VIT)
    KIND(VIT_POST_NORM, VIT, VECTOR, BLOCK "post_attention_layernorm.weight", VIT)
    KIND(VIT_POST_NORM_BIAS, VIT, VECTOR, BLOCK "post_attention_layernorm.bias", VIT)
#undef KIND
};
/* clang-format on */

typedef struct part_info {
    cvq_tensor_kind first, end;
} part_info;

static const part_info parts[CVQ_PARTS] = {
    [CVQ_PART_LANGUAGE] = {CVQ_T_INPUT_NORM, CVQ_T_FINAL_NORM},
    [CVQ_PART_HEAD] = {CVQ_T_FINAL_NORM, CVQ_T_EMBED_TOKENS},
    [CVQ_PART_EMBEDDING] = {CVQ_T_EMBED_TOKENS, CVQ_T_VISION_QKV},
    [CVQ_PART_VISION] = {CVQ_T_VISION_QKV, CVQ_T_CONV},
    [CVQ_PART_ADAPTER] = {CVQ_T_CONV, CVQ_T_PATCH_PROJ},
    [CVQ_PART_VIT_PATCH] = {CVQ_T_PATCH_PROJ, CVQ_T_VIT_QKV},
    [CVQ_PART_VIT] = {CVQ_T_VIT_QKV, CVQ_TENSOR_KINDS},
};

static uint32_t part_layers(const cvq_model_config *c, cvq_part part) {
    if (part == CVQ_PART_LANGUAGE || part == CVQ_PART_VISION) return c->num_layers;
    return part == CVQ_PART_VIT ? c->vit_num_layers : 1;
}

static size_t part_kinds(cvq_part part) {
    return (size_t)(parts[part].end - parts[part].first);
}

static size_t part_start(const cvq_model_config *c, cvq_part part) {
    size_t start = 0;
    for (int p = 0; p < (int)part; p++)
        start += part_kinds((cvq_part)p) * part_layers(c, (cvq_part)p);
    return start;
}

static uint64_t size_of(const cvq_model_config *c, size_name s) {
    switch (s) {
    case HIDDEN:
        return c->hidden_size;
    case QKV:
        return cvq_qkv_rows(c);
    case MLP:
        return c->intermediate_size;
    case VOCAB:
        return c->vocab_size;
    case HALF_HEAD:
        return cvq_head_dim(c) / 2;
    case VIT:
        return c->vit_hidden_size;
    case VIT_QKV:
        return 3 * (uint64_t)c->vit_hidden_size;
    case VIT_MLP:
        return c->vit_intermediate_size;
    case CHANNELS:
        return c->in_channels;
    case PATCH:
        return c->patch_size;
    case TWO:
        return 2;
    case POSITIONS:
        return c->vit_num_positions;
    case NONE:
    case ONE:
        break;
    }
    return 1;
}

size_t cvq_model_tensor_count(const cvq_model_config *c) {
    return part_start(c, CVQ_PARTS);
}

size_t cvq_model_tensor_index(const cvq_model_config *c, cvq_tensor_kind kind, uint32_t layer) {
    cvq_part part = kinds[kind].part;
    if (part_layers(c, part) == 1) layer = 0;
    return part_start(c, part) + layer * part_kinds(part) + (size_t)(kind - parts[part].first);
}

void cvq_model_part_range(const cvq_model_config *c, cvq_part part, uint32_t layer, size_t *first,
                          size_t *count) {
    *first = cvq_model_tensor_index(c, parts[part].first, layer);
    *count = part_kinds(part);
}

void cvq_model_tensor_spec(const cvq_model_config *c, size_t i, cvq_tensor_spec *spec) {
    cvq_part part = CVQ_PART_LANGUAGE;
    while (i >= part_kinds(part) * part_layers(c, part)) {
        i -= part_kinds(part) * part_layers(c, part);
        part = (cvq_part)(part + 1);
    }
    memset(spec, 0, sizeof *spec);
    spec->layer = (uint32_t)(i / part_kinds(part));
    spec->kind = (cvq_tensor_kind)(parts[part].first + i % part_kinds(part));
    spec->part = part;
    const kind_info *info = &kinds[spec->kind];
    spec->role = info->role;
    /* The name is a literal of the table above, with %u where the part has layers. */
    const char *layer_mark = strstr(info->name, "%u");
    if (layer_mark)
        snprintf(spec->name, sizeof spec->name, "%.*s%u%s", (int)(layer_mark - info->name),
                 info->name, spec->layer, layer_mark + 2);
    else
        snprintf(spec->name, sizeof spec->name, "%s", info->name);
    uint64_t all = 1;
    for (uint32_t d = 0; d < CVQ_MAX_DIMS; d++) {
        spec->dims[d] = size_of(c, info->dims[d]);
        if (info->dims[d] != NONE) spec->ndim = d + 1;
        all *= spec->dims[d];
    }
    bool is_vector = info->role == CVQ_ROLE_VECTOR || info->role == CVQ_ROLE_INV_FREQ;
    spec->rows = is_vector ? 1 : spec->dims[0];
    spec->cols = all / spec->rows;
}
