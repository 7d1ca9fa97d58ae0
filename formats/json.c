/* JSON from strangers. cJSON builds the tree; what it lets pass (NUL, bad UTF-8, control
 * characters, numbers such as "01", deep nesting, text behind the value) is found before by a
 * scanner of our own, which also gives lines and columns. Duplicate keys are looked for in the
 * tree, by sorting, since a tokenizer's vocabulary is one object of 128,000 keys.
 *
 * The memory that a text can ask for is bounded too: a tree has at most MAX_VALUES values. */
#include "formats/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"

#define MAX_DEPTH 64
/* The largest honest text, Llama 3's tokenizer with its merges as pairs, has a million. */
#define MAX_VALUES (1u << 22)
/* cJSON reads no more characters of a number than this. */
#define MAX_NUMBER_CHARS 63
/* Doubles below it are exact integers; 2^53 itself is refused since 2^53 + 1 reads as it. */
#define TWO_TO_53 9007199254740992.0

typedef struct scanner {
    const uint8_t *start, *at, *end;
    unsigned depth;
    uint32_t values;
    const char *where;
    cvq_error *err;
} scanner;

/* ---------------------------------------------------------------- the scanner */

/* Fails at a place of the text, counted from 1; columns are bytes. */
static cvq_status fail_at(const scanner *s, const uint8_t *at, const char *what) {
    size_t line = 1;
    const uint8_t *line_start = s->start;
    for (const uint8_t *p = s->start; p < at; p++) {
        if (*p == '\n') {
            line++;
            line_start = p + 1;
        }
    }
    return cvq_fail(s->err, CVQ_FORMAT, s->where, "line %zu, column %zu: %s", line,
                    (size_t)(at - line_start) + 1, what);
}

static void skip_space(scanner *s) {
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r')) {
        s->at++;
    }
}

/* Length of the UTF-8 sequence at p (RFC 3629: no overlong form, no surrogate, at most U+10FFFF), 0
 * if there is none. */
static size_t utf8_length(const uint8_t *p, const uint8_t *end) {
    uint8_t c = *p;
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : 4;
    if ((n == 4 && (c < 0xf0 || c > 0xf4)) || n > (size_t)(end - p)) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f)) return 0;
    if ((c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

bool cvq_utf8_valid(const char *text, size_t size) {
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    while (p < end) {
        size_t n = utf8_length(p, end);
        if (n == 0 || *p == 0) return false;
        p += n;
    }
    return true;
}

/* The four digits of \uXXXX at p, or -1. */
static int32_t hex4(const uint8_t *p, const uint8_t *end) {
    if (end - p < 4) return -1;
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* At a backslash. */
static cvq_status scan_escape(scanner *s) {
    const uint8_t *start = s->at++;
    if (s->at == s->end) return fail_at(s, start, "the string does not end");
    uint8_t c = *s->at++;
    if (c != 'u') {
        bool known = c != 0 && strchr("\"\\/bfnrt", c) != NULL;
        return known ? CVQ_OK : fail_at(s, start, "not an escape that JSON has");
    }
    int32_t v = hex4(s->at, s->end);
    if (v < 0) return fail_at(s, start, "\\u needs four hexadecimal digits");
    if (v == 0) return fail_at(s, start, "a NUL character in a string");
    s->at += 4;
    if (v < 0xd800 || v > 0xdfff) return CVQ_OK;
    bool pair = v < 0xdc00 && s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u';
    int32_t low = pair ? hex4(s->at + 2, s->end) : -1;
    if (low < 0xdc00 || low > 0xdfff) return fail_at(s, start, "half of a surrogate pair");
    s->at += 6;
    return CVQ_OK;
}

/* At the opening quote. */
static cvq_status scan_string(scanner *s) {
    const uint8_t *start = s->at++;
    while (s->at < s->end) {
        uint8_t c = *s->at;
        if (c == '"') {
            s->at++;
            return CVQ_OK;
        }
        if (c == '\\') {
            CVQ_TRY(scan_escape(s));
            continue;
        }
        if (c < 0x20) return fail_at(s, s->at, "a control character in a string");
        size_t n = utf8_length(s->at, s->end);
        if (n == 0) return fail_at(s, s->at, "not valid UTF-8");
        s->at += n;
    }
    return fail_at(s, start, "the string does not end");
}

static bool scan_digits(scanner *s) {
    const uint8_t *first = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') s->at++;
    return s->at > first;
}

static cvq_status scan_number(scanner *s) {
    const uint8_t *start = s->at;
    if (*s->at == '-') s->at++;
    bool zero = s->at < s->end && *s->at == '0';
    const uint8_t *digits = s->at;
    bool good = scan_digits(s) && !(zero && s->at - digits > 1);
    if (good && s->at < s->end && *s->at == '.') {
        s->at++;
        good = scan_digits(s);
    }
    if (good && s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-')) s->at++;
        good = scan_digits(s);
    }
    if (!good) return fail_at(s, start, "not a number");
    if (s->at - start > MAX_NUMBER_CHARS) return fail_at(s, start, "a number of too many digits");
    return CVQ_OK;
}

static cvq_status scan_word(scanner *s, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0) {
        return fail_at(s, s->at, "not a JSON value");
    }
    s->at += n;
    return CVQ_OK;
}

static cvq_status scan_value(scanner *s);

/* `"key" :`, the cursor before the key. */
static cvq_status scan_key(scanner *s) {
    if (s->at == s->end || *s->at != '"') return fail_at(s, s->at, "expected a key in quotes");
    CVQ_TRY(scan_string(s));
    skip_space(s);
    if (s->at == s->end || *s->at != ':') return fail_at(s, s->at, "expected ':' after the key");
    s->at++;
    return CVQ_OK;
}

/* At '[' or '{'. Recursion ends at MAX_DEPTH. */
static cvq_status scan_container(scanner *s) {
    const uint8_t *start = s->at;
    bool object = *s->at++ == '{';
    uint8_t close = object ? '}' : ']';
    if (++s->depth > MAX_DEPTH) return fail_at(s, start, "nested more than 64 deep");
    skip_space(s);
    bool empty = s->at < s->end && *s->at == close;
    while (!empty) {
        skip_space(s);
        if (object) CVQ_TRY(scan_key(s));
        CVQ_TRY(scan_value(s));
        skip_space(s);
        if (s->at < s->end && *s->at == close) break;
        if (s->at == s->end || *s->at != ',') {
            return fail_at(s, s->at, object ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        s->at++;
    }
    s->at++;
    s->depth--;
    return CVQ_OK;
}

static cvq_status scan_value(scanner *s) {
    skip_space(s);
    if (s->at == s->end) return fail_at(s, s->at, "the text ends where a value should be");
    if (++s->values > MAX_VALUES) return fail_at(s, s->at, "more than 4,194,304 values");
    switch (*s->at) {
    case '{':
    case '[':
        return scan_container(s);
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        if (*s->at == '-' || (*s->at >= '0' && *s->at <= '9')) return scan_number(s);
        return fail_at(s, s->at, "not a JSON value");
    }
}

/* ---------------------------------------------------------------- duplicate keys */

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The keys of one object. `keys` has room for all of them. */
static cvq_status check_object_keys(const cJSON *object, const char **keys, const char *where,
                                    cvq_error *err) {
    size_t n = 0;
    bool sorted = true;
    for (const cJSON *c = object->child; c; c = c->next) {
        if (n > 0 && sorted) sorted = strcmp(keys[n - 1], c->string) < 0;
        keys[n++] = c->string;
    }
    if (sorted) return CVQ_OK;
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0) {
            return cvq_fail(err, CVQ_FORMAT, where, "the key \"%.200s\" stands twice in an object",
                            keys[i]);
        }
    }
    return CVQ_OK;
}

/* The largest object of the tree; the depth is bounded by the scanner. */
static size_t most_keys(const cJSON *value) {
    size_t n = 0, most = 0;
    for (const cJSON *c = value->child; c; c = c->next) {
        n++;
        size_t m = c->child ? most_keys(c) : 0;
        if (m > most) most = m;
    }
    return cJSON_IsObject(value) && n > most ? n : most;
}

static cvq_status check_keys(const cJSON *value, const char **keys, const char *where,
                             cvq_error *err) {
    if (cJSON_IsObject(value)) CVQ_TRY(check_object_keys(value, keys, where, err));
    for (const cJSON *c = value->child; c; c = c->next) {
        if (c->child) CVQ_TRY(check_keys(c, keys, where, err));
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- parsing */

cvq_status cvq_json_parse(cJSON **out, const char *text, size_t size, const char *where,
                          cvq_error *err) {
    const uint8_t *bytes = (const uint8_t *)text;
    scanner s = {bytes, bytes, bytes + size, 0, 0, where, err};
    if (size == 0) return cvq_fail(err, CVQ_FORMAT, where, "empty, expected JSON");
    CVQ_TRY(scan_value(&s));
    size_t value_size = (size_t)(s.at - s.start);
    skip_space(&s);
    if (s.at != s.end) return fail_at(&s, s.at, "text behind the JSON value");

    cJSON *root = cJSON_ParseWithLength(text, value_size);
    if (!root) {
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for %zu bytes of JSON", size);
    }
    void *keys = NULL;
    cvq_status status = cvq_alloc(&keys, most_keys(root), sizeof(char *), "JSON keys", err);
    if (status == CVQ_OK) status = check_keys(root, keys, where, err);
    free(keys);
    if (status != CVQ_OK) {
        cJSON_Delete(root);
        return status;
    }
    *out = root;
    return CVQ_OK;
}

cvq_status cvq_json_read_file(cJSON **out, const char *path, size_t cap, cvq_error *err) {
    cvq_buffer text = {0};
    cvq_status status = cvq_read_file(&text, path, cap, err);
    if (status == CVQ_OK) {
        status = cvq_json_parse(out, (const char *)text.data, text.size, path, err);
    }
    cvq_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- members */

/* The member, or NULL in *item where it is absent or null and that is allowed. */
static cvq_status get(const cJSON *object, const char *key, bool required, const cJSON **item,
                      const char *where, cvq_error *err) {
    if (!cJSON_IsObject(object)) return cvq_fail(err, CVQ_FORMAT, where, "not a JSON object");
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsNull(found)) found = NULL;
    if (!found && required) return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" is missing", key);
    *item = found;
    return CVQ_OK;
}

bool cvq_json_is_u64(const cJSON *value, uint64_t *out) {
    if (!cJSON_IsNumber(value)) return false;
    double v = value->valuedouble;
    if (!(v >= 0) || v >= TWO_TO_53 || v != floor(v)) return false;
    *out = (uint64_t)v;
    return true;
}

cvq_status cvq_json_u64(const cJSON *object, const char *key, bool required, uint64_t max,
                        uint64_t *out, const char *where, cvq_error *err) {
    const cJSON *item = NULL;
    CVQ_TRY(get(object, key, required, &item, where, err));
    if (!item) return CVQ_OK;
    uint64_t v = 0;
    if (!cvq_json_is_u64(item, &v)) {
        return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" must be an integer from 0 to 2^53 - 1",
                        key);
    }
    if (v > max) {
        return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" is %llu, more than the %llu allowed", key,
                        (unsigned long long)v, (unsigned long long)max);
    }
    *out = v;
    return CVQ_OK;
}

cvq_status cvq_json_u32(const cJSON *object, const char *key, bool required, uint32_t max,
                        uint32_t *out, const char *where, cvq_error *err) {
    uint64_t v = UINT64_MAX;
    CVQ_TRY(cvq_json_u64(object, key, required, max, &v, where, err));
    if (v != UINT64_MAX) *out = (uint32_t)v;
    return CVQ_OK;
}

cvq_status cvq_json_number(const cJSON *object, const char *key, bool required, double *out,
                           const char *where, cvq_error *err) {
    const cJSON *item = NULL;
    CVQ_TRY(get(object, key, required, &item, where, err));
    if (!item) return CVQ_OK;
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble)) {
        return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" must be a finite number", key);
    }
    *out = item->valuedouble;
    return CVQ_OK;
}

cvq_status cvq_json_bool(const cJSON *object, const char *key, bool required, bool *out,
                         const char *where, cvq_error *err) {
    const cJSON *item = NULL;
    CVQ_TRY(get(object, key, required, &item, where, err));
    if (!item) return CVQ_OK;
    if (!cJSON_IsBool(item)) {
        return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" must be true or false", key);
    }
    *out = cJSON_IsTrue(item);
    return CVQ_OK;
}

cvq_status cvq_json_string(const cJSON *object, const char *key, bool required, const char **out,
                           const char *where, cvq_error *err) {
    const cJSON *item = NULL;
    CVQ_TRY(get(object, key, required, &item, where, err));
    if (!item) return CVQ_OK;
    if (!cJSON_IsString(item)) {
        return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" must be a string", key);
    }
    *out = item->valuestring;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- building */

/* A parent that lacks something has no type: cJSON prints nothing that holds it. */
static cJSON *child_of(cJSON *parent, cJSON *added) {
    if (parent && !added) parent->type = cJSON_Invalid;
    return added;
}

void cvq_json_add_string(cJSON *object, const char *key, const char *value) {
    child_of(object, cJSON_AddStringToObject(object, key, value));
}

void cvq_json_add_number(cJSON *object, const char *key, double value) {
    child_of(object, cJSON_AddNumberToObject(object, key, value));
}

void cvq_json_add_u64(cJSON *object, const char *key, uint64_t value) {
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    child_of(object, cJSON_AddRawToObject(object, key, digits));
}

void cvq_json_add_bool(cJSON *object, const char *key, bool value) {
    child_of(object, cJSON_AddBoolToObject(object, key, value));
}

cJSON *cvq_json_add_array(cJSON *object, const char *key) {
    return child_of(object, cJSON_AddArrayToObject(object, key));
}

cJSON *cvq_json_add_object(cJSON *object, const char *key) {
    return child_of(object, cJSON_AddObjectToObject(object, key));
}

void cvq_json_add_item(cJSON *object, const char *key, cJSON *item) {
    if (cJSON_AddItemToObject(object, key, item)) return;
    child_of(object, NULL);
    cJSON_Delete(item);
}

void cvq_json_append(cJSON *array, cJSON *item) {
    if (cJSON_AddItemToArray(array, item)) return;
    child_of(array, NULL);
    cJSON_Delete(item);
}

cvq_status cvq_json_print(cvq_buffer *out, const cJSON *value, cvq_error *err) {
    char *text = cJSON_PrintUnformatted(value);
    if (!text) return cvq_fail(err, CVQ_OUT_OF_MEMORY, NULL, "no memory for JSON text");
    size_t size = strlen(text);
    cvq_status status = cvq_buffer_append(out, text, size + 1, err);
    if (status == CVQ_OK) out->size--;
    cJSON_free(text);
    return status;
}
