/* cvq_linear_chain, cvq_linear_gated: the next matrix's input in int8, made with the products, is
 * in every byte what is made from the products afterwards; in whole rows where somebody looks, or
 * the reader wants them. cvq_linear: one row, whose units are longer, gives what the first of
 * several does. */
#include "runtime/linear.h"

#include <stdlib.h>
#include <string.h>

#include "bench/synthetic.h"
#include "tests/unit/harness.h"

static atomic_int never;

static cvq_matrix matrix_new(cvq_type type, size_t rows, size_t cols, const char *name) {
    const cvq_type_info *info = cvq_type_describe(type);
    cvq_matrix m = {.rows = rows, .cols = cols, .name = name};
    uint64_t bytes = 0;
    cvq_tensor_bytes(type, CVQ_PANEL_ROWS, rows, cols, &bytes);
    m.panels = (cvq_panels){.codebook = &cvq_codebook_default,
                            .panel_stride = cvq_panel_bytes(info, CVQ_PANEL_ROWS, cols),
                            .k = cvq_padded_cols(info, cols),
                            .type = type};
    uint8_t *data = malloc(bytes);
    cvq_synthetic_fill(type, CVQ_PANEL_ROWS, m.panels.panel_stride, 11, data, bytes, 1);
    m.panels.data = data;
    return m;
}

/* malloc'd for int8 inputs is filled with what must be overwritten. */
static void *input_memory(size_t rows, size_t cols) {
    size_t bytes = cvq_input_bytes(rows, cols);
    void *p = malloc(bytes);
    return memset(p, 0x5a, bytes);
}

static int wants_reader(void *context, const char *name) {
    return context != NULL && strcmp(name, "reader") == 0;
}
static void sees(void *context, const char *name, size_t first, size_t rows, size_t cols,
                 const float *values) {
    (void)name, (void)first, (void)rows, (void)cols, (void)values;
    ++*(int *)context;
}

enum { NARROW = 160 };

static void check_chain(cvq_cpu_level level, size_t rows, size_t wide, cvq_then then) {
    cvq_engine e;
    CHECK(cvq_engine_open(&e, cvq_kernels_for(level), 2, true, &never, NULL) == CVQ_OK);
    cvq_matrix w = matrix_new(CVQ_TYPE_Q8, wide, NARROW, "writer");
    cvq_matrix reader = matrix_new(CVQ_TYPE_Q8, NARROW, wide, "reader");
    float *x = malloc(rows * NARROW * sizeof *x), *bias = malloc(wide * sizeof *bias);
    float *y = malloc(rows * wide * sizeof *y), *same = malloc(rows * wide * sizeof *y);
    cvq_synthetic_values(1, x, rows * NARROW);
    cvq_synthetic_values(2, bias, wide);
    cvq_synthetic_values(3, y, rows * wide);
    memcpy(same, y, rows * wide * sizeof *y);
    w.bias = bias;
    void *act = input_memory(rows, NARROW), *memory = input_memory(rows, wide);
    void *chained = input_memory(rows, wide);

    cvq_input in = cvq_input_of(x, NARROW, rows, NARROW, act);
    cvq_input out = cvq_input_of(same, wide, rows, wide, chained);
    cvq_linear_chain(&e, &w, &in, then, same, &reader, &out);
    CHECK(out.quantized && memcmp(same, y, rows * wide * sizeof *y) == 0); /* y is not written */
    cvq_input after = cvq_input_of(y, wide, rows, wide, memory);
    cvq_linear(&e, &w, &in, then, y, wide);
    cvq_input_quantize(&e, &after);
    CHECK_SAY(memcmp(memory, chained, cvq_input_bytes(rows, wide)) == 0,
              "%s: %zu rows of %zu, then %d", cvq_cpu_level_name(level), rows, wide, (int)then);

    int seen = 0; /* somebody looks at the reader's input: all of it is there */
    if (then == CVQ_THEN_GELU) {
        e.observer = (cvq_observer){wants_reader, sees, &seen};
        cvq_linear_chain(&e, &w, &in, then, same, &reader, &out);
        CHECK(!out.quantized && memcmp(same, y, rows * wide * sizeof *y) == 0);
    }
    cvq_engine_close(&e);
    free((void *)(uintptr_t)w.panels.data);
    free((void *)(uintptr_t)reader.panels.data);
    free(x);
    free(bias);
    free(y);
    free(same);
    free(act);
    free(memory);
    free(chained);
}

/* Gate and up at once against one after the other; rows in f32 where somebody looks. */
static void check_gated(cvq_cpu_level level, size_t rows, size_t wide) {
    cvq_engine e;
    const cvq_kernels *k = cvq_kernels_for(level);
    CHECK(cvq_engine_open(&e, k, 2, true, &never, NULL) == CVQ_OK);
    cvq_matrix gate = matrix_new(CVQ_TYPE_Q8, wide, NARROW, "gate");
    cvq_matrix up = matrix_new(CVQ_TYPE_Q4H, wide, NARROW, "up");
    cvq_matrix reader = matrix_new(CVQ_TYPE_Q8, NARROW, wide, "reader");
    size_t n = rows * wide;
    float *x = malloc(rows * NARROW * sizeof *x), *bias = malloc(2 * wide * sizeof *bias);
    float *y = malloc(n * sizeof *y), *v = malloc(n * sizeof *y), *same = malloc(n * sizeof *y);
    cvq_synthetic_values(1, x, rows * NARROW);
    cvq_synthetic_values(2, bias, 2 * wide);
    gate.bias = bias;
    up.bias = bias + wide;
    memset(same, 0x5a, n * sizeof *y);
    memcpy(y, same, n * sizeof *y);
    void *act = input_memory(rows, NARROW), *memory = input_memory(rows, wide);
    void *chained = input_memory(rows, wide);

    cvq_input in = cvq_input_of(x, NARROW, rows, NARROW, act);
    cvq_input out = cvq_input_of(same, wide, rows, wide, chained);
    cvq_linear_gated(&e, &gate, &up, &in, same, &reader, &out);
    CHECK(out.quantized && memcmp(same, y, n * sizeof *y) == 0); /* y is not written */
    cvq_linear(&e, &gate, &in, CVQ_THEN_STORE, y, wide);
    cvq_linear(&e, &up, &in, CVQ_THEN_STORE, v, wide);
    for (size_t i = 0; i < rows; i++) k->silu_mul(y + i * wide, v + i * wide, wide);
    cvq_input after = cvq_input_of(y, wide, rows, wide, memory);
    cvq_input_quantize(&e, &after);
    CHECK_SAY(memcmp(memory, chained, cvq_input_bytes(rows, wide)) == 0, "%s: %zu rows of %zu",
              cvq_cpu_level_name(level), rows, wide);

    int seen = 0;
    e.observer = (cvq_observer){wants_reader, sees, &seen};
    cvq_linear_gated(&e, &gate, &up, &in, same, &reader, &out);
    CHECK(!out.quantized && memcmp(same, y, n * sizeof *y) == 0);
    cvq_engine_close(&e);
    free((void *)(uintptr_t)gate.panels.data);
    free((void *)(uintptr_t)up.panels.data);
    free((void *)(uintptr_t)reader.panels.data);
    free(x);
    free(bias);
    free(y);
    free(v);
    free(same);
    free(act);
    free(memory);
    free(chained);
}

static void chains_give_the_same_bytes(void) {
    static const size_t rows[] = {1, 5, 270}, widths[] = {16, 128, 272, 640, 4096};
    for (int level = 0; level < CVQ_CPU_LEVELS; level++)
        for (size_t r = 0; r < 3 && cvq_cpu_has((cvq_cpu_level)level); r++)
            for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
                if (rows[r] * widths[i] > 200000) continue;
                check_chain((cvq_cpu_level)level, rows[r], widths[i], CVQ_THEN_GELU);
                check_chain((cvq_cpu_level)level, rows[r], widths[i], CVQ_THEN_ADD);
                check_gated((cvq_cpu_level)level, rows[r], widths[i]);
            }
}

static void check_one_row(cvq_cpu_level level, cvq_type type, size_t wide, int threads, bool fast) {
    enum { SEVERAL = 5 };
    cvq_engine e;
    CHECK(cvq_engine_open(&e, cvq_kernels_for(level), threads, fast, &never, NULL) == CVQ_OK);
    cvq_matrix w = matrix_new(type, wide, NARROW, "writer");
    float *x = malloc(SEVERAL * NARROW * sizeof *x), *bias = malloc(wide * sizeof *bias);
    float *y = malloc(SEVERAL * wide * sizeof *y), *one = malloc(wide * sizeof *one);
    cvq_synthetic_values(1, x, SEVERAL * NARROW);
    cvq_synthetic_values(2, bias, wide);
    memset(one, 0x5a, wide * sizeof *one);
    w.bias = bias;
    void *act = input_memory(SEVERAL, NARROW), *act_one = input_memory(1, NARROW);

    cvq_input in = cvq_input_of(x, NARROW, SEVERAL, NARROW, act);
    cvq_linear(&e, &w, &in, CVQ_THEN_GELU, y, wide);
    cvq_input in_one = cvq_input_of(x, NARROW, 1, NARROW, act_one);
    cvq_linear(&e, &w, &in_one, CVQ_THEN_GELU, one, wide);
    CHECK_SAY(memcmp(one, y, wide * sizeof *y) == 0, "%s: %zu of %s, %d threads",
              cvq_cpu_level_name(level), wide, cvq_type_describe(type)->name, threads);
    cvq_engine_close(&e);
    free((void *)(uintptr_t)w.panels.data);
    free(x);
    free(bias);
    free(y);
    free(one);
    free(act);
    free(act_one);
}

static void one_row_is_the_first_of_several(void) {
    static const size_t widths[] = {16, 500, 1368, 2744, 4096}; /* the last three: long units */
    for (int level = 0; level < CVQ_CPU_LEVELS; level++)
        for (size_t i = 0; i < sizeof widths / sizeof *widths && cvq_cpu_has((cvq_cpu_level)level);
             i++)
            for (int threads = 1; threads <= 3; threads++) {
                check_one_row((cvq_cpu_level)level, CVQ_TYPE_Q4H, widths[i], threads, true);
                check_one_row((cvq_cpu_level)level, CVQ_TYPE_Q6, widths[i], threads, true);
                check_one_row((cvq_cpu_level)level, CVQ_TYPE_Q6, widths[i], threads, false);
            }
}

int main(void) {
    RUN(one_row_is_the_first_of_several);
    RUN(chains_give_the_same_bytes);
    return REPORT();
}
