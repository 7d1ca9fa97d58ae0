/* A .cvq file whose head is made to fit: the input is its beginning, up to the reserve; size and
 * hash are mended, the weights are zeros. What is accepted is used: metadata, manifest, tokenizer,
 * and opening it as a model. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cvq.h"
#include "formats/cvq_head_internal.h"
#include "formats/manifest.h"
#include "formats/metadata.h"
#include "tests/fuzz/fuzz.h"

#define MOST_HEAD (1u << 20)
#define MOST_FILE (64u << 20)

static void use_reader(const cvq_reader *r) {
    cvq_buffer json = {0}, text = {0};
    cvq_metadata m = {0};
    cvq_manifest manifest;
    if (cvq_reader_metadata(r, &json, NULL) == CVQ_OK &&
        cvq_metadata_parse(&m, (const char *)json.data, json.size, "fuzz", NULL) == CVQ_OK) {
        cvq_metadata_free(&m);
        /* What was accepted has a manifest, and that is accepted too. */
        if (cvq_manifest_print(r, NULL, &text, NULL) != CVQ_OK) __builtin_trap();
        if (cvq_manifest_parse(&manifest, (const char *)text.data, text.size, "fuzz", NULL) !=
            CVQ_OK)
            __builtin_trap();
        cvq_manifest_free(&manifest);
    }
    cvq_buffer_free(&text);
    cvq_buffer_free(&json);
}

static void use_model(const char *path) {
    cvq_model *model = NULL;
    int32_t ids[64];
    char bytes[256];
    size_t n = 0, length = 0;
    if (cvq_model_open(&model, path, NULL, NULL) != CVQ_OK) return;
    if (cvq_tokenize(model, "a picture of 3 abc", 18, ids, 64, &n, NULL) == CVQ_OK && n <= 64)
        (void)cvq_detokenize(model, ids, n, bytes, sizeof bytes, &length, NULL);
    cvq_model_close(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < CVQ_HEADER_BYTES) return 0;
    const uint64_t file_size = cvq_load_le(data + 16, 8), head_size = cvq_load_le(data + 24, 8);
    if (head_size > MOST_HEAD || file_size > MOST_FILE || head_size < CVQ_HEADER_BYTES) return 0;
    uint8_t *head = calloc(1, (size_t)head_size);
    if (!head) return 0;
    memcpy(head, data, size < head_size ? size : (size_t)head_size);
    memset(head + CVQ_HASH_OFFSET, 0, CVQ_HASH_BYTES);
    uint8_t hash[CVQ_HASH_BYTES];
    if (cvq_head_hash(head, head_size, hash, NULL) == CVQ_OK)
        memcpy(head + CVQ_HASH_OFFSET, hash, sizeof hash);
    const char *path = fuzz_file(head, (size_t)head_size, file_size);
    cvq_reader *r = NULL;
    if (cvq_reader_open(&r, path, NULL) == CVQ_OK) {
        fuzz_accepted();
        use_reader(r);
        use_model(path);
    }
    cvq_reader_close(r);
    free(head);
    return 0;
}
