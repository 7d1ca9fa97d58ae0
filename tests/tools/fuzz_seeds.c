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
#include "bench/second_moments.h"
#include "convert/journal.h"
#include "cvq.h"
#include "formats/cvq_reader.h"
#include "formats/manifest.h"
#include "formats/packed_file.h"
#include "quant/sensitivity.h"
#include "quant/type_errors.h"
#include "tests/unit/fake_tokenizer.h"
#include "tests/unit/small_file.h"

/* Everything that metadata can hold. */
#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define FULL_METADATA                                                                              \
    "{\"format\":\"cvq\",\"recipe\":{\"name\":\"q4\",\"types\":{\"lm_head.*\":\"q6\",\"*mlp*\":"   \
    "\"q4h\"},\"importance\":\"" HASH "\",\"second_moments\":\"" HASH "\"},\"source\":{"           \
    "\"revision\":\"ab\",\"files\":[{\"name\":\"a.safetensors\",\"size\":1234,\"sha256\":\"" HASH  \
    "\"},{\"name\":\"config.json\",\"size\":9007199254740991,\"sha256\":\"" HASH "\"}]},"          \
    "\"generation\":{\"temperature\":0.6,\"top_p\":0.9},\"licenses\":[{\"name\":\"LICENSE\","      \
    "\"text\":\"as is\"},{\"name\":\"b\",\"text\":\"\"}],\"card\":\"# A card\\n\"}"

static const char *folder;
static char model_path[512], scratch_path[512];

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

/* Opens model_path anew, with a small file in it. */
static cvq_reader *open_small(const cvq_model_config *config, const char *metadata) {
    cvq_error err = {0};
    cvq_reader *r = NULL;
    int fd = open(model_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || small_write_config(config, 0, fd, metadata, 0, NULL, &err) != CVQ_OK ||
        cvq_reader_open(&r, model_path, &err) != CVQ_OK)
        fail(&err);
    close(fd);
    return r;
}

/* An empty file beside the seeds, for what is written before it is one; keep_seed or unlink. */
static int open_scratch(void) {
    int fd = open(scratch_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0) return fd;
    perror(scratch_path);
    exit(1);
}

/* What it has now, as a seed; it is closed and removed. */
static void keep_seed(const char *target, int fd) {
    cvq_error err = {0};
    cvq_buffer bytes = {0};
    if (cvq_read_file(&bytes, scratch_path, 1 << 20, &err) != CVQ_OK) fail(&err);
    write_seed(target, "small", bytes.data, bytes.size);
    cvq_buffer_free(&bytes);
    close(fd);
    unlink(scratch_path);
}

/* The head up to its reserve: the fuzz target fills in zeros. */
static void head_seeds(const cvq_reader *r, const char *name) {
    cvq_error err = {0};
    const uint8_t *data = cvq_reader_map(r)->data, *table;
    size_t table_size, end = (size_t)cvq_reader_tensor(r, 0)->offset;
    cvq_buffer manifest = {0}, json = {0};
    while (end > 0 && data[end - 1] == 0) end--;
    write_seed("cvq", name, data, end);
    write_seed("cvq_mended", name, data, end);
    cvq_reader_tokenizer_bytes(r, &table, &table_size);
    write_seed("tokenizer_table", "small", table, table_size);
    if (cvq_manifest_print(r, NULL, &manifest, &err) != CVQ_OK) fail(&err);
    write_seed("manifest", name, manifest.data, manifest.size);
    if (cvq_reader_metadata(r, &json, &err) != CVQ_OK) fail(&err);
    write_seed("metadata", name, json.data, json.size);
    cvq_buffer_free(&manifest);
    cvq_buffer_free(&json);
}

static cvq_status append(void *context, const void *data, size_t size, cvq_error *err) {
    return cvq_buffer_append(context, data, size, err);
}

/* bf16 numbers, bytes that do not compress, and zeros: `size` bytes from `at` on. Small, so that
 * mutations reach the headers. */
static void packed_seed(const char *name, size_t at, size_t size) {
    cvq_error err = {0};
    cvq_buffer out = {0};
    uint64_t state = 1;
    static uint8_t bytes[3 << 20];
    int fd = open_scratch();
    for (size_t i = 0; i < 1 << 20; i += 2)
        cvq_store_le(bytes + i, 0x3c00u | (small_random(&state) & 0x81ffu), 2);
    for (size_t i = 1 << 20; i < (1 << 20) + 1000; i++) bytes[i] = (uint8_t)small_random(&state);
    if (cvq_write_all(fd, 0, bytes + at, size, scratch_path, &err) != CVQ_OK) fail(&err);
    const uint8_t id[CVQ_ID_BYTES] = {0};
    if (cvq_file_pack(fd, size, id, 1, append, &out, NULL, NULL, scratch_path, &err) != CVQ_OK)
        fail(&err);
    write_seed("packed", name, out.data, out.size);
    cvq_buffer_free(&out);
    close(fd);
    unlink(scratch_path);
}

static void packed_seeds(void) {
    packed_seed("small", (1 << 20) - 30000, 60999);
    packed_seed("planes", 0, 2000);
    packed_seed("plane-and-stored", (1 << 20) - 2000, 3000);
    packed_seed("stored", 1 << 20, 1000);
    packed_seed("pieces", (1 << 20) + 500, (5 << 18) + 1);
}

static int append_bytes(void *context, const void *data, size_t size) {
    return cvq_buffer_append(context, data, size, NULL) != CVQ_OK;
}

/* What a session of these options leaves of a picture; encoded alone if not synced. */
static void cache_seed(const char *name, const cvq_session_options *options, bool sync) {
    cvq_error err = {0};
    cvq_model *model = NULL;
    cvq_session *session = NULL;
    cvq_image *image = NULL;
    cvq_prompt *prompt = NULL;
    cvq_buffer out = {0};
    uint8_t rgb[8 * 8 * 3];
    const int32_t ids[] = {70, 71};
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * 7);
    if (cvq_cpu_select("scalar", &err) != CVQ_OK ||
        cvq_model_open(&model, model_path, NULL, &err) != CVQ_OK ||
        cvq_session_open(&session, model, options, &err) != CVQ_OK ||
        cvq_image_create(&image, model, rgb, 8, 8, 24, &err) != CVQ_OK ||
        cvq_prompt_from_ids(&prompt, model, ids, 2, image, &err) != CVQ_OK ||
        (sync ? cvq_session_sync(session, prompt, &err) : cvq_image_encode(image, session, &err)) !=
            CVQ_OK ||
        cvq_image_save(image, append_bytes, &out, &err) != CVQ_OK)
        fail(&err);
    write_seed("cache_entry", name, out.data, out.size);
    cvq_buffer_free(&out);
    cvq_prompt_free(prompt);
    cvq_image_free(image);
    cvq_session_close(session);
    cvq_model_close(model);
}

static void cache_seeds(void) {
    const cvq_session_options fast = {0}, exact = {.precision = CVQ_PRECISION_EXACT},
                              q8 = {.kv = CVQ_KV_Q8};
    cache_seed("small", &fast, true);
    cache_seed("q8", &q8, true);
    cache_seed("exact", &exact, true);
    cache_seed("encoding", &exact, false);
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
    const cvq_logits_head head = {.vocab = 300, .context = 32, .rows = 2};
    float logits[300];
    int fd = open_scratch();
    for (int i = 0; i < 300; i++) logits[i] = (float)(i % 17);
    if (cvq_logits_writer_open(&w, fd, scratch_path, &head, &err) != CVQ_OK) fail(&err);
    for (uint32_t row = 0; row < 2; row++) {
        cvq_prediction p;
        if (cvq_predict(&p, logits, 300, 3 + row, &err) != CVQ_OK ||
            cvq_logits_writer_add(&w, logits, &p, &err) != CVQ_OK)
            fail(&err);
    }
    if (cvq_logits_writer_finish(&w, &err) != CVQ_OK) fail(&err);
    cvq_logits_writer_free(&w);
    keep_seed("logits", fd);
}

/* Patches of the weights from `at` to `end` with one value: where / 8, how often - 1, 8 bytes. */
static void add_patches(cvq_buffer *out, uint64_t at, uint64_t end, uint64_t value) {
    for (uint64_t n; at + 8 <= end; at += 8 * n) {
        n = (end - at) / 8 < 65536 ? (end - at) / 8 : 65536;
        if (cvq_buffer_append_le(out, at / 8, 4, NULL) != CVQ_OK ||
            cvq_buffer_append_le(out, n - 1, 2, NULL) != CVQ_OK ||
            cvq_buffer_append_le(out, value, 8, NULL) != CVQ_OK)
            exit(1);
    }
}

/* All weights alike, but for the rotary frequencies: those are looked at. In fast and exact
 * arithmetic of a level each, as the fuzz target takes its choices. */
static void answer_seeds(void) {
    static const struct {
        const char *name;
        uint64_t value;
    } kinds[] = {{"nan", 0x7fc000007fc00000u},      {"infinite", 0x7f8000007f800000u},
                 {"largest", 0x7f7fffff7f7fffffu},  {"f16-infinite", 0x7c007c007c007c00u},
                 {"f16-nan", 0xfe00fe00fe00fe00u},  {"f16-largest", 0x7bff7bff7bff7bffu},
                 {"smallest", 0x0000000100000001u}, {"ones", 0xffffffffffffffffu}};
    const cvq_model_config config = small_quick_config();
    cvq_reader *r = open_small(&config, SMALL_METADATA);
    const uint64_t first = cvq_reader_tensor(r, 0)->offset;
    const size_t count = cvq_reader_tensor_count(r);
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        const uint8_t choices[8] = {
            (uint8_t)kind, (uint8_t)(kind + kind / 4), 70, 0x34, 0x5a, 1, 80, 0};
        cvq_buffer out = {0};
        if (cvq_buffer_append(&out, choices, sizeof choices, NULL) != CVQ_OK) exit(1);
        for (size_t i = 0, run = 0; i < count; i = run + 1) {
            for (run = i; run < count; run++)
                if (cvq_reader_tensor(r, run)->spec.role == CVQ_ROLE_INV_FREQ) break;
            if (run == i) continue;
            const cvq_tensor *last = cvq_reader_tensor(r, run - 1);
            add_patches(&out, cvq_reader_tensor(r, i)->offset - first,
                        last->offset + last->size - first, kinds[kind].value);
        }
        write_seed("answer", kinds[kind].name, out.data, out.size);
        cvq_buffer_free(&out);
    }
    cvq_reader_close(r);
}

static void moments_seed(void) {
    cvq_error err = {0};
    const cvq_model_config config = small_block_config();
    cvq_second_moments m = {0};
    float rows[40 * 64];
    uint64_t state = 1;
    bool more;
    int fd = open_scratch();
    for (size_t i = 0; i < 40 * 64; i++) rows[i] = (float)small_random(&state) * 0x1p-31f - 1.0f;
    if (cvq_second_moments_open(&m, &config, 1 << 20, 1, fd, scratch_path, &err) != CVQ_OK ||
        cvq_second_moments_begin(&m, &err) != CVQ_OK)
        fail(&err);
    for (size_t i = 0; i < m.count; i++) cvq_second_moments_add(&m, &m.matrices[i], rows, 40);
    if (cvq_second_moments_end(&m, &more, &err) != CVQ_OK) fail(&err);
    if (more) exit(1);
    cvq_second_moments_close(&m);
    keep_seed("second_moments", fd);
}

static void sensitivity_seed(const cvq_reader *r) {
    cvq_error err = {0};
    cvq_buffer out = {0};
    const cvq_sensitivity s = {.error = 0.00123, .kld = {1.5e-6, 2e-7}};
    if (cvq_sensitivity_print_head(&out, "0123", &err) != CVQ_OK) fail(&err);
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor_spec *spec = &cvq_reader_tensor(r, i)->spec;
        if (cvq_has_choice(spec) &&
            cvq_sensitivity_print(&out, spec->name, "q4h", &s, &err) != CVQ_OK)
            fail(&err);
    }
    write_seed("sensitivity", "small", out.data, out.size);
    cvq_buffer_free(&out);
}

static void journal_seed(void) {
    cvq_error err = {0};
    cvq_journal *j = NULL;
    const cvq_journal_key key = {{{0}}};
    int fd = open_scratch();
    if (cvq_journal_open(&j, fd, scratch_path, &key, false, NULL, NULL, &err) != CVQ_OK ||
        cvq_journal_add(j, 1, 0, &key, 32, &err) != CVQ_OK ||
        cvq_journal_add(j, 2, 1, &key, 0, &err) != CVQ_OK || cvq_journal_sync(j, &err) != CVQ_OK)
        fail(&err);
    cvq_journal_close(j);
    keep_seed("journal", fd);
}

int main(int argc, char **argv) {
    const cvq_model_config config = small_config();
    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 2;
    }
    folder = argv[1];
    snprintf(model_path, sizeof model_path, "%s/small.cvq", folder);
    snprintf(scratch_path, sizeof scratch_path, "%s/scratch", folder);
    cvq_reader *r = open_small(&config, FULL_METADATA);
    head_seeds(r, "full");
    cvq_reader_close(r);
    r = open_small(&config, SMALL_METADATA);
    head_seeds(r, "small");
    packed_seeds();
    cache_seeds();
    tokenizer_seed();
    logits_seed();
    moments_seed();
    sensitivity_seed(r);
    journal_seed();
    cvq_reader_close(r);
    answer_seeds();
    unlink(model_path);
    return 0;
}
