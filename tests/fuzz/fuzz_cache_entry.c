/* An entry of the pictures' cache, made to be this model's and its hashes to fit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "cvq.h"
#include "formats/chunk_hash.h"
#include "runtime/image_prefix.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/small_file.h"

static cvq_model *model;
static uint8_t model_id[CVQ_ID_BYTES];

static void open_model(void) {
    char path[] = "/tmp/cvq-fuzz-model-XXXXXX";
    const cvq_model_config config = small_quick_config();
    cvq_error err = {0};
    int fd = mkstemp(path);
    if (fd < 0 || small_write_config(&config, 0, fd, SMALL_METADATA, 0, model_id, &err) != CVQ_OK ||
        cvq_model_open(&model, path, NULL, &err) != CVQ_OK) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        abort();
    }
    unlink(path);
    close(fd);
}

/* Where things stand in an entry: docs/cache.md. */
enum {
    AT_ARITHMETIC = 12,
    AT_LEVEL = 16,
    AT_MODEL = 32,
    AT_PIXELS = 64,
    AT_KV = 128,
    AT_FILE_BYTES = 144,
    HEAD_BYTES = 160,
    MOST_BYTES = 1 << 20
};

/* Whose entry it is, the pixels' hash and that of all. */
static void mend(uint8_t *bytes, size_t size) {
    const cvq_model_info *info = cvq_model_describe(model);
    const size_t pixels = 3 * (size_t)info->image_size * info->image_size;
    if (size < HEAD_BYTES + pixels + CVQ_HASH_BYTES) return;
    cvq_store_le(bytes + AT_ARITHMETIC, CVQ_ARITHMETIC_VERSION, 4);
    memset(bytes + AT_LEVEL, 0, 16);
    memcpy(bytes + AT_LEVEL, cvq_cpu_selected(), strlen(cvq_cpu_selected()));
    memcpy(bytes + AT_MODEL, model_id, sizeof model_id);
    (void)cvq_sha256(bytes + HEAD_BYTES, pixels, bytes + AT_PIXELS, NULL);
    (void)cvq_sha256(bytes, size - CVQ_HASH_BYTES, bytes + size - CVQ_HASH_BYTES, NULL);
}

/* What was accepted is asked about, in a session that takes up all of it and in another. */
static void ask(cvq_image *image, cvq_precision precision, cvq_kv_type kv) {
    const cvq_session_options options = {.precision = precision, .kv = kv, .threads = 1};
    const int32_t ids[] = {70, 71};
    cvq_session *session = NULL;
    cvq_prompt *prompt = NULL;
    if (cvq_session_open(&session, model, &options, NULL) != CVQ_OK ||
        cvq_prompt_from_ids(&prompt, model, ids, 2, image, NULL) != CVQ_OK ||
        cvq_session_sync(session, prompt, NULL) != CVQ_OK)
        __builtin_trap();
    cvq_prompt_free(prompt);
    cvq_session_close(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_image *image = NULL;
    if (!model) open_model();
    /* What is missing of the bytes that it says it has is zero. */
    const uint64_t stated = size < HEAD_BYTES ? 0 : cvq_load_le(data + AT_FILE_BYTES, 8);
    const size_t total = stated > size && stated <= MOST_BYTES ? (size_t)stated : size;
    uint8_t *mended = calloc(1, total + 1);
    if (!mended) return 0;
    memcpy(mended, data, size);
    mend(mended, total);
    cvq_cursor in = cvq_cursor_make(mended, total);
    if (cvq_image_load(&image, model, fuzz_take, &in, NULL) == CVQ_OK) {
        fuzz_accepted();
        const cvq_kv_type kv = (cvq_kv_type)(data[AT_KV] & 3);
        ask(image, CVQ_PRECISION_EXACT, kv);
        ask(image, CVQ_PRECISION_FAST, kv);
        cvq_image_free(image);
    }
    free(mended);
    return 0;
}
