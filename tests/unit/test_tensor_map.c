/* Which tensor of a checkpoint is which of the model: what is refused, the values of rows, and the
 * hashes of files that are taken on the way. */
#include "convert/checkpoint_rows.h"

#include "tests/unit/fake_checkpoint.h"
#include "tests/unit/harness.h"
#include "tests/unit/read_rows.h"

#define QKV "model.layers.1.self_attn.language_expert_query_key_value.weight"
#define INV_FREQ_1 "model.layers.1.self_attn.rotary_emb.inv_freq"
#define CONV "model.vision.conv.weight"

static cvq_safetensors *checkpoint;
static cvq_tensor_map *map;

static void close_both(void) {
    cvq_tensor_map_free(map);
    cvq_safetensors_close(checkpoint);
    map = NULL;
    checkpoint = NULL;
}

/* Writes and frees the list. */
static cvq_status open_list(fake_list *l, cvq_error *err) {
    fake_write("model.safetensors", l->tensors, l->count, false);
    fake_list_free(l);
    CVQ_TRY(cvq_safetensors_open(&checkpoint, temp_path("model.safetensors"), err));
    return cvq_tensor_map_open(&map, checkpoint, &fake_config, err);
}

/* Opening must fail with this status, naming the tensor and saying `message`. */
static void check_refused(fake_list *l, cvq_status expected, const char *name,
                          const char *message) {
    cvq_error err = {0};
    cvq_status status = open_list(l, &err);
    CHECK_SAY(status == expected && !map && strcmp(err.where, name) == 0 &&
                  strstr(err.message, message),
              "expected %s: %s, got %d %s: %s", name, message, status, err.where, err.message);
    close_both();
}

/* What a row must be: the value in the checkpoint's type, then rounded to bf16 unless it is f32's
 * inv_freq. */
static float expected_value(const cvq_st_tensor *t, uint64_t i) {
    float v = fake_value(t->name, i);
    bool inv_freq = strstr(t->name, "inv_freq") != NULL;
    if (t->dtype == CVQ_ST_F16) v = cvq_f16_to_f32(cvq_f32_to_f16(v));
    if (t->dtype == CVQ_ST_F32 && inv_freq) return v;
    return cvq_bf16_to_f32(cvq_f32_to_bf16(v));
}

static void check_values(void) {
    const size_t count = cvq_model_tensor_count(&fake_config);
    cvq_checkpoint_rows *opened = NULL;
    CHECK(cvq_checkpoint_rows_open(&opened, map, checkpoint, &fake_config, NULL) == CVQ_OK);
    if (!opened) return;
    const cvq_row_source rows = cvq_checkpoint_rows_source(opened);
    uint64_t before = 0;
    for (size_t n = 0; n < count; n++) {
        const size_t i = rows.order[n];
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&fake_config, i, &spec);
        const cvq_st_tensor *t = cvq_tensor_map_source(map, i);
        CHECK(strcmp(t->name, spec.name) == 0 && t->offset > before);
        before = t->offset;
        CHECK(cvq_checkpoint_rows_hash(opened, 0) == NULL);
        /* in two parts, so that an offset is in it */
        const uint64_t first = spec.rows / 2, values = spec.rows * spec.cols;
        uint64_t wrong = 0;
        float *out = calloc(values, sizeof *out);
        if (!out) abort();
        if (first) CHECK(read_rows(&rows, i, 0, first, out, NULL) == CVQ_OK);
        CHECK(read_rows(&rows, i, first, spec.rows - first, out + first * spec.cols, NULL) ==
              CVQ_OK);
        for (uint64_t k = 0; k < values; k++)
            wrong += cvq_f32_bits(expected_value(t, k)) != cvq_f32_bits(out[k]);
        CHECK_SAY(wrong == 0, "%s: %llu values", spec.name, (unsigned long long)wrong);
        free(out);
    }
    /* Every byte has been hashed, header included. */
    const cvq_file_map *file = cvq_safetensors_file_map(checkpoint, 0);
    uint8_t hash[CVQ_HASH_BYTES];
    CHECK(cvq_sha256(file->data, (size_t)file->size, hash, NULL) == CVQ_OK);
    CHECK(cvq_checkpoint_rows_hash(opened, 0) &&
          memcmp(cvq_checkpoint_rows_hash(opened, 0), hash, sizeof hash) == 0);
    cvq_checkpoint_rows_close(opened);
}

/* A run that starts inside a file hashes what came before, one that reads nothing all of it. */
static void hashes_catch_up(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    CHECK(open_list(&l, NULL) == CVQ_OK);
    const cvq_file_map *file = cvq_safetensors_file_map(checkpoint, 0);
    const size_t count = cvq_model_tensor_count(&fake_config), starts[] = {1, count / 2, count};
    uint8_t hash[CVQ_HASH_BYTES];
    CHECK(cvq_sha256(file->data, (size_t)file->size, hash, NULL) == CVQ_OK);
    for (int s = 0; s < 3; s++) {
        cvq_checkpoint_rows *opened = NULL;
        CHECK(cvq_checkpoint_rows_open(&opened, map, checkpoint, &fake_config, NULL) == CVQ_OK);
        if (!opened) break;
        const cvq_row_source rows = cvq_checkpoint_rows_source(opened);
        for (size_t n = starts[s]; n < count; n++) {
            cvq_tensor_spec spec;
            cvq_model_tensor_spec(&fake_config, rows.order[n], &spec);
            float *out = calloc(spec.rows * spec.cols, sizeof *out);
            if (!out) abort();
            CHECK(read_rows(&rows, rows.order[n], 0, spec.rows, out, NULL) == CVQ_OK);
            free(out);
        }
        CHECK(cvq_checkpoint_rows_finish(opened, NULL) == CVQ_OK);
        const uint8_t *found = cvq_checkpoint_rows_hash(opened, 0);
        CHECK_SAY(found && memcmp(found, hash, sizeof hash) == 0, "from tensor %zu", starts[s]);
        cvq_checkpoint_rows_close(opened);
    }
    /* A file cut short while it is read. */
    cvq_checkpoint_rows *opened = NULL;
    cvq_error err = {0};
    CHECK(cvq_checkpoint_rows_open(&opened, map, checkpoint, &fake_config, NULL) == CVQ_OK);
    CHECK(truncate(temp_path("model.safetensors"), (off_t)file->size - 1) == 0);
    CHECK(cvq_checkpoint_rows_finish(opened, &err) == CVQ_IO);
    CHECK_SAY(strstr(err.message, "ends at byte") && strcmp(err.where, "model.safetensors") == 0,
              "%s: %s", err.where, err.message);
    cvq_checkpoint_rows_close(opened);
    cvq_checkpoint_rows_close(NULL);
    close_both();
}

static void bf16(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    CHECK(open_list(&l, NULL) == CVQ_OK);
    if (map) CHECK(cvq_tensor_map_inv_freq_type(map) == CVQ_TYPE_BF16);
    if (map) check_values();
    close_both();
}

static void f32(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_F32);
    CHECK(open_list(&l, NULL) == CVQ_OK);
    if (map) CHECK(cvq_tensor_map_inv_freq_type(map) == CVQ_TYPE_F32);
    if (map) check_values();
    close_both();
}

static void f16(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_F16);
    for (size_t i = 0; i < l.count; i++) {
        if (strstr(l.tensors[i].name, "inv_freq")) l.tensors[i].dtype = CVQ_ST_BF16;
    }
    CHECK(open_list(&l, NULL) == CVQ_OK);
    if (map) check_values();
    close_both();
}

static void missing_tensors(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_remove(&l, QKV);
    check_refused(&l, CVQ_FORMAT, QKV, "missing in the checkpoint (1 of");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_remove(&l, "model.vision.boi");
    fake_remove(&l, QKV);
    check_refused(&l, CVQ_FORMAT, QKV, "missing in the checkpoint (2 of");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_find(&l, "lm_head.weight")->name = "model.lm_head.weight";
    check_refused(&l, CVQ_FORMAT, "lm_head.weight", "missing in the checkpoint (1 of");
}

static void unexpected_tensors(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_add(&l, "model.layers.2.input_layernorm.weight", CVQ_ST_BF16);
    check_refused(&l, CVQ_FORMAT, "model.layers.2.input_layernorm.weight", "(1 such in all)");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_add(&l, "extra.1", CVQ_ST_I64);
    fake_add(&l, "extra.2", CVQ_ST_I64);
    check_refused(&l, CVQ_FORMAT, "extra.1", "(2 such in all)");
}

static void wrong_shapes(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    cvq_st_tensor *t = fake_find(&l, QKV);
    t->dims[0]++;
    check_refused(&l, CVQ_FORMAT, QKV, "its shape is [49 x 24], config.json makes it [48 x 24]");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    t = fake_find(&l, CONV); /* the same number of elements */
    t->ndim = 2;
    t->dims[1] *= 4;
    check_refused(&l, CVQ_FORMAT, CONV, "[20 x 80], config.json makes it [20 x 20 x 2 x 2]");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    t = fake_find(&l, "model.vision.boi");
    t->ndim = 8;
    t->dims[7] = t->dims[2];
    for (int d = 0; d < 7; d++) t->dims[d] = 1;
    check_refused(&l, CVQ_FORMAT, "model.vision.boi", "its shape is [1 x 1 x 1 x 1");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_find(&l, "model.norm.weight")->ndim = 0;
    check_refused(&l, CVQ_FORMAT, "model.norm.weight", "its shape is []");
}

static void wrong_types(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_find(&l, QKV)->dtype = CVQ_ST_I8;
    check_refused(&l, CVQ_UNSUPPORTED, QKV, "I8 values");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_find(&l, "model.norm.weight")->dtype = CVQ_ST_F64;
    check_refused(&l, CVQ_UNSUPPORTED, "model.norm.weight", "F64 values");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_find(&l, INV_FREQ_1)->dtype = CVQ_ST_F16;
    check_refused(&l, CVQ_UNSUPPORTED, INV_FREQ_1, "rotary tables");
    l = fake_list_make(&fake_config, CVQ_ST_BF16);
    fake_find(&l, INV_FREQ_1)->dtype = CVQ_ST_F32;
    check_refused(&l, CVQ_UNSUPPORTED, INV_FREQ_1, "differs from layer 0's");
}

static void different_inv_freq(void) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    cvq_error err = {0};
    uint64_t offset = 0;
    fake_write("model.safetensors", l.tensors, l.count, false);
    fake_list_free(&l);
    CHECK(cvq_safetensors_open(&checkpoint, temp_path("model.safetensors"), NULL) == CVQ_OK);
    offset = cvq_safetensors_find(checkpoint, INV_FREQ_1)->offset + 3;
    int fd = open(temp_path("model.safetensors"), O_WRONLY);
    CHECK(pwrite(fd, "\x7e", 1, (off_t)offset) == 1);
    close(fd);
    CHECK(cvq_tensor_map_open(&map, checkpoint, &fake_config, &err) == CVQ_UNSUPPORTED);
    CHECK_SAY(strcmp(err.where, INV_FREQ_1) == 0 && strstr(err.message, "differs from layer 0's"),
              "%s: %s", err.where, err.message);
    close_both();
}

static void quantized_checkpoints(void) {
    static const char *const names[] = {QKV ".absmax",
                                        QKV ".quant_map",
                                        QKV ".nested_absmax",
                                        QKV ".nested_quant_map",
                                        QKV ".quant_state.bitsandbytes__nf4",
                                        QKV ".SCB"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
        fake_add(&l, names[i], CVQ_ST_U8);
        check_refused(&l, CVQ_UNSUPPORTED, names[i], "take the one without -int4 in its name");
    }
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(bf16);
    RUN(f32);
    RUN(f16);
    RUN(hashes_catch_up);
    RUN(missing_tensors);
    RUN(unexpected_tensors);
    RUN(wrong_shapes);
    RUN(wrong_types);
    RUN(different_inv_freq);
    RUN(quantized_checkpoints);
    temp_close();
    return REPORT();
}
