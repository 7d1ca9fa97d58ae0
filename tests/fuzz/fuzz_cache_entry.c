/* An entry of the pictures' cache, with the hash at its end made to fit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cvq.h"
#include "formats/chunk_hash.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/small_file.h"

static cvq_model *model;

static void open_model(void) {
    char path[] = "/tmp/cvq-fuzz-model-XXXXXX";
    cvq_error err = {0};
    int fd = mkstemp(path);
    if (fd < 0 || small_write(fd, SMALL_METADATA, 0, NULL, &err) != CVQ_OK ||
        cvq_model_open(&model, path, NULL, &err) != CVQ_OK) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        abort();
    }
    unlink(path);
    close(fd);
}

typedef struct input {
    const uint8_t *data;
    size_t left;
} input;

static size_t take(void *context, void *data, size_t size) {
    input *in = context;
    const size_t n = size < in->left ? size : in->left;
    memcpy(data, in->data, n);
    in->data += n;
    in->left -= n;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_image *image = NULL;
    if (!model) open_model();
    uint8_t *mended = malloc(size + 1);
    if (!mended) return 0;
    memcpy(mended, data, size);
    if (size > CVQ_HASH_BYTES)
        (void)cvq_sha256(mended, size - CVQ_HASH_BYTES, mended + size - CVQ_HASH_BYTES, NULL);
    input in = {mended, size};
    if (cvq_image_load(&image, model, take, &in, NULL) == CVQ_OK) cvq_image_free(image);
    free(mended);
    return 0;
}
