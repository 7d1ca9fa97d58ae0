/* Panels spread evenly over a tensor, each tried in every type. */
#include "quant/type_errors.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "formats/cvq_layout.h"
#include "quant/table_choice.h"

/* Weights of a tensor that are tried: an error is then known to 1 or 2%, as blocks are alike. */
#define SAMPLE_VALUES (1u << 19)

const cvq_type cvq_choice_types[CVQ_CHOICES] = {CVQ_TYPE_Q4S, CVQ_TYPE_Q4H, CVQ_TYPE_Q6,
                                                CVQ_TYPE_Q8, CVQ_TYPE_BF16};

typedef struct panel_result {
    double error[CVQ_CHOICES], sum_sq;
    cvq_status status;
    cvq_error problem;
} panel_result;

typedef struct job {
    const cvq_row_source *source;
    const cvq_quantize_options *options;
    size_t index;
    cvq_tensor tensor; /* its type is set by each trial; the codebook is q4s's */
    const float *importance;
    size_t panels, tried;  /* of the tensor; panels that are measured */
    panel_result *results; /* [tried] */
} job;

bool cvq_has_choice(const cvq_tensor_spec *spec) {
    return (spec->role == CVQ_ROLE_MATRIX || spec->role == CVQ_ROLE_TABLE) &&
           spec->part != CVQ_PART_VIT_PATCH;
}

/* ---------------------------------------------------------------- one panel, on any thread */

double cvq_weighted_square(const float *a, const float *b, const float *importance, size_t rows,
                           size_t cols, size_t ld) {
    double sum = 0;
    for (size_t r = 0; r < rows; r++) {
        for (size_t k = 0; k < cols; k++) {
            const double e = (double)a[r * cols + k] - (b ? (double)b[r * ld + k] : 0);
            sum += e * e * (importance ? (double)importance[k] : 1);
        }
    }
    return sum;
}

cvq_status cvq_panel_error(const cvq_tensor *t, const float *rows, size_t count,
                           const float *importance, double *error, cvq_error *err) {
    const cvq_type_info *info = cvq_type_describe(t->type);
    const size_t cols = (size_t)t->spec.cols, ld = cvq_padded_cols(info, cols);
    void *panel = NULL, *decoded = NULL;
    cvq_status status =
        cvq_alloc(&panel, cvq_panel_bytes(info, t->panel_rows, cols), 1, "a panel", err);
    if (status == CVQ_OK)
        status = cvq_alloc(&decoded, t->panel_rows * ld, sizeof(float), "a panel", err);
    if (status == CVQ_OK) {
        cvq_panel_quantize(t, rows, count, importance, panel);
        cvq_panel_decode(t->type, t->panel_rows, &t->codebook, panel, cols, decoded, ld);
        *error = cvq_weighted_square(rows, decoded, importance, count, cols, ld);
    }
    free(panel);
    free(decoded);
    return status;
}

static cvq_status try_types(const job *j, const float *rows, size_t count, panel_result *out,
                            cvq_error *err) {
    const size_t cols = j->tensor.spec.cols;
    out->sum_sq = cvq_weighted_square(rows, NULL, j->importance, count, cols, 0);
    cvq_status status = CVQ_OK;
    for (int c = 0; status == CVQ_OK && c < CVQ_CHOICES; c++) {
        cvq_tensor t = j->tensor;
        t.type = cvq_choice_types[c];
        if (t.type == CVQ_TYPE_BF16) continue; /* the source's own values */
        if (t.type != CVQ_TYPE_Q4S) t.codebook = (cvq_codebook){0};
        status = cvq_panel_error(&t, rows, count, j->importance, &out->error[c], err);
    }
    return status;
}

static void panel_unit(void *context, size_t unit, int thread) {
    job *j = context;
    panel_result *out = &j->results[unit];
    const size_t height = j->tensor.panel_rows, cols = j->tensor.spec.cols;
    const size_t first = (2 * unit + 1) * j->panels / (2 * j->tried) * height;
    const size_t left = (size_t)j->tensor.spec.rows - first, count = left < height ? left : height;
    void *rows = NULL;
    (void)thread;
    *out = (panel_result){0};
    out->status = cvq_alloc(&rows, height * cols, sizeof(float), "rows", &out->problem);
    if (out->status == CVQ_OK)
        out->status = cvq_rows_read(j->source, j->index, first, count, rows, &out->problem);
    if (out->status == CVQ_OK) out->status = try_types(j, rows, count, out, &out->problem);
    free(rows);
}

/* ---------------------------------------------------------------- the whole */

static cvq_status measure_tensor(job *j, cvq_type_errors *out, cvq_error *err) {
    const size_t height = j->tensor.panel_rows, values = height * (size_t)j->tensor.spec.cols;
    void *results;
    j->panels = ((size_t)j->tensor.spec.rows + height - 1) / height;
    j->tried = SAMPLE_VALUES / values + 1;
    if (j->tried > j->panels) j->tried = j->panels;
    CVQ_TRY(cvq_alloc(&results, j->tried, sizeof *j->results, "a sample", err));
    j->results = results;
    cvq_parallel_for(j->options->threads, j->tried, panel_unit, j);
    panel_result sum = {0};
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < j->tried; i++) {
        const panel_result *r = &j->results[i];
        if (r->status != CVQ_OK)
            status = cvq_fail(err, r->status, r->problem.where, "%s", r->problem.message);
        for (int c = 0; c < CVQ_CHOICES; c++) sum.error[c] += r->error[c];
        sum.sum_sq += r->sum_sq;
    }
    free(results);
    for (int c = 0; c < CVQ_CHOICES; c++)
        out->error[c] = sum.sum_sq > 0 ? sum.error[c] / sum.sum_sq : 0;
    return status;
}

cvq_status cvq_type_errors_measure(cvq_type_errors *out, const cvq_model_config *config,
                                   const cvq_row_source *source,
                                   const cvq_quantize_options *options, cvq_error *err) {
    const size_t n = cvq_model_tensor_count(config);
    for (size_t i = 0; i < n; i++) {
        job j = {.source = source, .options = options, .index = i};
        out[i] = (cvq_type_errors){0};
        cvq_model_tensor_spec(config, i, &j.tensor.spec);
        if (!cvq_has_choice(&j.tensor.spec)) continue;
        j.tensor.panel_rows = cvq_panel_rows_for(j.tensor.spec.role);
        j.importance = options->importance ? cvq_importance_of(options->importance, i) : NULL;
        CVQ_TRY(cvq_table_choose(&j.tensor.codebook, config, i, source, options, err));
        CVQ_TRY(measure_tensor(&j, &out[i], err));
        if (options->progress && options->progress(options->progress_context, i + 1, n) != 0)
            return cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
    }
    return CVQ_OK;
}
