/* formats/model_config and model_tensors: the real model's list, and every bound of a config.
 * cvq-test: formats */
#include "formats/model_tensors.h"

#include <math.h>

#include "tests/unit/harness.h"

static void real_model_adds_up(void) {
    CHECK(cvq_model_config_check(&cvq_real_config, "config", NULL) == CVQ_OK);
    CHECK(cvq_head_dim(&cvq_real_config) == 128 && cvq_vit_head_dim(&cvq_real_config) == 112);
    CHECK(cvq_qkv_rows(&cvq_real_config) == 6144 && cvq_image_slots(&cvq_real_config) == 2306);
    cvq_model_config short_context = cvq_real_config;
    short_context.max_positions = 2048;
    CHECK(cvq_max_context(&cvq_real_config) == 8192 &&
          cvq_max_context(&short_context) == 2048 + 2308);
    size_t n = cvq_model_tensor_count(&cvq_real_config);
    CHECK(n == 1221);
    uint64_t elements = 0, decode = 0;
    for (size_t i = 0; i < n; i++) {
        cvq_tensor_spec s;
        cvq_model_tensor_spec(&cvq_real_config, i, &s);
        uint64_t product = 1;
        for (size_t d = 0; d < CVQ_MAX_DIMS; d++) product *= s.dims[d];
        CHECK(product == s.rows * s.cols && s.ndim >= 1 && s.ndim <= CVQ_MAX_DIMS);
        CHECK(cvq_model_tensor_index(&cvq_real_config, s.kind, s.layer) == i);
        elements += product;
        if (s.part <= CVQ_PART_HEAD) decode += product;
    }
    CHECK(2 * elements == 39006214656u); /* total_size of the released index */
    CHECK(decode == 6979321856u + 525336576u + 266240u + 32 * 64);
}

static void names_and_ranges(void) {
    cvq_tensor_spec s;
    cvq_model_tensor_spec(&cvq_real_config,
                          cvq_model_tensor_index(&cvq_real_config, CVQ_T_VISION_QKV, 31), &s);
    CHECK(strcmp(s.name, "model.layers.31.self_attn.vision_expert_query_key_value.weight") == 0);
    CHECK(s.rows == 6144 && s.cols == 4096 && s.role == CVQ_ROLE_MATRIX && s.layer == 31);
    cvq_model_tensor_spec(&cvq_real_config, cvq_model_tensor_index(&cvq_real_config, CVQ_T_CONV, 0),
                          &s);
    CHECK(s.ndim == 4 && s.dims[3] == 2 && s.cols == 7168);
    cvq_model_tensor_spec(&cvq_real_config, cvq_model_tensor_index(&cvq_real_config, CVQ_T_BOI, 0),
                          &s);
    CHECK(s.ndim == 3 && s.dims[2] == 4096 && s.rows == 1 && s.cols == 4096);
    size_t first, count, covered = 0;
    for (int part = 0; part < CVQ_PARTS; part++) {
        uint32_t layers = part == CVQ_PART_VIT                                   ? 63
                          : part == CVQ_PART_LANGUAGE || part == CVQ_PART_VISION ? 32
                                                                                 : 1;
        for (uint32_t layer = 0; layer < layers; layer++) {
            cvq_model_part_range(&cvq_real_config, (cvq_part)part, layer, &first, &count);
            CHECK(first == covered);
            covered += count;
        }
    }
    CHECK(covered == 1221);
}

/* One field changed; the error must name it. */
#define REFUSED(field, value, name)                                                                \
    do {                                                                                           \
        cvq_model_config c = cvq_real_config;                                                      \
        cvq_error err = {0};                                                                       \
        c.field = value;                                                                           \
        CHECK(cvq_model_config_check(&c, "FILE", &err) == CVQ_FORMAT);                             \
        CHECK_SAY(strstr(err.message, name) && !strcmp(err.where, "FILE"), "%s", err.message);     \
    } while (0)

static void impossible_configs_are_refused(void) {
    REFUSED(hidden_size, 0, "hidden_size");
    REFUSED(hidden_size, 4097, "hidden_size");
    REFUSED(hidden_size, 1u << 31, "hidden_size");
    REFUSED(num_layers, 0, "num_hidden_layers");
    REFUSED(num_layers, 4000000000u, "num_hidden_layers");
    REFUSED(num_heads, 0, "num_attention_heads");
    REFUSED(num_heads, 31, "num_attention_heads");
    REFUSED(num_kv_heads, 0, "num_multi_query_heads");
    REFUSED(num_kv_heads, 5, "num_multi_query_heads");
    REFUSED(intermediate_size, 0, "intermediate_size");
    REFUSED(vocab_size, 12, "vocab_size");
    REFUSED(vocab_size, 1u << 21, "vocab_size");
    REFUSED(max_positions, 7, "max_position_embeddings");
    REFUSED(num_eos, 0, "eos_token_id");
    REFUSED(num_eos, 9, "eos_token_id");
    REFUSED(bos_id, 128256, "bos_token_id");
    REFUSED(pad_id, 4000000000u, "pad_token_id");
    REFUSED(eos_ids[1], 128256, "eos_token_id");
    REFUSED(template_version, 3, "template_version");
    REFUSED(rms_norm_eps, 0.0f, "rms_norm_eps");
    REFUSED(rms_norm_eps, (float)NAN, "rms_norm_eps");
    REFUSED(vit_hidden_size, 1793, "vision_config.hidden_size");
    REFUSED(vit_num_heads, 0, "vision_config.num_heads");
    REFUSED(vit_num_layers, 0, "vision_config.num_hidden_layers");
    REFUSED(vit_intermediate_size, 0, "vision_config.intermediate_size");
    REFUSED(image_size, 1345, "image_size");
    REFUSED(image_size, 1358, "image_size"); /* 97 patches: not even */
    REFUSED(image_size, 1u << 20, "image_size");
    REFUSED(patch_size, 0, "patch_size");
    REFUSED(in_channels, 1, "in_channels");
    REFUSED(vit_num_positions, 9216, "num_positions");
    REFUSED(vit_layer_norm_eps, -1.0f, "layer_norm_eps");
}

int main(void) {
    RUN(real_model_adds_up);
    RUN(names_and_ranges);
    RUN(impossible_configs_are_refused);
    return REPORT();
}
