/* The metadata as canonical JSON: keys in one order, nothing optional left to taste, so that the
 * same content has the same bytes. Reading is as strict as writing. */
#include "formats/metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define SIZE_MOST (((uint64_t)1 << 53) - 1)

/* ---------------------------------------------------------------- printing */

static cvq_status no_memory(cvq_error *err) {
    return cvq_fail(err, CVQ_OUT_OF_MEMORY, "metadata", "no memory for its JSON");
}

static void add_text(cJSON *object, const char *key, const char *value) {
    cvq_json_add_string(object, key, value ? value : "");
}

static void add_recipe(cJSON *root, const cvq_metadata *m) {
    cJSON *recipe = cvq_json_add_object(root, "recipe");
    add_text(recipe, "name", m->recipe);
    cJSON *types = cvq_json_add_object(recipe, "types");
    for (size_t i = 0; i < m->num_rules; i++)
        add_text(types, m->rules[i].pattern, m->rules[i].type);
    if (m->importance[0]) add_text(recipe, "importance", m->importance);
    if (m->second_moments[0]) add_text(recipe, "second_moments", m->second_moments);
}

static void add_source(cJSON *root, const cvq_metadata *m) {
    cJSON *source = cvq_json_add_object(root, "source");
    add_text(source, "revision", m->revision);
    cJSON *files = cvq_json_add_array(source, "files");
    for (size_t i = 0; i < m->num_files; i++) {
        cJSON *file = cJSON_CreateObject();
        cvq_json_append(files, file);
        add_text(file, "name", m->files[i].name);
        cvq_json_add_u64(file, "size", m->files[i].size);
        add_text(file, "sha256", m->files[i].sha256);
    }
}

static void add_generation(cJSON *root, const cvq_metadata *m) {
    cJSON *g = cvq_json_add_object(root, "generation");
    if (m->temperature >= 0) cvq_json_add_number(g, "temperature", m->temperature);
    if (m->top_p >= 0) cvq_json_add_number(g, "top_p", m->top_p);
}

static void add_licenses(cJSON *root, const cvq_metadata *m) {
    cJSON *licenses = cvq_json_add_array(root, "licenses");
    for (size_t i = 0; i < m->num_licenses; i++) {
        cJSON *license = cJSON_CreateObject();
        cvq_json_append(licenses, license);
        add_text(license, "name", m->licenses[i].name);
        add_text(license, "text", m->licenses[i].text);
    }
}

void cvq_metadata_add_origin(cJSON *object, const cvq_metadata *m) {
    add_recipe(object, m);
    add_source(object, m);
    add_text(object, "card", m->card);
}

cvq_status cvq_metadata_print(const cvq_metadata *m, cvq_buffer *json, cvq_error *err) {
    cvq_metadata check;
    cJSON *root = cJSON_CreateObject();
    add_text(root, "format", "cvq");
    add_recipe(root, m);
    add_source(root, m);
    add_generation(root, m);
    add_licenses(root, m);
    add_text(root, "card", m->card);
    cvq_buffer text = {0};
    cvq_status status = cvq_json_print(&text, root, err);
    cJSON_Delete(root);
    /* What could not be read again is refused now: text that is no UTF-8, a size that is not exact,
     * a pattern that stands twice. */
    if (status == CVQ_OK)
        status = cvq_metadata_parse(&check, (const char *)text.data, text.size, "metadata", err);
    if (status != CVQ_OK) {
        cvq_buffer_free(&text);
        return status;
    }
    cvq_metadata_free(&check);
    cvq_buffer_free(json);
    *json = text;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- parsing */

static cvq_status copy_string(char **out, const cJSON *object, const char *key, const char *where,
                              cvq_error *err) {
    const char *value = NULL;
    CVQ_TRY(cvq_json_string(object, key, true, &value, where, err));
    *out = strdup(value);
    return *out ? CVQ_OK : no_memory(err);
}

/* Exactly these keys, no matter which are there. */
static cvq_status check_keys(const cJSON *object, const char *const *keys, const char *where,
                             cvq_error *err) {
    for (const cJSON *item = object->child; item; item = item->next) {
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], item->string) != 0) i++;
        if (!keys[i])
            return cvq_fail(err, CVQ_UNSUPPORTED, where,
                            "metadata: key \"%.64s\" is not one that this program knows",
                            item->string);
    }
    return CVQ_OK;
}

static cvq_status member(const cJSON **out, const cJSON *object, const char *key, bool array,
                         const char *where, cvq_error *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item || !(array ? cJSON_IsArray(item) : cJSON_IsObject(item)))
        return cvq_fail(err, CVQ_FORMAT, where, "metadata: \"%s\" must be %s", key,
                        array ? "an array" : "an object");
    *out = item;
    return CVQ_OK;
}

static size_t count_items(const cJSON *container) {
    size_t n = 0;
    for (const cJSON *item = container->child; item; item = item->next) n++;
    return n;
}

static cvq_status check_object(const cJSON *item, const char *what, const char *where,
                               cvq_error *err) {
    if (cJSON_IsObject(item)) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, where, "metadata: each of \"%s\" must be an object", what);
}

static cvq_status parse_hash(char hash[CVQ_HASH_DIGITS + 1], const cJSON *object, const char *key,
                             bool required, const char *where, cvq_error *err) {
    const char *text = NULL;
    if (!required && !cJSON_GetObjectItemCaseSensitive(object, key)) return CVQ_OK;
    CVQ_TRY(cvq_json_string(object, key, true, &text, where, err));
    if (strlen(text) != CVQ_HASH_DIGITS || strspn(text, "0123456789abcdef") != CVQ_HASH_DIGITS)
        return cvq_fail(err, CVQ_FORMAT, where,
                        "metadata: \"%s\" must be 64 lower-case hexadecimal digits", key);
    memcpy(hash, text, CVQ_HASH_DIGITS + 1);
    return CVQ_OK;
}

static cvq_status parse_recipe(cvq_metadata *m, const cJSON *root, const char *where,
                               cvq_error *err) {
    static const char *const keys[] = {"name", "types", "importance", "second_moments", NULL};
    const cJSON *recipe = NULL, *types = NULL;
    void *memory = NULL;
    CVQ_TRY(member(&recipe, root, "recipe", false, where, err));
    CVQ_TRY(check_keys(recipe, keys, where, err));
    CVQ_TRY(copy_string(&m->recipe, recipe, "name", where, err));
    CVQ_TRY(member(&types, recipe, "types", false, where, err));
    CVQ_TRY(cvq_alloc(&memory, count_items(types), sizeof *m->rules, "metadata", err));
    m->rules = memory;
    for (const cJSON *item = types->child; item; item = item->next) {
        cvq_type_rule *rule = &m->rules[m->num_rules++];
        if (!cJSON_IsString(item))
            return cvq_fail(err, CVQ_FORMAT, where,
                            "metadata: the type of \"%.64s\" must be a "
                            "string",
                            item->string);
        rule->pattern = strdup(item->string);
        rule->type = strdup(item->valuestring);
        if (!rule->pattern || !rule->type) return no_memory(err);
    }
    CVQ_TRY(parse_hash(m->importance, recipe, "importance", false, where, err));
    return parse_hash(m->second_moments, recipe, "second_moments", false, where, err);
}

static cvq_status parse_file(cvq_source_file *f, const cJSON *item, const char *where,
                             cvq_error *err) {
    static const char *const keys[] = {"name", "size", "sha256", NULL};
    CVQ_TRY(check_object(item, "files", where, err));
    CVQ_TRY(check_keys(item, keys, where, err));
    CVQ_TRY(copy_string(&f->name, item, "name", where, err));
    CVQ_TRY(cvq_json_u64(item, "size", true, SIZE_MOST, &f->size, where, err));
    CVQ_TRY(parse_hash(f->sha256, item, "sha256", true, where, err));
    if (!f->name[0] || strchr(f->name, '/'))
        return cvq_fail(err, CVQ_FORMAT, where,
                        "metadata: a source file's name must be a name without folders");
    return CVQ_OK;
}

static cvq_status parse_source(cvq_metadata *m, const cJSON *root, const char *where,
                               cvq_error *err) {
    static const char *const keys[] = {"revision", "files", NULL};
    const cJSON *source = NULL, *files = NULL;
    void *memory = NULL;
    CVQ_TRY(member(&source, root, "source", false, where, err));
    CVQ_TRY(check_keys(source, keys, where, err));
    CVQ_TRY(copy_string(&m->revision, source, "revision", where, err));
    CVQ_TRY(member(&files, source, "files", true, where, err));
    CVQ_TRY(cvq_alloc(&memory, count_items(files), sizeof *m->files, "metadata", err));
    m->files = memory;
    for (const cJSON *item = files->child; item; item = item->next)
        CVQ_TRY(parse_file(&m->files[m->num_files++], item, where, err));
    return CVQ_OK;
}

static cvq_status parse_generation(cvq_metadata *m, const cJSON *root, const char *where,
                                   cvq_error *err) {
    static const char *const keys[] = {"temperature", "top_p", NULL};
    const cJSON *g = NULL;
    CVQ_TRY(member(&g, root, "generation", false, where, err));
    CVQ_TRY(check_keys(g, keys, where, err));
    m->temperature = m->top_p = -1;
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): member() set it */
    for (const cJSON *item = g->child; item; item = item->next) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 1e6))
            return cvq_fail(err, CVQ_FORMAT, where,
                            "metadata: \"%s\" must be a number from 0 to 1000000", item->string);
    }
    CVQ_TRY(cvq_json_number(g, "temperature", false, &m->temperature, where, err));
    return cvq_json_number(g, "top_p", false, &m->top_p, where, err);
}

static cvq_status parse_texts(cvq_metadata *m, const cJSON *root, const char *where,
                              cvq_error *err) {
    static const char *const keys[] = {"name", "text", NULL};
    const cJSON *licenses = NULL;
    void *memory = NULL;
    CVQ_TRY(member(&licenses, root, "licenses", true, where, err));
    CVQ_TRY(cvq_alloc(&memory, count_items(licenses), sizeof *m->licenses, "metadata", err));
    m->licenses = memory;
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): member() set it */
    for (const cJSON *item = licenses->child; item; item = item->next) {
        cvq_named_text *t = &m->licenses[m->num_licenses++];
        CVQ_TRY(check_object(item, "licenses", where, err));
        CVQ_TRY(check_keys(item, keys, where, err));
        CVQ_TRY(copy_string(&t->name, item, "name", where, err));
        CVQ_TRY(copy_string(&t->text, item, "text", where, err));
    }
    return copy_string(&m->card, root, "card", where, err);
}

static cvq_status parse_root(cvq_metadata *m, const cJSON *root, const char *where,
                             cvq_error *err) {
    static const char *const keys[] = {"format",   "recipe", "source", "generation",
                                       "licenses", "card",   NULL};
    const char *format = NULL;
    if (!cJSON_IsObject(root))
        return cvq_fail(err, CVQ_FORMAT, where, "metadata: it must be an object");
    CVQ_TRY(check_keys(root, keys, where, err));
    CVQ_TRY(cvq_json_string(root, "format", true, &format, where, err));
    if (strcmp(format, "cvq") != 0)
        return cvq_fail(err, CVQ_FORMAT, where, "metadata: \"format\" must be \"cvq\"");
    CVQ_TRY(parse_recipe(m, root, where, err));
    CVQ_TRY(parse_source(m, root, where, err));
    CVQ_TRY(parse_generation(m, root, where, err));
    return parse_texts(m, root, where, err);
}

cvq_status cvq_metadata_parse(cvq_metadata *m, const char *json, size_t size, const char *where,
                              cvq_error *err) {
    cJSON *root = NULL;
    cvq_metadata parsed = {0};
    CVQ_TRY(cvq_json_parse(&root, json, size, where, err));
    const cvq_status status = parse_root(&parsed, root, where, err);
    cJSON_Delete(root);
    if (status != CVQ_OK) {
        cvq_metadata_free(&parsed);
        return status;
    }
    *m = parsed;
    return CVQ_OK;
}

cvq_status cvq_metadata_parse_origin(cvq_metadata *m, const cJSON *object, const char *where,
                                     cvq_error *err) {
    cvq_metadata parsed = {0};
    cvq_status status = parse_recipe(&parsed, object, where, err);
    if (status == CVQ_OK) status = parse_source(&parsed, object, where, err);
    if (status == CVQ_OK) status = copy_string(&parsed.card, object, "card", where, err);
    if (status != CVQ_OK) {
        cvq_metadata_free(&parsed);
        return status;
    }
    *m = parsed;
    return CVQ_OK;
}

void cvq_metadata_free(cvq_metadata *m) {
    if (!m) return;
    for (size_t i = 0; i < m->num_rules; i++) {
        free(m->rules[i].pattern);
        free(m->rules[i].type);
    }
    for (size_t i = 0; i < m->num_files; i++) free(m->files[i].name);
    for (size_t i = 0; i < m->num_licenses; i++) {
        free(m->licenses[i].name);
        free(m->licenses[i].text);
    }
    free(m->recipe);
    free(m->rules);
    free(m->revision);
    free(m->files);
    free(m->licenses);
    free(m->card);
    *m = (cvq_metadata){0};
}
