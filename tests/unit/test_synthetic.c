/* The benchmark's ground: synthetic weights, tokenizers and whole files are finite, of the usual
 * size and the same every time; rows are held against the right peak. */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/measure.h"
#include "bench/synthetic_file.h"
#include "bench/synthetic_tokenizer.h"
#include "formats/cvq_reader.h"
#include "harness.h"
#include "temp_folder.h"

#define ROWS 48
#define COLS 768

static void fill_is_finite_and_repeats(void) {
    static const cvq_type types[] = {CVQ_TYPE_BF16, CVQ_TYPE_Q8,  CVQ_TYPE_Q6, CVQ_TYPE_Q4T,
                                     CVQ_TYPE_Q4,   CVQ_TYPE_Q4S, CVQ_TYPE_Q4H};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const cvq_type_info *info = cvq_type_describe(types[i]);
        size_t panel = cvq_panel_bytes(info, CVQ_PANEL_ROWS, COLS), size = panel * ROWS / 16;
        uint8_t *a = malloc(size), *b = malloc(size);
        float *values = malloc(sizeof *values * COLS * CVQ_PANEL_ROWS);
        cvq_synthetic_fill(types[i], CVQ_PANEL_ROWS, panel, 5, a, size, 1);
        cvq_synthetic_fill(types[i], CVQ_PANEL_ROWS, panel, 5, b, size, 3);
        CHECK(memcmp(a, b, size) == 0);
        cvq_synthetic_fill(types[i], CVQ_PANEL_ROWS, panel, 6, b, size, 1);
        CHECK(memcmp(a, b, size) != 0);
        for (size_t p = 0; p < size; p += panel) {
            double squares = 0;
            CHECK(cvq_panel_finite(types[i], CVQ_PANEL_ROWS, a + p, COLS));
            cvq_panel_decode(types[i], CVQ_PANEL_ROWS, &cvq_codebook_default, a + p, COLS, values,
                             COLS);
            for (size_t k = 0; k < COLS * CVQ_PANEL_ROWS; k++)
                squares += (double)values[k] * (double)values[k];
            double size_of_weights = sqrt(squares / (COLS * CVQ_PANEL_ROWS));
            CHECK(size_of_weights > 0.005 && size_of_weights < 0.1);
        }
        free(a);
        free(b);
        free(values);
    }
}

static void configs_are_models(void) {
    for (uint32_t scale = 1; scale <= 16; scale *= 2) {
        cvq_error err = {0};
        cvq_model_config c = cvq_scaled_config(scale);
        CHECK(cvq_model_config_check(&c, "scaled", &err) == CVQ_OK);
        if (err.code != CVQ_OK) printf("scale %u: %s: %s\n", scale, err.where, err.message);
    }
    CHECK(cvq_model_tensor_count(&cvq_real_config) == 1221);
    CHECK(cvq_image_slots(&cvq_real_config) == 2306);
}

static void rows_are_held_against_peaks(void) {
    cvq_bench b = {.level = CVQ_CPU_SCALAR, .threads = 2};
    atomic_init(&b.stop, 0);
    b.peaks[b.num_peaks++] = (cvq_peak){CVQ_PEAK_INT8, CVQ_CPU_SCALAR, 1, 1e9};
    b.peaks[b.num_peaks++] = (cvq_peak){CVQ_PEAK_INT8, CVQ_CPU_SCALAR, 2, 4e9};
    b.peaks[b.num_peaks++] = (cvq_peak){CVQ_PEAK_READ, CVQ_CPU_SCALAR, 2, 2e9};
    cvq_bench_times t = {0};
    cvq_bench_add(&t, 4);
    cvq_bench_add(&t, 1);
    cvq_bench_add(&t, 2);
    cvq_bench_row row = {.name = "row", .type = "q8", .ops = 4e9, .bytes = 1e9};
    CHECK(cvq_bench_done(&b, &row, &t, 10, NULL) == CVQ_OK);
    CHECK(b.num_rows == 1 && b.rows[0].runs == 3);
    CHECK(b.rows[0].median_s == 2 && b.rows[0].min_s == 1 && b.rows[0].model_s == 20);
    /* 1 s of arithmetic, half a second of reading. */
    CHECK(b.rows[0].bound == CVQ_PEAK_INT8 && fabs(b.rows[0].fraction - 0.5) < 1e-12);
    CHECK(fabs(b.rows[0].rate - 2) < 1e-12 && strcmp(b.rows[0].unit, "Gop/s") == 0);
    row.bytes = 3e9;
    CHECK(cvq_bench_done_as(&b, &row, &t, 1, 8, "tokens/s", NULL) == CVQ_OK);
    CHECK(b.rows[1].bound == CVQ_PEAK_READ && fabs(b.rows[1].fraction - 0.75) < 1e-12);
    CHECK(b.rows[1].rate == 4 && strcmp(b.rows[1].unit, "tokens/s") == 0);
    cvq_bench_add(&t, 3); /* an even number of times */
    CHECK(cvq_bench_done(&b, &row, &t, 1, NULL) == CVQ_OK && b.rows[2].median_s == 2.5);
    atomic_store(&b.stop, 1);
    CHECK(cvq_bench_done(&b, &row, &t, 1, NULL) == CVQ_CANCELLED && b.num_rows == 3);
    cvq_bench_close(&b);
}

static void filters(void) {
    cvq_bench b = {0};
    CHECK(cvq_bench_wanted(&b, "lm_head", "q6", 1));
    b.only = "gemm_*";
    CHECK(cvq_bench_wanted(&b, "gemm_qkv", "q8", 8) && !cvq_bench_wanted(&b, "lm_head", "q6", 1));
    b.only = "*:q8:1";
    CHECK(cvq_bench_wanted(&b, "gemm_qkv", "q8", 1) && !cvq_bench_wanted(&b, "gemm_qkv", "q8", 8));
}

static void peaks_are_there(void) {
    static uint8_t memory[1 << 20];
    memset(memory, 1, sizeof memory);
    for (int i = 0; i < CVQ_CPU_LEVELS; i++) {
        cvq_cpu_level level = (cvq_cpu_level)i;
        if (!cvq_cpu_has(level)) continue;
        CHECK(cvq_peak_compute(level, CVQ_PEAK_INT8, 1, 0) > 0);
        CHECK(cvq_peak_compute(level, CVQ_PEAK_F32, 2, 0) > 0);
        CHECK((cvq_peak_compute(level, CVQ_PEAK_BF16, 1, 0) > 0) == (level == CVQ_CPU_AVX512BF16));
        CHECK(cvq_peak_read(level, 2, memory, sizeof memory, 0) > 0);
    }
    CHECK(cvq_free_memory() > 0);
}

static void tokenizer_has_the_real_size(void) {
    cvq_synthetic_tokenizer t;
    cvq_buffer table = {0};
    cvq_tokenizer_table view;
    cvq_error err = {0};
    uint32_t id;
    CHECK(cvq_synthetic_tokenizer_open(&t, &cvq_real_config, &err) == CVQ_OK);
    CHECK(t.source.num_tokens == 128256 && t.source.num_merges > 250000);
    CHECK(cvq_tokenizer_table_build(&table, &t.source, &err) == CVQ_OK);
    CHECK_SAY(cvq_tokenizer_table_open(&view, table.data, table.size, "it", &err) == CVQ_OK, "%s",
              err.message);
    CHECK(cvq_tokenizer_find(&view, (const uint8_t *)" misad", 6, &id) && id < 128000);
    CHECK(!cvq_tokenizer_is_special(&view, 127999) && cvq_tokenizer_is_special(&view, 128000));
    cvq_buffer_free(&table);
    cvq_synthetic_tokenizer_close(&t);
    cvq_model_config few = cvq_real_config;
    few.bos_id = 255;
    CHECK(cvq_synthetic_tokenizer_open(&t, &few, &err) == CVQ_INVALID_ARGUMENT);
}

static void make_file(const cvq_model_config *c, const char *recipe, int threads, uint64_t seed,
                      uint8_t *id) {
    cvq_recipe *r = NULL;
    cvq_error err = {0};
    const cvq_synthetic_options o = {.seed = seed, .threads = threads};
    CHECK(cvq_recipe_open(&r, recipe, &err) == CVQ_OK);
    int fd = open(temp_path("made.cvq"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK_SAY(cvq_synthetic_file(c, r, &o, fd, "made.cvq", id, &err) == CVQ_OK, "%s: %s", err.where,
              err.message);
    close(fd);
    cvq_recipe_free(r);
}

/* Padding of patches, tables and lm_head included. */
static void files_are_whole(void) {
    static const char *const recipes[] = {"bf16", "q8", "q4"};
    cvq_model_config c = cvq_scaled_config(16);
    c.num_layers = 2;
    c.vit_num_layers = 1;
    if (!temp_open()) return;
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        uint8_t a[CVQ_ID_BYTES], b[CVQ_ID_BYTES], other[CVQ_ID_BYTES];
        cvq_reader *reader = NULL;
        cvq_error err = {0};
        make_file(&c, recipes[i], 1, 8, other);
        make_file(&c, recipes[i], 1, 7, a);
        make_file(&c, recipes[i], 3, 7, b);
        CHECK(memcmp(a, b, sizeof a) == 0 && memcmp(a, other, sizeof a) != 0);
        CHECK_SAY(cvq_reader_open(&reader, temp_path("made.cvq"), &err) == CVQ_OK, "%s",
                  err.message);
        if (!reader) continue;
        CHECK(cvq_reader_verify(reader, 2, NULL, NULL, NULL, &err) == CVQ_OK);
        for (size_t t = 0; t < cvq_reader_tensor_count(reader); t++) {
            const cvq_tensor *tensor = cvq_reader_tensor(reader, t);
            const uint8_t *last = cvq_reader_data(reader, t) + tensor->size -
                                  cvq_panel_bytes(cvq_type_describe(tensor->type),
                                                  tensor->panel_rows, (size_t)tensor->spec.cols);
            CHECK_SAY(
                cvq_panel_finite(tensor->type, tensor->panel_rows, last, (size_t)tensor->spec.cols),
                "%s", tensor->spec.name);
        }
        cvq_reader_close(reader);
    }
    temp_close();
}

int main(void) {
    RUN(fill_is_finite_and_repeats);
    RUN(configs_are_models);
    RUN(rows_are_held_against_peaks);
    RUN(filters);
    RUN(peaks_are_there);
    RUN(tokenizer_has_the_real_size);
    RUN(files_are_whole);
    return REPORT();
}
