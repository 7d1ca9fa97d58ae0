/* Importance files: what cvq-calibrate writes is read as mean squares, and what does not belong to
 * the model is refused by name. */
#include "quant/importance.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "formats/safetensors.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"

static char folder[] = "/tmp/cvq-importance-XXXXXX";
static char path[sizeof folder + 32];

/* What the next file holds: sums for conv.weight (80 inputs) and counts, with one thing wrong. */
typedef struct content {
    const char *sum_name, *count_name;
    cvq_st_dtype sum_dtype, count_dtype;
    uint64_t cols;
    float odd_value; /* at index 2 */
    int64_t count;
} content;

static const content good = {.sum_name = "model.vision.conv.weight.sum_sq",
                             .count_name = "model.vision.conv.weight.count",
                             .sum_dtype = CVQ_ST_F32,
                             .count_dtype = CVQ_ST_I64,
                             .cols = 80,
                             .odd_value = 3.0f,
                             .count = 4};

static void write_file(const content *c) {
    cvq_st_tensor tensors[2] = {
        {.name = c->count_name, .dtype = c->count_dtype, .ndim = 1, .dims = {1}},
        {.name = c->sum_name, .dtype = c->sum_dtype, .ndim = 1, .dims = {c->cols}}};
    float values[512];
    for (int i = 0; i < 512; i++) values[i] = (float)i;
    values[2] = c->odd_value;
    tensors[0].size = cvq_st_dtype_size(c->count_dtype);
    tensors[1].size = c->cols * cvq_st_dtype_size(c->sum_dtype);
    cvq_error err = {0};
    FILE *f = fopen(path, "wb");
    cvq_st_writer *w = NULL;
    const size_t n = c->sum_name ? 2 : 1;
    CHECK(f != NULL);
    if (!f) return;
    CHECK(cvq_st_writer_open(&w, fileno(f), tensors, n, path, &err) == CVQ_OK);
    CHECK(cvq_st_writer_append(w, &c->count, (size_t)tensors[0].size, &err) == CVQ_OK);
    if (n == 2) CHECK(cvq_st_writer_append(w, values, (size_t)tensors[1].size, &err) == CVQ_OK);
    CHECK_SAY(cvq_st_writer_finish(w, &err) == CVQ_OK, "%s", err.message);
    fclose(f);
}

static void means_are_read(void) {
    const cvq_model_config c = small_config();
    const size_t conv = cvq_model_tensor_index(&c, CVQ_T_CONV, 0);
    cvq_importance *imp = NULL;
    cvq_error err = {0};
    write_file(&good);
    CHECK_SAY(cvq_importance_open(&imp, path, &c, &err) == CVQ_OK, "%s: %s", err.where,
              err.message);
    if (!imp) return;
    for (size_t i = 0; i < cvq_model_tensor_count(&c); i++)
        CHECK((cvq_importance_of(imp, i) != NULL) == (i == conv));
    uint64_t tokens = 0;
    CHECK(cvq_importance_of(imp, SIZE_MAX) == NULL);
    CHECK(cvq_importance_has(imp, conv, &tokens) && tokens == 4);
    CHECK(!cvq_importance_has(imp, conv + 1, &tokens));
    CHECK(!cvq_importance_has(imp, SIZE_MAX, &tokens) && tokens == 4);
    const float *mean = cvq_importance_of(imp, conv);
    CHECK(mean && mean[0] == 0.0f && mean[2] == 0.75f && mean[79] == 79.0f / 4);
    cvq_importance_free(imp);

    content none = good; /* no token came by */
    none.count = 0;
    write_file(&none);
    imp = NULL;
    CHECK(cvq_importance_open(&imp, path, &c, &err) == CVQ_OK);
    CHECK(imp && cvq_importance_of(imp, conv) == NULL);
    CHECK(cvq_importance_has(imp, conv, &tokens) && tokens == 0);
    cvq_importance_free(imp);
    cvq_importance_free(NULL);
}

static void vision_queries_go_without(void) {
    const cvq_model_config c = small_config();
    const size_t qkv = cvq_model_tensor_index(&c, CVQ_T_VISION_QKV, 0);
    cvq_importance *imp = NULL;
    content vision = good;
    vision.sum_name = "model.layers.0.self_attn.vision_expert_query_key_value.weight.sum_sq";
    vision.count_name = "model.layers.0.self_attn.vision_expert_query_key_value.weight.count";
    vision.cols = 72;
    write_file(&vision);
    CHECK(cvq_importance_open(&imp, path, &c, NULL) == CVQ_OK);
    CHECK(imp && cvq_importance_of(imp, qkv) == NULL);
    cvq_importance_free(imp);
}

static void refused(content c, const char *named) {
    const cvq_model_config config = small_config();
    cvq_importance *imp = NULL;
    cvq_error err = {0};
    write_file(&c);
    CHECK_SAY(cvq_importance_open(&imp, path, &config, &err) == CVQ_FORMAT && imp == NULL, "%s",
              named);
    CHECK_SAY(strcmp(err.where, path) == 0 && strstr(err.message, named) == err.message &&
                  err.message[strlen(named)] == ':',
              "\"%s\" (%s), not \"%s\"", err.where, err.message, named);
    cvq_importance_free(imp);
}

static void strangers_are_refused(void) {
    content c = good;
    c.sum_name = "model.vision.convolution.weight.sum_sq";
    refused(c, "model.vision.conv.weight");
    c = good;
    c.sum_name = "model.vision.conv.weight.sum";
    refused(c, "model.vision.conv.weight");
    c = good; /* both halves there, but of no matrix */
    c.sum_name = "model.vision.conv.bias.sum_sq";
    c.count_name = "model.vision.conv.bias.count";
    refused(c, "model.vision.conv.bias.count");
    c = good; /* a table has no inputs */
    c.sum_name = "model.embed_tokens.weight.sum_sq";
    c.count_name = "model.embed_tokens.weight.count";
    refused(c, "model.embed_tokens.weight.count");
    c = good;
    c.sum_name = NULL;
    refused(c, "model.vision.conv.weight");
    c = good;
    c.cols = 81;
    refused(c, "model.vision.conv.weight.sum_sq");
    c = good;
    c.sum_dtype = CVQ_ST_I32;
    refused(c, "model.vision.conv.weight.sum_sq");
    c = good;
    c.count_dtype = CVQ_ST_I32;
    refused(c, "model.vision.conv.weight.count");
    c = good;
    c.count = -1;
    refused(c, "model.vision.conv.weight.count");
    static const float wrong[] = {-1.0f, INFINITY, NAN};
    for (int i = 0; i < 3; i++) {
        c = good;
        c.odd_value = wrong[i];
        refused(c, "model.vision.conv.weight.sum_sq");
    }
}

static void a_missing_file_is_said(void) {
    const cvq_model_config config = small_config();
    cvq_importance *imp = NULL;
    cvq_error err = {0};
    CHECK(cvq_importance_open(&imp, "/nonexistent/imatrix.safetensors", &config, &err) != CVQ_OK);
    CHECK(imp == NULL && err.message[0] != '\0');
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/imatrix.safetensors", folder);
    RUN(means_are_read);
    RUN(vision_queries_go_without);
    RUN(strangers_are_refused);
    RUN(a_missing_file_is_said);
    unlink(path);
    rmdir(folder);
    return REPORT();
}
