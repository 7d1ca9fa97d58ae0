/* Calibration's files: what is written is read back, files add up, and whatever else a file may
 * hold is refused. */
#include "bench/channel_sums.h"

#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "formats/safetensors.h"
#include "quant/importance.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"
#include "tests/unit/temp_folder.h"

static bool write_sums(const cvq_calibration *c, const char *name) {
    cvq_error err = {0};
    int fd = open(temp_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return false;
    cvq_status status = cvq_calibration_write(c, fd, name, &err);
    close(fd);
    if (status != CVQ_OK) printf("  %s: %s\n", err.where, err.message);
    return status == CVQ_OK;
}

static void sums_come_back(void) {
    const cvq_model_config config = small_config();
    cvq_calibration c = {0}, again = {0};
    cvq_error err = {0};
    CHECK(cvq_calibration_open(&c, &config, &err) == CVQ_OK);
    CHECK(c.count > 10);
    for (size_t i = 1; i < c.count; i++)
        CHECK(strcmp(c.matrices[i - 1].name, c.matrices[i].name) < 0);
    for (size_t i = 0; i < c.count; i++)
        CHECK(cvq_calibration_find(&c, c.matrices[i].name) == &c.matrices[i]);
    CHECK(cvq_calibration_find(&c, "") == NULL && cvq_calibration_find(&c, "zzz") == NULL);
    CHECK(cvq_calibration_find(&c, "model.embed_tokens.weight") == NULL); /* a table */

    cvq_channel_sums *conv = cvq_calibration_find(&c, "model.vision.conv.weight");
    CHECK(conv && conv->cols == 80);
    float rows[160];
    for (int i = 0; i < 160; i++) rows[i] = (float)(i % 80) * (i < 80 ? 1.0f : -2.0f);
    if (conv) cvq_channel_sums_add(conv, rows, 2);
    CHECK(conv && conv->tokens == 2 && conv->sum_sq[3] == 45.0);

    CHECK(write_sums(&c, "sums"));
    CHECK_SAY(cvq_calibration_read(&again, temp_path("sums"), &err) == CVQ_OK, "%s", err.message);
    CHECK(cvq_calibration_add(&again, &c, "c", &err) == CVQ_OK);
    conv = cvq_calibration_find(&again, "model.vision.conv.weight");
    CHECK(conv && conv->tokens == 4 && conv->sum_sq[3] == 90.0);

    cvq_importance *importance = NULL; /* cvq-quantize's reader */
    CHECK(cvq_importance_open(&importance, temp_path("sums"), &config, &err) == CVQ_OK);
    const float *mean =
        importance ? cvq_importance_of(importance, cvq_model_tensor_index(&config, CVQ_T_CONV, 0))
                   : NULL;
    CHECK(mean && mean[3] == 22.5f);
    cvq_importance_free(importance);

    cvq_calibration_clear(&again);
    CHECK(conv && conv->tokens == 0 && conv->sum_sq[3] == 0.0);
    cvq_calibration_free(&again);
    cvq_calibration_free(&c);
    cvq_calibration_free(NULL);
}

static void others_do_not_add_up(void) {
    cvq_model_config config = small_config();
    cvq_calibration a = {0}, b = {0};
    cvq_error err = {0};
    CHECK(cvq_calibration_open(&a, &config, &err) == CVQ_OK);
    config.intermediate_size += 8; /* longer rows of down_proj */
    CHECK(cvq_calibration_open(&b, &config, &err) == CVQ_OK);
    b.matrices[0].tokens = 3;
    CHECK(cvq_calibration_add(&a, &b, "b", &err) == CVQ_MISMATCH);
    CHECK(a.matrices[0].tokens == 0 && strcmp(err.where, "b") == 0);
    cvq_calibration_free(&b);

    config = small_config();
    config.num_layers++;
    err = (cvq_error){0};
    CHECK(cvq_calibration_open(&b, &config, &err) == CVQ_OK);
    CHECK(cvq_calibration_add(&a, &b, "b", &err) == CVQ_MISMATCH);
    CHECK(cvq_calibration_add(&b, &a, "a", NULL) == CVQ_MISMATCH);
    cvq_calibration_free(&b);

    err = (cvq_error){0};
    a.matrices[1].tokens = INT64_MAX;
    CHECK(cvq_calibration_add(&a, &a, "a", &err) == CVQ_FORMAT);

    a.matrices[0].sum_sq[0] = 2.0 * (double)FLT_MAX; /* and what single precision cannot hold */
    int fd = open(temp_path("large"), O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && cvq_calibration_write(&a, fd, "large", NULL) == CVQ_UNSUPPORTED);
    if (fd >= 0) close(fd);
    cvq_calibration_free(&a);
}

/* Two tensors, one of them wrong. */
typedef struct bad_file {
    const char *sum_name, *count_name, *says;
    cvq_st_dtype sum_dtype, count_dtype;
    uint32_t sum_ndim;
    float value;
    int64_t count;
} bad_file;

static void write_bad(const bad_file *b) {
    cvq_st_tensor tensors[2] = {
        {.name = b->count_name, .dtype = b->count_dtype, .ndim = 1, .dims = {1}},
        {.name = b->sum_name, .dtype = b->sum_dtype, .ndim = b->sum_ndim, .dims = {4, 1}}};
    tensors[0].size = cvq_st_dtype_size(b->count_dtype);
    tensors[1].size = 4 * cvq_st_dtype_size(b->sum_dtype);
    const float sums[8] = {1, 2, b->value, 4};
    cvq_st_writer *w = NULL;
    cvq_error err = {0};
    int fd = open(temp_path("bad"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && cvq_st_writer_open(&w, fd, tensors, 2, "bad", &err) == CVQ_OK);
    if (!w) return;
    CHECK(cvq_st_writer_append(w, &b->count, (size_t)tensors[0].size, &err) == CVQ_OK);
    CHECK(cvq_st_writer_append(w, sums, (size_t)tensors[1].size, &err) == CVQ_OK);
    CHECK(cvq_st_writer_finish(w, &err) == CVQ_OK);
    close(fd);
}

static void strangers_are_refused(void) {
    static const bad_file good = {"a.sum_sq", "a.count", "", CVQ_ST_F32, CVQ_ST_I64, 1, 3.0f, 5};
    const bad_file bad[] = {
        {"a.sum_sq", "b.count", "beside", CVQ_ST_F32, CVQ_ST_I64, 1, 3.0f, 5},
        {"a.sum", "a.count", "something else", CVQ_ST_F32, CVQ_ST_I64, 1, 3.0f, 5},
        {".sum_sq", ".count", "something else", CVQ_ST_F32, CVQ_ST_I64, 1, 3.0f, 5},
        {"a.sum_sq", "a.count", "not F32", CVQ_ST_F64, CVQ_ST_I64, 1, 3.0f, 5},
        {"a.sum_sq", "a.count", "not F32", CVQ_ST_F32, CVQ_ST_I32, 1, 3.0f, 5},
        {"a.sum_sq", "a.count", "not F32", CVQ_ST_F32, CVQ_ST_I64, 2, 3.0f, 5},
        {"a.sum_sq", "a.count", "negative", CVQ_ST_F32, CVQ_ST_I64, 1, 3.0f, -1},
        {"a.sum_sq", "a.count", "value 2", CVQ_ST_F32, CVQ_ST_I64, 1, -1.0f, 5},
        {"a.sum_sq", "a.count", "value 2", CVQ_ST_F32, CVQ_ST_I64, 1, INFINITY, 5},
        {"a.sum_sq", "a.count", "value 2", CVQ_ST_F32, CVQ_ST_I64, 1, NAN, 5},
    };
    cvq_calibration c = {0};
    write_bad(&good);
    CHECK(cvq_calibration_read(&c, temp_path("bad"), NULL) == CVQ_OK);
    CHECK(c.count == 1 && c.matrices[0].sum_sq[2] == 3.0 && c.matrices[0].tokens == 5);
    cvq_calibration_free(&c);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cvq_error err = {0};
        write_bad(&bad[i]);
        CHECK(cvq_calibration_read(&c, temp_path("bad"), &err) == CVQ_FORMAT);
        CHECK_SAY(strstr(err.message, bad[i].says) != NULL, "case %zu: %s", i, err.message);
        CHECK(c.count == 0 && c.matrices == NULL);
    }
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(sums_come_back);
    RUN(others_do_not_add_up);
    RUN(strangers_are_refused);
    temp_close();
    return REPORT();
}
