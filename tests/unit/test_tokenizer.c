/* The tokenizer: where text is cut, how pieces are merged, what is not UTF-8, the way back, and the
 * stored ids of tests/tokenizer/strings.json (for the real Llama-3 tokenizer only where
 * CVQ_LLAMA3_TOKENIZER names its tokenizer.json).
 * cvq-test: threads */
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/memory.h"
#include "convert/tokenizer_import.h"
#include "formats/json.h"
#include "runtime/tokenizer.h"
#include "tests/unit/harness.h"

/* ---------------------------------------------------------------- made-up tables */

#define MAX_TOKENS 600
#define MAX_MERGES 300

typedef struct made {
    cvq_buffer pieces, table;
    uint32_t offsets[MAX_TOKENS + 1];
    uint8_t special[MAX_TOKENS];
    uint32_t num_tokens, num_merges, merges[3 * MAX_MERGES];
    cvq_tokenizer_table view;
    cvq_tokenizer *tokenizer;
} made;

static uint32_t made_add(made *m, const void *bytes, size_t length, bool special) {
    (void)cvq_buffer_append(&m->pieces, bytes, length, NULL);
    m->special[m->num_tokens++] = special;
    m->offsets[m->num_tokens] = (uint32_t)m->pieces.size;
    return m->num_tokens - 1;
}

/* Ids 0 to 255 are the bytes; id of byte b is 255 - b, so that an id is never mistaken for it. */
static uint32_t byte_id(uint8_t byte) {
    return 255u - byte;
}

static void made_begin(made *m) {
    memset(m, 0, sizeof *m);
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)(255 - i);
        made_add(m, &byte, 1, false);
    }
}

static uint32_t made_merge(made *m, uint32_t left, uint32_t right) {
    uint8_t bytes[64];
    size_t a = m->offsets[left + 1] - m->offsets[left];
    size_t b = m->offsets[right + 1] - m->offsets[right];
    memcpy(bytes, m->pieces.data + m->offsets[left], a);
    memcpy(bytes + a, m->pieces.data + m->offsets[right], b);
    uint32_t merged = made_add(m, bytes, a + b, false);
    uint32_t *merge = m->merges + 3 * m->num_merges++;
    merge[0] = left;
    merge[1] = right;
    merge[2] = merged;
    return merged;
}

static void made_end(made *m, bool ignore_merges) {
    cvq_error err = {0};
    cvq_tokenizer_source source = {m->num_tokens, m->pieces.data, m->offsets,   m->special,
                                   m->num_merges, m->merges,      ignore_merges};
    CHECK_SAY(cvq_tokenizer_table_build(&m->table, &source, &err) == CVQ_OK, "%s", err.message);
    CHECK_SAY(cvq_tokenizer_table_open(&m->view, m->table.data, m->table.size, "made", &err) ==
                  CVQ_OK,
              "%s", err.message);
    CHECK_SAY(cvq_tokenizer_open(&m->tokenizer, &m->view, &err) == CVQ_OK, "%s", err.message);
}

static void made_free(made *m) {
    cvq_tokenizer_close(m->tokenizer);
    cvq_buffer_free(&m->table);
    cvq_buffer_free(&m->pieces);
}

/* The ids of a text; the caller frees. */
static int32_t *encode(const cvq_tokenizer *t, const void *text, size_t length, size_t *n) {
    cvq_error err = {0};
    int32_t *ids = calloc(length + 1, sizeof *ids);
    cvq_status status =
        ids ? cvq_tokenizer_encode(t, text, length, ids, length, n, &err) : CVQ_OUT_OF_MEMORY;
    CHECK_SAY(status == CVQ_OK, "%s: %s", err.where, err.message);
    if (status != CVQ_OK) *n = 0;
    return ids;
}

static bool gives_back(const cvq_tokenizer *t, const void *text, size_t length) {
    size_t n = 0, size = 0;
    int32_t *ids = encode(t, text, length, &n);
    char *back = malloc(length + 1);
    bool same = ids && back &&
                cvq_tokenizer_decode(t, ids, n, back, length, &size, NULL) == CVQ_OK &&
                size == length && memcmp(back, text, length) == 0;
    free(ids);
    free(back);
    return same;
}

static uint64_t random_state = 1;
static uint32_t random_below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

/* ---------------------------------------------------------------- where text is cut */

/* Whether the pre-tokens of their concatenation are these (the list ends with NULL): with each of
 * them in the vocabulary and ignore_merges, each is one token, and any other cut shows. */
static void cuts(const char *first, ...) {
    made m;
    made_begin(&m);
    char text[512] = "";
    uint32_t expected[32];
    size_t num_expected = 0;
    va_list list;
    va_start(list, first);
    for (const char *piece = first; piece; piece = va_arg(list, const char *)) {
        size_t length = strlen(piece);
        uint32_t id = UINT32_MAX;
        for (uint32_t i = 0; i < m.num_tokens; i++)
            if (m.offsets[i + 1] - m.offsets[i] == length &&
                memcmp(m.pieces.data + m.offsets[i], piece, length) == 0)
                id = i;
        if (id == UINT32_MAX) id = made_add(&m, piece, length, false);
        expected[num_expected++] = id;
        strcat(text, piece);
    }
    va_end(list);
    made_end(&m, true);
    size_t n = 0;
    int32_t *ids = encode(m.tokenizer, text, strlen(text), &n);
    bool same = n == num_expected;
    for (size_t i = 0; same && i < n; i++) same = (uint32_t)ids[i] == expected[i];
    CHECK_SAY(same, "'%s' is cut into %zu tokens, %zu expected", text, n, num_expected);
    free(ids);
    made_free(&m);
}

static void test_cuts(void) {
    cuts("Hello", ",", " world", "!", NULL);
    cuts("hello", " ", " world", NULL);
    cuts("x", " ", "123", "456", "7", NULL);
    cuts("  \n\n", "x", NULL);
    cuts("a", " \n", "  ", " b", NULL);
    cuts("a", "   ", NULL);
    cuts(" !=\r\n\n", "\t", "x", NULL);
    cuts("\tx", "(y", ")", " (", "z", NULL);
    cuts("\xe4\xbd\xa0\xe5\xa5\xbd", "\xef\xbc\x8c\xe4\xb8\x96\xe7\x95\x8c", NULL); /* , takes */
    cuts("e", "\xcc\x81", NULL);                        /* a combining mark is no letter */
    cuts("\xd9\xa1\xd9\xa2\xd9\xa3", "\xd9\xa4", NULL); /* Arabic digits are numbers */
    cuts("<|", "eot", "_id", "|>", NULL);
}

static void test_contractions(void) {
    cuts("it", "'s", NULL);
    cuts("IT", "'S", NULL);
    cuts("we", "'Re", "done", NULL);
    cuts("he", "'lL", "x", NULL);
    cuts("i", "'Ve", "'m", "'T", "'d", "'D", "'M", NULL);
    cuts("'x", NULL);
    cuts("'s", "he", NULL);
    /* U+017F (long s) is an s where case does not count, as in Hugging Face's tokenizers. */
    cuts("'\xc5\xbf", "tuvw", NULL);
    /* U+FB06 (the ligature st) is none, nor is U+212A (the Kelvin sign) any of these letters. */
    cuts("'\xef\xac\x86x", NULL);
}

/* Every character of White_Space, and some that only look like it. */
static void test_white_space(void) {
    static const char *const spaces[] = {
        "\t",           "\v",           "\f",           "\xc2\x85",     "\xc2\xa0",
        "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83",
        "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88",
        "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf",
        "\xe2\x81\x9f", "\xe3\x80\x80"};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        char before[16];
        snprintf(before, sizeof before, " %s", spaces[i]);
        cuts("x", before, " y", NULL); /* \s+(?!\S) */
        snprintf(before, sizeof before, "%s\n", spaces[i]);
        cuts("x", before, "1", NULL); /* \s*[\r\n]+ */
    }
    /* U+180E, U+200B, U+FEFF, U+001C: taken by [^\s\p{L}\p{N}]+, and so not by \s. */
    static const char *const others[] = {"\xe1\xa0\x8e", "\xe2\x80\x8b", "\xef\xbb\xbf", "\x1c"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char with[16];
        snprintf(with, sizeof with, " %s!", others[i]);
        cuts("x", with, "1", NULL);
    }
}

/* ---------------------------------------------------------------- merging */

/* The definition itself: again and again the pair of lowest rank, the leftmost of equals. */
static size_t merge_plainly(const made *m, const uint8_t *text, size_t length, uint32_t *ids) {
    size_t n = length;
    for (size_t i = 0; i < n; i++) ids[i] = byte_id(text[i]);
    for (;;) {
        uint32_t best = UINT32_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (uint32_t r = 0; r < m->num_merges && r < best; r++)
                if (m->merges[3 * r] == ids[i] && m->merges[3 * r + 1] == ids[i + 1]) {
                    best = r;
                    at = i;
                }
        if (best == UINT32_MAX) return n;
        ids[at] = m->merges[3 * best + 2];
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

/* Random merges over three letters, for pieces around and far above the length at which the way of
 * merging changes. */
static void test_merging(void) {
    random_state = 7;
    for (int round = 0; round < 12; round++) {
        made m;
        made_begin(&m);
        uint32_t letters[40] = {byte_id('a'), byte_id('b'), byte_id('c')};
        uint32_t num_letters = 3;
        for (int tries = 0; tries < 60 && num_letters < 30; tries++) {
            uint32_t left = letters[random_below(num_letters)];
            uint32_t right = letters[random_below(num_letters)];
            size_t length =
                m.offsets[left + 1] - m.offsets[left] + m.offsets[right + 1] - m.offsets[right];
            bool known = length > 12;
            uint8_t bytes[64];
            if (!known) { /* pieces are distinct, so a merge must give a new one */
                size_t a = m.offsets[left + 1] - m.offsets[left];
                memcpy(bytes, m.pieces.data + m.offsets[left], a);
                memcpy(bytes + a, m.pieces.data + m.offsets[right], length - a);
                for (uint32_t i = 0; i < m.num_tokens; i++)
                    known |= m.offsets[i + 1] - m.offsets[i] == length &&
                             memcmp(m.pieces.data + m.offsets[i], bytes, length) == 0;
            }
            if (!known) letters[num_letters++] = made_merge(&m, left, right);
        }
        made_end(&m, round % 2 == 0);
        static const size_t lengths[] = {1, 2, 3, 5, 11, 46, 47, 48, 49, 50, 97, 300};
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            uint8_t text[300];
            uint32_t expected[300];
            for (size_t k = 0; k < lengths[i]; k++) text[k] = (uint8_t)('a' + random_below(3));
            size_t wanted = merge_plainly(&m, text, lengths[i], expected), n = 0;
            int32_t *ids = encode(m.tokenizer, text, lengths[i], &n);
            /* What is in the vocabulary whole is one token, however it would have merged. */
            uint32_t whole;
            if (round % 2 == 0 && cvq_tokenizer_find(&m.view, text, lengths[i], &whole)) {
                expected[0] = whole;
                wanted = 1;
            }
            bool same = n == wanted;
            for (size_t k = 0; same && k < n; k++) same = (uint32_t)ids[k] == expected[k];
            CHECK_SAY(same, "round %d, %.*s", round, (int)lengths[i], (const char *)text);
            free(ids);
        }
        made_free(&m);
    }
}

static void test_ignore_merges(void) {
    for (int ignore = 0; ignore < 2; ignore++) {
        made m;
        made_begin(&m);
        uint32_t whole = made_add(&m, "xyz", 3, false); /* no merge leads to it */
        made_end(&m, ignore != 0);
        size_t n = 0;
        int32_t *ids = encode(m.tokenizer, "xyz", 3, &n);
        CHECK(n == (ignore ? 1 : 3));
        CHECK((uint32_t)ids[0] == (ignore ? whole : byte_id('x')));
        free(ids);
        made_free(&m);
    }
}

/* Long pieces of each kind: linear in time, and inside the pattern's limits. A quadratic way would
 * take minutes. */
static void test_long_runs(void) {
    enum { LENGTH = 200000 };
    made m;
    made_begin(&m);
    uint32_t two = made_merge(&m, byte_id('a'), byte_id('a'));
    uint32_t four = made_merge(&m, two, two);
    made_end(&m, true);
    char *text = malloc(LENGTH + 1);
    CHECK(text != NULL);
    if (!text) return;
    memset(text, 'a', LENGTH + 1);
    size_t n = 0;
    int32_t *ids = encode(m.tokenizer, text, LENGTH + 1, &n);
    CHECK_SAY(n == LENGTH / 4 + 1, "%zu tokens", n);
    CHECK((uint32_t)ids[0] == four && (uint32_t)ids[n - 1] == byte_id('a'));
    free(ids);
    static const char fills[] = " \n\t.1\r";
    for (size_t i = 0; i < sizeof fills - 1; i++) {
        memset(text, fills[i], LENGTH);
        text[LENGTH] = 'x';
        CHECK_SAY(gives_back(m.tokenizer, text, LENGTH + 1), "a run of byte %d", fills[i]);
        for (size_t k = 0; k < LENGTH; k++) text[k] = k % 2 ? fills[i] : ' ';
        CHECK_SAY(gives_back(m.tokenizer, text, LENGTH + 1), "spaces and byte %d", fills[i]);
    }
    free(text);
    made_free(&m);
}

/* ---------------------------------------------------------------- not UTF-8, and back */

/* Lead bytes without their rest, overlong forms, surrogates, above U+10FFFF, lone continuations:
 * every byte is its own token, and what stands between them is text. */
static void test_not_utf8(void) {
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc3",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xe4\xb8",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf0\x9f\x98",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xfe",
                                      "\xff"};
    made m;
    made_begin(&m);
    uint32_t word = made_add(&m, "ab", 2, false), spaces = made_add(&m, "  ", 2, false);
    made_end(&m, true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[32];
        size_t length = strlen(bad[i]), n = 0;
        /* The two spaces stand at the end of their run, so nothing follows them there. */
        snprintf(text, sizeof text, "ab  %sab", bad[i]);
        int32_t *ids = encode(m.tokenizer, text, length + 6, &n);
        bool same = n == length + 3 && (uint32_t)ids[0] == word && (uint32_t)ids[1] == spaces &&
                    (uint32_t)ids[n - 1] == word;
        for (size_t k = 0; same && k < length; k++)
            same = (uint32_t)ids[2 + k] == byte_id((uint8_t)bad[i][k]);
        CHECK_SAY(same, "case %zu: %zu tokens", i, n);
        free(ids);
    }
    made_free(&m);
}

static void test_any_bytes(void) {
    made m;
    made_begin(&m);
    made_merge(&m, byte_id(0xe4), byte_id(0xb8));
    made_merge(&m, made_merge(&m, byte_id('a'), byte_id('b')), byte_id(' '));
    made_end(&m, true);
    static const uint8_t some[] = {'a',  'b',  ' ',  '\n', '\'', 's',  0,    0xe4, 0xb8, 0xad,
                                   0xf0, 0x9f, 0x98, 0x80, 0xc2, 0x85, 0xff, '1',  0xed, 0xa0};
    random_state = 3;
    for (int i = 0; i < 3000; i++) {
        uint8_t text[64];
        size_t length = random_below(sizeof text + 1);
        for (size_t k = 0; k < length; k++)
            text[k] = i % 2 ? (uint8_t)random_below(256) : some[random_below(sizeof some)];
        CHECK_SAY(gives_back(m.tokenizer, text, length), "text %d", i);
    }
    made_free(&m);
}

static void test_decode(void) {
    made m;
    made_begin(&m);
    uint32_t special = made_add(&m, "<|eot_id|>", 10, true), none = made_add(&m, "", 0, false);
    uint32_t word = made_add(&m, "word", 4, false);
    made_end(&m, true);
    int32_t ids[] = {(int32_t)word, (int32_t)special, (int32_t)none, (int32_t)byte_id(0), -1,
                     INT32_MIN,     100000,           INT32_MAX,     (int32_t)word};
    char text[16] = "unchanged";
    size_t length = 0;
    CHECK(cvq_tokenizer_decode(m.tokenizer, ids, 9, text, 9, &length, NULL) == CVQ_OK);
    CHECK(length == 9 && memcmp(text, "word\0word", 9) == 0);
    length = 0;
    CHECK(cvq_tokenizer_decode(m.tokenizer, ids, 9, text, 8, &length, NULL) == CVQ_TOO_SMALL);
    CHECK(length == 9);
    CHECK(cvq_tokenizer_decode(m.tokenizer, NULL, 0, NULL, 0, &length, NULL) == CVQ_OK);
    CHECK(length == 0);
    /* A special written out is text. */
    size_t n = 0;
    int32_t *plain = encode(m.tokenizer, "<|eot_id|>", 10, &n);
    CHECK(n == 10);
    free(plain);
    made_free(&m);
}

static void test_too_small(void) {
    made m;
    made_begin(&m);
    made_end(&m, true);
    int32_t ids[4] = {-7, -7, -7, -7};
    size_t n = 0;
    cvq_error err = {0};
    CHECK(cvq_tokenizer_encode(m.tokenizer, "abcd", 4, ids, 2, &n, &err) == CVQ_TOO_SMALL);
    CHECK(n == 4 && ids[2] == -7 && ids[3] == -7 && err.code == CVQ_TOO_SMALL);
    CHECK(cvq_tokenizer_encode(m.tokenizer, "abcd", 4, NULL, 0, &n, NULL) == CVQ_TOO_SMALL);
    CHECK(n == 4);
    CHECK(cvq_tokenizer_encode(m.tokenizer, "abcd", 4, ids, 4, &n, NULL) == CVQ_OK);
    CHECK(cvq_tokenizer_encode(m.tokenizer, "", 0, NULL, 0, &n, NULL) == CVQ_OK);
    CHECK(n == 0);
    CHECK(cvq_tokenizer_encode(m.tokenizer, "", SIZE_MAX, NULL, 0, &n, NULL) ==
          CVQ_INVALID_ARGUMENT);
    cvq_tokenizer_close(NULL);
    made_free(&m);
}

/* ---------------------------------------------------------------- streaming */

/* All at once, in single bytes, or in two parts cut anywhere: the same characters come out. */
static void streams_as(const char *bytes, size_t length, const char *expected) {
    for (size_t cut = 0; cut <= length + 1; cut++) {
        cvq_utf8_stream s = {0};
        char out[256];
        const uint8_t *in = (const uint8_t *)bytes;
        size_t n = 0;
        if (cut == length + 1) {
            for (size_t i = 0; i < length; i++)
                n += cvq_utf8_stream_feed(&s, in + i, 1, false, out + n);
        } else {
            n += cvq_utf8_stream_feed(&s, in, cut, false, out + n);
            n += cvq_utf8_stream_feed(&s, in + cut, length - cut, false, out + n);
        }
        n += cvq_utf8_stream_feed(&s, NULL, 0, true, out + n);
        CHECK_SAY(n == strlen(expected) && memcmp(out, expected, n) == 0,
                  "cut at %zu of %zu: '%.*s' for '%s'", cut, length, (int)n, out, expected);
        CHECK(s.num_pending == 0);
    }
}

#define FFFD "\xef\xbf\xbd"
static void test_stream(void) {
    streams_as("", 0, "");
    streams_as("abc", 3, "abc");
    streams_as("\xe4\xbd\xa0 \xf0\x9f\x98\x80\xc3\xa9", 10,
               "\xe4\xbd\xa0 \xf0\x9f\x98\x80\xc3\xa9");
    /* One U+FFFD for each longest start of a character: Unicode's practice, as in Python. */
    streams_as("a\x80z", 3, "a" FFFD "z");
    streams_as("\xe4\xbd", 2, FFFD);
    streams_as("\xe4\xbd|", 3, FFFD "|");
    streams_as("\xf0\x9f\x98\xe4\xbd\xa0", 6, FFFD "\xe4\xbd\xa0");
    streams_as("\xc0\x80", 2, FFFD FFFD);
    streams_as("\xed\xa0\x80", 3, FFFD FFFD FFFD);
    streams_as("\xf4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD);
    streams_as("\xf0\xf0\xf0\x9f", 4, FFFD FFFD FFFD);
    /* Nothing comes out before it is whole. */
    cvq_utf8_stream s = {0};
    char out[32];
    CHECK(cvq_utf8_stream_feed(&s, (const uint8_t *)"\xf0\x9f\x98", 3, false, out) == 0);
    CHECK(s.num_pending == 3);
    CHECK(cvq_utf8_stream_feed(&s, (const uint8_t *)"\x80", 1, false, out) == 4);
}

/* ---------------------------------------------------------------- several threads */

typedef struct worker {
    const cvq_tokenizer *tokenizer;
    bool right;
} worker;

static void *work(void *argument) {
    worker *w = argument;
    static const char text[] = "it's 12345 words,\n  in \xe4\xb8\xad\xe6\x96\x87 \xff and more";
    int32_t ids[128];
    w->right = true;
    size_t expected = 0;
    for (int i = 0; i < 300; i++) {
        size_t n = 0;
        if (cvq_tokenizer_encode(w->tokenizer, text, sizeof text - 1, ids, 128, &n, NULL) != CVQ_OK)
            w->right = false;
        if (i == 0) expected = n;
        if (n != expected) w->right = false;
    }
    return NULL;
}

static void test_threads(void) {
    made m;
    made_begin(&m);
    made_end(&m, true);
    pthread_t threads[4];
    worker workers[4];
    int started = 0;
    while (started < 4) {
        workers[started] = (worker){m.tokenizer, false};
        if (pthread_create(&threads[started], NULL, work, &workers[started]) != 0) break;
        started++;
    }
    CHECK(started == 4);
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        CHECK(workers[i].right);
    }
    made_free(&m);
}

/* ---------------------------------------------------------------- stored ids */

/* {"text": "..."} or {"hex": "00"}. */
static size_t text_of(const cJSON *entry, char *text, size_t room) {
    const cJSON *plain = cJSON_GetObjectItemCaseSensitive(entry, "text");
    const cJSON *hex = cJSON_GetObjectItemCaseSensitive(entry, "hex");
    size_t length = 0;
    if (cJSON_IsString(plain)) {
        length = strlen(plain->valuestring);
        if (length > room) return SIZE_MAX;
        memcpy(text, plain->valuestring, length);
        return length;
    }
    if (!cJSON_IsString(hex)) return SIZE_MAX;
    const char *digits = hex->valuestring;
    for (unsigned byte; length < room && sscanf(digits + 2 * length, "%2x", &byte) == 1;)
        text[length++] = (char)byte;
    return 2 * length == strlen(digits) ? length : SIZE_MAX;
}

static void check_entry(const cvq_tokenizer *t, const cJSON *entry, const char *name, int index) {
    char text[2048];
    size_t length = text_of(entry, text, sizeof text), n = 0;
    const cJSON *stored = cJSON_GetObjectItemCaseSensitive(entry, name);
    CHECK_SAY(length != SIZE_MAX && cJSON_IsArray(stored), "entry %d of strings.json", index);
    if (length == SIZE_MAX || !cJSON_IsArray(stored)) return;
    int32_t *ids = encode(t, text, length, &n);
    bool same = n == (size_t)cJSON_GetArraySize(stored);
    size_t i = 0;
    for (const cJSON *id = stored->child; same && id; id = id->next, i++)
        same = id->valueint == ids[i];
    CHECK_SAY(same, "entry %d: '%.*s' has other ids", index, (int)length, text);
    CHECK_SAY(gives_back(t, text, length), "entry %d: '%.*s' does not come back", index,
              (int)length, text);
    free(ids);
}

static void check_stored(const char *tokenizer_path, const char *name) {
    cvq_error err = {0};
    cvq_buffer bytes = {0};
    cvq_tokenizer_table table;
    cvq_tokenizer *t = NULL;
    cJSON *entries = NULL;
    cvq_status status =
        cvq_tokenizer_import(&bytes, tokenizer_path, CVQ_TOKENIZER_MAX_TOKENS, &err);
    if (status == CVQ_OK)
        status = cvq_tokenizer_table_open(&table, bytes.data, bytes.size, tokenizer_path, &err);
    if (status == CVQ_OK) status = cvq_tokenizer_open(&t, &table, &err);
    if (status == CVQ_OK)
        status = cvq_json_read_file(&entries, "tests/tokenizer/strings.json", 1 << 22, &err);
    CHECK_SAY(status == CVQ_OK, "%s: %s", err.where, err.message);
    if (status == CVQ_OK) {
        int index = 0;
        CHECK_SAY(cJSON_GetArraySize(entries) >= 300, "only %d texts", cJSON_GetArraySize(entries));
        for (const cJSON *entry = entries->child; entry && harness_broken < 10; entry = entry->next)
            check_entry(t, entry, name, index++);
    }
    cJSON_Delete(entries);
    cvq_tokenizer_close(t);
    cvq_buffer_free(&bytes);
}

static void test_stored_small(void) {
    check_stored("models/cogvlm2-tiny/tokenizer.json", "small");
}

static void test_stored_llama3(void) {
    check_stored(getenv("CVQ_LLAMA3_TOKENIZER"), "llama3");
}

int main(void) {
    RUN(test_cuts);
    RUN(test_contractions);
    RUN(test_white_space);
    RUN(test_merging);
    RUN(test_ignore_merges);
    RUN(test_long_runs);
    RUN(test_not_utf8);
    RUN(test_any_bytes);
    RUN(test_decode);
    RUN(test_too_small);
    RUN(test_stream);
    RUN(test_threads);
    RUN(test_stored_small);
    if (getenv("CVQ_LLAMA3_TOKENIZER"))
        RUN(test_stored_llama3);
    else
        SKIP("test_stored_llama3", "CVQ_LLAMA3_TOKENIZER names no tokenizer.json");
    return REPORT();
}
