/* config.json and generation_config.json of a CogVLM2 checkpoint. One table a JSON object says what
 * is done with each key: a size that is read, a key that a function below reads or checks, or one
 * that changes nothing here. A key in no table may mean anything, so it is refused by name. */
#include "convert/checkpoint_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "formats/json.h"

#define MAX_CONFIG (1u << 20)
#define ARCHITECTURE "CogVLMForCausalLM"

typedef enum key_use {
    KEY_SIZE,     /* required, to the config's field */
    KEY_DEFAULT,  /* the same, but the field's default stays where it is absent */
    KEY_HANDLED,  /* read or checked by a function of its own */
    KEY_HARMLESS, /* says nothing about what is computed here */
} key_use;

typedef struct config_key {
    const char *name;
    key_use use;
    size_t field; /* offset of a uint32_t in cvq_model_config */
} config_key;

#define FIELD(name) offsetof(cvq_model_config, name)
#define COUNT(table) (sizeof(table) / sizeof *(table))

static const config_key decoder_keys[] = {
    {"hidden_size", KEY_SIZE, FIELD(hidden_size)},
    {"num_hidden_layers", KEY_SIZE, FIELD(num_layers)},
    {"num_attention_heads", KEY_SIZE, FIELD(num_heads)},
    {"num_multi_query_heads", KEY_DEFAULT, FIELD(num_kv_heads)},
    {"intermediate_size", KEY_SIZE, FIELD(intermediate_size)},
    {"vocab_size", KEY_SIZE, FIELD(vocab_size)},
    {"max_position_embeddings", KEY_SIZE, FIELD(max_positions)},
    {"bos_token_id", KEY_SIZE, FIELD(bos_id)},
    {"pad_token_id", KEY_SIZE, FIELD(pad_id)},
    {"eos_token_id", KEY_HANDLED, 0},
    {"rms_norm_eps", KEY_HANDLED, 0},
    {"template_version", KEY_HANDLED, 0},
    {"vision_config", KEY_HANDLED, 0},
    {"architectures", KEY_HANDLED, 0},
    {"hidden_act", KEY_HANDLED, 0},
    {"tie_word_embeddings", KEY_HANDLED, 0},
    {"rope_theta", KEY_HANDLED, 0},
    {"rope_scaling", KEY_HANDLED, 0},
    {"quantization_config", KEY_HANDLED, 0},
    {"_attn_implementation_autoset", KEY_HARMLESS, 0},
    {"_commit_hash", KEY_HARMLESS, 0},
    {"_name_or_path", KEY_HARMLESS, 0},
    {"auto_map", KEY_HARMLESS, 0},
    {"dtype", KEY_HARMLESS, 0},
    {"initializer_range", KEY_HARMLESS, 0},
    {"model_type", KEY_HARMLESS, 0},
    {"output_attentions", KEY_HARMLESS, 0},
    {"output_hidden_states", KEY_HARMLESS, 0},
    {"return_dict", KEY_HARMLESS, 0},
    {"torch_dtype", KEY_HARMLESS, 0}, /* the tensors say what they are */
    {"torchscript", KEY_HARMLESS, 0},
    {"transformers_version", KEY_HARMLESS, 0},
    {"use_cache", KEY_HARMLESS, 0},
};

static const config_key vision_keys[] = {
    {"hidden_size", KEY_SIZE, FIELD(vit_hidden_size)},
    {"num_hidden_layers", KEY_SIZE, FIELD(vit_num_layers)},
    {"num_heads", KEY_SIZE, FIELD(vit_num_heads)},
    {"intermediate_size", KEY_SIZE, FIELD(vit_intermediate_size)},
    {"image_size", KEY_SIZE, FIELD(image_size)},
    {"patch_size", KEY_SIZE, FIELD(patch_size)},
    {"in_channels", KEY_SIZE, FIELD(in_channels)},
    {"num_positions", KEY_SIZE, FIELD(vit_num_positions)},
    {"layer_norm_eps", KEY_HANDLED, 0},
    {"hidden_act", KEY_HANDLED, 0},
    {"dropout_prob", KEY_HARMLESS, 0}, /* of training */
};

static const config_key *find_key(const config_key *keys, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    }
    return NULL;
}

static cvq_status read_sizes(cvq_model_config *config, const cJSON *object, const config_key *keys,
                             size_t n, const char *where, cvq_error *err) {
    for (const cJSON *c = object->child; c; c = c->next) {
        if (!find_key(keys, n, c->string)) {
            return cvq_fail(err, CVQ_UNSUPPORTED, where,
                            "unknown key \"%.100s\": it may change what the model computes",
                            c->string);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (keys[i].use != KEY_SIZE && keys[i].use != KEY_DEFAULT) continue;
        uint32_t *field = (uint32_t *)(void *)((char *)config + keys[i].field);
        CVQ_TRY(cvq_json_u32(object, keys[i].name, keys[i].use == KEY_SIZE, UINT32_MAX, field,
                             where, err));
    }
    return CVQ_OK;
}

static cvq_status read_eps(float *eps, const cJSON *object, const char *key, bool required,
                           const char *where, cvq_error *err) {
    double value = (double)*eps;
    CVQ_TRY(cvq_json_number(object, key, required, &value, where, err));
    *eps = (float)value;
    return CVQ_OK;
}

/* The activation is hard-coded; absent means the released class's own. */
static cvq_status check_activation(const cJSON *object, const char *expected, const char *where,
                                   cvq_error *err) {
    const char *name = expected;
    CVQ_TRY(cvq_json_string(object, "hidden_act", false, &name, where, err));
    if (strcmp(name, expected) == 0) return CVQ_OK;
    return cvq_fail(err, CVQ_UNSUPPORTED, where,
                    "\"hidden_act\" is \"%.60s\", only \"%s\" is computed", name, expected);
}

static cvq_status check_architecture(const cJSON *root, const char *where, cvq_error *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "architectures");
    const char *first = NULL;
    for (const cJSON *c = cJSON_IsArray(list) ? list->child : NULL; c; c = c->next) {
        if (!cJSON_IsString(c)) continue;
        if (strcmp(c->valuestring, ARCHITECTURE) == 0) return CVQ_OK;
        if (!first) first = c->valuestring;
    }
    if (!first) {
        return cvq_fail(err, CVQ_FORMAT, where,
                        "\"architectures\" must be a list with " ARCHITECTURE);
    }
    return cvq_fail(err, CVQ_UNSUPPORTED, where,
                    "\"architectures\" says %.100s, only " ARCHITECTURE " (CogVLM2) is converted",
                    first);
}

static cvq_status check_unquantized(const cJSON *root, const char *where, cvq_error *err) {
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(root, "quantization_config");
    if (!c || cJSON_IsNull(c)) return CVQ_OK;
    return cvq_fail(err, CVQ_UNSUPPORTED, where,
                    "\"quantization_config\": this checkpoint is quantized already; take the one "
                    "without -int4 in its name");
}

/* Keys that the released class does not have but that others write; harmless at the values that the
 * code computes with. */
static cvq_status check_fixed_values(const cJSON *root, const char *where, cvq_error *err) {
    double theta = (double)CVQ_ROPE_THETA;
    bool tied = false;
    CVQ_TRY(cvq_json_number(root, "rope_theta", false, &theta, where, err));
    if (theta < (double)CVQ_ROPE_THETA || theta > (double)CVQ_ROPE_THETA) {
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "\"rope_theta\" is %g, only 500000 is computed", theta);
    }
    const cJSON *scaling = cJSON_GetObjectItemCaseSensitive(root, "rope_scaling");
    if (scaling && !cJSON_IsNull(scaling)) {
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "\"rope_scaling\": scaled rotary positions are not computed");
    }
    CVQ_TRY(cvq_json_bool(root, "tie_word_embeddings", false, &tied, where, err));
    if (tied) {
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "\"tie_word_embeddings\" is true, only models with their own lm_head are "
                        "converted");
    }
    return CVQ_OK;
}

static cvq_status read_template(cvq_model_config *config, const cJSON *root, const char *where,
                                cvq_error *err) {
    static const char *const names[] = {
        [CVQ_TEMPLATE_CHAT] = "chat", [CVQ_TEMPLATE_VQA] = "vqa", [CVQ_TEMPLATE_BASE] = "base"};
    const char *name = "chat";
    CVQ_TRY(cvq_json_string(root, "template_version", false, &name, where, err));
    for (uint32_t i = 0; i < COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            config->template_version = i;
            return CVQ_OK;
        }
    }
    return cvq_fail(err, CVQ_UNSUPPORTED, where,
                    "\"template_version\" is \"%.60s\", known are chat, vqa and base", name);
}

static cvq_status add_eos(cvq_model_config *config, const cJSON *item, const char *where,
                          cvq_error *err) {
    uint64_t id;
    if (!cvq_json_is_u64(item, &id) || id > UINT32_MAX) {
        return cvq_fail(err, CVQ_FORMAT, where,
                        "\"eos_token_id\" must be a token's number or a list of them");
    }
    for (uint32_t i = 0; i < config->num_eos; i++) {
        if (config->eos_ids[i] == id) return CVQ_OK;
    }
    if (config->num_eos == CVQ_MAX_EOS) {
        return cvq_fail(err, CVQ_UNSUPPORTED, where, "more than %d different \"eos_token_id\"",
                        CVQ_MAX_EOS);
    }
    config->eos_ids[config->num_eos++] = (uint32_t)id;
    return CVQ_OK;
}

/* Adds to those that the config has. */
static cvq_status read_eos(cvq_model_config *config, const cJSON *root, bool required,
                           const char *where, cvq_error *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "eos_token_id");
    if ((!item || cJSON_IsNull(item)) && !required) return CVQ_OK;
    if (!cJSON_IsArray(item)) return add_eos(config, item, where, err);
    for (const cJSON *c = item->child; c; c = c->next) CVQ_TRY(add_eos(config, c, where, err));
    return CVQ_OK;
}

static cvq_status read_vision(cvq_model_config *config, const cJSON *root, const char *path,
                              cvq_error *err) {
    char where[512];
    snprintf(where, sizeof where, "%s: vision_config", path);
    const cJSON *vision = cJSON_GetObjectItemCaseSensitive(root, "vision_config");
    if (!cJSON_IsObject(vision)) {
        return cvq_fail(err, CVQ_FORMAT, path, "\"vision_config\" must be an object");
    }
    CVQ_TRY(read_sizes(config, vision, vision_keys, COUNT(vision_keys), where, err));
    CVQ_TRY(read_eps(&config->vit_layer_norm_eps, vision, "layer_norm_eps", true, where, err));
    return check_activation(vision, "gelu", where, err);
}

static cvq_status read_config(cvq_model_config *config, const cJSON *root, const char *path,
                              cvq_error *err) {
    if (!cJSON_IsObject(root)) return cvq_fail(err, CVQ_FORMAT, path, "not a JSON object");
    CVQ_TRY(check_unquantized(root, path, err));
    CVQ_TRY(check_architecture(root, path, err));
    CVQ_TRY(check_fixed_values(root, path, err));
    CVQ_TRY(check_activation(root, "silu", path, err));
    CVQ_TRY(read_sizes(config, root, decoder_keys, COUNT(decoder_keys), path, err));
    CVQ_TRY(read_eps(&config->rms_norm_eps, root, "rms_norm_eps", false, path, err));
    CVQ_TRY(read_template(config, root, path, err));
    CVQ_TRY(read_eos(config, root, true, path, err));
    CVQ_TRY(read_vision(config, root, path, err));
    return cvq_model_config_check(config, path, err);
}

cvq_status cvq_checkpoint_config_read(cvq_model_config *config, const char *dir, cvq_error *err) {
    /* What the released class has where the file says nothing. */
    cvq_model_config c = {.num_kv_heads = 8, .rms_norm_eps = 1e-5f};
    char *path = NULL;
    cJSON *root = NULL;
    CVQ_TRY(cvq_path_join(&path, dir, "config.json", err));
    cvq_status status = cvq_json_read_file(&root, path, MAX_CONFIG, err);
    if (status == CVQ_OK) status = read_config(&c, root, path, err);
    if (status == CVQ_OK) *config = c;
    cJSON_Delete(root);
    free(path);
    return status;
}

/* Other keys of the file say how to sample, too, but no command has a default from them. */
static cvq_status read_generation(cvq_generation_defaults *defaults, cvq_model_config *config,
                                  const cJSON *root, const char *path, cvq_error *err) {
    double temperature = NAN, top_p = NAN; /* NAN: absent */
    CVQ_TRY(cvq_json_number(root, "temperature", false, &temperature, path, err));
    CVQ_TRY(cvq_json_number(root, "top_p", false, &top_p, path, err));
    if (temperature < 0) {
        return cvq_fail(err, CVQ_FORMAT, path, "\"temperature\" is %g, must be 0 or more",
                        temperature);
    }
    if (top_p <= 0 || top_p > 1) {
        return cvq_fail(err, CVQ_FORMAT, path, "\"top_p\" is %g, must be above 0 and at most 1",
                        top_p);
    }
    CVQ_TRY(read_eos(config, root, false, path, err));
    CVQ_TRY(cvq_model_config_check(config, path, err));
    defaults->temperature = isnan(temperature) ? -1 : temperature;
    defaults->top_p = isnan(top_p) ? -1 : top_p;
    return CVQ_OK;
}

cvq_status cvq_generation_config_read(cvq_generation_defaults *defaults, cvq_model_config *config,
                                      const char *dir, cvq_error *err) {
    cvq_generation_defaults d = {-1, -1};
    cvq_model_config c = *config;
    char *path = NULL;
    cJSON *root = NULL;
    bool there = false;
    CVQ_TRY(cvq_path_join(&path, dir, "generation_config.json", err));
    cvq_status status = cvq_file_there(&there, path, err);
    if (there) status = cvq_json_read_file(&root, path, MAX_CONFIG, err);
    if (there && status == CVQ_OK) status = read_generation(&d, &c, root, path, err);
    if (status == CVQ_OK) {
        *defaults = d;
        *config = c;
    }
    cJSON_Delete(root);
    free(path);
    return status;
}
