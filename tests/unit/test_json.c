/* JSON: what is refused and where, what is read and printed.
 * cvq-test: formats */
#include "formats/json.h"

#include <math.h>
#include <stdlib.h>

#include "tests/unit/harness.h"
#include "tests/unit/temp_folder.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* From a copy of exactly the right size, so that a sanitizer sees a read behind its end. */
static cvq_status parse(cJSON **out, const char *text, size_t size, cvq_error *err) {
    char *copy = malloc(size ? size : 1);
    if (!copy) abort();
    memcpy(copy, text, size);
    cvq_status status = cvq_json_parse(out, copy, size, "test.json", err);
    free(copy);
    return status;
}

typedef struct bad_text {
    const char *text, *message;
} bad_text;

static const bad_text bad_texts[] = {
    {"", "empty"},
    {" \n ", "line 2, column 2: the text ends where a value should be"},
    {"{\"a\": 1,\n \"b\" 2}", "line 2, column 6: expected ':'"},
    {"{\"a\":1} x", "line 1, column 9: text behind"},
    {"1 2", "text behind"},
    {"[1,]", "column 4: not a JSON value"},
    {"[,1]", "column 2: not a JSON value"},
    {"[1", "expected ',' or ']'"},
    {"[1}", "expected ',' or ']'"},
    {"[", "the text ends"},
    {"{", "expected a key"},
    {"{\"a\"", "expected ':'"},
    {"{\"a\":", "the text ends"},
    {"{\"a\":1", "expected ',' or '}'"},
    {"{\"a\":1,}", "expected a key"},
    {"{a:1}", "expected a key"},
    {"{1:1}", "expected a key"},
    {"]", "not a JSON value"},
    {"nul", "not a JSON value"},
    {"nulL", "not a JSON value"},
    {"truefalse", "text behind"},
    {"NaN", "not a JSON value"},
    {"-Infinity", "not a number"},
    {"+1", "not a JSON value"},
    {"01", "not a number"},
    {"-01", "not a number"},
    {"-", "not a number"},
    {"1.", "not a number"},
    {".5", "not a JSON value"},
    {"1e", "not a number"},
    {"1e+", "not a number"},
    {"1.e5", "not a number"},
    {"0x10", "text behind"},
    {"1111111111222222222233333333334444444444555555555566666666667777", "too many digits"},
    {"'a'", "not a JSON value"},
    {"\"a", "does not end"},
    {"\"a\\", "does not end"},
    {"\"a\\\"", "does not end"},
    {"\"\\x\"", "not an escape"},
    {"\"\\u12\"", "four hexadecimal digits"},
    {"\"\\u12g4\"", "four hexadecimal digits"},
    {"\"\\u0000\"", "NUL"},
    {"{\"\\u0000\":1}", "NUL"},
    {"\"\\ud800\"", "half of a surrogate pair"},
    {"\"\\ud800\\u0041\"", "half of a surrogate pair"},
    {"\"\\udc00\"", "half of a surrogate pair"},
    {"\"\\ud800\\ud800\"", "half of a surrogate pair"},
    {"\"a\nb\"", "control character"},
    {"\"\x01\"", "control character"},
    {"\"\x80\"", "not valid UTF-8"},
    {"\"\xc0\xaf\"", "not valid UTF-8"},
    {"\"\xc1\xbf\"", "not valid UTF-8"},
    {"\"\xc3\"", "not valid UTF-8"},
    {"\"\xe0\x80\xaf\"", "not valid UTF-8"},
    {"\"\xed\xa0\x80\"", "not valid UTF-8"},
    {"\"\xf0\x80\x80\xaf\"", "not valid UTF-8"},
    {"\"\xf4\x90\x80\x80\"", "not valid UTF-8"},
    {"\"\xf5\x80\x80\x80\"", "not valid UTF-8"},
    {"\"\xff\"", "not valid UTF-8"},
    {"\xef\xbb\xbf{}", "not a JSON value"},
    {"\v1", "not a JSON value"},
    {"/* */ 1", "not a JSON value"},
    {"{\"a\":1,\"a\":2}", "\"a\" stands twice"},
    {"{\"a\":1,\"b\":2,\"\\u0061\":3}", "\"a\" stands twice"},
    {"[{\"x\":{\"k\":1,\"j\":2,\"k\":1}}]", "\"k\" stands twice"},
    {"{\"\":1,\"\":1}", "\"\" stands twice"},
};

static void bad_texts_are_refused(void) {
    for (size_t i = 0; i < COUNT(bad_texts); i++) {
        cJSON *json = NULL;
        cvq_error err = {0};
        cvq_status status = parse(&json, bad_texts[i].text, strlen(bad_texts[i].text), &err);
        CHECK_SAY(status == CVQ_FORMAT && !json && strstr(err.message, bad_texts[i].message) &&
                      strcmp(err.where, "test.json") == 0,
                  "%s gives %d: %s", bad_texts[i].text, status, err.message);
        cJSON_Delete(json);
    }
}

/* Every beginning of a good text but the whole is bad, and must not be read past its end. */
static void beginnings_are_refused(void) {
    static const char text[] =
        "{\"a\": [1.5e+3, -2, true, false, null, \"x\\u00e9\\ud83d\\ude00\\n\"], \"b\": {}}";
    size_t size = sizeof text - 1;
    for (size_t n = 0; n <= size; n++) {
        cJSON *json = NULL;
        cvq_status status = parse(&json, text, n, NULL);
        CHECK_SAY(status == (n == size ? CVQ_OK : CVQ_FORMAT), "%zu bytes give %d", n, status);
        cJSON_Delete(json);
    }
}

static void nul_bytes_are_refused(void) {
    static const char texts[][6] = {"[1]\0", "\"a\0b\"", "[\0 1]"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        cJSON *json = NULL;
        CHECK(parse(&json, texts[i], i == 0 ? 4 : 5, NULL) == CVQ_FORMAT);
    }
}

static void depth_is_bounded(void) {
    for (size_t depth = 63; depth <= 66; depth++) {
        char text[200];
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        cJSON *json = NULL;
        cvq_error err = {0};
        cvq_status status = parse(&json, text, 2 * depth, &err);
        CHECK_SAY(status == (depth <= 64 ? CVQ_OK : CVQ_FORMAT), "depth %zu gives %d", depth,
                  status);
        if (depth > 64) CHECK(strstr(err.message, "column 65: nested more than 64 deep"));
        cJSON_Delete(json);
    }
    size_t size = 1000000;
    char *text = malloc(size);
    cJSON *json = NULL;
    if (!text) abort();
    memset(text, '[', size);
    CHECK(cvq_json_parse(&json, text, size, "test.json", NULL) == CVQ_FORMAT);
    free(text);
}

static void values_are_bounded(void) {
    size_t size = 2 * 4194304 + 2;
    char *text = malloc(size);
    cJSON *json = NULL;
    cvq_error err = {0};
    if (!text) abort();
    text[0] = '[';
    for (size_t i = 1; i < size; i += 2) memcpy(text + i, "1,", i + 1 < size ? 2 : 1);
    text[size - 1] = ']';
    CHECK(cvq_json_parse(&json, text, size, "test.json", &err) == CVQ_FORMAT);
    CHECK_SAY(strstr(err.message, "more than 4,194,304 values"), "%s", err.message);
    free(text);
}

/* As many keys as a vocabulary has, out of order, and then one twice: must not be quadratic. */
static void many_keys(void) {
    enum { KEYS = 128256 };
    cvq_buffer text = {0};
    char entry[32];
    for (int twice = 0; twice < 2; twice++) {
        text.size = 0;
        for (unsigned i = 0; i < KEYS; i++) {
            unsigned key = i * 7919u % KEYS;
            if (twice && i == KEYS - 1) key = 4711;
            int n = snprintf(entry, sizeof entry, "%c\"k%u\":%u", i ? ',' : '{', key, i);
            cvq_buffer_append(&text, entry, (size_t)n, NULL);
        }
        cvq_buffer_append(&text, "}", 1, NULL);
        cJSON *json = NULL;
        cvq_error err = {0};
        cvq_status status =
            cvq_json_parse(&json, (const char *)text.data, text.size, "test.json", &err);
        CHECK_SAY(status == (twice ? CVQ_FORMAT : CVQ_OK), "%s", err.message);
        if (twice) CHECK(strstr(err.message, "\"k4711\" stands twice"));
        cJSON_Delete(json);
    }
    cvq_buffer_free(&text);
}

static void print_gives_the_text_back(void) {
    static const char text[] = "{\"b\":[1,2.5,-3,true,false,null],\"a\":\"\xc3\xa9\\n\\\"\\\\\","
                               "\"n\":39006214656,\"t\":0.6,\"e\":{},\"l\":[]}";
    cJSON *json = NULL;
    cvq_buffer out = {0};
    CHECK(parse(&json, text, sizeof text - 1, NULL) == CVQ_OK);
    CHECK(cvq_json_print(&out, json, NULL) == CVQ_OK);
    CHECK_SAY(out.size == sizeof text - 1 && memcmp(out.data, text, sizeof text) == 0, "%s",
              (const char *)out.data);
    cvq_buffer_free(&out);
    cJSON_Delete(json);
}

typedef struct integer_case {
    const char *value;
    cvq_status status;
    uint64_t result;
} integer_case;

static void integers_are_exact(void) {
    static const integer_case cases[] = {
        {"0", CVQ_OK, 0},
        {"-0", CVQ_OK, 0},
        {"1e3", CVQ_OK, 1000},
        {"4294967296", CVQ_OK, 4294967296},
        {"9007199254740991", CVQ_OK, 9007199254740991},
        {"9007199254740992", CVQ_FORMAT, 0},
        {"9007199254740993", CVQ_FORMAT, 0},
        {"1e400", CVQ_FORMAT, 0},
        {"-1", CVQ_FORMAT, 0},
        {"0.5", CVQ_FORMAT, 0},
        {"\"1\"", CVQ_FORMAT, 0},
        {"true", CVQ_FORMAT, 0},
        {"[1]", CVQ_FORMAT, 0},
        {"null", CVQ_FORMAT, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[64];
        int n = snprintf(text, sizeof text, "{\"k\":%s}", cases[i].value);
        cJSON *json = NULL;
        uint64_t v = 77;
        CHECK(parse(&json, text, (size_t)n, NULL) == CVQ_OK);
        cvq_status status = cvq_json_u64(json, "k", true, UINT64_MAX, &v, "w", NULL);
        CHECK_SAY(status == cases[i].status && v == (status == CVQ_OK ? cases[i].result : 77),
                  "%s gives %d, %llu", cases[i].value, status, (unsigned long long)v);
        cJSON_Delete(json);
    }
}

static void members(void) {
    static const char text[] = "{\"u\":5,\"d\":2.5,\"big\":1e400,\"b\":true,\"s\":\"x\",\"z\":null,"
                               "\"U\":6}";
    cJSON *json = NULL;
    cvq_error err = {0};
    uint32_t u = 1;
    double d = 1;
    bool b = false;
    const char *s = "default";
    CHECK(parse(&json, text, sizeof text - 1, NULL) == CVQ_OK);
    CHECK(cvq_json_u32(json, "u", true, 5, &u, "w", NULL) == CVQ_OK && u == 5);
    CHECK(cvq_json_u32(json, "U", true, 6, &u, "w", NULL) == CVQ_OK && u == 6);
    CHECK(cvq_json_u32(json, "u", true, 4, &u, "w", &err) == CVQ_FORMAT && u == 6);
    CHECK(strstr(err.message, "\"u\" is 5, more than the 4 allowed"));
    CHECK(cvq_json_number(json, "d", true, &d, "w", NULL) == CVQ_OK && fabs(d - 2.5) < 1e-12);
    CHECK(cvq_json_number(json, "big", true, &d, "w", NULL) == CVQ_FORMAT);
    CHECK(cvq_json_number(json, "s", true, &d, "w", NULL) == CVQ_FORMAT);
    CHECK(cvq_json_bool(json, "b", true, &b, "w", NULL) == CVQ_OK && b);
    CHECK(cvq_json_bool(json, "u", true, &b, "w", NULL) == CVQ_FORMAT);
    CHECK(cvq_json_string(json, "s", true, &s, "w", NULL) == CVQ_OK && strcmp(s, "x") == 0);
    CHECK(cvq_json_string(json, "u", true, &s, "w", NULL) == CVQ_FORMAT);
    /* absent or null */
    CHECK(cvq_json_string(json, "z", false, &s, "w", NULL) == CVQ_OK && strcmp(s, "x") == 0);
    CHECK(cvq_json_u32(json, "none", false, 9, &u, "w", NULL) == CVQ_OK && u == 6);
    memset(&err, 0, sizeof err);
    CHECK(cvq_json_bool(json, "z", true, &b, "file", &err) == CVQ_FORMAT);
    CHECK(strcmp(err.message, "\"z\" is missing") == 0 && strcmp(err.where, "file") == 0);
    /* no object at all */
    CHECK(cvq_json_u32(json->child, "u", false, 9, &u, "w", NULL) == CVQ_FORMAT);
    CHECK(cvq_json_u32(NULL, "u", false, 9, &u, "w", NULL) == CVQ_FORMAT);
    cJSON_Delete(json);
}

static void files(void) {
    cJSON *json = NULL;
    cvq_error err = {0};
    temp_write_text("a.json", "{\"a\":1}\n");
    CHECK(cvq_json_read_file(&json, temp_path("a.json"), 8, NULL) == CVQ_OK && json);
    cJSON_Delete(json);
    json = NULL;
    CHECK(cvq_json_read_file(&json, temp_path("a.json"), 7, &err) == CVQ_FORMAT && !json);
    CHECK(cvq_json_read_file(&json, temp_path("none.json"), 7, NULL) == CVQ_NOT_FOUND);
}

static void utf8(void) {
    CHECK(cvq_utf8_valid("", 0));
    CHECK(cvq_utf8_valid("a\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 14));
    CHECK(!cvq_utf8_valid("a\0b", 3));
    CHECK(!cvq_utf8_valid("\xe2\x82", 2));
    CHECK(!cvq_utf8_valid("\xed\xbf\xbf", 3));
}

/* An object that lacks a member, however deep, is not printed. */
static void what_lacks_a_member_is_not_printed(void) {
    for (int spoilt = 0; spoilt < 4; spoilt++) {
        cJSON *root = cJSON_CreateObject();
        cvq_buffer text = {0};
        cvq_error err = {0};
        cvq_json_add_string(root, "s", "x");
        cvq_json_add_number(root, "n", 0.5);
        cvq_json_add_bool(root, "b", true);
        cJSON *array = cvq_json_add_array(root, "a"), *object = cvq_json_add_object(root, "o");
        cvq_json_append(array, spoilt == 1 ? NULL : cJSON_CreateNumber(1));
        cvq_json_add_item(object, "i", spoilt == 2 ? NULL : cJSON_CreateString("y"));
        if (spoilt == 3) cvq_json_add_string(root, NULL, "z");
        const cvq_status status = cvq_json_print(&text, root, &err);
        CHECK_SAY(status == (spoilt ? CVQ_OUT_OF_MEMORY : CVQ_OK), "%d: %s", spoilt, err.message);
        if (!spoilt)
            CHECK(strcmp((char *)text.data,
                         "{\"s\":\"x\",\"n\":0.5,\"b\":true,\"a\":[1],\"o\":{\"i\":\"y\"}}") == 0);
        cJSON_Delete(root);
        cvq_buffer_free(&text);
    }
    cvq_json_add_string(NULL, "s", "x"); /* no root: no crash, and nothing to print */
    CHECK(cvq_json_add_array(NULL, "a") == NULL);
    CHECK(cvq_json_print(&(cvq_buffer){0}, NULL, NULL) == CVQ_OUT_OF_MEMORY);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(bad_texts_are_refused);
    RUN(beginnings_are_refused);
    RUN(nul_bytes_are_refused);
    RUN(depth_is_bounded);
    RUN(values_are_bounded);
    RUN(many_keys);
    RUN(print_gives_the_text_back);
    RUN(integers_are_exact);
    RUN(what_lacks_a_member_is_not_printed);
    RUN(members);
    RUN(files);
    RUN(utf8);
    temp_close();
    return REPORT();
}
