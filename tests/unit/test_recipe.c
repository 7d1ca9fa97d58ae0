/* Recipes: globs, the sizes that the named ones give the real model, and rules on top of them. */
#include "quant/recipe.h"

#include <stdlib.h>

#include "formats/cvq_layout.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"

static void globs_match(void) {
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"*", "", true},
        {"*", "a.b", true},
        {"", "", true},
        {"", "a", false},
        {"a", "a", true},
        {"a", "ab", false},
        {"ab", "a", false},
        {"a*", "a", true},
        {"*a", "ba", true},
        {"*a", "ab", false},
        {"*ab*", "aab", true},
        {"*ab", "abaab", true},
        {"a*b*c", "axxbxxbc", true},
        {"a*b*c", "axxbxxb", false},
        {"**", "x", true},
        {"?", "x", true},
        {"?", "", false},
        {"a?c", "abc", true},
        {"[abc]", "b", true},
        {"[abc]", "d", false},
        {"[a-c]x", "bx", true},
        {"[a-c]x", "dx", false},
        {"[]a]", "]", true},
        {"[]a]", "a", true},
        {"[a-]", "-", true},
        {"[ab", "[ab", true},
        {"[ab", "a", false},
        {"*[0-9].x", "layers.12.x", true},
        {"model.layers.[01].*", "model.layers.1.mlp", true},
        {"model.layers.[01].*", "model.layers.10.mlp", false},
        {"a\\*", "a\\b", true}, /* a backslash is itself */
        {"*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_SAY(cvq_glob_match(cases[i].pattern, cases[i].name) == cases[i].matches,
                  "\"%s\" and \"%s\"", cases[i].pattern, cases[i].name);
}

/* Bytes of all tensors, each on its 64 KiB boundary; the head is a few MB more. */
static uint64_t file_size(const cvq_model_config *c, const cvq_type *types) {
    uint64_t total = 0;
    for (size_t i = 0; i < cvq_model_tensor_count(c); i++) {
        cvq_tensor_spec s;
        uint64_t bytes = 0;
        cvq_model_tensor_spec(c, i, &s);
        CHECK(cvq_type_allowed(s.role, types[i]));
        CHECK(cvq_tensor_bytes(types[i], cvq_panel_rows_for(s.role), s.rows, s.cols, &bytes));
        total += (bytes + CVQ_ALIGNMENT - 1) / CVQ_ALIGNMENT * CVQ_ALIGNMENT;
    }
    return total;
}

static void real_model_has_its_sizes(void) {
    static const struct {
        const char *name;
        double least, most; /* GB */
    } wanted[] = {
        {"bf16", 38.95, 39.1}, {"q8", 19.75, 19.95}, {"q4", 13.5, 13.7}, {"q4-small", 10.9, 11.3}};
    const cvq_model_config c = cvq_real_config;
    cvq_type types[1221];
    CHECK(cvq_model_tensor_count(&c) == 1221);
    for (int i = 0; i < 4; i++) {
        cvq_recipe *r = NULL;
        size_t count;
        CHECK(cvq_recipe_open(&r, wanted[i].name, NULL) == CVQ_OK);
        CHECK(strcmp(cvq_recipe_name(r), wanted[i].name) == 0);
        CHECK(cvq_recipe_types(r, &c, CVQ_TYPE_BF16, types, NULL) == CVQ_OK);
        const double gb = (double)file_size(&c, types) * 1e-9;
        CHECK_SAY(gb >= wanted[i].least && gb <= wanted[i].most, "%s: %.3f GB", wanted[i].name, gb);
        const cvq_type_rule *rules = cvq_recipe_rules(r, &count);
        CHECK(count > 0 && strcmp(rules[0].pattern, "*") == 0);
        cvq_recipe_free(r);
    }
}

static cvq_type type_of(const cvq_model_config *c, const cvq_type *types, cvq_tensor_kind kind,
                        uint32_t layer) {
    return types[cvq_model_tensor_index(c, kind, layer)];
}

static void the_default_is_as_documented(void) {
    const cvq_model_config c = cvq_real_config;
    cvq_type t[1221];
    cvq_recipe *r = NULL;
    CHECK(cvq_recipe_open(&r, "q4", NULL) == CVQ_OK);
    CHECK(cvq_recipe_types(r, &c, CVQ_TYPE_BF16, t, NULL) == CVQ_OK);
    static const struct {
        cvq_tensor_kind kind;
        uint32_t layer;
        cvq_type type;
    } wanted[] = {{CVQ_T_LANGUAGE_QKV, 0, CVQ_TYPE_Q6}, {CVQ_T_LANGUAGE_QKV, 1, CVQ_TYPE_Q6},
                  {CVQ_T_VISION_QKV, 1, CVQ_TYPE_Q4H},  {CVQ_T_LANGUAGE_DOWN, 31, CVQ_TYPE_Q4H},
                  {CVQ_T_VISION_DENSE, 0, CVQ_TYPE_Q6}, {CVQ_T_VISION_GATE, 10, CVQ_TYPE_Q4H},
                  {CVQ_T_LM_HEAD, 0, CVQ_TYPE_Q6},      {CVQ_T_EMBED_TOKENS, 0, CVQ_TYPE_Q6},
                  {CVQ_T_CONV, 0, CVQ_TYPE_Q8},         {CVQ_T_ADAPTER_UP, 0, CVQ_TYPE_Q8},
                  {CVQ_T_VIT_FC1, 62, CVQ_TYPE_Q8},     {CVQ_T_PATCH_PROJ, 0, CVQ_TYPE_BF16},
                  {CVQ_T_POSITION, 0, CVQ_TYPE_BF16},   {CVQ_T_CLS, 0, CVQ_TYPE_F32},
                  {CVQ_T_PATCH_BIAS, 0, CVQ_TYPE_F32},  {CVQ_T_INPUT_NORM, 0, CVQ_TYPE_F32},
                  {CVQ_T_BOI, 0, CVQ_TYPE_F32},         {CVQ_T_INV_FREQ, 0, CVQ_TYPE_BF16}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CHECK_SAY(type_of(&c, t, wanted[i].kind, wanted[i].layer) == wanted[i].type,
                  "kind %d, layer %u", (int)wanted[i].kind, wanted[i].layer);
    cvq_recipe_free(r);
}

static void rules_come_on_top(void) {
    const cvq_model_config c = cvq_real_config;
    cvq_type t[1221];
    cvq_recipe *r = NULL;
    size_t count;
    CHECK(cvq_recipe_open(&r, "q8", NULL) == CVQ_OK);
    CHECK(cvq_recipe_add_rule(r, "model.layers.*=q4", NULL) == CVQ_OK);
    CHECK(cvq_recipe_add_rule(r, "model.layers.3.*down_proj*=q6", NULL) == CVQ_OK);
    CHECK(cvq_recipe_add_rule(r, "*norm.weight=f32", NULL) == CVQ_OK); /* what they are */
    CHECK(strcmp(cvq_recipe_name(r), "custom") == 0);
    CHECK(cvq_recipe_types(r, &c, CVQ_TYPE_F32, t, NULL) == CVQ_OK);
    CHECK(type_of(&c, t, CVQ_T_LANGUAGE_DOWN, 3) == CVQ_TYPE_Q6);
    CHECK(type_of(&c, t, CVQ_T_VISION_DOWN, 3) == CVQ_TYPE_Q6);
    CHECK(type_of(&c, t, CVQ_T_LANGUAGE_DOWN, 4) == CVQ_TYPE_Q4);
    CHECK(type_of(&c, t, CVQ_T_INPUT_NORM, 4) == CVQ_TYPE_F32);
    CHECK(type_of(&c, t, CVQ_T_INV_FREQ, 4) == CVQ_TYPE_F32);
    CHECK(type_of(&c, t, CVQ_T_LM_HEAD, 0) == CVQ_TYPE_Q8);
    /* the same pattern again moves to the end */
    CHECK(cvq_recipe_add_rule(r, "model.layers.*=bf16", NULL) == CVQ_OK);
    CHECK(cvq_recipe_types(r, &c, CVQ_TYPE_F32, t, NULL) == CVQ_OK);
    CHECK(type_of(&c, t, CVQ_T_LANGUAGE_DOWN, 3) == CVQ_TYPE_BF16);
    const cvq_type_rule *rules = cvq_recipe_rules(r, &count);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++) CHECK(strcmp(rules[i].pattern, rules[k].pattern) != 0);
    CHECK(count == 5 && strcmp(rules[4].pattern, "model.layers.*") == 0 &&
          strcmp(rules[4].type, "bf16") == 0);
    cvq_recipe_free(r);
}

static void wrong_rules_are_refused(void) {
    static const struct {
        const char *rule, *named; /* in the error, as where or in the message */
    } cases[] = {
        {"nothing.like.it=q8", "nothing.like.it"},
        {"*=f32", "model.layers.0.self_attn.language_expert_query_key_value.weight"},
        {"lm_head.weight=f32", "lm_head.weight"},
        {"model.norm.weight=q8", "model.norm.weight"},
        {"*.bias=bf16", "model.layers.0.self_attn.vision_expert_query_key_value.bias"},
        {"*inv_freq=q8", "model.layers.0.self_attn.rotary_emb.inv_freq"},
        {"*inv_freq=f32", "model.layers.0.self_attn.rotary_emb.inv_freq"},
    };
    const cvq_model_config c = cvq_real_config;
    cvq_type t[1221];
    memset(t, 0x5a, sizeof t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cvq_recipe *r = NULL;
        cvq_error err = {0};
        CHECK(cvq_recipe_open(&r, "q4", &err) == CVQ_OK);
        CHECK(cvq_recipe_add_rule(r, cases[i].rule, &err) == CVQ_OK);
        CHECK(cvq_recipe_types(r, &c, CVQ_TYPE_BF16, t, &err) == CVQ_INVALID_ARGUMENT);
        CHECK_SAY(strcmp(err.where, cases[i].named) == 0, "%s: %s", err.where, err.message);
        CHECK((uint8_t)t[0] == 0x5a); /* untouched */
        cvq_recipe_free(r);
    }
    static const char *const unreadable[] = {
        "", "=q8", "lm_head", "lm_head=", "lm_head=q5", "lm_head=Q8", "*=q8 "};
    cvq_recipe *r = NULL;
    CHECK(cvq_recipe_open(&r, "q4", NULL) == CVQ_OK);
    for (size_t i = 0; i < sizeof unreadable / sizeof *unreadable; i++) {
        cvq_error err = {0};
        CHECK_SAY(cvq_recipe_add_rule(r, unreadable[i], &err) == CVQ_INVALID_ARGUMENT, "%s",
                  unreadable[i]);
        CHECK(err.message[0] != '\0');
    }
    CHECK(strcmp(cvq_recipe_name(r), "q4") == 0);
    cvq_recipe_free(r);
    cvq_error err = {0};
    r = NULL;
    CHECK(cvq_recipe_open(&r, "q5", &err) == CVQ_INVALID_ARGUMENT && r == NULL);
    CHECK(strstr(err.message, "bf16, q8, q4, q4-small") != NULL);
    cvq_recipe_free(NULL);
}

/* Every recipe does something sensible with any model. */
static void small_models_fit(void) {
    static const char *const names[] = {"bf16", "q8", "q4", "q4-small"};
    const cvq_model_config c = small_config();
    cvq_type types[256];
    for (int i = 0; i < 4; i++) {
        cvq_recipe *r = NULL;
        CHECK(cvq_recipe_open(&r, names[i], NULL) == CVQ_OK);
        CHECK(cvq_recipe_types(r, &c, CVQ_TYPE_BF16, types, NULL) == CVQ_OK);
        CHECK(file_size(&c, types) > 0);
        cvq_recipe_free(r);
    }
}

int main(void) {
    RUN(globs_match);
    RUN(real_model_has_its_sizes);
    RUN(the_default_is_as_documented);
    RUN(rules_come_on_top);
    RUN(wrong_rules_are_refused);
    RUN(small_models_fit);
    return REPORT();
}
