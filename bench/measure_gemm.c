/* gemm_*: every matrix of the model, alone, at the numbers of rows that occur; quantize_rows: the
 * activations of a whole picture made int8. Each run takes other weights, from a pool that no cache
 * holds, as in the model. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bench/measure.h"
#include "bench/synthetic.h"

/* The model runs its MLPs over so many rows at a time, and so do these rows. */
#define MLP_ROWS 512

typedef enum most_rows { FEW, PROMPT, PICTURE } most_rows;

typedef struct gemm_shape {
    const char *name;
    cvq_tensor_kind kind;
    cvq_bench_phase phase; /* with more than one row */
    most_rows most;
    bool mlp, patch;
    int matrices; /* of this shape that a picture, a prompt or a token goes through */
} gemm_shape;

/* The adapter's gate, up and down have the shapes of the experts'. */
static const gemm_shape shapes[] = {
    {"gemm_patch", CVQ_T_PATCH_PROJ, CVQ_BENCH_ENCODE, PICTURE, false, true, 1},
    {"gemm_vit_qkv", CVQ_T_VIT_QKV, CVQ_BENCH_ENCODE, PICTURE, false, false, 63},
    {"gemm_vit_dense", CVQ_T_VIT_DENSE, CVQ_BENCH_ENCODE, PICTURE, false, false, 63},
    {"gemm_vit_fc1", CVQ_T_VIT_FC1, CVQ_BENCH_ENCODE, PICTURE, true, false, 63},
    {"gemm_vit_fc2", CVQ_T_VIT_FC2, CVQ_BENCH_ENCODE, PICTURE, true, false, 63},
    {"gemm_conv", CVQ_T_CONV, CVQ_BENCH_ENCODE, PROMPT, false, false, 1},
    {"gemm_adapter_proj", CVQ_T_ADAPTER_PROJ, CVQ_BENCH_ENCODE, PROMPT, false, false, 1},
    {"gemm_qkv", CVQ_T_LANGUAGE_QKV, CVQ_BENCH_PREFILL, PROMPT, false, false, 32},
    {"gemm_dense", CVQ_T_LANGUAGE_DENSE, CVQ_BENCH_PREFILL, PROMPT, false, false, 32},
    {"gemm_gate_up", CVQ_T_LANGUAGE_GATE, CVQ_BENCH_PREFILL, PROMPT, true, false, 64},
    {"gemm_down", CVQ_T_LANGUAGE_DOWN, CVQ_BENCH_PREFILL, PROMPT, true, false, 32},
    {"gemm_lm_head", CVQ_T_LM_HEAD, CVQ_BENCH_DECODE, FEW, false, false, 1},
};
#define NUM_SHAPES (sizeof shapes / sizeof *shapes)

static const cvq_type types[] = {CVQ_TYPE_Q8,  CVQ_TYPE_Q4, CVQ_TYPE_Q4T, CVQ_TYPE_Q4S,
                                 CVQ_TYPE_Q4H, CVQ_TYPE_Q6, CVQ_TYPE_BF16};
#define NUM_TYPES (sizeof types / sizeof *types)
#define MAX_COUNTS 6

typedef struct gemm_bench {
    cvq_bench *b;
    cvq_engine exact, fast;
    uint8_t *pool;
    size_t at;     /* where the next matrix's weights begin */
    cvq_type type; /* of the pool's bytes */
    float *x, *y;  /* large enough for every shape */
    void *act;
} gemm_bench;

/* ---------------------------------------------------------------- shapes */

/* 1, 8, 32, 256, a prompt's and a picture's tokens. */
static size_t row_count(const cvq_bench *b, size_t i) {
    static const size_t fixed[] = {1, 8, 32, 256};
    return i < 4 ? fixed[i] : i == 4 ? cvq_image_slots(&b->config) : b->config.vit_num_positions;
}

static size_t most_rows_of(const cvq_bench *b, const gemm_shape *s) {
    size_t prompt = cvq_image_slots(&b->config);
    if (s->most == FEW) return prompt < 256 ? prompt : 256;
    return s->most == PROMPT ? prompt : b->config.vit_num_positions;
}

static bool wanted(const cvq_bench *b, const gemm_shape *s, cvq_type type, size_t m) {
    if (m > most_rows_of(b, s) || (s->patch && type != CVQ_TYPE_BF16)) return false;
    if (b->quick && m != 1 && m != 256 && b->scale == 1) return false;
    if (b->quick && type != CVQ_TYPE_Q8 && type != CVQ_TYPE_Q4T && !s->patch) return false;
    return cvq_bench_wanted(b, s->name, cvq_type_describe(type)->name, m);
}

static cvq_tensor_spec spec_of(const cvq_bench *b, const gemm_shape *s) {
    cvq_tensor_spec spec;
    cvq_model_tensor_spec(&b->config, cvq_model_tensor_index(&b->config, s->kind, 0), &spec);
    return spec;
}

/* Rows that go through cvq_linear at once. */
static size_t rows_at_once(const gemm_shape *s, size_t m) {
    return s->mlp && m > MLP_ROWS ? MLP_ROWS : m;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static cvq_status alloc_rows(gemm_bench *g, cvq_error *err) {
    size_t x = 0, y = 0, act = 0;
    for (size_t i = 0; i < NUM_SHAPES; i++) {
        cvq_tensor_spec spec = spec_of(g->b, &shapes[i]);
        size_t m = rows_at_once(&shapes[i], most_rows_of(g->b, &shapes[i]));
        x = larger(x, m * (size_t)spec.cols);
        y = larger(y, m * (size_t)spec.rows);
        act = larger(act, cvq_input_bytes(m, (size_t)spec.cols));
    }
    void *p;
    CVQ_TRY(cvq_alloc(&p, x, sizeof(float), "rows to multiply", err));
    g->x = p;
    CVQ_TRY(cvq_alloc(&p, y, sizeof(float), "products", err));
    g->y = p;
    cvq_synthetic_values(7, g->x, x);
    return cvq_alloc(&g->act, act, 1, "int8 rows", err);
}

/* ---------------------------------------------------------------- a row */

static cvq_matrix next_matrix(gemm_bench *g, const cvq_tensor_spec *spec) {
    const cvq_type_info *info = cvq_type_describe(g->type);
    cvq_matrix m = {.rows = (size_t)spec->rows, .cols = (size_t)spec->cols, .name = "synthetic"};
    m.panels = (cvq_panels){.codebook = &cvq_codebook_default,
                            .panel_stride = cvq_panel_bytes(info, CVQ_PANEL_ROWS, m.cols),
                            .k = cvq_padded_cols(info, m.cols),
                            .type = g->type};
    uint64_t bytes = 0;
    cvq_tensor_bytes(g->type, CVQ_PANEL_ROWS, spec->rows, spec->cols, &bytes);
    if (bytes > g->b->pool_bytes - g->at) g->at = 0;
    m.panels.data = g->pool + g->at;
    g->at += (size_t)bytes;
    return m;
}

/* The rows in one piece or in the model's slices. The int8 form of the input is made before the
 * first run and stays: a matrix does not make it alone (gate and up share one). */
static void multiply(const cvq_engine *e, const cvq_matrix *w, cvq_input *in, size_t m, float *y) {
    for (size_t done = 0; done < m; done += in->rows) {
        if (m - done >= in->rows) {
            cvq_linear(e, w, in, CVQ_THEN_STORE, y, w->rows);
        } else {
            cvq_input rest = *in;
            rest.rows = m - done;
            cvq_linear(e, w, &rest, CVQ_THEN_STORE, y, w->rows);
        }
    }
}

static cvq_status measure_gemm(gemm_bench *g, const gemm_shape *s, size_t m, cvq_error *err) {
    cvq_bench *b = g->b;
    cvq_tensor_spec spec = spec_of(b, s);
    size_t n = (size_t)spec.rows, k = (size_t)spec.cols;
    bool fast = g->type != CVQ_TYPE_BF16;
    const cvq_engine *e = fast ? &g->fast : &g->exact;
    uint64_t weight_bytes = 0;
    cvq_tensor_bytes(g->type, CVQ_PANEL_ROWS, n, k, &weight_bytes);
    if (weight_bytes > b->pool_bytes) {
        cvq_bench_note(b, "%s left out: no memory for its weights", s->name);
        return CVQ_OK;
    }
    cvq_input in = cvq_input_of(g->x, k, rows_at_once(s, m), k, g->act);
    cvq_matrix w = next_matrix(g, &spec);
    multiply(e, &w, &in, m, g->y);
    cvq_bench_times t = {0};
    while (cvq_bench_more(b, &t)) {
        w = next_matrix(g, &spec);
        double start = cvq_bench_now();
        multiply(e, &w, &in, m, g->y);
        cvq_bench_add(&t, cvq_bench_now() - start);
    }
    cvq_bench_phase phase = m == 1 && s->phase == CVQ_BENCH_PREFILL ? CVQ_BENCH_DECODE : s->phase;
    cvq_bench_row row = {.phase = phase,
                         .shape = {m, n, k},
                         .type = cvq_type_describe(g->type)->name,
                         .ops = 2.0 * (double)m * (double)n * (double)k,
                         .bytes = (double)weight_bytes +
                                  (double)m * ((double)n * 4 + (double)k * (fast ? 1 : 4)),
                         .bound = fast ? CVQ_PEAK_INT8 : CVQ_PEAK_F32};
    memcpy(row.name, s->name, strlen(s->name) + 1);
    /* A picture or a prompt goes through in its own number of rows; a token in one. */
    double rows = phase == CVQ_BENCH_DECODE ? 1 : (double)most_rows_of(b, s);
    return cvq_bench_done(b, &row, &t, s->matrices * rows / (double)m, err);
}

static cvq_status measure_type(gemm_bench *g, cvq_type type, cvq_error *err) {
    const cvq_type_info *info = cvq_type_describe(type);
    size_t group = (size_t)info->row_bytes * CVQ_PANEL_ROWS;
    bool filled = false;
    g->type = type;
    g->at = 0;
    for (size_t i = 0; i < NUM_SHAPES; i++)
        for (size_t j = 0; j < MAX_COUNTS; j++) {
            size_t m = row_count(g->b, j);
            if (!wanted(g->b, &shapes[i], type, m)) continue;
            CVQ_TRY(cvq_bench_check(g->b, err));
            if (!filled)
                cvq_synthetic_fill(type, CVQ_PANEL_ROWS, g->b->pool_bytes, 11, g->pool,
                                   g->b->pool_bytes / group * group, g->b->threads);
            filled = true;
            CVQ_TRY(measure_gemm(g, &shapes[i], m, err));
        }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- activations to int8 */

static cvq_status measure_quantize_rows(gemm_bench *g, cvq_error *err) {
    cvq_bench *b = g->b;
    size_t m = b->config.vit_num_positions, k = b->config.vit_hidden_size;
    if (!cvq_bench_wanted(b, "quantize_rows", "f32", m)) return CVQ_OK;
    cvq_input in = cvq_input_of(g->x, k, m, k, g->act);
    cvq_input_quantize(&g->fast, &in);
    cvq_bench_times t = {0};
    while (cvq_bench_more(b, &t)) {
        in.quantized = false;
        double start = cvq_bench_now();
        cvq_input_quantize(&g->fast, &in);
        cvq_bench_add(&t, cvq_bench_now() - start);
    }
    cvq_bench_row row = {.name = "quantize_rows",
                         .phase = CVQ_BENCH_ENCODE,
                         .shape = {m, k, k},
                         .type = "f32",
                         .bytes = (double)m * (double)k * 5,
                         .bound = CVQ_PEAK_READ};
    /* A layer makes four inputs int8: three as wide as this one, and the MLP's. */
    double width = 3.0 + (double)b->config.vit_intermediate_size / (double)k;
    return cvq_bench_done(b, &row, &t, width * cvq_real_config.vit_num_layers, err);
}

/* ---------------------------------------------------------------- all of it */

cvq_status cvq_bench_gemm(cvq_bench *b, cvq_error *err) {
    gemm_bench g = {.b = b};
    bool any = cvq_bench_wanted(b, "quantize_rows", "f32", b->config.vit_num_positions);
    for (size_t i = 0; i < NUM_SHAPES * NUM_TYPES * MAX_COUNTS; i++)
        any |= wanted(b, &shapes[i % NUM_SHAPES], types[i / NUM_SHAPES % NUM_TYPES],
                      row_count(b, i / NUM_SHAPES / NUM_TYPES));
    if (!any) return CVQ_OK;
    void *pool = NULL;
    const cvq_kernels *k = cvq_kernels_for(b->level);
    cvq_status status = cvq_engine_open(&g.exact, k, b->threads, false, &b->stop, err);
    if (status == CVQ_OK) status = cvq_engine_open(&g.fast, k, b->threads, true, &b->stop, err);
    if (status == CVQ_OK) status = cvq_alloc(&pool, b->pool_bytes, 1, "weights", err);
    g.pool = pool;
    if (status == CVQ_OK) status = alloc_rows(&g, err);
    for (size_t i = 0; status == CVQ_OK && i < NUM_TYPES; i++)
        status = measure_type(&g, types[i], err);
    if (status == CVQ_OK) status = measure_quantize_rows(&g, err);
    free(g.pool);
    free(g.x);
    free(g.y);
    free(g.act);
    cvq_engine_close(&g.exact);
    cvq_engine_close(&g.fast);
    return status;
}
