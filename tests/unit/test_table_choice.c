/* The tables that q4s may get, and that each tensor gets the one for its kind of weights, whatever
 * the number of threads and whatever stands in it.
 * cvq-test: threads */
#include "quant/table_choice.h"

#include <math.h>
#include <stdlib.h>

#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"

/* Rows of one kind. */
typedef enum row_kind { NORMAL, HEAVY, ZEROS, ALIKE, BROKEN, KINDS } row_kind;

typedef struct made_up {
    cvq_model_config config;
    row_kind kind;
    bool fails;
} made_up;

/* Sums of eight are nearly normal; over the root of a mean of three squares they are heavy. */
static float made_value(row_kind kind, size_t tensor, uint64_t row, uint64_t col) {
    uint64_t s = 88172645463325252u + tensor * 1000003u + row * 7919u + col * 104729u;
    double sum[4] = {0};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) sum[i] += (double)(small_random(&s) >> 8) * 0x1p-24 - 0.5;
    if (kind == ZEROS) return 0.0f;
    if (kind == ALIKE) return -0.37f;
    if (kind == BROKEN && row % 3 == 1) return col % 2 ? NAN : -INFINITY;
    if (kind != HEAVY) return (float)sum[0];
    return (float)(sum[0] / sqrt(sum[1] * sum[1] + sum[2] * sum[2] + sum[3] * sum[3] + 1e-3));
}

static size_t made_size(void *context, size_t tensor, uint64_t count) {
    const made_up *m = context;
    cvq_tensor_spec spec;
    cvq_model_tensor_spec(&m->config, tensor, &spec);
    return (size_t)(count * spec.cols) * sizeof(float);
}

static cvq_status made_read(void *context, size_t tensor, uint64_t first, uint64_t count,
                            uint8_t *raw, cvq_error *err) {
    const made_up *m = context;
    cvq_tensor_spec spec;
    cvq_model_tensor_spec(&m->config, tensor, &spec);
    if (m->fails && first > 0) return cvq_fail(err, CVQ_IO, spec.name, "gone");
    CHECK(first % cvq_panel_rows_for(spec.role) == 0 && first + count <= spec.rows);
    float *out = (float *)(void *)raw;
    for (uint64_t r = first; r < first + count; r++)
        for (uint64_t k = 0; k < spec.cols; k++) *out++ = made_value(m->kind, tensor, r, k);
    return CVQ_OK;
}

static cvq_status made_decode(void *context, size_t tensor, uint64_t count, const uint8_t *raw,
                              float *out, cvq_error *err) {
    (void)err;
    memcpy(out, raw, made_size(context, tensor, count));
    return CVQ_OK;
}

static cvq_row_source source_of(made_up *m) {
    return (cvq_row_source){
        .context = m, .size = made_size, .read = made_read, .decode = made_decode};
}

static made_up make_up(row_kind kind) {
    made_up m = {.config = small_config(), .kind = kind};
    m.config.vocab_size = 401;
    return m;
}

/* q4s wherever it may be, q4t in one place. */
static cvq_type *make_types(const cvq_model_config *c) {
    const size_t count = cvq_model_tensor_count(c);
    cvq_type *types = calloc(count, sizeof *types);
    for (size_t i = 0; i < count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(c, i, &spec);
        types[i] = cvq_type_allowed(spec.role, CVQ_TYPE_Q4S) ? CVQ_TYPE_Q4S : CVQ_TYPE_F32;
    }
    types[cvq_model_tensor_index(c, CVQ_T_LM_HEAD, 0)] = CVQ_TYPE_Q4T;
    return types;
}

static bool same(const cvq_codebook *a, const cvq_codebook *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

static void tables_are_valid(void) {
    for (int k = 0; k < CVQ_Q4S_TABLES; k++) {
        CHECK(cvq_codebook_valid(&cvq_q4s_tables[k], CVQ_TYPE_Q4S));
        for (int i = 0; i < k; i++) CHECK(!same(&cvq_q4s_tables[i], &cvq_q4s_tables[k]));
    }
}

/* Normal rows want the first table, heavy ones the second, rows that tell nothing get the first. */
static void each_kind_gets_its_table(void) {
    for (row_kind kind = NORMAL; kind < KINDS; kind++) {
        made_up m = make_up(kind);
        const cvq_row_source source = source_of(&m);
        const size_t count = cvq_model_tensor_count(&m.config);
        cvq_type *types = make_types(&m.config);
        cvq_codebook *books[2] = {calloc(count, sizeof *books[0]), calloc(count, sizeof *books[0])};
        size_t heavy = 0, chosen = 0;
        for (int i = 0; i < 2; i++) {
            const cvq_quantize_options options = {.threads = 1 + 2 * i};
            memset(books[i], 255, count * sizeof *books[i]);
            CHECK(cvq_tables_choose(books[i], &m.config, types, &source, &options, NULL) == CVQ_OK);
        }
        CHECK(memcmp(books[0], books[1], count * sizeof *books[0]) == 0);
        for (size_t i = 0; i < count; i++) {
            const cvq_codebook *c = &books[0][i];
            CHECK(cvq_codebook_valid(c, types[i]));
            CHECK(types[i] != CVQ_TYPE_Q4T || same(c, &cvq_codebook_default));
            if (types[i] != CVQ_TYPE_Q4S) continue;
            chosen++;
            heavy += same(c, &cvq_q4s_tables[1]);
            CHECK(same(c, &cvq_q4s_tables[0]) || same(c, &cvq_q4s_tables[1]));
        }
        CHECK_SAY(kind == HEAVY ? heavy > chosen * 3 / 4 : heavy <= chosen / 4,
                  "kind %d: %zu of %zu heavy", (int)kind, heavy, chosen);
        if (kind >= ZEROS) CHECK(heavy == 0);
        free(types);
        free(books[0]);
        free(books[1]);
    }
}

static int stop(void *context, uint64_t done, uint64_t total) {
    (void)context;
    CHECK(done == 0 && total > 0);
    return 1;
}

static void failures_are_told(void) {
    made_up m = make_up(NORMAL);
    const cvq_row_source source = source_of(&m);
    cvq_type *types = make_types(&m.config);
    cvq_codebook *books = calloc(cvq_model_tensor_count(&m.config), sizeof *books);
    cvq_quantize_options options = {.threads = 2, .progress = stop};
    cvq_error err = {0};
    CHECK(cvq_tables_choose(books, &m.config, types, &source, &options, NULL) == CVQ_CANCELLED);
    options.progress = NULL;
    m.fails = true;
    CHECK(cvq_tables_choose(books, &m.config, types, &source, &options, &err) == CVQ_IO);
    CHECK(strcmp(err.message, "gone") == 0 && err.where[0] != 0);
    free(types);
    free(books);
}

int main(void) {
    RUN(tables_are_valid);
    RUN(each_kind_gets_its_table);
    RUN(failures_are_told);
    return REPORT();
}
