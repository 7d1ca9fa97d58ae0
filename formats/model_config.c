/* The bounds of a model's config. They keep every product of sizes in later code far from overflow,
 * and exclude shapes that the architecture does not have. */
#include "formats/model_config.h"

#include <math.h>

const cvq_model_config cvq_real_config = {
    .hidden_size = 4096,
    .num_layers = 32,
    .num_heads = 32,
    .num_kv_heads = 8,
    .intermediate_size = 14336,
    .vocab_size = 128256,
    .max_positions = 8192,
    .rms_norm_eps = 1e-5f,
    .bos_id = 128000,
    .pad_id = 128002,
    .num_eos = 2,
    .eos_ids = {128001, 128009},
    .vit_hidden_size = 1792,
    .vit_num_layers = 63,
    .vit_num_heads = 16,
    .vit_intermediate_size = 15360,
    .image_size = 1344,
    .patch_size = 14,
    .in_channels = 3,
    .vit_num_positions = 9217,
    .vit_layer_norm_eps = 1e-6f,
};

typedef struct bound {
    const char *name;
    uint32_t value, least, most;
} bound;

static cvq_status outside(const char *where, const char *name, cvq_error *err) {
    return cvq_fail(err, CVQ_FORMAT, where, "config: %s does not fit the architecture", name);
}

static cvq_status check_ids(const cvq_model_config *c, const char *where, cvq_error *err) {
    if (c->bos_id >= c->vocab_size)
        return cvq_fail(err, CVQ_FORMAT, where,
                        "config: bos_token_id %u is not below vocab_size %u", c->bos_id,
                        c->vocab_size);
    if (c->pad_id >= c->vocab_size)
        return cvq_fail(err, CVQ_FORMAT, where,
                        "config: pad_token_id %u is not below vocab_size %u", c->pad_id,
                        c->vocab_size);
    for (uint32_t i = 0; i < c->num_eos; i++)
        if (c->eos_ids[i] >= c->vocab_size)
            return cvq_fail(err, CVQ_FORMAT, where,
                            "config: eos_token_id %u is not below vocab_size %u", c->eos_ids[i],
                            c->vocab_size);
    return CVQ_OK;
}

static bool eps_ok(float eps) {
    return isfinite(eps) && eps > 0 && eps <= 0.1f;
}

cvq_status cvq_model_config_check(const cvq_model_config *c, const char *where, cvq_error *err) {
    const bound bounds[] = {
        {"hidden_size", c->hidden_size, 2, 65536},
        {"num_hidden_layers", c->num_layers, 1, 1024},
        {"num_attention_heads", c->num_heads, 1, 1024},
        {"num_multi_query_heads", c->num_kv_heads, 1, 1024},
        {"intermediate_size", c->intermediate_size, 1, 262144},
        {"vocab_size", c->vocab_size, 257, 1u << 20},
        {"max_position_embeddings", c->max_positions, 8, 1u << 20},
        {"eos_token_id (how many)", c->num_eos, 1, CVQ_MAX_EOS},
        {"template_version", c->template_version, CVQ_TEMPLATE_CHAT, CVQ_TEMPLATE_BASE},
        {"vision_config.hidden_size", c->vit_hidden_size, 2, 65536},
        {"vision_config.num_hidden_layers", c->vit_num_layers, 1, 1024},
        {"vision_config.num_heads", c->vit_num_heads, 1, 1024},
        {"vision_config.intermediate_size", c->vit_intermediate_size, 1, 262144},
        {"vision_config.image_size", c->image_size, 4, 4096},
        {"vision_config.patch_size", c->patch_size, 1, 256},
        {"vision_config.in_channels", c->in_channels, 3, 3},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (bounds[i].value < bounds[i].least || bounds[i].value > bounds[i].most)
            return cvq_fail(err, CVQ_FORMAT, where, "config: %s is %u, outside %u .. %u",
                            bounds[i].name, bounds[i].value, bounds[i].least, bounds[i].most);
    if (c->hidden_size % c->num_heads || cvq_head_dim(c) % 2)
        return outside(where, "hidden_size / num_attention_heads (an even number)", err);
    if (c->num_heads % c->num_kv_heads)
        return outside(where, "num_attention_heads / num_multi_query_heads", err);
    if (c->vit_hidden_size % c->vit_num_heads)
        return outside(where, "vision_config.hidden_size / num_heads", err);
    if (c->image_size % c->patch_size || cvq_patch_grid(c) % 2)
        return outside(where, "vision_config.image_size / patch_size (an even number)", err);
    uint64_t grid = cvq_patch_grid(c);
    if (c->vit_num_positions != grid * grid + 1)
        return cvq_fail(err, CVQ_FORMAT, where,
                        "config: vision_config.num_positions is %u, not %llu", c->vit_num_positions,
                        (unsigned long long)(grid * grid + 1));
    if (!eps_ok(c->rms_norm_eps)) return outside(where, "rms_norm_eps", err);
    if (!eps_ok(c->vit_layer_norm_eps)) return outside(where, "vision_config.layer_norm_eps", err);
    return check_ids(c, where, err);
}
