/* Metadata: canonical text, the way back, and strictness.
 * cvq-test: formats */
#include "formats/metadata.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/harness.h"

static const char hash[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static const char canonical[] =
    "{\"format\":\"cvq\",\"recipe\":{\"name\":\"custom\",\"types\":{\"*\":\"q8\",\"lm_head.*\":"
    "\"q6\"},\"importance\":"
    "\"ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100\"},\"source\":{"
    "\"revision\":\"c0ffee\",\"files\":[{\"name\":\"config.json\",\"size\":"
    "1406,\"sha256\":"
    "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}]},\"generation\":"
    "{\"temperature\":0.6,\"top_p\":0.9},\"licenses\":[{\"name\":\"LICENSE\",\"text\":\"a\\n"
    "\xc3\xa4\"}],\"card\":\"# Card\"}";

static void text_is_canonical(void) {
    cvq_type_rule rules[] = {{(char *)(uintptr_t) "*", (char *)(uintptr_t) "q8"},
                             {(char *)(uintptr_t) "lm_head.*", (char *)(uintptr_t) "q6"},
                             {(char *)(uintptr_t) "*", (char *)(uintptr_t) "q4"}};
    cvq_source_file file = {.name = (char *)(uintptr_t) "config.json", .size = 1406};
    memcpy(file.sha256, hash, sizeof hash);
    const char importance[] = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";
    cvq_named_text license = {(char *)(uintptr_t) "LICENSE", (char *)(uintptr_t) "a\n\xc3\xa4"};
    cvq_metadata m = {.recipe = (char *)(uintptr_t) "custom",
                      .rules = rules,
                      .num_rules = 2,
                      .revision = (char *)(uintptr_t) "c0ffee",
                      .files = &file,
                      .num_files = 1,
                      .temperature = 0.6,
                      .top_p = 0.9,
                      .licenses = &license,
                      .num_licenses = 1,
                      .card = (char *)(uintptr_t) "# Card"};
    memcpy(m.importance, importance, sizeof importance);
    cvq_buffer json = {0};
    cvq_error err = {0};
    CHECK_SAY(cvq_metadata_print(&m, &json, &err) == CVQ_OK, "%s", err.message);
    CHECK_SAY(json.data && strcmp((char *)json.data, canonical) == 0, "%s", (char *)json.data);
    CHECK(json.size == strlen(canonical));
    cvq_buffer_free(&json);
    file.size = (uint64_t)1 << 53; /* not exact any more */
    CHECK(cvq_metadata_print(&m, &json, NULL) == CVQ_FORMAT);
    file.size--;
    CHECK(cvq_metadata_print(&m, &json, NULL) == CVQ_OK);
    CHECK(strstr((char *)json.data, "\"size\":9007199254740991,") != NULL);
    cvq_buffer_free(&json);
    cJSON *manifest = cJSON_CreateObject();
    cvq_metadata_add_origin(manifest, &m);
    CHECK(cvq_json_print(&json, manifest, NULL) == CVQ_OK);
    CHECK(strstr((char *)json.data, "\"size\":9007199254740991,") != NULL);
    CHECK(strstr((char *)json.data, "licenses") == NULL);
    cJSON_Delete(manifest);
    cvq_buffer_free(&json);
    m.num_rules = 3; /* the first pattern again */
    CHECK(cvq_metadata_print(&m, &json, NULL) == CVQ_FORMAT);
    m.num_rules = 2;
    license.text = (char *)(uintptr_t) "Latin-1: \xe4";
    err = (cvq_error){0};
    CHECK(cvq_metadata_print(&m, &json, &err) == CVQ_FORMAT && strstr(err.message, "UTF-8"));
    CHECK(json.data == NULL);
}

static void empty_metadata_prints(void) {
    const cvq_metadata m = {.temperature = -1, .top_p = -1};
    cvq_metadata back;
    cvq_buffer json = {0};
    CHECK(cvq_metadata_print(&m, &json, NULL) == CVQ_OK);
    CHECK(cvq_metadata_parse(&back, (char *)json.data, json.size, "x", NULL) == CVQ_OK);
    CHECK(back.num_rules == 0 && back.num_files == 0 && back.num_licenses == 0);
    CHECK(!*back.importance && !*back.second_moments && !*back.recipe && !*back.revision &&
          !*back.card);
    CHECK(back.temperature < 0 && back.top_p < 0);
    cvq_metadata_free(&back);
    cvq_buffer_free(&json);
}

static void way_back(void) {
    cvq_metadata m;
    cvq_buffer json = {0};
    cvq_error err = {0};
    CHECK_SAY(cvq_metadata_parse(&m, canonical, strlen(canonical), "x", &err) == CVQ_OK, "%s",
              err.message);
    if (err.code) return;
    CHECK(strcmp(m.recipe, "custom") == 0 && m.num_rules == 2);
    CHECK(strcmp(m.rules[0].pattern, "*") == 0 && strcmp(m.rules[1].type, "q6") == 0);
    CHECK(strcmp(m.revision, "c0ffee") == 0 && m.num_files == 1 && m.files[0].size == 1406);
    CHECK(strcmp(m.files[0].name, "config.json") == 0 && strcmp(m.files[0].sha256, hash) == 0);
    CHECK(m.temperature == 0.6 && m.top_p == 0.9);
    CHECK(m.num_licenses == 1 && strcmp(m.licenses[0].text, "a\n\xc3\xa4") == 0);
    CHECK(strcmp(m.card, "# Card") == 0);
    CHECK(cvq_metadata_print(&m, &json, NULL) == CVQ_OK);
    CHECK(json.data && strcmp((char *)json.data, canonical) == 0);
    cvq_buffer_free(&json);
    cvq_metadata_free(&m);
    CHECK(m.rules == NULL && m.card == NULL);
    cvq_metadata_free(&m);
    cvq_metadata_free(NULL);
}

/* One replacement in the canonical text. */
typedef struct change {
    const char *from, *to;
    cvq_status status;
    const char *message;
} change;

static const change changes[] = {
    {"{\"format\"", "[\"format\"", CVQ_FORMAT, ""},
    {"\"format\":\"cvq\",", "", CVQ_FORMAT, "\"format\" is missing"},
    {"\"format\":\"cvq\"", "\"format\":\"gguf\"", CVQ_FORMAT, "\"format\" must be \"cvq\""},
    {"\"format\":\"cvq\"", "\"format\":\"cvq\",\"format\":\"cvq\"", CVQ_FORMAT, ""},
    {"\"card\":", "\"cards\":", CVQ_UNSUPPORTED, "\"cards\" is not one"},
    {"\"card\":\"# Card\"", "\"card\":7", CVQ_FORMAT, "card"},
    {",\"card\":\"# Card\"", "", CVQ_FORMAT, "card"},
    {"\"name\":\"custom\",", "", CVQ_FORMAT, "name"},
    {"\"name\":\"custom\"", "\"name\":\"custom\",\"x\":1", CVQ_UNSUPPORTED, "\"x\""},
    {"\"types\":{\"*\":\"q8\",\"lm_head.*\":\"q6\"}", "\"types\":[]", CVQ_FORMAT, "\"types\""},
    {"\"importance\":\"ff", "\"importance\":\"f", CVQ_FORMAT, "\"importance\" must be 64"},
    {"\"importance\"", "\"second_moments\":7,\"importance\"", CVQ_FORMAT, "second_moments"},
    {"\"importance\"", "\"second_moments\":null,\"importance\"", CVQ_FORMAT, "second_moments"},
    {"\"importance\"", "\"calibration\"", CVQ_UNSUPPORTED, "calibration"},
    {"\"q8\"", "8", CVQ_FORMAT, "the type of \"*\""},
    {"\"files\":[", "\"files\":[7,", CVQ_FORMAT, "files"},
    {"\"size\":1406", "\"size\":-1", CVQ_FORMAT, "size"},
    {"\"size\":1406", "\"size\":1.5", CVQ_FORMAT, "size"},
    {"\"size\":1406", "\"size\":9007199254740993", CVQ_FORMAT, "size"},
    {"config.json", "a/config.json", CVQ_FORMAT, "without folders"},
    {"config.json", "", CVQ_FORMAT, "without folders"},
    {"\"0011", "\"00A1", CVQ_FORMAT, "sha256"},
    {"\"0011", "\"001", CVQ_FORMAT, "sha256"},
    {"0.6", "\"0.6\"", CVQ_FORMAT, "temperature"},
    {"0.6", "-1", CVQ_FORMAT, "temperature"},
    {"0.6", "null", CVQ_FORMAT, "temperature"},
    {"0.9", "1e9", CVQ_FORMAT, "top_p"},
    {"\"top_p\"", "\"top_k\"", CVQ_UNSUPPORTED, "top_k"},
    {"\"licenses\":[", "\"licenses\":[[],", CVQ_FORMAT, "licenses"},
    {"\"text\":\"a", "\"texts\":\"a", CVQ_UNSUPPORTED, "texts"},
    {"# Card\"}", "# Card\"} {}", CVQ_FORMAT, ""},
};

static void strict_parsing(void) {
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const change *c = &changes[i];
        char text[2048];
        cvq_metadata m;
        cvq_error err = {0};
        const char *at = strstr(canonical, c->from);
        CHECK_SAY(at != NULL, "%s", c->from);
        if (!at) continue;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - canonical), canonical, c->to,
                 at + strlen(c->from));
        const cvq_status s = cvq_metadata_parse(&m, text, strlen(text), "FILE", &err);
        CHECK_SAY(s == c->status && strstr(err.message, c->message), "%s: status %d, \"%s\"", c->to,
                  s, err.message);
    }
    for (size_t n = 0; n < strlen(canonical); n++) { /* each truncation */
        cvq_metadata m;
        CHECK(cvq_metadata_parse(&m, canonical, n, "FILE", NULL) == CVQ_FORMAT);
    }
}

int main(void) {
    RUN(text_is_canonical);
    RUN(empty_metadata_prints);
    RUN(way_back);
    RUN(strict_parsing);
    return REPORT();
}
