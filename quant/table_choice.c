/* Rows spread over a tensor, each tried with every table. */
#include "quant/table_choice.h"

#include <stdlib.h>

#include "base/half.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "quant/type_errors.h"

/* Rows that are tried: tables that differ by a hundredth are then told apart, as rows are alike. */
#define SAMPLE_ROWS 16
#define ROWS_OF_PANEL 4

const cvq_codebook cvq_q4s_tables[CVQ_Q4S_TABLES] = {
    {{0, 13, 25, 34, 42, 49, 56, 62, 68, 74, 80, 87, 94, 102, 110, 127}, 76, {0}},
    {{0, 17, 26, 34, 41, 47, 52, 57, 62, 67, 73, 80, 88, 98, 110, 127}, 67, {0}}};

typedef struct trial {
    double error[CVQ_Q4S_TABLES];
    cvq_status status;
    cvq_error problem;
} trial;

typedef struct job {
    const cvq_row_source *source;
    const float *importance;
    size_t index;
    cvq_tensor tensor;
    size_t panels, tried; /* of the tensor; panels of which rows are tried */
    trial trials[SAMPLE_ROWS];
} job;

static bool all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((cvq_f32_bits(x[i]) & 0x7f800000u) == 0x7f800000u) return false;
    return true;
}

static cvq_status try_tables(const job *j, size_t first, size_t count, float *rows, trial *out,
                             cvq_error *err) {
    CVQ_TRY(cvq_rows_read(j->source, j->index, first, count, rows, err));
    if (!all_finite(rows, count * (size_t)j->tensor.spec.cols)) return CVQ_OK;
    for (int k = 0; k < CVQ_Q4S_TABLES; k++) {
        cvq_tensor t = j->tensor;
        t.codebook = cvq_q4s_tables[k];
        CVQ_TRY(cvq_panel_error(&t, rows, count, j->importance, &out->error[k], err));
    }
    return CVQ_OK;
}

static void try_panel(void *context, size_t unit, int thread) {
    job *j = context;
    trial *out = &j->trials[unit];
    const cvq_tensor *t = &j->tensor;
    const size_t height = t->panel_rows, cols = (size_t)t->spec.cols;
    const size_t first = (2 * unit + 1) * j->panels / (2 * j->tried) * height;
    const size_t left = (size_t)t->spec.rows - first, most = height > 1 ? ROWS_OF_PANEL : 1;
    void *rows = NULL;
    (void)thread;
    *out = (trial){0};
    out->status = cvq_alloc(&rows, height * cols, sizeof(float), "rows", &out->problem);
    if (out->status == CVQ_OK)
        out->status = try_tables(j, first, left < most ? left : most, rows, out, &out->problem);
    free(rows);
}

static cvq_status try_sample(job *j, int threads, cvq_codebook *codebook, cvq_error *err) {
    const size_t height = j->tensor.panel_rows;
    const size_t wanted = height > 1 ? SAMPLE_ROWS / ROWS_OF_PANEL : SAMPLE_ROWS;
    double error[CVQ_Q4S_TABLES] = {0};
    int best = 0;
    j->panels = ((size_t)j->tensor.spec.rows + height - 1) / height;
    j->tried = j->panels < wanted ? j->panels : wanted;
    cvq_parallel_for(threads, j->tried, try_panel, j);
    for (size_t i = 0; i < j->tried; i++) {
        const trial *t = &j->trials[i];
        if (t->status != CVQ_OK)
            return cvq_fail(err, t->status, t->problem.where, "%s", t->problem.message);
        for (int k = 0; k < CVQ_Q4S_TABLES; k++) error[k] += t->error[k];
    }
    for (int k = 1; k < CVQ_Q4S_TABLES; k++)
        if (error[k] < error[best]) best = k;
    *codebook = cvq_q4s_tables[best];
    return CVQ_OK;
}

cvq_status cvq_table_choose(cvq_codebook *codebook, const cvq_model_config *config, size_t index,
                            const cvq_row_source *source, const cvq_quantize_options *options,
                            cvq_error *err) {
    job j = {.source = source, .index = index, .tensor = {.type = CVQ_TYPE_Q4S}};
    cvq_model_tensor_spec(config, index, &j.tensor.spec);
    j.tensor.panel_rows = cvq_panel_rows_for(j.tensor.spec.role);
    if (options->importance) j.importance = cvq_importance_of(options->importance, index);
    return try_sample(&j, options->threads < 1 ? 1 : options->threads, codebook, err);
}

cvq_status cvq_tables_choose(cvq_codebook *codebooks, const cvq_model_config *config,
                             const cvq_type *types, const cvq_row_source *source,
                             const cvq_quantize_options *options, cvq_error *err) {
    const size_t count = cvq_model_tensor_count(config);
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        total += source->size(source->context, i, spec.rows);
    }
    for (size_t i = 0; i < count; i++) {
        codebooks[i] = (cvq_codebook){0};
        if (types[i] == CVQ_TYPE_Q4T) codebooks[i] = cvq_codebook_default;
        if (types[i] != CVQ_TYPE_Q4S) continue;
        if (options->progress && options->progress(options->progress_context, 0, total) != 0)
            return cvq_fail(err, CVQ_CANCELLED, "", "stopped");
        CVQ_TRY(cvq_table_choose(&codebooks[i], config, i, source, options, err));
    }
    return CVQ_OK;
}
