/* Any text, through a tokenizer of any merges: its tokens are the text again, at once and as a
 * stream in any pieces. The first eight bytes choose the tokenizer.
 * fuzz-max-len: 2048 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/json.h"
#include "runtime/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/random_tokenizer.h"

#define CHOICE_BYTES 8
#define MOST_TEXT 2048

/* To whole characters: all bytes at once, and `step` bytes by `step`. */
static void stream(const char *text, size_t length, size_t step) {
    static char whole[3 * (MOST_TEXT + 4)], parts[3 * (MOST_TEXT + 4)];
    cvq_utf8_stream a = {0}, b = {0};
    const size_t size = cvq_utf8_stream_feed(&a, (const uint8_t *)text, length, true, whole);
    size_t n = 0;
    for (size_t at = 0; at < length; at += step) {
        const size_t now = length - at < step ? length - at : step;
        n += cvq_utf8_stream_feed(&b, (const uint8_t *)text + at, now, false, parts + n);
    }
    n += cvq_utf8_stream_feed(&b, NULL, 0, true, parts + n);
    if (n != size || memcmp(whole, parts, n) != 0) __builtin_trap();
    const bool has_nul = memchr(text, 0, length) != NULL;
    if (!has_nul && !cvq_utf8_valid(whole, size)) __builtin_trap();
    if (!has_nul && cvq_utf8_valid(text, length) &&
        (size != length || memcmp(whole, text, size) != 0))
        __builtin_trap();
}

static void encode(const cvq_tokenizer *t, const cvq_tokenizer_table *table, const char *text,
                   size_t length) {
    static int32_t ids[MOST_TEXT], again[MOST_TEXT];
    static char back[MOST_TEXT];
    size_t n, needed, size;
    if (cvq_tokenizer_encode(t, text, length, ids, MOST_TEXT, &n, NULL) != CVQ_OK || n > length)
        __builtin_trap();
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= table->num_tokens ||
            cvq_tokenizer_is_special(table, (uint32_t)ids[i]))
            __builtin_trap();
    if (cvq_tokenizer_decode(t, ids, n, back, sizeof back, &size, NULL) != CVQ_OK ||
        size != length || memcmp(back, text, length) != 0)
        __builtin_trap();
    const cvq_status status = cvq_tokenizer_encode(t, text, length, again, n / 2, &needed, NULL);
    if (status != (n / 2 < n ? CVQ_TOO_SMALL : CVQ_OK) || needed != n ||
        memcmp(ids, again, n / 2 * sizeof *ids) != 0)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_buffer bytes = {0};
    cvq_tokenizer_table table;
    cvq_tokenizer *t = NULL;
    if (size < CHOICE_BYTES || size > MOST_TEXT) return 0;
    uint64_t state = cvq_load_le(data, CHOICE_BYTES) | 1;
    if (random_tokenizer(&bytes, &state, NULL) != CVQ_OK ||
        cvq_tokenizer_table_open(&table, bytes.data, bytes.size, "fuzz", NULL) != CVQ_OK ||
        cvq_tokenizer_open(&t, &table, NULL) != CVQ_OK)
        __builtin_trap();
    fuzz_accepted();
    const char *text = (const char *)data + CHOICE_BYTES;
    encode(t, &table, text, size - CHOICE_BYTES);
    stream(text, size - CHOICE_BYTES, 1 + data[0] % 7u);
    cvq_tokenizer_close(t);
    cvq_buffer_free(&bytes);
    return 0;
}
