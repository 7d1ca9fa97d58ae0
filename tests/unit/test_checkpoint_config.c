/* config.json and generation_config.json: the released files, defaults, and one change at a time.
 * cvq-test: formats */
#include "convert/checkpoint_config.h"

#include <math.h>

#include "formats/json.h"
#include "tests/unit/harness.h"
#include "tests/unit/temp_folder.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* As released. */
static const char released[] =
    "{\"architectures\": [\"CogVLMForCausalLM\"],"
    "\"auto_map\": {\"AutoConfig\": \"configuration_cogvlm.CogVLMConfig\","
    "\"AutoModelForCausalLM\": \"modeling_cogvlm.CogVLMForCausalLM\"},"
    "\"vision_config\": {\"dropout_prob\": 0.0, \"hidden_act\": \"gelu\", \"in_channels\": 3,"
    "\"num_hidden_layers\": 63, \"hidden_size\": 1792, \"patch_size\": 14, \"num_heads\": 16,"
    "\"intermediate_size\": 15360, \"layer_norm_eps\": 1e-06, \"num_positions\": 9217,"
    "\"image_size\": 1344},"
    "\"hidden_size\": 4096, \"intermediate_size\": 14336, \"num_attention_heads\": 32,"
    "\"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-05, \"template_version\": \"chat\","
    "\"initializer_range\": 0.02, \"bos_token_id\": 128000, \"eos_token_id\": [128001, 128009],"
    "\"pad_token_id\": 128002, \"vocab_size\": 128256, \"num_hidden_layers\": 32,"
    "\"hidden_act\": \"silu\", \"use_cache\": true}";

/* Member `key` of the object (of its vision_config) is set to a JSON text, or removed for NULL. */
typedef struct change {
    const char *section, *key, *value;
    cvq_status status;
    const char *message;
} change;

static cvq_status read_changed(cvq_model_config *config, const char *section, const char *key,
                               const char *value, cvq_error *err) {
    cJSON *root = cJSON_Parse(released), *new_value = value ? cJSON_Parse(value) : NULL;
    cJSON *object = *section ? cJSON_GetObjectItemCaseSensitive(root, section) : root;
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    if (new_value) cJSON_AddItemToObject(object, key, new_value);
    cvq_buffer text = {0};
    if (cvq_json_print(&text, root, NULL) != CVQ_OK) exit(1);
    temp_write("config.json", text.data, text.size);
    cvq_buffer_free(&text);
    cJSON_Delete(root);
    return cvq_checkpoint_config_read(config, temp_folder, err);
}

static void released_config(void) {
    cvq_model_config c = {0};
    cvq_error err = {0};
    temp_write_text("config.json", released);
    CHECK_SAY(cvq_checkpoint_config_read(&c, temp_folder, &err) == CVQ_OK, "%s", err.message);
    CHECK(c.hidden_size == 4096 && c.num_layers == 32 && c.num_heads == 32);
    CHECK(c.num_kv_heads == 8 && c.intermediate_size == 14336 && c.vocab_size == 128256);
    CHECK(c.max_positions == 8192 && fabsf(c.rms_norm_eps - 1e-5f) < 1e-12f);
    CHECK(c.bos_id == 128000 && c.pad_id == 128002 && c.num_eos == 2);
    CHECK(c.eos_ids[0] == 128001 && c.eos_ids[1] == 128009);
    CHECK(c.template_version == CVQ_TEMPLATE_CHAT);
    CHECK(c.vit_hidden_size == 1792 && c.vit_num_layers == 63 && c.vit_num_heads == 16);
    CHECK(c.vit_intermediate_size == 15360 && c.image_size == 1344 && c.patch_size == 14);
    CHECK(c.in_channels == 3 && c.vit_num_positions == 9217);
    CHECK(fabsf(c.vit_layer_norm_eps - 1e-6f) < 1e-13f);
}

static const change refused[] = {
    {"", "architectures", "[\"CogVLMVideoForCausalLM\"]", CVQ_UNSUPPORTED,
     "says CogVLMVideoForCausalLM"},
    {"", "architectures", "[\"LlamaForCausalLM\"]", CVQ_UNSUPPORTED, "says LlamaForCausalLM"},
    {"", "architectures", "[]", CVQ_FORMAT, "must be a list with CogVLMForCausalLM"},
    {"", "architectures", NULL, CVQ_FORMAT, "must be a list with CogVLMForCausalLM"},
    {"", "architectures", "\"CogVLMForCausalLM\"", CVQ_FORMAT, "must be a list"},
    {"", "quantization_config", "{\"load_in_4bit\": true, \"quant_method\": \"bitsandbytes\"}",
     CVQ_UNSUPPORTED, "quantized already; take the one without -int4 in its name"},
    {"", "hidden_act", "\"gelu\"", CVQ_UNSUPPORTED, "\"hidden_act\" is \"gelu\", only \"silu\""},
    {"", "hidden_act", "7", CVQ_FORMAT, "\"hidden_act\" must be a string"},
    {"", "tie_word_embeddings", "true", CVQ_UNSUPPORTED, "\"tie_word_embeddings\" is true"},
    {"", "tie_word_embeddings", "0", CVQ_FORMAT, "must be true or false"},
    {"", "rope_theta", "10000.0", CVQ_UNSUPPORTED, "\"rope_theta\" is 10000"},
    {"", "rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}", CVQ_UNSUPPORTED,
     "\"rope_scaling\""},
    {"", "template_version", "\"llama3\"", CVQ_UNSUPPORTED, "\"template_version\" is \"llama3\""},
    {"", "sliding_window", "4096", CVQ_UNSUPPORTED, "unknown key \"sliding_window\""},
    {"", "hidden_size", NULL, CVQ_FORMAT, "\"hidden_size\" is missing"},
    {"", "hidden_size", "\"4096\"", CVQ_FORMAT, "\"hidden_size\" must be an integer"},
    {"", "hidden_size", "4096.5", CVQ_FORMAT, "\"hidden_size\" must be an integer"},
    {"", "hidden_size", "4294967296", CVQ_FORMAT, "more than the 4294967295"},
    {"", "hidden_size", "4095", CVQ_FORMAT, "hidden_size"},
    {"", "hidden_size", "0", CVQ_FORMAT, "hidden_size"},
    {"", "num_hidden_layers", "0", CVQ_FORMAT, "num_hidden_layers"},
    {"", "num_hidden_layers", "4000000000", CVQ_FORMAT, "num_hidden_layers"},
    {"", "num_attention_heads", "33", CVQ_FORMAT, "num_attention_heads"},
    {"", "num_multi_query_heads", "5", CVQ_FORMAT, "num_multi_query_heads"},
    {"", "num_multi_query_heads", "0", CVQ_FORMAT, "num_multi_query_heads"},
    {"", "vocab_size", "100000", CVQ_FORMAT, "bos_token_id"},
    {"", "bos_token_id", "128256", CVQ_FORMAT, "bos_token_id"},
    {"", "pad_token_id", NULL, CVQ_FORMAT, "\"pad_token_id\" is missing"},
    {"", "eos_token_id", NULL, CVQ_FORMAT, "\"eos_token_id\" must be"},
    {"", "eos_token_id", "[]", CVQ_FORMAT, "eos_token_id"},
    {"", "eos_token_id", "[-1]", CVQ_FORMAT, "\"eos_token_id\" must be"},
    {"", "eos_token_id", "\"128001\"", CVQ_FORMAT, "\"eos_token_id\" must be"},
    {"", "eos_token_id", "[128256]", CVQ_FORMAT, "eos_token_id"},
    {"", "eos_token_id", "[1,2,3,4,5,6,7,8,9]", CVQ_UNSUPPORTED, "more than 8 different"},
    {"", "rms_norm_eps", "\"1e-5\"", CVQ_FORMAT, "\"rms_norm_eps\" must be a finite number"},
    {"", "rms_norm_eps", "0", CVQ_FORMAT, "rms_norm_eps"},
    {"", "rms_norm_eps", "-1e-5", CVQ_FORMAT, "rms_norm_eps"},
    {"", "max_position_embeddings", "7", CVQ_FORMAT, "max_position_embeddings"},
    {"", "vision_config", NULL, CVQ_FORMAT, "\"vision_config\" must be an object"},
    {"", "vision_config", "[]", CVQ_FORMAT, "\"vision_config\" must be an object"},
    {"vision_config", "hidden_act", "\"quick_gelu\"", CVQ_UNSUPPORTED,
     "\"hidden_act\" is \"quick_gelu\", only \"gelu\""},
    {"vision_config", "in_channels", "1", CVQ_FORMAT, "in_channels"},
    {"vision_config", "num_positions", "9216", CVQ_FORMAT, "num_positions"},
    {"vision_config", "num_positions", NULL, CVQ_FORMAT, "\"num_positions\" is missing"},
    {"vision_config", "image_size", "1343", CVQ_FORMAT, "image_size"},
    {"vision_config", "patch_size", "0", CVQ_FORMAT, "patch_size"},
    {"vision_config", "num_heads", "15", CVQ_FORMAT, "num_heads"},
    {"vision_config", "layer_norm_eps", NULL, CVQ_FORMAT, "\"layer_norm_eps\" is missing"},
    {"vision_config", "qkv_bias", "false", CVQ_UNSUPPORTED, "unknown key \"qkv_bias\""},
};

static void changes_are_refused(void) {
    for (size_t i = 0; i < COUNT(refused); i++) {
        const change *r = &refused[i];
        cvq_model_config c = {.hidden_size = 77};
        cvq_error err = {0};
        cvq_status status = read_changed(&c, r->section, r->key, r->value, &err);
        CHECK_SAY(status == r->status && strstr(err.message, r->message), "%s = %s gives %d: %s",
                  r->key, r->value ? r->value : "nothing", status, err.message);
        CHECK(strstr(err.where, "config.json") && c.hidden_size == 77);
        if (*r->section && strstr(err.message, "missing")) {
            CHECK_SAY(strstr(err.where, "config.json: vision_config"), "%s", err.where);
        }
    }
}

static const change accepted[] = {
    {"", "architectures", "[\"Other\", \"CogVLMForCausalLM\"]", CVQ_OK, ""},
    {"", "quantization_config", "null", CVQ_OK, ""},
    {"", "hidden_act", NULL, CVQ_OK, ""},
    {"", "tie_word_embeddings", "false", CVQ_OK, ""},
    {"", "rope_theta", "500000.0", CVQ_OK, ""},
    {"", "rope_scaling", "null", CVQ_OK, ""},
    {"", "torch_dtype", "\"bfloat16\"", CVQ_OK, ""},
    {"", "transformers_version", "\"4.41.0\"", CVQ_OK, ""},
    {"", "_name_or_path", "\"x\"", CVQ_OK, ""},
    {"", "auto_map", NULL, CVQ_OK, ""},
    {"vision_config", "dropout_prob", NULL, CVQ_OK, ""},
    {"vision_config", "hidden_act", NULL, CVQ_OK, ""},
};

static void harmless_changes_are_accepted(void) {
    for (size_t i = 0; i < COUNT(accepted); i++) {
        const change *a = &accepted[i];
        cvq_model_config c = {0};
        cvq_error err = {0};
        cvq_status status = read_changed(&c, a->section, a->key, a->value, &err);
        CHECK_SAY(status == CVQ_OK && c.hidden_size == 4096, "%s gives %d: %s", a->key, status,
                  err.message);
    }
}

static void values_and_defaults(void) {
    cvq_model_config c = {0};
    CHECK(read_changed(&c, "", "num_multi_query_heads", "4", NULL) == CVQ_OK);
    CHECK(c.num_kv_heads == 4);
    CHECK(read_changed(&c, "", "rms_norm_eps", NULL, NULL) == CVQ_OK);
    CHECK(fabsf(c.rms_norm_eps - 1e-5f) < 1e-12f && c.num_kv_heads == 8);
    CHECK(read_changed(&c, "", "rms_norm_eps", "1e-6", NULL) == CVQ_OK);
    CHECK(fabsf(c.rms_norm_eps - 1e-6f) < 1e-13f);
    CHECK(read_changed(&c, "", "template_version", "\"base\"", NULL) == CVQ_OK);
    CHECK(c.template_version == CVQ_TEMPLATE_BASE);
    CHECK(read_changed(&c, "", "template_version", NULL, NULL) == CVQ_OK);
    CHECK(c.template_version == CVQ_TEMPLATE_CHAT);
    CHECK(read_changed(&c, "", "eos_token_id", "128001", NULL) == CVQ_OK);
    CHECK(c.num_eos == 1 && c.eos_ids[0] == 128001);
    CHECK(read_changed(&c, "", "eos_token_id", "[5,5,6]", NULL) == CVQ_OK);
    CHECK(c.num_eos == 2 && c.eos_ids[1] == 6);
}

static void no_config(void) {
    cvq_model_config c = {0};
    cvq_error err = {0};
    CHECK(cvq_checkpoint_config_read(&c, temp_path("nowhere"), &err) == CVQ_NOT_FOUND);
    CHECK(strstr(err.where, "nowhere/config.json"));
    temp_write_text("config.json", "[]");
    memset(&err, 0, sizeof err);
    CHECK(cvq_checkpoint_config_read(&c, temp_folder, &err) == CVQ_FORMAT);
    CHECK(strstr(err.message, "not a JSON object"));
}

typedef struct generation_case {
    const char *text;
    cvq_status status;
    double temperature, top_p;
    uint32_t num_eos;
} generation_case;

static void generation(void) {
    static const generation_case cases[] = {
        {"{\"_from_model_config\": true, \"bos_token_id\": 128000, \"eos_token_id\": [128001, "
         "128009], \"do_sample\": true, \"temperature\": 0.6, \"max_length\": 4096, \"top_p\": "
         "0.9}",
         CVQ_OK, 0.6, 0.9, 2},
        {"{}", CVQ_OK, -1, -1, 2},
        {"{\"temperature\": null, \"eos_token_id\": 128008}", CVQ_OK, -1, -1, 3},
        {"{\"temperature\": 0, \"top_p\": 1, \"eos_token_id\": null}", CVQ_OK, 0, 1, 2},
        {"{\"temperature\": -1}", CVQ_FORMAT, 5, 5, 2},
        {"{\"top_p\": 0}", CVQ_FORMAT, 5, 5, 2},
        {"{\"top_p\": 1.5}", CVQ_FORMAT, 5, 5, 2},
        {"{\"top_p\": \"1\"}", CVQ_FORMAT, 5, 5, 2},
        {"{\"eos_token_id\": [128008, 128256]}", CVQ_FORMAT, 5, 5, 2},
        {"{\"eos_token_id\": [1,2,3,4,5,6,7]}", CVQ_UNSUPPORTED, 5, 5, 2},
        {"[]", CVQ_FORMAT, 5, 5, 2},
        {"{", CVQ_FORMAT, 5, 5, 2},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const generation_case *k = &cases[i];
        cvq_model_config c = {0};
        cvq_generation_defaults d = {5, 5};
        cvq_error err = {0};
        CHECK(read_changed(&c, "", "auto_map", NULL, NULL) == CVQ_OK);
        temp_write_text("generation_config.json", k->text);
        cvq_status status = cvq_generation_config_read(&d, &c, temp_folder, &err);
        CHECK_SAY(status == k->status && fabs(d.temperature - k->temperature) < 1e-12 &&
                      fabs(d.top_p - k->top_p) < 1e-12 && c.num_eos == k->num_eos,
                  "%s gives %d: %s", k->text, status, err.message);
    }
    cvq_model_config c = {0};
    cvq_generation_defaults d = {5, 5};
    CHECK(read_changed(&c, "", "auto_map", NULL, NULL) == CVQ_OK);
    CHECK(remove(temp_path("generation_config.json")) == 0);
    CHECK(cvq_generation_config_read(&d, &c, temp_folder, NULL) == CVQ_OK);
    CHECK(d.temperature < 0 && d.top_p < 0);
}

/* The released files themselves and the sample checkpoints, where they are at hand. */
static void files_at_hand(void) {
    static const char *const folders[] = {"hf",
                                          "checkpoints/cogvlm2-tiny",
                                          "checkpoints/small",
                                          "checkpoints/wide",
                                          "checkpoints/mqa",
                                          "checkpoints/deep",
                                          "checkpoints/plain"};
    for (size_t i = 0; i < COUNT(folders); i++) {
        char dir[512];
        cvq_model_config c = {0};
        cvq_generation_defaults d;
        cvq_error err = {0};
        snprintf(dir, sizeof dir, "%s/%s", getenv("CVQ_SHARED"), folders[i]);
        cvq_status status = cvq_checkpoint_config_read(&c, dir, &err);
        if (status == CVQ_OK) status = cvq_generation_config_read(&d, &c, dir, &err);
        CHECK_SAY(status == CVQ_OK && d.top_p > 0 && c.num_eos == 2, "%s: %s", err.where,
                  err.message);
    }
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(released_config);
    RUN(changes_are_refused);
    RUN(harmless_changes_are_accepted);
    RUN(values_and_defaults);
    RUN(no_config);
    RUN(generation);
    if (getenv("CVQ_SHARED")) {
        RUN(files_at_hand);
    } else {
        SKIP("files_at_hand", "CVQ_SHARED is not set");
    }
    temp_close();
    return REPORT();
}
