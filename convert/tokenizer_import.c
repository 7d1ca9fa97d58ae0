/* tokenizer.json, as Llama 3's: byte-level BPE behind one pattern. The runtime has that pipeline
 * built in, so everything the file says about it is compared with what is built in, and any
 * difference is refused by name. What is taken from the file are pieces, merges and added tokens.
 *
 * Knowingly ignored: truncation and padding (settings of a caller), post_processor (it puts bos in
 * front, which prompts do themselves), and how added tokens match text (they never do here). */
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

#include "formats/json.h"

#define MAX_FILE (64u << 20)

const char cvq_tokenizer_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* A piece of the vocabulary, still in GPT-2's stand-ins; borrowed from the JSON. */
typedef struct piece {
    const char *text;
    uint32_t id;
} piece;

typedef struct importer {
    const char *path;
    cvq_error *err;
    const cJSON *root, *model;
    uint32_t vocab_size, num_tokens;
    piece *pieces; /* [num_pieces], in order of text */
    size_t num_pieces;
    const char **texts; /* [vocab_size], of each id: a piece, an added token's content, or NULL */
    uint8_t *special;   /* [vocab_size] */
    uint32_t *offsets;  /* [num_tokens + 1] */
    uint32_t *merges;   /* [num_merges][3] */
    size_t num_merges;
    cvq_buffer bytes, halves, joint; /* halves, joint: of the merge being read */
    int16_t byte_of[512];            /* of a stand-in's code point, or -1 */
} importer;

#define UNSUPPORTED(im, ...) cvq_fail((im)->err, CVQ_UNSUPPORTED, (im)->path, __VA_ARGS__)
#define MALFORMED(im, ...) cvq_fail((im)->err, CVQ_FORMAT, (im)->path, __VA_ARGS__)

/* ---------------------------------------------------------------- the pipeline */

static const cJSON *member(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool is_text(const cJSON *value, const char *text) {
    return cJSON_IsString(value) && strcmp(value->valuestring, text) == 0;
}

/* keys ends with NULL. */
static cvq_status refuse_unknown_keys(const importer *im, const cJSON *object,
                                      const char *const *keys, const char *name) {
    for (const cJSON *c = object->child; c; c = c->next) {
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], c->string) != 0) i++;
        if (!keys[i]) return UNSUPPORTED(im, "%s has the unknown key \"%.60s\"", name, c->string);
    }
    return CVQ_OK;
}

static cvq_status check_split(const importer *im, const cJSON *split) {
    static const char *const keys[] = {"type", "pattern", "behavior", "invert", NULL};
    if (!is_text(member(split, "type"), "Split")) {
        return UNSUPPORTED(im, "pre_tokenizer: the first step must be a Split");
    }
    CVQ_TRY(refuse_unknown_keys(im, split, keys, "pre_tokenizer's Split"));
    if (!is_text(member(member(split, "pattern"), "Regex"), cvq_tokenizer_pattern)) {
        return UNSUPPORTED(im, "pre_tokenizer: the Split pattern is not Llama 3's, the only one "
                               "that text is split by here");
    }
    if (!is_text(member(split, "behavior"), "Isolated") || cJSON_IsTrue(member(split, "invert"))) {
        return UNSUPPORTED(im, "pre_tokenizer: Split must be \"Isolated\" and not inverted");
    }
    return CVQ_OK;
}

static cvq_status check_byte_level(const importer *im, const cJSON *step) {
    static const char *const keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                       NULL};
    if (!is_text(member(step, "type"), "ByteLevel")) {
        return UNSUPPORTED(im, "pre_tokenizer: the second step must be ByteLevel");
    }
    CVQ_TRY(refuse_unknown_keys(im, step, keys, "pre_tokenizer's ByteLevel"));
    /* Both are true where they are absent. */
    if (!cJSON_IsFalse(member(step, "add_prefix_space"))) {
        return UNSUPPORTED(im, "pre_tokenizer: ByteLevel must have \"add_prefix_space\" false");
    }
    if (!cJSON_IsFalse(member(step, "use_regex"))) {
        return UNSUPPORTED(im, "pre_tokenizer: ByteLevel must have \"use_regex\" false");
    }
    return CVQ_OK;
}

static cvq_status check_pipeline(const importer *im) {
    static const char *const keys[] = {
        "version",       "truncation", "padding", "added_tokens",   "normalizer",
        "pre_tokenizer", "model",      "decoder", "post_processor", NULL};
    if (!cJSON_IsObject(im->root)) return MALFORMED(im, "not a JSON object");
    CVQ_TRY(refuse_unknown_keys(im, im->root, keys, "the file"));
    const cJSON *normalizer = member(im->root, "normalizer");
    if (normalizer && !cJSON_IsNull(normalizer)) {
        return UNSUPPORTED(im, "normalizer: text is not normalized here, it must be null");
    }
    const cJSON *pre = member(im->root, "pre_tokenizer");
    const cJSON *steps = member(pre, "pretokenizers");
    if (!is_text(member(pre, "type"), "Sequence") || !cJSON_IsArray(steps) ||
        cJSON_GetArraySize(steps) != 2) {
        return UNSUPPORTED(im, "pre_tokenizer must be a Sequence of Split and ByteLevel");
    }
    CVQ_TRY(check_split(im, steps->child));
    CVQ_TRY(check_byte_level(im, steps->child->next));
    if (!is_text(member(member(im->root, "decoder"), "type"), "ByteLevel")) {
        return UNSUPPORTED(im, "decoder must be ByteLevel");
    }
    return CVQ_OK;
}

static cvq_status check_model(const importer *im) {
    static const char *const keys[] = {"type",
                                       "dropout",
                                       "unk_token",
                                       "continuing_subword_prefix",
                                       "end_of_word_suffix",
                                       "fuse_unk",
                                       "byte_fallback",
                                       "ignore_merges",
                                       "vocab",
                                       "merges",
                                       NULL};
    static const char *const off[] = {
        "dropout",  "unk_token",    "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", "byte_fallback"};
    const cJSON *m = im->model;
    if (!cJSON_IsObject(m)) return MALFORMED(im, "\"model\" must be an object");
    const cJSON *type = member(m, "type"); /* older files have none */
    if (type && !is_text(type, "BPE")) return UNSUPPORTED(im, "model.type must be BPE");
    CVQ_TRY(refuse_unknown_keys(im, m, keys, "model"));
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        const cJSON *c = member(m, off[i]);
        if (c && !cJSON_IsNull(c) && !cJSON_IsFalse(c) && !is_text(c, "")) {
            return UNSUPPORTED(im, "model.%s is set, which is not done here", off[i]);
        }
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- pieces and added tokens */

/* GPT-2 writes each byte as a printable character: itself where that is one, else the next code
 * point from 256 on. */
void cvq_tokenizer_stand_ins(int16_t byte_of[512]) {
    int next = 256;
    for (int c = 0; c < 512; c++) byte_of[c] = -1;
    for (int b = 0; b < 256; b++) {
        bool itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        byte_of[itself ? b : next++] = (int16_t)b;
    }
}

/* Appends the bytes that a piece stands for; false if a character stands for none. The text is
 * valid UTF-8; stand-ins have one or two bytes of it. */
static cvq_status append_piece(importer *im, const char *text, bool *good) {
    *good = true;
    for (const uint8_t *p = (const uint8_t *)text; *p && *good; p++) {
        unsigned code = *p;
        if (code >= 0xc0 && code < 0xe0) {
            p++;
            code = (code & 0x1fu) << 6 | (*p & 0x3fu);
        } else if (code >= 0x80) {
            *good = false;
            break;
        }
        *good = code < 512 && im->byte_of[code] >= 0;
        uint8_t byte = *good ? (uint8_t)im->byte_of[code] : 0;
        if (*good) CVQ_TRY(cvq_buffer_append(&im->bytes, &byte, 1, im->err));
    }
    return CVQ_OK;
}

static int compare_pieces(const void *a, const void *b) {
    return strcmp(((const piece *)a)->text, ((const piece *)b)->text);
}

/* The id of a text, or UINT32_MAX. */
static uint32_t find_piece(const importer *im, const char *text) {
    piece key = {text, 0};
    const piece *p = bsearch(&key, im->pieces, im->num_pieces, sizeof key, compare_pieces);
    return p ? p->id : UINT32_MAX;
}

static cvq_status check_id(const importer *im, const cJSON *value, uint32_t *id) {
    uint64_t v;
    if (!cvq_json_is_u64(value, &v)) return MALFORMED(im, "a token's id is not an integer");
    if (v >= im->vocab_size) {
        return MALFORMED(im, "a token has id %llu, config.json's vocab_size is %u",
                         (unsigned long long)v, im->vocab_size);
    }
    *id = (uint32_t)v;
    return CVQ_OK;
}

static cvq_status read_vocab(importer *im) {
    const cJSON *vocab = member(im->model, "vocab");
    if (!cJSON_IsObject(vocab)) return MALFORMED(im, "model.vocab must be an object");
    size_t n = (size_t)cJSON_GetArraySize(vocab);
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, n, sizeof *im->pieces, "pieces of the tokenizer", im->err));
    im->pieces = p;
    for (const cJSON *c = vocab->child; c; c = c->next) {
        uint32_t id = 0;
        CVQ_TRY(check_id(im, c, &id));
        if (im->texts[id]) return MALFORMED(im, "two pieces of model.vocab have id %u", id);
        if (!*c->string) return MALFORMED(im, "the piece with id %u is empty", id);
        im->texts[id] = c->string;
        im->pieces[im->num_pieces++] = (piece){c->string, id};
    }
    if (n > 1) qsort(im->pieces, n, sizeof *im->pieces, compare_pieces);
    return CVQ_OK;
}

static cvq_status read_added_token(importer *im, const cJSON *token) {
    uint32_t id = 0;
    const char *text = NULL;
    bool special = false;
    if (!cJSON_IsObject(token)) return MALFORMED(im, "an element of added_tokens is no object");
    CVQ_TRY(check_id(im, member(token, "id"), &id));
    CVQ_TRY(cvq_json_string(token, "content", true, &text, im->path, im->err));
    CVQ_TRY(cvq_json_bool(token, "special", true, &special, im->path, im->err));
    if (!special) {
        return UNSUPPORTED(im,
                           "the added token with id %u is not special, so it would match text, "
                           "which added tokens do not here",
                           id);
    }
    if (!*text) return MALFORMED(im, "the added token with id %u is empty", id);
    if (im->special[id]) return MALFORMED(im, "two added tokens have id %u", id);
    uint32_t same = find_piece(im, text);
    if (same != UINT32_MAX ? same != id : im->texts[id] != NULL) {
        return MALFORMED(im, "the added token with id %u has another id or text in model.vocab",
                         id);
    }
    im->texts[id] = text;
    im->special[id] = 1;
    return CVQ_OK;
}

static cvq_status read_added_tokens(importer *im) {
    const cJSON *list = member(im->root, "added_tokens");
    if (list && !cJSON_IsNull(list) && !cJSON_IsArray(list)) {
        return MALFORMED(im, "added_tokens must be an array");
    }
    for (const cJSON *c = list ? list->child : NULL; c; c = c->next) {
        CVQ_TRY(read_added_token(im, c));
    }
    return CVQ_OK;
}

/* All pieces as bytes, in order of id; an id without a text has none. */
static cvq_status lay_out(importer *im) {
    bool seen[256] = {false};
    void *p = NULL;
    for (uint32_t id = 0; id < im->vocab_size; id++) {
        if (im->texts[id]) im->num_tokens = id + 1;
    }
    CVQ_TRY(cvq_alloc(&p, (uint64_t)im->num_tokens + 1, sizeof(uint32_t), "tokenizer", im->err));
    im->offsets = p;
    for (uint32_t id = 0; id < im->num_tokens; id++) {
        const char *text = im->texts[id];
        size_t start = im->bytes.size;
        bool good = true;
        if (text && im->special[id]) {
            CVQ_TRY(cvq_buffer_append(&im->bytes, text, strlen(text), im->err));
        } else if (text) {
            CVQ_TRY(append_piece(im, text, &good));
        }
        if (!good) return MALFORMED(im, "the piece with id %u has a character that is no byte", id);
        if (!im->special[id] && im->bytes.size == start + 1) seen[im->bytes.data[start]] = true;
        im->offsets[id + 1] = (uint32_t)im->bytes.size; /* less than the file */
    }
    for (int b = 0; b < 256; b++) {
        if (!seen[b]) return MALFORMED(im, "model.vocab has no piece for the byte 0x%02x", b);
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- merges */

/* left and right of "a b" (in im->halves) or ["a", "b"]; false if the value is neither. */
static cvq_status split_merge(importer *im, const cJSON *merge, const char **left,
                              const char **right) {
    *left = *right = NULL;
    if (cJSON_IsString(merge)) {
        size_t size = strlen(merge->valuestring) + 1;
        im->halves.size = 0;
        CVQ_TRY(cvq_buffer_append(&im->halves, merge->valuestring, size, im->err));
        char *text = (char *)im->halves.data, *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) return CVQ_OK;
        *space = 0;
        *left = text;
        *right = space + 1;
    } else if (cJSON_IsArray(merge) && cJSON_GetArraySize(merge) == 2 &&
               cJSON_IsString(merge->child) && cJSON_IsString(merge->child->next)) {
        *left = merge->child->valuestring;
        *right = merge->child->next->valuestring;
    }
    return CVQ_OK;
}

static cvq_status read_merge(importer *im, const cJSON *merge, size_t rank) {
    const char *left, *right;
    CVQ_TRY(split_merge(im, merge, &left, &right));
    if (!left) return MALFORMED(im, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]", rank);
    uint32_t *ids = im->merges + 3 * rank;
    ids[0] = find_piece(im, left);
    ids[1] = find_piece(im, right);
    im->joint.size = 0;
    CVQ_TRY(cvq_buffer_append(&im->joint, left, strlen(left), im->err));
    CVQ_TRY(cvq_buffer_append(&im->joint, right, strlen(right) + 1, im->err));
    ids[2] = find_piece(im, (const char *)im->joint.data);
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"left", "right", "joint"};
        if (ids[i] == UINT32_MAX) {
            return MALFORMED(im, "the %s piece of merge %zu is not in model.vocab", names[i], rank);
        }
    }
    return CVQ_OK;
}

static cvq_status read_merges(importer *im) {
    const cJSON *list = member(im->model, "merges");
    if (!cJSON_IsArray(list)) return MALFORMED(im, "model.merges must be an array");
    size_t n = (size_t)cJSON_GetArraySize(list), rank = 0;
    if (n > CVQ_TOKENIZER_MAX_MERGES) return MALFORMED(im, "%zu merges are too many", n);
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, n, 3 * sizeof(uint32_t), "merges of the tokenizer", im->err));
    im->merges = p;
    im->num_merges = n;
    for (const cJSON *c = list->child; c; c = c->next) CVQ_TRY(read_merge(im, c, rank++));
    return CVQ_OK;
}

/* ---------------------------------------------------------------- the whole */

static cvq_status import_json(importer *im, cvq_buffer *table) {
    void *texts = NULL, *special = NULL;
    bool ignore_merges = false;
    CVQ_TRY(check_pipeline(im));
    im->model = member(im->root, "model");
    CVQ_TRY(check_model(im));
    CVQ_TRY(cvq_json_bool(im->model, "ignore_merges", false, &ignore_merges, im->path, im->err));
    CVQ_TRY(cvq_alloc(&texts, im->vocab_size, sizeof *im->texts, "tokenizer", im->err));
    im->texts = texts;
    CVQ_TRY(cvq_alloc(&special, im->vocab_size, 1, "tokenizer", im->err));
    im->special = special;
    cvq_tokenizer_stand_ins(im->byte_of);
    CVQ_TRY(read_vocab(im));
    CVQ_TRY(read_added_tokens(im));
    CVQ_TRY(lay_out(im));
    CVQ_TRY(read_merges(im));
    cvq_tokenizer_source source = {
        .num_tokens = im->num_tokens,
        .bytes = im->bytes.data,
        .offsets = im->offsets,
        .special = im->special,
        .num_merges = (uint32_t)im->num_merges,
        .merges = im->merges,
        .ignore_merges = ignore_merges,
    };
    cvq_error problem = {0};
    const cvq_status status = cvq_tokenizer_table_build(table, &source, &problem);
    return status == CVQ_OK ? CVQ_OK : cvq_fail(im->err, status, im->path, "%s", problem.message);
}

cvq_status cvq_tokenizer_import(cvq_buffer *table, const char *path, uint32_t vocab_size,
                                cvq_error *err) {
    cJSON *root = NULL;
    if (vocab_size == 0 || vocab_size > CVQ_TOKENIZER_MAX_TOKENS) {
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, path, "a vocabulary of %u tokens", vocab_size);
    }
    CVQ_TRY(cvq_json_read_file(&root, path, MAX_FILE, err));
    importer im = {.path = path, .err = err, .root = root, .vocab_size = vocab_size};
    cvq_status status = import_json(&im, table);
    free(im.pieces);
    free(im.texts);
    free(im.special);
    free(im.offsets);
    free(im.merges);
    cvq_buffer_free(&im.bytes);
    cvq_buffer_free(&im.halves);
    cvq_buffer_free(&im.joint);
    cJSON_Delete(root);
    return status;
}
