/* The tokenizer's table: look-ups, and every kind of damage refused with its own message.
 * cvq-test: formats */
#include "formats/tokenizer_table.h"

#include "base/checked.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"

/* Places in the small table, see docs/format.md: 259 tokens, 258 sorted, 2 merges, 264 bytes.
 * Pieces 0 .. 97 are the bytes up to "a", 98 is "ab" (id 256), 99 "abc" (257), 100 "b" (id 98),
 * ..., 257 is 0xff, 258 "<s>". */
enum {
    AT_OFFSETS = 32,
    AT_IDS = AT_OFFSETS + 4 * 260,
    AT_NUMBERS = AT_IDS + 4 * 259,
    AT_FIRST = AT_NUMBERS + 4 * 259,
    AT_MERGES = AT_FIRST + 4 * 259,
    AT_BYTES = AT_MERGES + 12 * 2,
    TABLE_SIZE = AT_BYTES + 264
};

static void look_ups(void) {
    cvq_buffer b = {0};
    cvq_tokenizer_table t;
    cvq_error err = {0};
    CHECK_SAY(small_tokenizer(&b, &err) == CVQ_OK, "%s", err.message);
    CHECK(b.size == TABLE_SIZE);
    CHECK(cvq_tokenizer_table_open(&t, b.data, b.size, "x", &err) == CVQ_OK);
    CHECK(t.num_tokens == 259 && t.num_merges == 2 && t.ignore_merges);
    size_t n;
    uint32_t id = 0, rank = 9;
    for (uint32_t i = 0; i < 256; i++) {
        const uint8_t byte = (uint8_t)i;
        CHECK(t.byte_ids[i] == i && cvq_tokenizer_find(&t, &byte, 1, &id) && id == i);
        CHECK(cvq_tokenizer_piece(&t, i, &n)[0] == i && n == 1);
    }
    CHECK(cvq_tokenizer_find(&t, (const uint8_t *)"abc", 3, &id) && id == 257);
    CHECK(memcmp(cvq_tokenizer_piece(&t, 257, &n), "abc", 3) == 0 && n == 3);
    CHECK(memcmp(cvq_tokenizer_piece(&t, 258, &n), "<s>", 3) == 0 && n == 3);
    cvq_tokenizer_piece(&t, 259, &n);
    CHECK(n == 0);
    cvq_tokenizer_piece(&t, UINT32_MAX, &n);
    CHECK(n == 0);
    CHECK(!cvq_tokenizer_find(&t, (const uint8_t *)"<s>", 3, &id));
    CHECK(!cvq_tokenizer_find(&t, (const uint8_t *)"abcd", 4, &id));
    CHECK(!cvq_tokenizer_find(&t, (const uint8_t *)"aa", 2, &id));
    CHECK(!cvq_tokenizer_find(&t, (const uint8_t *)"\xff\xff", 2, &id));
    CHECK(!cvq_tokenizer_find(&t, (const uint8_t *)"", 0, &id));
    CHECK(cvq_tokenizer_is_special(&t, 258) && !cvq_tokenizer_is_special(&t, 257));
    CHECK(!cvq_tokenizer_is_special(&t, 259));
    CHECK(cvq_tokenizer_merge(&t, 'a', 'b', &rank, &id) && rank == 0 && id == 256);
    CHECK(cvq_tokenizer_merge(&t, 256, 'c', &rank, &id) && rank == 1 && id == 257);
    CHECK(!cvq_tokenizer_merge(&t, 'b', 'a', &rank, &id));
    CHECK(!cvq_tokenizer_merge(&t, 'a', 'c', &rank, &id));
    CHECK(!cvq_tokenizer_merge(&t, 256, 'b', &rank, &id));
    CHECK(!cvq_tokenizer_merge(&t, UINT32_MAX, 'b', &rank, &id));
    cvq_buffer_free(&b);
}

typedef struct damage {
    const char *name;
    size_t at;
    uint32_t value; /* 4 bytes, or 1 where at >= AT_BYTES */
    cvq_status status;
    const char *message; /* part of it */
} damage;

static const damage damages[] = {
    {"magic", 0, 0, CVQ_FORMAT, "no magic"},
    {"version", 4, 2, CVQ_UNSUPPORTED, "version 2"},
    {"no tokens", 8, 0, CVQ_FORMAT, "0 tokens"},
    {"too many tokens", 8, 0xffffffff, CVQ_FORMAT, "4294967295 tokens"},
    {"sorted above tokens", 12, 260, CVQ_FORMAT, "260 sorted pieces of 259"},
    {"sorted below", 12, 257, CVQ_FORMAT, "its counts need"},
    {"too many merges", 16, 0xffffffff, CVQ_FORMAT, "4294967295 merges"},
    {"one merge more", 16, 3, CVQ_FORMAT, "its counts need"},
    {"too many bytes", 20, 0xffffffff, CVQ_FORMAT, "its counts need"},
    {"unknown flag", 24, 3, CVQ_UNSUPPORTED, "flags 0x3"},
    {"reserved", 28, 1, CVQ_FORMAT, "reserved"},
    {"first offset", AT_OFFSETS, 1, CVQ_FORMAT, "piece 0 does not start"},
    {"offset falls", AT_OFFSETS + 4 * 7, 5, CVQ_FORMAT, "piece 6 ends at byte 5, outside 6 .."},
    {"offset outside", AT_OFFSETS + 4 * 7, 265, CVQ_FORMAT, "piece 6 ends at byte 265"},
    {"last offset", AT_OFFSETS + 4 * 259, 263, CVQ_FORMAT, "pieces end at byte 263 of 264"},
    {"empty piece", AT_OFFSETS + 4 * 7, 6, CVQ_FORMAT, "piece 6 is empty"},
    {"id out of range", AT_IDS + 4 * 3, 259, CVQ_FORMAT, "token 3 has piece 3"},
    {"id twice", AT_IDS + 4 * 3, 2, CVQ_FORMAT, "token 3 has piece 3"},
    {"number out of range", AT_NUMBERS + 4 * 3, 259, CVQ_FORMAT, "token 3 has piece 259"},
    {"number twice", AT_NUMBERS + 4 * 3, 2, CVQ_FORMAT, "token 3 has piece 2"},
    {"same bytes", AT_BYTES + 7, 8, CVQ_FORMAT, "piece 8 (token 8) is not above"},
    {"out of order", AT_BYTES + 7, 9, CVQ_FORMAT, "piece 8 (token 8) is not above"},
    {"first merge", AT_FIRST, 1, CVQ_FORMAT, "the merges of piece 0 do not start"},
    {"merges moved", AT_FIRST + 4 * 98, 0, CVQ_FORMAT, "merge 0 gives piece 98"},
    {"merges outside", AT_FIRST + 4 * 98, 3, CVQ_FORMAT, "the merges of piece 97 end at 3"},
    {"merges fall", AT_FIRST + 4 * 120, 1, CVQ_FORMAT, "the merges of piece 119 end at 1"},
    {"merges missing", AT_FIRST + 4 * 258, 1, CVQ_FORMAT, "1 merges belong to pieces, of 2"},
    {"right out of range", AT_MERGES, 0xffffffff, CVQ_FORMAT, "merge 0 names a piece"},
    {"right special", AT_MERGES, 258, CVQ_FORMAT, "merge 0 names a piece"},
    {"right wrong", AT_MERGES, 101, CVQ_FORMAT, "merge 0 gives piece 98"},
    {"rank taken", AT_MERGES + 4, 1, CVQ_FORMAT, "merge 1 has rank 1"},
    {"rank out of range", AT_MERGES + 4, 2, CVQ_FORMAT, "merge 0 has rank 2"},
    {"rank huge", AT_MERGES + 4, 0xffffffff, CVQ_FORMAT, "merge 0 has rank 4294967295"},
    {"merged out of range", AT_MERGES + 8, 0xffffffff, CVQ_FORMAT, "merge 0 names a piece"},
    {"merged special", AT_MERGES + 8, 258, CVQ_FORMAT, "merge 0 names a piece"},
    {"merged wrong", AT_MERGES + 8, 99, CVQ_FORMAT, "merge 0 gives piece 99"},
    {"merged other bytes", AT_BYTES + 99, 'c', CVQ_FORMAT, "piece 99 (token 257) is not above"},
};

static void damage_is_refused(void) {
    cvq_buffer b = {0};
    CHECK(small_tokenizer(&b, NULL) == CVQ_OK && b.size == TABLE_SIZE);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const damage *d = &damages[i];
        uint8_t copy[TABLE_SIZE];
        cvq_tokenizer_table t;
        cvq_error err = {0};
        memcpy(copy, b.data, sizeof copy);
        cvq_store_le(copy + d->at, d->value, d->at >= AT_BYTES ? 1 : 4);
        const cvq_status s = cvq_tokenizer_table_open(&t, copy, sizeof copy, "FILE", &err);
        CHECK_SAY(s == d->status && strstr(err.message, d->message) &&
                      strcmp(err.where, "FILE") == 0,
                  "%s: status %d, \"%s\"", d->name, s, err.message);
    }
    cvq_buffer_free(&b);
}

/* Each length, in memory of exactly that size, so that a sanitizer sees a read too far. */
static void truncation_is_refused(void) {
    cvq_buffer b = {0};
    CHECK(small_tokenizer(&b, NULL) == CVQ_OK);
    for (size_t n = 0; n < b.size; n += n < 40 ? 1 : 61) {
        uint8_t *copy = malloc(n ? n : 1);
        cvq_tokenizer_table t;
        if (!copy) abort();
        memcpy(copy, b.data, n);
        CHECK(cvq_tokenizer_table_open(&t, copy, n, "FILE", NULL) == CVQ_FORMAT);
        free(copy);
    }
    cvq_buffer_free(&b);
}

/* Whatever the bytes, opening ends, and what it accepts can be used. */
static void random_damage_is_survived(void) {
    cvq_buffer b = {0};
    uint64_t state = 7;
    CHECK(small_tokenizer(&b, NULL) == CVQ_OK);
    uint8_t *copy = malloc(b.size);
    if (!copy) abort();
    for (int round = 0; round < 3000; round++) {
        cvq_tokenizer_table t;
        memcpy(copy, b.data, b.size);
        for (uint32_t n = small_random(&state) % 3 + 1; n > 0; n--)
            copy[small_random(&state) % b.size] ^= (uint8_t)(1u << small_random(&state) % 8);
        if (cvq_tokenizer_table_open(&t, copy, b.size, "FILE", NULL) != CVQ_OK) continue;
        for (uint32_t id = 0; id < t.num_tokens; id++) {
            size_t n;
            uint32_t found, rank;
            const uint8_t *p = cvq_tokenizer_piece(&t, id, &n);
            if (n && !cvq_tokenizer_is_special(&t, id))
                CHECK(cvq_tokenizer_find(&t, p, n, &found) && found == id);
            cvq_tokenizer_merge(&t, id, 'b', &rank, &found);
        }
    }
    free(copy);
    cvq_buffer_free(&b);
}

static void bad_sources_are_refused(void) {
    uint8_t bytes[258], special[258] = {0};
    uint32_t offsets[259];
    uint32_t merges[3] = {'a', 'b', 257};
    for (uint32_t i = 0; i < 256; i++) {
        bytes[i] = (uint8_t)i;
        offsets[i] = i;
    }
    bytes[256] = 'a';
    bytes[257] = 'b';
    offsets[256] = 256;
    offsets[257] = 256; /* 256 has no piece */
    offsets[258] = 258;
    cvq_tokenizer_source s = {.num_tokens = 258,
                              .bytes = bytes,
                              .offsets = offsets,
                              .special = special,
                              .num_merges = 1,
                              .merges = merges};
    cvq_buffer b = {0};
    CHECK(cvq_tokenizer_table_build(&b, &s, NULL) == CVQ_OK);
    cvq_tokenizer_table t;
    size_t n;
    CHECK(cvq_tokenizer_table_open(&t, b.data, b.size, "x", NULL) == CVQ_OK && !t.ignore_merges);
    cvq_tokenizer_piece(&t, 256, &n);
    CHECK(n == 0 && !cvq_tokenizer_is_special(&t, 256));
    cvq_buffer_free(&b);

    cvq_error err = {0};
    merges[0] = 258;
    CHECK(cvq_tokenizer_table_build(&b, &s, &err) == CVQ_INVALID_ARGUMENT);
    merges[0] = 'b';
    err = (cvq_error){0};
    CHECK(cvq_tokenizer_table_build(&b, &s, &err) == CVQ_FORMAT && strstr(err.message, "merge 0"));
    merges[0] = 'a';
    bytes[7] = 8; /* two tokens with the same bytes, none with byte 7 */
    err = (cvq_error){0};
    CHECK(cvq_tokenizer_table_build(&b, &s, &err) == CVQ_FORMAT);
    bytes[7] = 7;
    special[7] = 1;
    err = (cvq_error){0};
    CHECK(cvq_tokenizer_table_build(&b, &s, &err) == CVQ_FORMAT &&
          strstr(err.message, "single byte 0x07"));
    special[7] = 0;
    special[256] = 1; /* empty */
    CHECK(cvq_tokenizer_table_build(&b, &s, NULL) == CVQ_INVALID_ARGUMENT);
    special[256] = 0;
    offsets[3] = 1;
    CHECK(cvq_tokenizer_table_build(&b, &s, NULL) == CVQ_INVALID_ARGUMENT);
    s.num_tokens = 0;
    CHECK(cvq_tokenizer_table_build(&b, &s, NULL) == CVQ_INVALID_ARGUMENT);
    s.num_tokens = CVQ_TOKENIZER_MAX_TOKENS + 1;
    CHECK(cvq_tokenizer_table_build(&b, &s, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(b.size == 0);
}

int main(void) {
    RUN(look_ups);
    RUN(damage_is_refused);
    RUN(truncation_is_refused);
    RUN(random_damage_is_survived);
    RUN(bad_sources_are_refused);
    return REPORT();
}
