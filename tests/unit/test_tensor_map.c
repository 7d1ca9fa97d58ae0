/* Which tensor of a checkpoint is which of the model: what is refused, and the values of rows. */
#include "convert/tensor_map.h"

#include "tests/unit/fake_checkpoint.h"
#include "tests/unit/harness.h"

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
    cvq_row_source rows = cvq_tensor_map_rows(map);
    for (size_t i = 0; i < cvq_model_tensor_count(&fake_config); i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&fake_config, i, &spec);
        const cvq_st_tensor *t = cvq_tensor_map_source(map, i);
        CHECK(strcmp(t->name, spec.name) == 0);
        /* all rows but the first, so that an offset is in it */
        uint64_t first = spec.rows > 1 ? 1 : 0, count = spec.rows - first, wrong = 0;
        float *out = calloc(count * spec.cols, sizeof *out);
        if (!out) abort();
        rows.will_need(rows.context, i);
        CHECK(rows.read(rows.context, i, first, count, out, NULL) == CVQ_OK);
        rows.done(rows.context, i);
        for (uint64_t k = 0; k < count * spec.cols; k++) {
            float expected = expected_value(t, first * spec.cols + k);
            wrong += cvq_f32_bits(expected) != cvq_f32_bits(out[k]);
        }
        CHECK_SAY(wrong == 0, "%s: %llu values", spec.name, (unsigned long long)wrong);
        free(out);
    }
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
        check_refused(&l, CVQ_UNSUPPORTED, names[i], "without -int4 in its name, zai-org/");
    }
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(bf16);
    RUN(f32);
    RUN(f16);
    RUN(missing_tensors);
    RUN(unexpected_tensors);
    RUN(wrong_shapes);
    RUN(wrong_types);
    RUN(different_inv_freq);
    RUN(quantized_checkpoints);
    temp_close();
    return REPORT();
}
