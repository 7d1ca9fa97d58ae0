/* tokenizer.json: a small one of Llama 3's form, and that with one change at a time. */
#include "convert/tokenizer_import.h"

#include "tests/unit/fake_tokenizer.h"
#include "tests/unit/harness.h"
#include "tests/unit/temp_folder.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define VOCAB_SIZE 264

static cvq_status import(cvq_buffer *table, const cJSON *root, cvq_error *err) {
    cvq_buffer text = {0};
    if (cvq_json_print(&text, root, NULL) != CVQ_OK) abort();
    temp_write("tokenizer.json", text.data, text.size);
    cvq_buffer_free(&text);
    return cvq_tokenizer_import(table, temp_path("tokenizer.json"), VOCAB_SIZE, err);
}

/* Sets "a/0/b" to a JSON text, or removes it for NULL. A new last part is added. */
static void change_json(cJSON *root, const char *path, const char *value) {
    char parts[200], *save = NULL;
    snprintf(parts, sizeof parts, "%s", path);
    cJSON *at = root, *new_value = value ? cJSON_Parse(value) : NULL;
    char *part = strtok_r(parts, "/", &save);
    for (char *next; (next = strtok_r(NULL, "/", &save)); part = next) {
        at = cJSON_IsArray(at) ? cJSON_GetArrayItem(at, atoi(part))
                               : cJSON_GetObjectItemCaseSensitive(at, part);
    }
    if (value && !new_value) abort();
    if (cJSON_IsArray(at)) {
        int place = atoi(part);
        if (!new_value) {
            cJSON_DeleteItemFromArray(at, place);
        } else if (place < cJSON_GetArraySize(at)) {
            cJSON_ReplaceItemInArray(at, place, new_value);
        } else {
            cJSON_AddItemToArray(at, new_value);
        }
    } else {
        cJSON_DeleteItemFromObjectCaseSensitive(at, part);
        if (new_value) cJSON_AddItemToObject(at, part, new_value);
    }
}

typedef struct change {
    const char *path, *value;
    cvq_status status;
    const char *message;
} change;

static const change refused[] = {
    {"extra", "1", CVQ_UNSUPPORTED, "the file has the unknown key \"extra\""},
    {"normalizer", "{\"type\":\"NFC\"}", CVQ_UNSUPPORTED, "normalizer"},
    {"pre_tokenizer", "null", CVQ_UNSUPPORTED, "Sequence of Split and ByteLevel"},
    {"pre_tokenizer", "{\"type\":\"ByteLevel\"}", CVQ_UNSUPPORTED, "Sequence of Split"},
    {"pre_tokenizer/type", "\"Digits\"", CVQ_UNSUPPORTED, "Sequence of Split and ByteLevel"},
    {"pre_tokenizer/pretokenizers/1", NULL, CVQ_UNSUPPORTED, "Sequence of Split and ByteLevel"},
    {"pre_tokenizer/pretokenizers/2", "{\"type\":\"Digits\"}", CVQ_UNSUPPORTED, "Sequence of"},
    {"pre_tokenizer/pretokenizers/0", "1", CVQ_UNSUPPORTED, "first step must be a Split"},
    {"pre_tokenizer/pretokenizers/0/type", "\"Punctuation\"", CVQ_UNSUPPORTED,
     "first step must be a Split"},
    {"pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\s+\"", CVQ_UNSUPPORTED,
     "pattern is not Llama 3's"},
    {"pre_tokenizer/pretokenizers/0/pattern", "{\"String\":\" \"}", CVQ_UNSUPPORTED,
     "pattern is not Llama 3's"},
    {"pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", CVQ_UNSUPPORTED, "\"Isolated\""},
    {"pre_tokenizer/pretokenizers/0/invert", "true", CVQ_UNSUPPORTED, "not inverted"},
    {"pre_tokenizer/pretokenizers/0/x", "1", CVQ_UNSUPPORTED, "Split has the unknown key \"x\""},
    {"pre_tokenizer/pretokenizers/1/type", "\"Metaspace\"", CVQ_UNSUPPORTED, "second step"},
    {"pre_tokenizer/pretokenizers/1/add_prefix_space", "true", CVQ_UNSUPPORTED,
     "\"add_prefix_space\" false"},
    {"pre_tokenizer/pretokenizers/1/add_prefix_space", NULL, CVQ_UNSUPPORTED,
     "\"add_prefix_space\" false"},
    {"pre_tokenizer/pretokenizers/1/use_regex", "true", CVQ_UNSUPPORTED, "\"use_regex\" false"},
    {"pre_tokenizer/pretokenizers/1/use_regex", NULL, CVQ_UNSUPPORTED, "\"use_regex\" false"},
    {"pre_tokenizer/pretokenizers/1/x", "1", CVQ_UNSUPPORTED, "ByteLevel has the unknown key"},
    {"decoder", "null", CVQ_UNSUPPORTED, "decoder must be ByteLevel"},
    {"decoder/type", "\"WordPiece\"", CVQ_UNSUPPORTED, "decoder must be ByteLevel"},
    {"model", NULL, CVQ_FORMAT, "\"model\" must be an object"},
    {"model/type", "\"Unigram\"", CVQ_UNSUPPORTED, "model.type must be BPE"},
    {"model/dropout", "0.1", CVQ_UNSUPPORTED, "model.dropout is set"},
    {"model/unk_token", "\"<unk>\"", CVQ_UNSUPPORTED, "model.unk_token is set"},
    {"model/continuing_subword_prefix", "\"##\"", CVQ_UNSUPPORTED, "continuing_subword_prefix is"},
    {"model/end_of_word_suffix", "\"</w>\"", CVQ_UNSUPPORTED, "end_of_word_suffix is set"},
    {"model/fuse_unk", "true", CVQ_UNSUPPORTED, "model.fuse_unk is set"},
    {"model/byte_fallback", "true", CVQ_UNSUPPORTED, "model.byte_fallback is set"},
    {"model/ignore_merges", "1", CVQ_FORMAT, "\"ignore_merges\" must be true or false"},
    {"model/cache_capacity", "1", CVQ_UNSUPPORTED, "model has the unknown key"},
    {"model/vocab", "[]", CVQ_FORMAT, "model.vocab must be an object"},
    {"model/vocab", "{}", CVQ_FORMAT, "no piece for the byte 0x00"},
    {"model/vocab/A", NULL, CVQ_FORMAT, "no piece for the byte 0x41"},
    {"model/vocab/A", "\"65\"", CVQ_FORMAT, "id is not an integer"},
    {"model/vocab/A", "-1", CVQ_FORMAT, "id is not an integer"},
    {"model/vocab/A", "0.5", CVQ_FORMAT, "id is not an integer"},
    {"model/vocab/A", "264", CVQ_FORMAT, "a token has id 264, config.json's vocab_size is 264"},
    {"model/vocab/A", "66", CVQ_FORMAT, "two pieces of model.vocab have id 66"},
    {"model/vocab/A", "259", CVQ_FORMAT, "id 259 has another id or text in model.vocab"},
    {"model/vocab/<|begin_of_text|>", "260", CVQ_FORMAT, "id 259 has another id or text"},
    {"model/vocab/", "260", CVQ_FORMAT, "the piece with id 260 is empty"},
    {"model/vocab/a b", "260", CVQ_FORMAT, "the piece with id 260 has a character that is no byte"},
    {"model/vocab/\xc7\xbf", "260", CVQ_FORMAT, "has a character that is no byte"},
    {"model/vocab/\xc8\x80", "260", CVQ_FORMAT, "has a character that is no byte"},
    {"model/vocab/\xc2\xad", "260", CVQ_FORMAT, "has a character that is no byte"},
    {"model/vocab/\xe2\x82\xac", "260", CVQ_FORMAT, "has a character that is no byte"},
    {"model/merges", "{}", CVQ_FORMAT, "model.merges must be an array"},
    {"model/merges", NULL, CVQ_FORMAT, "model.merges must be an array"},
    {"model/merges/0", "1", CVQ_FORMAT, "merge 0 is neither"},
    {"model/merges/1", "\"th\"", CVQ_FORMAT, "merge 1 is neither"},
    {"model/merges/1", "\"t h e\"", CVQ_FORMAT, "merge 1 is neither"},
    {"model/merges/1", "[\"t\"]", CVQ_FORMAT, "merge 1 is neither"},
    {"model/merges/1", "[\"t\",\"h\",\"e\"]", CVQ_FORMAT, "merge 1 is neither"},
    {"model/merges/1", "[\"t\",1]", CVQ_FORMAT, "merge 1 is neither"},
    {"model/merges/1", "\"zz e\"", CVQ_FORMAT, "the left piece of merge 1"},
    {"model/merges/1", "\" e\"", CVQ_FORMAT, "the left piece of merge 1"},
    {"model/merges/1", "[\"t\",\"zz\"]", CVQ_FORMAT, "the right piece of merge 1"},
    {"model/merges/1", "\"z z\"", CVQ_FORMAT, "the joint piece of merge 1"},
    {"model/merges/1", "\"t h\"", CVQ_FORMAT, "are of the same pair"},
    {"added_tokens", "{}", CVQ_FORMAT, "added_tokens must be an array"},
    {"added_tokens/0", "1", CVQ_FORMAT, "an element of added_tokens is no object"},
    {"added_tokens/0/id", NULL, CVQ_FORMAT, "id is not an integer"},
    {"added_tokens/0/id", "264", CVQ_FORMAT, "a token has id 264"},
    {"added_tokens/0/id", "262", CVQ_FORMAT, "two added tokens have id 262"},
    {"added_tokens/0/id", "257", CVQ_FORMAT, "id 257 has another id or text in model.vocab"},
    {"added_tokens/0/content", NULL, CVQ_FORMAT, "\"content\" is missing"},
    {"added_tokens/0/content", "\"\"", CVQ_FORMAT, "the added token with id 259 is empty"},
    {"added_tokens/0/content", "\"the\"", CVQ_FORMAT, "id 259 has another id or text"},
    {"added_tokens/0/special", "false", CVQ_UNSUPPORTED, "id 259 is not special"},
    {"added_tokens/0/special", NULL, CVQ_FORMAT, "\"special\" is missing"},
};

static void changes_are_refused(void) {
    for (size_t i = 0; i < COUNT(refused); i++) {
        const change *r = &refused[i];
        cJSON *root = make_tokenizer();
        cvq_buffer table = {0};
        cvq_error err = {0};
        if (strcmp(r->path, "model/vocab/") == 0) {
            cJSON_AddNumberToObject(
                cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "vocab"), "",
                atoi(r->value));
        } else {
            change_json(root, r->path, r->value);
        }
        cvq_status status = import(&table, root, &err);
        bool same =
            r->status == CVQ_FORMAT && !*r->message ? status != CVQ_OK : status == r->status;
        CHECK_SAY(same && table.size == 0 && strstr(err.message, r->message),
                  "%s = %s gives %d: %s", r->path, r->value ? r->value : "nothing", status,
                  err.message);
        cvq_buffer_free(&table);
        cJSON_Delete(root);
    }
}

static void check_piece(const cvq_tokenizer_table *t, uint32_t id, const char *text, bool special) {
    size_t n = 0;
    uint32_t found = 0;
    const uint8_t *p = cvq_tokenizer_piece(t, id, &n);
    CHECK_SAY(n == strlen(text) && memcmp(p, text, n) == 0, "id %u", id);
    CHECK(cvq_tokenizer_is_special(t, id) == special);
    bool is_found = n > 0 && cvq_tokenizer_find(t, (const uint8_t *)text, n, &found);
    CHECK_SAY(n == 0 || is_found == !special, "id %u", id);
    CHECK(!is_found || found == id);
}

static void check_table(const cvq_buffer *table, bool ignore_merges) {
    cvq_tokenizer_table t;
    uint32_t rank = 9, merged = 0;
    CHECK(cvq_tokenizer_table_open(&t, table->data, table->size, "table", NULL) == CVQ_OK);
    CHECK(t.num_tokens == 263 && t.num_merges == 3 && t.ignore_merges == ignore_merges);
    for (uint32_t b = 0; b < 256; b++) {
        size_t n = 0;
        const uint8_t *p = cvq_tokenizer_piece(&t, b, &n);
        CHECK_SAY(n == 1 && p[0] == b && t.byte_ids[b] == b, "byte %u", b);
    }
    check_piece(&t, 256, "th", false);
    check_piece(&t, 257, "the", false);
    check_piece(&t, 258, " t", false);
    check_piece(&t, 259, "<|begin_of_text|>", true);
    check_piece(&t, 260, "", false);
    check_piece(&t, 261, "", false);
    check_piece(&t, 262, "<|\xc3\xa9 t|>", true);
    CHECK(cvq_tokenizer_merge(&t, 't', 'h', &rank, &merged) && rank == 0 && merged == 256);
    CHECK(cvq_tokenizer_merge(&t, 256, 'e', &rank, &merged) && rank == 1 && merged == 257);
    CHECK(cvq_tokenizer_merge(&t, ' ', 't', &rank, &merged) && rank == 2 && merged == 258);
    CHECK(!cvq_tokenizer_merge(&t, 'h', 'e', &rank, &merged));
}

static const change accepted[] = {
    {"version", "\"1.0\"", CVQ_OK, ""},
    {"model/merges/0", "[\"t\",\"h\"]", CVQ_OK, ""},
    {"model/type", NULL, CVQ_OK, ""},
    {"model/dropout", NULL, CVQ_OK, ""},
    {"model/continuing_subword_prefix", "\"\"", CVQ_OK, ""},
    {"truncation", "{\"max_length\":8}", CVQ_OK, ""},
    {"padding", "{}", CVQ_OK, ""},
    {"post_processor", "null", CVQ_OK, ""},
    /* older files list the added tokens in the vocabulary, too */
    {"model/vocab/<|begin_of_text|>", "259", CVQ_OK, ""},
};

static void tables(void) {
    for (size_t i = 0; i < COUNT(accepted); i++) {
        cJSON *root = make_tokenizer();
        cvq_buffer table = {0};
        cvq_error err = {0};
        change_json(root, accepted[i].path, accepted[i].value);
        CHECK_SAY(import(&table, root, &err) == CVQ_OK, "%s: %s", accepted[i].path, err.message);
        if (table.size) check_table(&table, true);
        cvq_buffer_free(&table);
        cJSON_Delete(root);
    }
    cJSON *root = make_tokenizer();
    cvq_buffer table = {0};
    change_json(root, "model/ignore_merges", NULL); /* false is the default */
    CHECK(import(&table, root, NULL) == CVQ_OK);
    if (table.size) check_table(&table, false);
    cvq_buffer_free(&table);
    cJSON_Delete(root);
}

static void sample_model(void) {
    static const char path[] = "models/cogvlm2-tiny/tokenizer.json";
    cvq_buffer table = {0};
    cvq_error err = {0};
    cvq_tokenizer_table t;
    CHECK_SAY(cvq_tokenizer_import(&table, path, 1024, &err) == CVQ_OK, "%s", err.message);
    CHECK(cvq_tokenizer_table_open(&t, table.data, table.size, "table", NULL) == CVQ_OK);
    CHECK(t.num_tokens == 1024 && t.num_merges == 760 && t.ignore_merges);
    CHECK(!cvq_tokenizer_is_special(&t, 1015) && cvq_tokenizer_is_special(&t, 1016));
    cvq_buffer_free(&table);
    CHECK(cvq_tokenizer_import(&table, path, 1023, NULL) == CVQ_FORMAT);
    CHECK(cvq_tokenizer_import(&table, path, 0, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_tokenizer_import(&table, temp_path("none"), 1024, NULL) == CVQ_NOT_FOUND);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(tables);
    RUN(changes_are_refused);
    RUN(sample_model);
    temp_close();
    return REPORT();
}
