/* Pieces come in order of length, so that what a merge joins has lower ids than what it makes. The
 * language has syllables of consonant, vowel and perhaps consonant, and words of up to two; which
 * letter stands where tells words apart, so no piece comes twice. */
#include "bench/synthetic_tokenizer.h"

#include <stdio.h>
#include <string.h>

#include "convert/tokenizer_import.h"

#define MAX_MERGES 280147u /* as many as Llama 3 has */
#define CONSONANTS 20u
#define VOWELS 5u
#define CLOSED (CONSONANTS * VOWELS * CONSONANTS) /* syllables that end with a consonant */
#define OPEN (CONSONANTS * VOWELS)                /* the others */
#define STRIDE 7919u /* prime to OPEN x CLOSED: words in an order that looks like none */

static const char consonants[] = "bcdfghjklmnpqrstvwxz", vowels[] = "aeiou";

typedef struct maker {
    cvq_synthetic_tokenizer *t;
    uint32_t count, ordinary; /* pieces so far; those wanted */
    cvq_error *err;
} maker;

static cvq_status end_piece(maker *m, bool special) {
    const uint8_t flag = special;
    const uint32_t end = (uint32_t)m->t->bytes.size;
    m->count++;
    CVQ_TRY(cvq_buffer_append(&m->t->offsets, &end, sizeof end, m->err));
    return cvq_buffer_append(&m->t->special, &flag, 1, m->err);
}

/* A piece, or nothing once there are enough. */
static cvq_status add(maker *m, const char *text, size_t length) {
    if (m->count >= m->ordinary) return CVQ_OK;
    CVQ_TRY(cvq_buffer_append(&m->t->bytes, text, length, m->err));
    return end_piece(m, false);
}

static char *put_open(char *to, uint32_t n) {
    *to++ = consonants[n / VOWELS];
    *to++ = vowels[n % VOWELS];
    return to;
}

static char *put_closed(char *to, uint32_t n) {
    to = put_open(to, n / CONSONANTS);
    *to++ = consonants[n % CONSONANTS];
    return to;
}

/* Word n of those of a length. */
static size_t word(size_t length, uint32_t n, char *text) {
    char *end = text;
    switch (length) {
    case 1:
        *end++ = consonants[n];
        break;
    case 2:
        end = put_open(text, n);
        break;
    case 3:
        end = put_closed(text, n);
        break;
    case 4:
        end = put_open(put_open(text, n / OPEN), n % OPEN);
        break;
    default:
        n = (uint32_t)((uint64_t)n * STRIDE % (OPEN * CLOSED));
        end = put_closed(put_open(text, n / CLOSED), n % CLOSED);
    }
    return (size_t)(end - text);
}

static cvq_status add_words(maker *m) {
    static const uint32_t counts[] = {0, CONSONANTS, OPEN, CLOSED, OPEN * OPEN, OPEN * CLOSED};
    for (size_t length = 1; length <= 5; length++) {
        for (uint32_t n = 0; n < counts[length] && m->count < m->ordinary; n++) {
            char text[8] = " ";
            size_t size = word(length, n, text + 1);
            if (length > 1) CVQ_TRY(add(m, text + 1, size));
            CVQ_TRY(add(m, text, size + 1));
        }
    }
    return CVQ_OK;
}

static cvq_status add_pieces(maker *m, uint32_t vocab_size) {
    const uint32_t start = 0;
    char text[64];
    CVQ_TRY(cvq_buffer_append(&m->t->offsets, &start, sizeof start, m->err));
    for (int b = 0; b < 256; b++) {
        text[0] = (char)(unsigned char)b;
        CVQ_TRY(add(m, text, 1));
    }
    for (int n = 0; n < 1100; n++) {
        int size = n < 100 ? snprintf(text, sizeof text, "%02d", n)
                           : snprintf(text, sizeof text, "%03d", n - 100);
        CVQ_TRY(add(m, text, (size_t)size));
    }
    CVQ_TRY(add_words(m));
    if (m->count < m->ordinary)
        return cvq_fail(m->err, CVQ_INVALID_ARGUMENT, "synthetic tokenizer",
                        "only %u words are known, %u are wanted", m->count, m->ordinary);
    while (m->count < vocab_size) {
        int size = snprintf(text, sizeof text, "<|special_%u|>", m->count - m->ordinary);
        CVQ_TRY(cvq_buffer_append(&m->t->bytes, text, (size_t)size, m->err));
        CVQ_TRY(end_piece(m, true));
    }
    return CVQ_OK;
}

static void set_source(cvq_synthetic_tokenizer *t, uint32_t count) {
    t->source = (cvq_tokenizer_source){.num_tokens = count,
                                       .bytes = t->bytes.data,
                                       .offsets = (const uint32_t *)(const void *)t->offsets.data,
                                       .special = t->special.data,
                                       .num_merges = (uint32_t)(t->merges.size / 12),
                                       .merges = (const uint32_t *)(const void *)t->merges.data,
                                       .ignore_merges = true};
}

/* The merges of a piece: its ways to be two others. The first alone where first_only, else all but
 * that. */
static cvq_status add_merges(maker *m, const cvq_tokenizer_table *pieces, uint32_t id,
                             bool first_only) {
    size_t length;
    const uint8_t *p = cvq_tokenizer_piece(pieces, id, &length);
    bool first = true;
    for (size_t left = length - 1; left > 0; left--) {
        uint32_t merge[3] = {0, 0, id};
        if (!cvq_tokenizer_find(pieces, p, left, &merge[0]) ||
            !cvq_tokenizer_find(pieces, p + left, length - left, &merge[1]))
            continue;
        if (first == first_only && m->t->merges.size / sizeof merge < MAX_MERGES)
            CVQ_TRY(cvq_buffer_append(&m->t->merges, merge, sizeof merge, m->err));
        first = false;
    }
    return CVQ_OK;
}

/* Looked up in a table of the pieces alone. */
static cvq_status add_all_merges(maker *m) {
    cvq_buffer table = {0};
    cvq_tokenizer_table pieces;
    set_source(m->t, m->count);
    cvq_status status = cvq_tokenizer_table_build(&table, &m->t->source, m->err);
    if (status == CVQ_OK)
        status = cvq_tokenizer_table_open(&pieces, table.data, table.size, "tokenizer", m->err);
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t id = 256; status == CVQ_OK && id < m->ordinary; id++)
            status = add_merges(m, &pieces, id, pass == 0);
    cvq_buffer_free(&table);
    return status;
}

cvq_status cvq_synthetic_tokenizer_open(cvq_synthetic_tokenizer *t, const cvq_model_config *config,
                                        cvq_error *err) {
    *t = (cvq_synthetic_tokenizer){0};
    maker m = {.t = t, .ordinary = config->bos_id, .err = err};
    cvq_status status = CVQ_OK;
    if (config->bos_id < 256)
        status = cvq_fail(err, CVQ_INVALID_ARGUMENT, "synthetic tokenizer",
                          "bos_id %u leaves no room for the 256 bytes", config->bos_id);
    if (status == CVQ_OK) status = add_pieces(&m, config->vocab_size);
    if (status == CVQ_OK) status = add_all_merges(&m);
    set_source(t, m.count);
    if (status != CVQ_OK) cvq_synthetic_tokenizer_close(t);
    return status;
}

/* ---------------------------------------------------------------- as JSON */

#define MAX_TEXT 64 /* of a piece in stand-ins */

/* A piece as tokenizer.json writes it: special ones as they are, others in GPT-2's stand-ins. */
static void print_piece(const cvq_tokenizer_source *s, const uint16_t stand_in[256], uint32_t id,
                        char text[MAX_TEXT]) {
    for (uint32_t at = s->offsets[id]; at < s->offsets[id + 1]; at++) {
        const unsigned code = s->special[id] ? s->bytes[at] : stand_in[s->bytes[at]];
        if (code >= 0x80) *text++ = (char)(0xc0 | code >> 6);
        *text++ = (char)(code >= 0x80 ? 0x80 | (code & 0x3f) : code);
    }
    *text = 0;
}

static void add_vocabulary(cJSON *root, cJSON *model, const cvq_tokenizer_source *s,
                           const uint16_t stand_in[256]) {
    char left[MAX_TEXT], right[MAX_TEXT], both[2 * MAX_TEXT];
    cJSON *added = cJSON_AddArrayToObject(root, "added_tokens");
    cJSON *vocab = cJSON_AddObjectToObject(model, "vocab");
    cJSON *merges = cJSON_AddArrayToObject(model, "merges");
    for (uint32_t id = 0; id < s->num_tokens; id++) {
        print_piece(s, stand_in, id, left);
        if (!s->special[id]) {
            cJSON_AddNumberToObject(vocab, left, id);
            continue;
        }
        cJSON *token = cJSON_CreateObject();
        cJSON_AddNumberToObject(token, "id", id);
        cJSON_AddStringToObject(token, "content", left);
        cJSON_AddBoolToObject(token, "special", true);
        cJSON_AddItemToArray(added, token);
    }
    for (uint32_t i = 0; i < s->num_merges; i++) {
        print_piece(s, stand_in, s->merges[3 * i], left);
        print_piece(s, stand_in, s->merges[3 * i + 1], right);
        snprintf(both, sizeof both, "%s %s", left, right);
        cJSON_AddItemToArray(merges, cJSON_CreateString(both));
    }
}

static cJSON *add_step(cJSON *steps, const char *type) {
    cJSON *step = cJSON_CreateObject();
    cJSON_AddStringToObject(step, "type", type);
    cJSON_AddItemToArray(steps, step);
    return step;
}

cJSON *cvq_synthetic_tokenizer_json(const cvq_synthetic_tokenizer *t) {
    int16_t byte_of[512];
    uint16_t stand_in[256];
    cvq_tokenizer_stand_ins(byte_of);
    for (uint16_t code = 0; code < 512; code++)
        if (byte_of[code] >= 0) stand_in[byte_of[code]] = code;
    cJSON *root = cJSON_CreateObject(), *pre = cJSON_AddObjectToObject(root, "pre_tokenizer");
    cJSON_AddStringToObject(pre, "type", "Sequence");
    cJSON *steps = cJSON_AddArrayToObject(pre, "pretokenizers");
    cJSON *split = add_step(steps, "Split"), *bytes = add_step(steps, "ByteLevel");
    cJSON_AddStringToObject(cJSON_AddObjectToObject(split, "pattern"), "Regex",
                            cvq_tokenizer_pattern);
    cJSON_AddStringToObject(split, "behavior", "Isolated");
    cJSON_AddBoolToObject(bytes, "add_prefix_space", false);
    cJSON_AddBoolToObject(bytes, "use_regex", false);
    cJSON_AddStringToObject(cJSON_AddObjectToObject(root, "decoder"), "type", "ByteLevel");
    cJSON *model = cJSON_AddObjectToObject(root, "model");
    cJSON_AddStringToObject(model, "type", "BPE");
    cJSON_AddBoolToObject(model, "ignore_merges", t->source.ignore_merges);
    add_vocabulary(root, model, &t->source, stand_in);
    return root;
}

void cvq_synthetic_tokenizer_close(cvq_synthetic_tokenizer *t) {
    if (!t) return;
    cvq_buffer_free(&t->bytes);
    cvq_buffer_free(&t->offsets);
    cvq_buffer_free(&t->special);
    cvq_buffer_free(&t->merges);
    *t = (cvq_synthetic_tokenizer){0};
}
