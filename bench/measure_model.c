/* The time of whole answers, with a model's file; and of making one: weights to block types. */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "bench/measure.h"
#include "bench/synthetic.h"
#include "cvq.h"
#include "quant/quantize.h"

/* ---------------------------------------------------------------- quantizing */

#define QUANTIZED_PANELS 32

typedef struct quantize_job {
    const cvq_tensor *tensor;
    const float *rows;
    uint8_t *panels;
    size_t panel_bytes;
} quantize_job;

static void quantize_panel(void *context, size_t panel, int thread) {
    const quantize_job *job = context;
    (void)thread;
    cvq_panel_quantize(job->tensor, job->rows + panel * CVQ_PANEL_ROWS * job->tensor->spec.cols,
                       CVQ_PANEL_ROWS, NULL, job->panels + panel * job->panel_bytes);
}

/* Values of all tensors but the vectors. */
static double model_values(const cvq_model_config *c) {
    double values = 0;
    for (size_t i = 0; i < cvq_model_tensor_count(c); i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(c, i, &spec);
        if (spec.role == CVQ_ROLE_MATRIX || spec.role == CVQ_ROLE_TABLE)
            values += (double)spec.rows * (double)spec.cols;
    }
    return values;
}

static cvq_status measure_quantize(cvq_bench *b, cvq_type type, const float *values, size_t rows,
                                   size_t cols, cvq_error *err) {
    const cvq_type_info *info = cvq_type_describe(type);
    cvq_bench_row row = {.phase = CVQ_BENCH_CONVERT,
                         .shape = {rows, rows, cols},
                         .type = info->name,
                         .bound = CVQ_PEAK_READ};
    snprintf(row.name, sizeof row.name, "quantize_%s", info->name);
    if (!cvq_bench_wanted(b, row.name, row.type, rows)) return CVQ_OK;
    cvq_tensor tensor = {.type = type, .panel_rows = CVQ_PANEL_ROWS};
    tensor.spec.rows = rows;
    tensor.spec.cols = cols;
    if (cvq_type_has_codebook(type)) tensor.codebook = cvq_codebook_default;
    size_t panels = rows / CVQ_PANEL_ROWS;
    quantize_job job = {&tensor, values, NULL, cvq_panel_bytes(info, CVQ_PANEL_ROWS, cols)};
    void *out;
    CVQ_TRY(cvq_alloc(&out, panels, job.panel_bytes, "a quantized tensor", err));
    job.panels = out;
    cvq_bench_times t = {0};
    while (cvq_bench_more(b, &t)) {
        double start = cvq_bench_now();
        cvq_parallel_for(b->threads, panels, quantize_panel, &job);
        cvq_bench_add(&t, cvq_bench_now() - start);
    }
    free(out);
    double n = (double)rows * (double)cols;
    row.bytes = 4 * n + (double)panels * (double)job.panel_bytes;
    return cvq_bench_done_as(b, &row, &t, model_values(&cvq_real_config) / n, n * 1e-6,
                             "M values/s", err);
}

cvq_status cvq_bench_convert(cvq_bench *b, cvq_error *err) {
    static const cvq_type types[] = {CVQ_TYPE_Q8, CVQ_TYPE_Q6,  CVQ_TYPE_Q4T,
                                     CVQ_TYPE_Q4, CVQ_TYPE_Q4S, CVQ_TYPE_Q4H};
    size_t rows = QUANTIZED_PANELS * CVQ_PANEL_ROWS / b->scale, cols = b->config.hidden_size;
    void *values;
    CVQ_TRY(cvq_alloc(&values, rows, cols * sizeof(float), "values to quantize", err));
    cvq_synthetic_values(17, values, rows * cols);
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < sizeof types / sizeof *types; i++)
        status = measure_quantize(b, types[i], values, rows, cols, err);
    free(values);
    return status;
}

/* ---------------------------------------------------------------- a model's file */

#define DECODED_TOKENS 32

typedef struct model_bench {
    cvq_bench *b;
    cvq_reader *reader; /* for shapes and sizes; the model has its own */
    cvq_model *model;
    cvq_session *session;
    cvq_image *image;
    cvq_prompt *prompt;
} model_bench;

/* Matrices and tables of a part. */
static void add_part(const model_bench *m, cvq_part part, double *params, double *bytes) {
    for (size_t i = 0; i < cvq_reader_tensor_count(m->reader); i++) {
        const cvq_tensor *t = cvq_reader_tensor(m->reader, i);
        if (t->spec.part != part || t->spec.role != CVQ_ROLE_MATRIX) continue;
        *params += (double)t->spec.rows * (double)t->spec.cols;
        *bytes += (double)t->size;
    }
}

static bool wanted(const cvq_bench *b, const char *name) {
    return cvq_bench_wanted(b, name, NULL, 1);
}

/* largest: the kind whose type the row names. */
static cvq_bench_row row_of(const model_bench *m, const char *name, cvq_bench_phase phase,
                            size_t rows, cvq_tensor_kind largest) {
    const cvq_model_info *info = cvq_model_describe(m->model);
    size_t tensor = cvq_model_tensor_index(cvq_reader_config(m->reader), largest, 0);
    cvq_bench_row row = {.phase = phase,
                         .shape = {rows, info->hidden_size, info->hidden_size},
                         .type =
                             cvq_type_describe(cvq_reader_tensor(m->reader, tensor)->type)->name,
                         .bound = info->quantized ? CVQ_PEAK_INT8 : CVQ_PEAK_F32};
    snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

static cvq_status measure_encode(model_bench *m, cvq_error *err) {
    const cvq_model_config *c = cvq_reader_config(m->reader);
    double start = cvq_bench_now(), tokens = c->vit_num_positions;
    CVQ_TRY(cvq_image_encode(m->image, m->session, err));
    cvq_bench_times t = {0};
    cvq_bench_add(&t, cvq_bench_now() - start);
    cvq_bench_row row = row_of(m, "encode", CVQ_BENCH_ENCODE, c->vit_num_positions, CVQ_T_VIT_FC1);
    double vit = 0, adapter = 0;
    add_part(m, CVQ_PART_VIT, &vit, &row.bytes);
    add_part(m, CVQ_PART_VIT_PATCH, &vit, &row.bytes);
    add_part(m, CVQ_PART_ADAPTER, &adapter, &row.bytes);
    row.ops = 2 * tokens * vit + 2 * ((double)cvq_image_slots(c) - 2) * adapter +
              4 * tokens * tokens * c->vit_hidden_size * c->vit_num_layers;
    if (!wanted(m->b, "encode")) return CVQ_OK;
    return cvq_bench_done_as(m->b, &row, &t, 1, 1, "pictures/s", err);
}

static cvq_status measure_prefill(model_bench *m, cvq_error *err) {
    const cvq_model_config *c = cvq_reader_config(m->reader);
    size_t slots;
    cvq_prompt_ids(m->prompt, &slots);
    double start = cvq_bench_now(), n = (double)slots, vision = (double)cvq_image_slots(c) - 1;
    CVQ_TRY(cvq_session_sync(m->session, m->prompt, err));
    cvq_bench_times t = {0};
    cvq_bench_add(&t, cvq_bench_now() - start);
    cvq_bench_row row = row_of(m, "prefill", CVQ_BENCH_PREFILL, slots, CVQ_T_VISION_GATE);
    double language_params = 0, vision_params = 0, head = 0;
    add_part(m, CVQ_PART_LANGUAGE, &language_params, &row.bytes);
    add_part(m, CVQ_PART_VISION, &vision_params, &row.bytes);
    add_part(m, CVQ_PART_HEAD, &head, &row.bytes);
    row.ops = 2 * ((n - vision) * language_params + vision * vision_params + head) +
              2 * n * (n + 1) * c->hidden_size * c->num_layers;
    if (!wanted(m->b, "prefill")) return CVQ_OK;
    return cvq_bench_done_as(m->b, &row, &t, 1, n, "tokens/s", err);
}

static cvq_status measure_decode(model_bench *m, cvq_error *err) {
    const cvq_model_config *c = cvq_reader_config(m->reader);
    size_t slots;
    cvq_prompt_ids(m->prompt, &slots);
    cvq_bench_times t = {0};
    for (uint32_t i = 0; i < DECODED_TOKENS && slots + i < cvq_max_context(c); i++) {
        CVQ_TRY(cvq_bench_check(m->b, err));
        double start = cvq_bench_now();
        CVQ_TRY(cvq_session_accept(m->session, (int32_t)(i * 7919u % c->vocab_size), err));
        cvq_bench_add(&t, cvq_bench_now() - start);
    }
    if (t.count == 0) return CVQ_OK;
    cvq_bench_row row = row_of(m, "decode", CVQ_BENCH_DECODE, 1, CVQ_T_LANGUAGE_GATE);
    size_t visible = slots + t.count / 2;
    double params = 0, keys = (double)visible;
    add_part(m, CVQ_PART_LANGUAGE, &params, &row.bytes);
    add_part(m, CVQ_PART_HEAD, &params, &row.bytes);
    row.ops = 2 * params + 4 * keys * c->hidden_size * c->num_layers;
    row.bytes += 2 * keys * c->num_kv_heads * (double)cvq_head_dim(c) * c->num_layers *
                 (cvq_model_describe(m->model)->quantized ? 2 : 4);
    return cvq_bench_done_as(m->b, &row, &t, 1, 1, "tokens/s", err);
}

static cvq_status open_all(model_bench *m, const char *path, cvq_error *err) {
    CVQ_TRY(cvq_reader_open(&m->reader, path, err));
    CVQ_TRY(cvq_model_open(&m->model, path, NULL, err));
    cvq_session_options options = {.threads = m->b->threads};
    CVQ_TRY(cvq_session_open(&m->session, m->model, &options, err));
    uint32_t size = cvq_model_describe(m->model)->image_size;
    void *rgb;
    CVQ_TRY(cvq_alloc(&rgb, 3 * (uint64_t)size, size, "picture", err));
    for (size_t i = 0; i < 3 * (size_t)size * size; i++)
        ((uint8_t *)rgb)[i] = (uint8_t)(i * i >> 7);
    cvq_status status =
        cvq_image_create(&m->image, m->model, rgb, size, size, 3 * (size_t)size, err);
    free(rgb);
    CVQ_TRY(status);
    int kind = cvq_model_describe(m->model)->default_template;
    return cvq_prompt_create(&m->prompt, m->model, (cvq_prompt_kind)kind, NULL, 0,
                             "What can be seen in this picture?", m->image, err);
}

cvq_status cvq_bench_model(cvq_bench *b, const char *path, cvq_error *err) {
    if (!wanted(b, "encode") && !wanted(b, "prefill") && !wanted(b, "decode")) return CVQ_OK;
    model_bench m = {.b = b};
    cvq_status status = open_all(&m, path, err);
    if (status == CVQ_OK && b->on_session) b->on_session(b->context, m.session);
    if (status == CVQ_OK) status = measure_encode(&m, err);
    if (status == CVQ_OK && (wanted(b, "prefill") || wanted(b, "decode")))
        status = measure_prefill(&m, err);
    if (status == CVQ_OK && wanted(b, "decode")) status = measure_decode(&m, err);
    if (b->on_session) b->on_session(b->context, NULL);
    cvq_prompt_free(m.prompt);
    cvq_image_free(m.image);
    cvq_session_close(m.session);
    cvq_model_close(m.model);
    cvq_reader_close(m.reader);
    return status;
}
