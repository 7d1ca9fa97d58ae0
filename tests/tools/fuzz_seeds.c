/* The fuzz corpora's seeds that are binary: what a program of today writes, small.
 *
 *   fuzz_seeds FOLDER     FOLDER/cvq, cvq_mended, tokenizer_table, cache_entry, packed, ... get a
 * file each
 *
 * Run it again when one of these formats changes. tests/fuzz/make_seeds.py makes the others. */
#define CVQ_UNSTABLE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/logits_file.h"
#include "cvq.h"
#include "formats/cvq_reader.h"
#include "formats/manifest.h"
#include "formats/packed_file.h"
#include "tests/unit/fake_tokenizer.h"
#include "tests/unit/small_file.h"

static const char *folder;
static char model_path[512];

static void fail(const cvq_error *err) {
    fprintf(stderr, "fuzz_seeds: %s: %s\n", err->where, err->message);
    exit(1);
}

static void write_seed(const char *target, const char *name, const void *data, size_t size) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

/* The head up to its reserve: the fuzz target fills in zeros. */
static void head_seeds(const cvq_reader *r) {
    cvq_error err = {0};
    const uint8_t *data = cvq_reader_map(r)->data, *table;
    size_t table_size, end = (size_t)cvq_reader_tensor(r, 0)->offset;
    cvq_buffer manifest = {0}, json = {0};
    while (end > 0 && data[end - 1] == 0) end--;
    write_seed("cvq", "small", data, end);
    write_seed("cvq_mended", "small", data, end);
    cvq_reader_tokenizer_bytes(r, &table, &table_size);
    write_seed("tokenizer_table", "small", table, table_size);
    if (cvq_manifest_print(r, NULL, &manifest, &err) != CVQ_OK) fail(&err);
    write_seed("manifest", "small", manifest.data, manifest.size);
    if (cvq_reader_metadata(r, &json, &err) != CVQ_OK) fail(&err);
    write_seed("metadata", "small", json.data, json.size);
    cvq_buffer_free(&manifest);
    cvq_buffer_free(&json);
}

static cvq_status append(void *context, const void *data, size_t size, cvq_error *err) {
    return cvq_buffer_append(context, data, size, err);
}

/* A piece of two planes, one that is stored, and one of zeros. */
static void packed_seed(void) {
    cvq_error err = {0};
    cvq_buffer out = {0};
    uint64_t state = 1;
    char path[] = "/tmp/cvq-seed-XXXXXX";
    static uint8_t bytes[3 << 20];
    int fd = mkstemp(path);
    for (size_t i = 0; i < 1 << 20; i += 2)
        cvq_store_le(bytes + i, 0x3c00u | (small_random(&state) & 0x81ffu), 2);
    for (size_t i = 1 << 20; i < (1 << 20) + 999; i++) bytes[i] = (uint8_t)small_random(&state);
    if (fd < 0) exit(1);
    /* Small, so that mutations reach the headers: the last 60,000 bytes of each kind. */
    const size_t size = 60999, at = (1 << 20) - 30000;
    if (cvq_write_all(fd, 0, bytes + at, size, path, &err) != CVQ_OK) fail(&err);
    const uint8_t id[CVQ_ID_BYTES] = {0};
    if (cvq_file_pack(fd, size, id, 1, append, &out, NULL, NULL, path, &err) != CVQ_OK) fail(&err);
    write_seed("packed", "small", out.data, out.size);
    cvq_buffer_free(&out);
    close(fd);
    unlink(path);
}

static int append_bytes(void *context, const void *data, size_t size) {
    return cvq_buffer_append(context, data, size, NULL) != CVQ_OK;
}

static void cache_seed(void) {
    cvq_error err = {0};
    cvq_model *model = NULL;
    cvq_session *session = NULL;
    cvq_image *image = NULL;
    cvq_prompt *prompt = NULL;
    cvq_buffer out = {0};
    uint8_t rgb[8 * 8 * 3];
    const int32_t ids[] = {70, 71};
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * 7);
    if (cvq_model_open(&model, model_path, NULL, &err) != CVQ_OK ||
        cvq_session_open(&session, model, NULL, &err) != CVQ_OK ||
        cvq_image_create(&image, model, rgb, 8, 8, 24, &err) != CVQ_OK ||
        cvq_prompt_from_ids(&prompt, model, ids, 2, image, &err) != CVQ_OK ||
        cvq_session_sync(session, prompt, &err) != CVQ_OK ||
        cvq_image_save(image, append_bytes, &out, &err) != CVQ_OK)
        fail(&err);
    write_seed("cache_entry", "small", out.data, out.size);
    cvq_buffer_free(&out);
    cvq_prompt_free(prompt);
    cvq_image_free(image);
    cvq_session_close(session);
    cvq_model_close(model);
}

static void tokenizer_seed(void) {
    cvq_error err = {0};
    cvq_buffer json = {0};
    cJSON *tokenizer = make_tokenizer();
    if (cvq_json_print(&json, tokenizer, &err) != CVQ_OK) fail(&err);
    write_seed("tokenizer_json", "small", json.data, json.size);
    cvq_buffer_free(&json);
    cJSON_Delete(tokenizer);
}

/* Two rows, of the vocabulary and context that the fuzz target asks for; hashed anew there. */
static void logits_seed(void) {
    cvq_error err = {0};
    cvq_logits_writer w;
    cvq_buffer bytes = {0};
    const cvq_logits_head head = {.vocab = 300, .context = 32, .rows = 2};
    float logits[300];
    char path[] = "/tmp/cvq-seed-XXXXXX";
    int fd = mkstemp(path);
    for (int i = 0; i < 300; i++) logits[i] = (float)(i % 17);
    if (fd < 0 || cvq_logits_writer_open(&w, fd, path, &head, &err) != CVQ_OK) fail(&err);
    for (uint32_t row = 0; row < 2; row++) {
        cvq_prediction p;
        if (cvq_predict(&p, logits, 300, 3 + row, &err) != CVQ_OK ||
            cvq_logits_writer_add(&w, logits, &p, &err) != CVQ_OK)
            fail(&err);
    }
    if (cvq_logits_writer_finish(&w, &err) != CVQ_OK ||
        cvq_read_file(&bytes, path, 1 << 20, &err) != CVQ_OK)
        fail(&err);
    write_seed("logits", "small", bytes.data, bytes.size);
    cvq_buffer_free(&bytes);
    cvq_logits_writer_free(&w);
    close(fd);
    unlink(path);
}

int main(int argc, char **argv) {
    cvq_error err = {0};
    cvq_reader *r = NULL;
    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 2;
    }
    folder = argv[1];
    snprintf(model_path, sizeof model_path, "%s/small.cvq", folder);
    int fd = open(model_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || small_write(fd, SMALL_METADATA, 0, NULL, &err) != CVQ_OK ||
        cvq_reader_open(&r, model_path, &err) != CVQ_OK)
        fail(&err);
    head_seeds(r);
    packed_seed();
    cache_seed();
    tokenizer_seed();
    logits_seed();
    cvq_reader_close(r);
    close(fd);
    unlink(model_path);
    return 0;
}
