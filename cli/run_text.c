/* Text to ids and ids to text, by the model's own tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "cli/messages.h"
#include "cli/run.h"

#define MAX_STDIN (1u << 30)

static cvq_status read_stdin(cvq_buffer *out, cvq_error *err) {
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0) {
        CVQ_TRY(cvq_buffer_append(out, block, n, err));
        if (out->size > MAX_STDIN)
            return cvq_fail(err, CVQ_UNSUPPORTED, "standard input", "is longer than 1 GiB");
    }
    if (ferror(stdin)) return cvq_fail_errno(err, "standard input", "cannot read");
    return CVQ_OK;
}

/* The option's value, or stdin for "-". */
static cvq_status read_value(cvq_buffer *out, const char *value, cvq_error *err) {
    if (strcmp(value, "-") == 0) return read_stdin(out, err);
    return cvq_buffer_append(out, value, strlen(value), err);
}

static cvq_status print_ids(const cvq_model *model, const cvq_buffer *text, cvq_error *err) {
    int32_t *ids = NULL;
    size_t n = 0, cap = text->size + 1; /* never more tokens than bytes */
    CVQ_TRY(cvq_alloc((void **)&ids, cap, sizeof *ids, "the ids", err));
    cvq_status status =
        cvq_tokenize(model, (const char *)text->data, text->size, ids, cap, &n, err);
    for (size_t i = 0; status == CVQ_OK && i < n; i++) printf("%s%d", i ? " " : "", ids[i]);
    if (status == CVQ_OK) putchar('\n');
    free(ids);
    return status;
}

int cvq_run_tokenize(const cvq_run *run) {
    const cvq_command *command = run->args->common.command;
    cvq_buffer text = {0};
    cvq_error err = {0};
    cvq_status status = read_value(&text, run->args->tokenize, &err);
    if (status == CVQ_OK) status = print_ids(run->model, &text, &err);
    cvq_buffer_free(&text);
    return status == CVQ_OK ? CVQ_EXIT_DONE : cvq_say_error(command, &err);
}

/* Whole numbers below the vocabulary's size with white space between them. */
static cvq_status parse_ids(const cvq_buffer *text, uint32_t vocab_size, cvq_buffer *ids,
                            cvq_error *err) {
    size_t at = 0;
    while (at < text->size) {
        const char *c = (const char *)text->data + at;
        if (strchr(" \t\r\n", *c)) {
            at++;
            continue;
        }
        uint64_t value = 0;
        size_t digits = 0;
        for (; at + digits < text->size && c[digits] >= '0' && c[digits] <= '9'; digits++)
            if (value < vocab_size) value = value * 10 + (uint64_t)(c[digits] - '0');
        at += digits;
        if (digits == 0 || (at < text->size && !strchr(" \t\r\n", text->data[at])))
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, "--detokenize",
                            "byte %zu is no whole number; give ids with spaces between them", at);
        if (value >= vocab_size)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, "--detokenize",
                            "id %.*s: the model's ids end at %u", (int)(digits < 20 ? digits : 20),
                            c, vocab_size - 1);
        int32_t id = (int32_t)value;
        CVQ_TRY(cvq_buffer_append(ids, &id, sizeof id, err));
    }
    return CVQ_OK;
}

static cvq_status print_bytes(const cvq_model *model, const cvq_buffer *ids, cvq_error *err) {
    size_t n = ids->size / sizeof(int32_t), length = 0;
    const int32_t *values = (const int32_t *)(const void *)ids->data;
    char *bytes = NULL;
    if (n == 0) return CVQ_OK;
    cvq_status status = cvq_detokenize(model, values, n, NULL, 0, &length, NULL);
    if (status == CVQ_TOO_SMALL) {
        CVQ_TRY(cvq_alloc((void **)&bytes, length, 1, "the text", err));
        status = cvq_detokenize(model, values, n, bytes, length, &length, err);
        if (status == CVQ_OK) fwrite(bytes, 1, length, stdout);
    } else if (status != CVQ_OK) {
        status = cvq_detokenize(model, values, n, NULL, 0, &length, err);
    }
    free(bytes);
    return status;
}

int cvq_run_detokenize(const cvq_run *run) {
    const cvq_command *command = run->args->common.command;
    uint32_t vocab_size = cvq_model_describe(run->model)->vocab_size;
    cvq_buffer text = {0}, ids = {0};
    cvq_error err = {0};
    cvq_status status = read_value(&text, run->args->detokenize, &err);
    if (status == CVQ_OK) status = parse_ids(&text, vocab_size, &ids, &err);
    bool wrong_usage = status == CVQ_INVALID_ARGUMENT;
    if (status == CVQ_OK) status = print_bytes(run->model, &ids, &err);
    cvq_buffer_free(&text);
    cvq_buffer_free(&ids);
    if (wrong_usage) return cvq_say_usage(command, "%s: %s", err.where, err.message);
    return status == CVQ_OK ? CVQ_EXIT_DONE : cvq_say_error(command, &err);
}
