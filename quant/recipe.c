/* Which type each tensor gets: the named recipes, rules of --type on top of them, and the globs
 * that both are made of. Why the recipes are what they are: docs/quantization.md. */
#include "quant/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/cvq_layout.h"

typedef struct named_rule {
    const char *pattern;
    cvq_type type;
} named_rule;

#define MAX_NAMED_RULES 8
#define MAX_RULES 65536u /* of a stranger: each is tried on every tensor */

typedef struct named_recipe {
    const char *name;
    named_rule rules[MAX_NAMED_RULES]; /* ends with a NULL pattern */
} named_recipe;

/* The patch embedding's rows (588 long in the real model) fill no block, and the position embedding
 * is added as it is: both are small and stay 16-bit. */
#define PATCH_RULE                                                                                 \
    { "model.vision.patch_embedding.*", CVQ_TYPE_BF16 }

static const named_recipe recipes[] = {
    {"bf16", {{"*", CVQ_TYPE_BF16}, {NULL, CVQ_TYPES}}},
    {"q8", {{"*", CVQ_TYPE_Q8}, PATCH_RULE, {NULL, CVQ_TYPES}}},
    {"q4",
     {{"*", CVQ_TYPE_Q8},
      {"model.layers.*", CVQ_TYPE_Q4H},
      {"*language_expert_query_key_value.weight", CVQ_TYPE_Q6},
      {"model.layers.0.*", CVQ_TYPE_Q6},
      {"lm_head.weight", CVQ_TYPE_Q6},
      {"model.embed_tokens.weight", CVQ_TYPE_Q6},
      PATCH_RULE,
      {NULL, CVQ_TYPES}}},
    {"q4-small",
     {{"*", CVQ_TYPE_Q4H},
      {"model.layers.*vision*", CVQ_TYPE_Q4S},
      {"*language_expert_query_key_value.weight", CVQ_TYPE_Q6},
      {"model.layers.0.*language*", CVQ_TYPE_Q6},
      {"lm_head.weight", CVQ_TYPE_Q6},
      PATCH_RULE,
      {NULL, CVQ_TYPES}}},
};

struct cvq_recipe {
    char *name;
    cvq_type_rule *rules;
    bool *asked; /* [count]: a rule of --type, which must match something */
    size_t count, capacity;
};

/* Whether c is in the set that starts behind '['; *end is behind its ']'. NULL if there is none. */
static bool in_set(const char *set, char c, const char **end) {
    bool found = false;
    const char *p = set;
    do { /* a ']' right at the start is itself */
        if (*p == '\0') {
            *end = NULL;
            return false;
        }
        if (p[1] == '-' && p[2] != ']' && p[2] != '\0') {
            found |= p[0] <= c && c <= p[2];
            p += 3;
        } else {
            found |= *p == c;
            p++;
        }
    } while (*p != ']');
    *end = p + 1;
    return found;
}

bool cvq_glob_match(const char *pattern, const char *name) {
    /* On a mismatch the last '*' takes one character more: no earlier one needs to. */
    const char *star = NULL, *resume = NULL;
    while (*name || *pattern) {
        const char *next = pattern + 1;
        bool fits;
        if (*pattern == '*') {
            star = pattern++;
            resume = name;
            continue;
        }
        if (*pattern == '[' && *name) {
            fits = in_set(next, *name, &next);
            if (!next) { /* a '[' that nothing closes is itself */
                fits = *name == '[';
                next = pattern + 1;
            }
        } else {
            fits = *name && (*pattern == '?' || *pattern == *name);
        }
        if (fits) {
            pattern = next;
            name++;
        } else if (star && *resume) {
            pattern = star + 1;
            name = ++resume;
        } else {
            return false;
        }
    }
    return true;
}

static char *copy_text(const char *text, size_t length) {
    char *copy = malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

static void remove_rule(cvq_recipe *r, size_t at) {
    free(r->rules[at].pattern);
    free(r->rules[at].type);
    r->count--;
    for (size_t i = at; i < r->count; i++) {
        r->rules[i] = r->rules[i + 1];
        r->asked[i] = r->asked[i + 1];
    }
}

static cvq_status grow(cvq_recipe *r, cvq_error *err) {
    if (r->count < r->capacity) return CVQ_OK;
    const size_t capacity = r->capacity ? 2 * r->capacity : 8;
    cvq_type_rule *rules = realloc(r->rules, capacity * sizeof *rules);
    if (rules) r->rules = rules;
    bool *asked = realloc(r->asked, capacity * sizeof *asked);
    if (asked) r->asked = asked;
    if (!rules || !asked) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "recipe", "no memory for rules");
    r->capacity = capacity;
    return CVQ_OK;
}

static cvq_status append_rule(cvq_recipe *r, const char *pattern, size_t length, cvq_type type,
                              bool asked, cvq_error *err) {
    const char *type_name = cvq_type_describe(type)->name;
    CVQ_TRY(grow(r, err));
    cvq_type_rule rule = {copy_text(pattern, length), copy_text(type_name, strlen(type_name))};
    if (!rule.pattern || !rule.type) {
        free(rule.pattern);
        free(rule.type);
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, "recipe", "no memory for a rule");
    }
    r->rules[r->count] = rule;
    r->asked[r->count++] = asked;
    return CVQ_OK;
}

/* The last match wins, so an earlier rule with the same pattern has no say any more: it goes, and
 * every pattern stands once (the metadata keeps them as keys of an object). */
static cvq_status replace_rule(cvq_recipe *r, const char *pattern, size_t length, cvq_type type,
                               bool asked, cvq_error *err) {
    CVQ_TRY(append_rule(r, pattern, length, type, asked, err));
    for (size_t i = 0; i + 1 < r->count; i++) {
        if (strcmp(r->rules[i].pattern, r->rules[r->count - 1].pattern) == 0) {
            remove_rule(r, i);
            break;
        }
    }
    return CVQ_OK;
}

static cvq_status set_name(cvq_recipe *r, const char *name, cvq_error *err) {
    char *copy = copy_text(name, strlen(name));
    if (!copy) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "recipe", "no memory for its name");
    free(r->name);
    r->name = copy;
    return CVQ_OK;
}

static cvq_status open_empty(cvq_recipe **out, const char *name, cvq_error *err) {
    cvq_recipe *r = calloc(1, sizeof *r);
    if (!r) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "recipe", "no memory for it");
    *out = r;
    return set_name(r, name, err);
}

/* A recipe that was begun: complete, or none. */
static cvq_status hand_out(cvq_recipe **out, cvq_recipe *r, cvq_status status) {
    if (status == CVQ_OK)
        *out = r;
    else
        cvq_recipe_free(r);
    return status;
}

static cvq_status unknown_recipe(const char *name, cvq_error *err) {
    char known[128] = "";
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        if (i) strcat(known, ", ");
        strcat(known, recipes[i].name);
    }
    return cvq_fail(err, CVQ_INVALID_ARGUMENT, name, "no such recipe; there are %s", known);
}

cvq_status cvq_recipe_open(cvq_recipe **out, const char *name, cvq_error *err) {
    const named_recipe *named = NULL;
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (strcmp(recipes[i].name, name) == 0) named = &recipes[i];
    if (!named) return unknown_recipe(name, err);
    cvq_recipe *r = NULL;
    cvq_status status = open_empty(&r, name, err);
    for (const named_rule *n = named->rules; status == CVQ_OK && n->pattern; n++)
        status = append_rule(r, n->pattern, strlen(n->pattern), n->type, false, err);
    return hand_out(out, r, status);
}

void cvq_recipe_free(cvq_recipe *r) {
    if (!r) return;
    while (r->count) remove_rule(r, r->count - 1);
    free(r->rules);
    free(r->asked);
    free(r->name);
    free(r);
}

/* ---------------------------------------------------------------- a recipe from its result */

/* The type that most layers' tensors of this kind have; of equals the first in the enumeration. */
static cvq_type commonest(const cvq_model_config *config, cvq_tensor_kind kind,
                          const cvq_type *types) {
    size_t votes[CVQ_TYPES] = {0};
    int best = 0;
    for (size_t i = 0; i < cvq_model_tensor_count(config); i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        if (spec.kind == kind) votes[types[i]]++;
    }
    for (int t = 1; t < CVQ_TYPES; t++)
        if (votes[t] > votes[best]) best = t;
    return (cvq_type)best;
}

/* "model.layers.*.mlp" of "model.layers.12.mlp": the same length or shorter. */
static void any_layer(const char *name, char *pattern) {
    const char *number = strpbrk(name, "0123456789");
    const size_t digits = number ? strspn(number, "0123456789") : 0;
    const bool layer = digits && number > name && number[-1] == '.' && number[digits] == '.';
    if (!layer) {
        strcpy(pattern, name);
        return;
    }
    const size_t before = (size_t)(number - name);
    memcpy(pattern, name, before);
    pattern[before] = '*';
    strcpy(pattern + before + 1, number + digits);
}

static cvq_status add_types(cvq_recipe *r, const cvq_model_config *config, const cvq_type *types,
                            cvq_error *err) {
    bool ruled[CVQ_TENSOR_KINDS] = {false};
    for (int exceptions = 0; exceptions < 2; exceptions++) {
        for (size_t i = 0; i < cvq_model_tensor_count(config); i++) {
            cvq_tensor_spec spec;
            char pattern[CVQ_MAX_TENSOR_NAME];
            cvq_model_tensor_spec(config, i, &spec);
            if (spec.role != CVQ_ROLE_MATRIX && spec.role != CVQ_ROLE_TABLE) continue;
            const cvq_type most = commonest(config, spec.kind, types);
            if (exceptions ? types[i] == most : ruled[spec.kind]) continue;
            ruled[spec.kind] = true;
            if (exceptions)
                strcpy(pattern, spec.name);
            else
                any_layer(spec.name, pattern);
            CVQ_TRY(replace_rule(r, pattern, strlen(pattern), exceptions ? types[i] : most, false,
                                 err));
        }
    }
    return CVQ_OK;
}

cvq_status cvq_recipe_of_types(cvq_recipe **out, const char *name, const cvq_model_config *config,
                               const cvq_type *types, cvq_error *err) {
    cvq_recipe *r = NULL;
    cvq_status status = open_empty(&r, name, err);
    if (status == CVQ_OK) status = add_types(r, config, types, err);
    return hand_out(out, r, status);
}

cvq_status cvq_recipe_of_rules(cvq_recipe **out, const char *name, const cvq_type_rule *rules,
                               size_t count, const char *where, cvq_error *err) {
    cvq_recipe *r = NULL;
    if (count > MAX_RULES)
        return cvq_fail(err, CVQ_UNSUPPORTED, where, "the recipe has %zu rules, more than %u",
                        count, MAX_RULES);
    cvq_status status = open_empty(&r, name, err);
    for (size_t i = 0; status == CVQ_OK && i < count; i++) {
        cvq_type type;
        if (cvq_type_find(&type, rules[i].type))
            status = append_rule(r, rules[i].pattern, strlen(rules[i].pattern), type, false, err);
        else
            status = cvq_fail(err, CVQ_UNSUPPORTED, where,
                              "the recipe has a type \"%.32s\", which this program does not know: "
                              "get a newer cvq",
                              rules[i].type);
    }
    return hand_out(out, r, status);
}

cvq_status cvq_recipe_add_rule(cvq_recipe *r, const char *rule, cvq_error *err) {
    const char *equals = strrchr(rule, '=');
    if (!equals || equals == rule)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, rule,
                        "not a rule; write 'GLOB=TYPE', as in 'lm_head.*=q8'");
    cvq_type type;
    if (!cvq_type_find(&type, equals + 1))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, rule,
                        "\"%.32s\" is no type; there are f32, bf16, q8, q6, q4h, q4t, q4s and q4",
                        equals + 1);
    CVQ_TRY(replace_rule(r, rule, (size_t)(equals - rule), type, true, err));
    return set_name(r, "custom", err);
}

/* Applies one rule to all tensors. Vectors and inv_freq have their type by what they are: a rule
 * that matches matrices or tables as well passes them by. */
static cvq_status apply_rule(const cvq_type_rule *rule, bool asked, const cvq_model_config *config,
                             cvq_type inv_freq_type, cvq_type *types, cvq_error *err) {
    cvq_type type;
    if (!cvq_type_find(&type, rule->type))
        return cvq_fail(err, CVQ_INTERNAL, rule->pattern, "a rule without a type");
    const size_t count = cvq_model_tensor_count(config);
    size_t applied = 0, fixed = 0;
    char fixed_name[CVQ_MAX_TENSOR_NAME] = "";
    const char *fixed_type = "";
    for (size_t i = 0; i < count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        if (!cvq_glob_match(rule->pattern, spec.name)) continue;
        if (spec.role == CVQ_ROLE_VECTOR || spec.role == CVQ_ROLE_INV_FREQ) {
            const cvq_type only = spec.role == CVQ_ROLE_VECTOR ? CVQ_TYPE_F32 : inv_freq_type;
            if (type == only) {
                applied++;
            } else if (fixed++ == 0) {
                memcpy(fixed_name, spec.name, sizeof fixed_name);
                fixed_type = cvq_type_describe(only)->name;
            }
            continue;
        }
        if (!cvq_type_allowed(spec.role, type))
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, spec.name,
                            "the rule \"%.120s\" makes it %s, which a matrix cannot be; take bf16, "
                            "q8, q6, q4h, q4t, q4s or q4",
                            rule->pattern, rule->type);
        types[i] = type;
        applied++;
    }
    if (!asked || applied) return CVQ_OK;
    if (fixed)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, fixed_name,
                        "the rule \"%.120s\" makes it %s, but it is always %s, and the rule "
                        "matches no matrix",
                        rule->pattern, rule->type, fixed_type);
    return cvq_fail(err, CVQ_INVALID_ARGUMENT, rule->pattern,
                    "matches no tensor; cvq-info --tensors lists their names");
}

cvq_status cvq_recipe_types(const cvq_recipe *r, const cvq_model_config *config,
                            cvq_type inv_freq_type, cvq_type *types, cvq_error *err) {
    const size_t count = cvq_model_tensor_count(config);
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, count, sizeof(cvq_type), "types of tensors", err));
    cvq_type *mine = memory; /* so that types is untouched on failure */
    for (size_t i = 0; i < count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        mine[i] = spec.role == CVQ_ROLE_VECTOR     ? CVQ_TYPE_F32
                  : spec.role == CVQ_ROLE_INV_FREQ ? inv_freq_type
                                                   : CVQ_TYPE_BF16;
    }
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < r->count; i++)
        status = apply_rule(&r->rules[i], r->asked[i], config, inv_freq_type, mine, err);
    if (status == CVQ_OK) memcpy(types, mine, count * sizeof *mine);
    free(mine);
    return status;
}

const char *cvq_recipe_name(const cvq_recipe *r) {
    return r->name;
}

const cvq_type_rule *cvq_recipe_rules(const cvq_recipe *r, size_t *count) {
    *count = r->count;
    return r->rules;
}
