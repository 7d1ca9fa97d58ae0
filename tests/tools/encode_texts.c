/* Encodes texts with the tokenizer of a tokenizer.json, to compare it with other implementations:
 *
 *   encode_texts TOKENIZER.json < texts.hex > ids.txt
 *   encode_texts --time TOKENIZER.json FILE
 *
 * In: one text a line, its bytes in hexadecimal. Out: a JSON array of ids a line; each is also
 * decoded again and must give its text. --time measures opening, and encoding the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file_map.h"
#include "convert/tokenizer_import.h"
#include "runtime/tokenizer.h"

#define MAX_FILE ((size_t)1 << 26)

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int hex_digit(int c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

/* The bytes of a line, in place; false where it is not hexadecimal. */
static bool read_hex(char *line, size_t *length) {
    size_t digits = strcspn(line, "\n");
    if (digits % 2) return false;
    for (size_t i = 0; i < digits; i += 2) {
        int high = hex_digit(line[i]), low = hex_digit(line[i + 1]);
        if (high < 0 || low < 0) return false;
        line[i / 2] = (char)(high * 16 + low);
    }
    *length = digits / 2;
    return true;
}

/* ids and back have room for length values each: no token is empty. */
static cvq_status encode_and_back(const cvq_tokenizer *t, const char *text, size_t length,
                                  int32_t *ids, char *back, size_t *n, cvq_error *err) {
    size_t size = 0;
    CVQ_TRY(cvq_tokenizer_encode(t, text, length, ids, length, n, err));
    CVQ_TRY(cvq_tokenizer_decode(t, ids, *n, back, length, &size, err));
    if (size != length || memcmp(back, text, length) != 0)
        return cvq_fail(err, CVQ_INTERNAL, "decode", "does not give the text back");
    return CVQ_OK;
}

static cvq_status encode_lines(const cvq_tokenizer *t, cvq_error *err) {
    char *line = NULL;
    size_t room = 0;
    cvq_status status = CVQ_OK;
    while (status == CVQ_OK && getline(&line, &room, stdin) >= 0) {
        size_t length = 0, n = 0;
        void *ids = NULL, *back = NULL;
        if (!read_hex(line, &length)) {
            status = cvq_fail(err, CVQ_FORMAT, "stdin", "a line is not hexadecimal");
            break;
        }
        status = cvq_alloc(&ids, length, sizeof(int32_t), "ids", err);
        if (status == CVQ_OK) status = cvq_alloc(&back, length, 1, "the text", err);
        if (status == CVQ_OK) status = encode_and_back(t, line, length, ids, back, &n, err);
        if (status == CVQ_OK) {
            for (size_t i = 0; i < n; i++) printf("%s%d", i ? "," : "[", ((int32_t *)ids)[i]);
            printf("%s]\n", n ? "" : "[");
        }
        free(ids);
        free(back);
    }
    free(line);
    return status;
}

static cvq_status time_file(const cvq_tokenizer *t, const char *path, cvq_error *err) {
    cvq_buffer text = {0};
    void *ids = NULL, *back = NULL;
    size_t n = 0;
    cvq_status status = cvq_read_file(&text, path, MAX_FILE, err);
    if (status == CVQ_OK) status = cvq_alloc(&ids, text.size, sizeof(int32_t), "ids", err);
    if (status == CVQ_OK) status = cvq_alloc(&back, text.size, 1, "the text", err);
    if (status == CVQ_OK)
        status = encode_and_back(t, (const char *)text.data, text.size, ids, back, &n, err);
    double best = 1e9;
    for (int run = 0; run < 5 && status == CVQ_OK; run++) {
        double start = seconds();
        status =
            cvq_tokenizer_encode(t, (const char *)text.data, text.size, ids, text.size, &n, err);
        if (seconds() - start < best) best = seconds() - start;
    }
    if (status == CVQ_OK)
        printf("encode %zu bytes to %zu ids: %.1f ms, %.1f MB/s\n", text.size, n, 1e3 * best,
               1e-6 * (double)text.size / best);
    free(ids);
    free(back);
    cvq_buffer_free(&text);
    return status;
}

static cvq_status run(bool timed, const char *tokenizer_path, const char *text_path,
                      cvq_error *err) {
    cvq_buffer bytes = {0};
    cvq_tokenizer_table table;
    cvq_tokenizer *t = NULL;
    cvq_status status = cvq_tokenizer_import(&bytes, tokenizer_path, CVQ_TOKENIZER_MAX_TOKENS, err);
    double opened = 1e9;
    for (int i = 0; i < (timed ? 10 : 1) && status == CVQ_OK; i++) {
        cvq_tokenizer_close(t);
        t = NULL;
        double start = seconds();
        status = cvq_tokenizer_table_open(&table, bytes.data, bytes.size, tokenizer_path, err);
        if (status == CVQ_OK) status = cvq_tokenizer_open(&t, &table, err);
        if (seconds() - start < opened) opened = seconds() - start;
    }
    if (status == CVQ_OK && timed) {
        printf("open %u tokens, %u merges: %.2f ms\n", table.num_tokens, table.num_merges,
               1e3 * opened);
        status = time_file(t, text_path, err);
    } else if (status == CVQ_OK) {
        status = encode_lines(t, err);
    }
    cvq_tokenizer_close(t);
    cvq_buffer_free(&bytes);
    return status;
}

int main(int argc, char **argv) {
    cvq_error err = {0};
    bool timed = argc == 4 && strcmp(argv[1], "--time") == 0;
    if (!timed && argc != 2) {
        fprintf(stderr, "usage: encode_texts [--time] TOKENIZER.json [FILE]\n");
        return 2;
    }
    if (run(timed, argv[timed ? 2 : 1], timed ? argv[3] : NULL, &err) != CVQ_OK) {
        fprintf(stderr, "encode_texts: %s: %s\n", err.where, err.message);
        return 1;
    }
    return 0;
}
