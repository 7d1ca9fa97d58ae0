/* Rows in, the tensors of a .cvq file out. A tensor goes through in batches of strips: a strip is
 * one panel of 16 rows, or as many single rows as make some work, and all threads take strips of
 * one batch; then the batch is appended and the next begins. So memory does not depend on the
 * model's size, and the bytes do not depend on the number of threads. */
#include "quant/quantize.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/parallel.h"

/* Values of a batch for each thread: about a tenth of a second of the slowest search, so progress
 * shows that often. */
#define BATCH_VALUES (1u << 20)
/* Values of a strip of single rows. */
#define STRIP_VALUES (1u << 16)
#define MIN_STRIPS 4 /* of a batch, a thread: what runs over at its end stays small */

typedef struct strip_result {
    cvq_quant_stats stats;
    cvq_status status;
} strip_result;

/* Sizes of the work on one tensor. */
typedef struct strip_plan {
    size_t rows;        /* of a strip: 16, or any number of single ones */
    size_t panel_bytes; /* a strip has rows / panel height panels */
    size_t bytes;       /* of a strip */
    size_t total;       /* strips of the tensor */
    size_t batch;       /* strips of a batch */
} strip_plan;

typedef struct worker {
    float *rows;    /* [strip rows][cols] */
    float *decoded; /* [panel height][padded cols]; only where stats are asked for */
    void *scratch;  /* only with feedback */
    size_t failed;  /* the strip that error is of: the lowest of this thread's */
    cvq_error error;
} worker;

typedef struct job {
    const cvq_row_source *source;
    const cvq_quantize_options *options;
    int threads;
    uint64_t done, total; /* bytes */
    worker *workers;      /* [threads] */
    /* the tensor at work */
    size_t index;
    const cvq_tensor *tensor;
    const float *importance;
    cvq_feedback feedback;
    bool has_feedback;
    strip_plan plan;
    size_t first;          /* strip of the batch */
    strip_result *results; /* [plan.batch] */
    uint8_t *out;          /* [plan.batch][plan.bytes] */
} job;

static void plan_strips(strip_plan *p, const cvq_tensor *t, int threads) {
    const size_t cols = t->spec.cols, height = t->panel_rows, workers = (size_t)threads;
    p->panel_bytes = cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, cols);
    p->rows = height > 1 ? height : 1 + STRIP_VALUES / cols;
    if (p->rows > t->spec.rows && height == 1) p->rows = t->spec.rows;
    p->bytes = p->rows / height * p->panel_bytes;
    p->total = (size_t)((t->spec.rows + p->rows - 1) / p->rows);
    size_t each = BATCH_VALUES / (p->rows * cols);
    if (each < MIN_STRIPS) each = MIN_STRIPS;
    p->batch = each * workers < p->total ? each * workers : p->total;
}

/* ---------------------------------------------------------------- one strip, on any thread */

static cvq_status check_finite(const cvq_tensor *t, const float *rows, size_t first, size_t count,
                               cvq_error *err) {
    const size_t cols = t->spec.cols;
    uint32_t largest = 0; /* an exponent of all ones is infinite or not a number */
    for (size_t i = 0; i < count * cols; i++) {
        uint32_t magnitude = cvq_f32_bits(rows[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    if (largest < 0x7f800000u) return CVQ_OK;
    size_t i = 0;
    while ((cvq_f32_bits(rows[i]) & 0x7f800000u) != 0x7f800000u) i++;
    const bool infinite = (cvq_f32_bits(rows[i]) & 0x7fffffu) == 0;
    return cvq_fail(err, CVQ_FORMAT, t->spec.name,
                    "row %zu, column %zu is %s; the source is damaged, get it again",
                    first + i / cols, i % cols, infinite ? "infinite" : "not a number");
}

static void add_stats(cvq_quant_stats *s, const float *rows, const float *decoded, size_t count,
                      size_t cols, size_t ld) {
    for (size_t r = 0; r < count; r++) {
        for (size_t k = 0; k < cols; k++) {
            const double x = (double)rows[r * cols + k];
            const double e = x - (double)decoded[r * ld + k];
            const float size = (float)(e < 0.0 ? -e : e);
            s->sum_sq += x * x;
            s->sum_sq_error += e * e;
            if (size > s->max_error) s->max_error = size;
        }
    }
}

static cvq_status do_strip(const job *j, size_t strip, worker *w, strip_result *result,
                           cvq_error *err) {
    const cvq_tensor *t = j->tensor;
    const size_t cols = t->spec.cols, height = t->panel_rows;
    const size_t first = (j->first + strip) * j->plan.rows;
    const size_t left = (size_t)t->spec.rows - first;
    const size_t rows = left < j->plan.rows ? left : j->plan.rows;
    const size_t ld = cvq_padded_cols(cvq_type_describe(t->type), cols);
    CVQ_TRY(j->source->read(j->source->context, j->index, first, rows, w->rows, err));
    CVQ_TRY(check_finite(t, w->rows, first, rows, err));
    memset(w->rows + rows * cols, 0, (j->plan.rows - rows) * cols * sizeof *w->rows); /* pad rows */
    uint8_t *panel = j->out + strip * j->plan.bytes;
    for (size_t r = 0; r < rows; r += height, panel += j->plan.panel_bytes) {
        const size_t count = rows - r < height ? rows - r : height;
        if (j->has_feedback)
            cvq_feedback_panel(&j->feedback, t, w->rows + r * cols, count, w->scratch, panel);
        else
            cvq_panel_quantize(t, w->rows + r * cols, count, j->importance, panel);
        if (!j->options->stats) continue;
        cvq_panel_decode(t->type, t->panel_rows, &t->codebook, panel, cols, w->decoded, ld);
        add_stats(&result->stats, w->rows + r * cols, w->decoded, count, cols, ld);
    }
    return CVQ_OK;
}

static void strip_unit(void *context, size_t index, int thread) {
    job *j = context;
    worker *w = &j->workers[thread];
    strip_result *result = &j->results[index];
    cvq_error error = {0};
    *result = (strip_result){0};
    result->status = do_strip(j, index, w, result, &error);
    /* Of several failures the first strip's is told, whichever thread had it. */
    if (result->status != CVQ_OK && index < w->failed) {
        w->failed = index;
        w->error = error;
    }
}

/* ---------------------------------------------------------------- one tensor */

static cvq_status batch_status(const job *j, size_t count, cvq_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (j->results[i].status == CVQ_OK) continue;
        for (int k = 0; k < j->threads; k++) {
            const cvq_error *e = &j->workers[k].error;
            if (j->workers[k].failed == i)
                return cvq_fail(err, j->results[i].status, e->where, "%s", e->message);
        }
    }
    return CVQ_OK;
}

static void sum_stats(const job *j, size_t count) {
    cvq_quant_stats *s = &j->options->stats[j->index];
    for (size_t i = 0; i < count; i++) {
        const cvq_quant_stats *part = &j->results[i].stats;
        s->sum_sq_error += part->sum_sq_error;
        s->sum_sq += part->sum_sq;
        if (part->max_error > s->max_error) s->max_error = part->max_error;
    }
}

static cvq_status report_progress(const job *j, cvq_error *err) {
    const cvq_quantize_options *o = j->options;
    if (!o->progress || o->progress(o->progress_context, j->done, j->total) == 0) return CVQ_OK;
    return cvq_fail(err, CVQ_CANCELLED, j->tensor->spec.name, "stopped");
}

static cvq_status run_batches(job *j, cvq_writer *w, cvq_error *err) {
    const strip_plan *p = &j->plan;
    const size_t panels =
        (size_t)((j->tensor->spec.rows + j->tensor->panel_rows - 1) / j->tensor->panel_rows);
    for (j->first = 0; j->first < p->total; j->first += p->batch) {
        const size_t count = p->total - j->first < p->batch ? p->total - j->first : p->batch;
        for (int k = 0; k < j->threads; k++) j->workers[k].failed = SIZE_MAX;
        cvq_parallel_for(j->threads, count, strip_unit, j);
        CVQ_TRY(batch_status(j, count, err));
        if (j->options->stats) sum_stats(j, count);
        /* The last strip of single rows may be a short one. */
        const size_t first_panel = j->first * (p->bytes / p->panel_bytes);
        const size_t most = count * (p->bytes / p->panel_bytes);
        const size_t batch_panels = panels - first_panel < most ? panels - first_panel : most;
        CVQ_TRY(cvq_writer_append(w, j->out, batch_panels * p->panel_bytes, err));
        j->done += batch_panels * p->panel_bytes;
        CVQ_TRY(report_progress(j, err));
    }
    return CVQ_OK;
}

static cvq_status open_workers(job *j, size_t row_values, size_t decoded_values, cvq_error *err) {
    for (int k = 0; k < j->threads; k++) {
        void *rows = NULL, *decoded = NULL;
        CVQ_TRY(cvq_alloc(&rows, row_values, sizeof(float), "a strip of rows", err));
        j->workers[k].rows = rows;
        if (j->has_feedback)
            CVQ_TRY(cvq_alloc(&j->workers[k].scratch, cvq_feedback_scratch(j->tensor), 1,
                              "feedback", err));
        if (!j->options->stats) continue;
        CVQ_TRY(cvq_alloc(&decoded, decoded_values, sizeof(float), "a decoded panel", err));
        j->workers[k].decoded = decoded;
    }
    return CVQ_OK;
}

static cvq_status run_tensor(job *j, cvq_writer *w, cvq_error *err) {
    const cvq_tensor *t = j->tensor;
    void *results = NULL, *out = NULL;
    plan_strips(&j->plan, t, j->threads);
    const size_t padded = cvq_padded_cols(cvq_type_describe(t->type), t->spec.cols);
    cvq_status status = CVQ_OK;
    if (j->options->moments)
        status = cvq_feedback_open(&j->feedback, j->options->moments, t, j->index, j->threads,
                                   &j->has_feedback, err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&results, j->plan.batch, sizeof(strip_result), "a batch", err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&out, j->plan.batch, j->plan.bytes, "a batch", err);
    if (status != CVQ_OK) goto done;
    j->results = results;
    j->out = out;
    status = open_workers(j, j->plan.rows * t->spec.cols, t->panel_rows * padded, err);
    if (status != CVQ_OK) goto done;
    status = run_batches(j, w, err);
done:
    for (int k = 0; k < j->threads; k++) {
        free(j->workers[k].rows);
        free(j->workers[k].decoded);
        free(j->workers[k].scratch);
        j->workers[k].rows = j->workers[k].decoded = NULL;
        j->workers[k].scratch = NULL;
    }
    j->has_feedback = false;
    free(results);
    free(out);
    return status;
}

cvq_status cvq_quantize_all(cvq_writer *w, const cvq_row_source *source,
                            const cvq_quantize_options *options, cvq_error *err) {
    const size_t count = cvq_writer_tensor_count(w);
    job j = {.source = source, .options = options, .threads = options->threads};
    if (j.threads < 1) j.threads = 1;
    if (j.threads > CVQ_MAX_THREADS) j.threads = CVQ_MAX_THREADS;
    for (size_t i = 0; i < count; i++) j.total += cvq_writer_tensor(w, i)->size;
    void *workers = NULL;
    CVQ_TRY(cvq_alloc(&workers, (uint64_t)j.threads, sizeof(worker), "threads", err));
    j.workers = workers;
    if (options->stats) memset(options->stats, 0, count * sizeof *options->stats);
    if (source->will_need && count) source->will_need(source->context, 0);
    cvq_status status = CVQ_OK;
    for (j.index = 0; status == CVQ_OK && j.index < count; j.index++) {
        j.tensor = cvq_writer_tensor(w, j.index);
        j.importance = options->importance ? cvq_importance_of(options->importance, j.index) : NULL;
        if (source->will_need && j.index + 1 < count)
            source->will_need(source->context, j.index + 1);
        status = run_tensor(&j, w, err);
        if (source->done) source->done(source->context, j.index);
    }
    cvq_feedback_close(&j.feedback);
    free(workers);
    return status;
}

/* ---------------------------------------------------------------- a .cvq file as the source */

static cvq_status reader_read(void *context, size_t tensor, uint64_t first, uint64_t count,
                              float *out, cvq_error *err) {
    const cvq_reader *r = context;
    const cvq_tensor *t = cvq_reader_tensor(r, tensor);
    const cvq_type_info *info = cvq_type_describe(t->type);
    const uint64_t height = t->panel_rows;
    const size_t cols = t->spec.cols, padded = cvq_padded_cols(info, cols);
    const size_t panel_bytes = cvq_panel_bytes(info, t->panel_rows, cols);
    void *memory = NULL;
    if (!cvq_range_within(first, count, t->spec.rows))
        return cvq_fail(err, CVQ_INTERNAL, t->spec.name, "rows outside of the tensor");
    CVQ_TRY(cvq_alloc(&memory, height * padded, sizeof(float), "a panel", err));
    float *panel = memory;
    for (uint64_t row = first; row < first + count;) {
        const uint64_t at = row % height, left = first + count - row;
        const uint64_t rows = height - at < left ? height - at : left;
        cvq_panel_decode(t->type, t->panel_rows, &t->codebook,
                         cvq_reader_data(r, tensor) + row / height * panel_bytes, cols, panel,
                         padded);
        for (uint64_t i = 0; i < rows; i++, out += cols)
            memcpy(out, panel + (at + i) * padded, cols * sizeof *out);
        row += rows;
    }
    free(memory);
    return CVQ_OK;
}

static void reader_will_need(void *context, size_t tensor) {
    const cvq_tensor *t = cvq_reader_tensor(context, tensor);
    cvq_file_map_advise(cvq_reader_map(context), t->offset, t->size, CVQ_ADVICE_WILLNEED);
}

static void reader_done(void *context, size_t tensor) {
    const cvq_tensor *t = cvq_reader_tensor(context, tensor);
    cvq_file_map_advise(cvq_reader_map(context), t->offset, t->size, CVQ_ADVICE_DONTNEED);
}

cvq_row_source cvq_reader_source(const cvq_reader *r) {
    /* The functions above give it back its const. */
    return (cvq_row_source){(void *)(uintptr_t)r, reader_read, reader_will_need, reader_done};
}

/* ---------------------------------------------------------------- the report */

cvq_status cvq_quant_report(cvq_buffer *out, const cvq_writer *w, const cvq_quant_stats *stats,
                            cvq_error *err) {
    static const char header[] = "tensor\tshape\ttype\tbits\trelative_rmse\tmax_error\n";
    CVQ_TRY(cvq_buffer_append(out, header, sizeof header - 1, err));
    for (size_t i = 0; i < cvq_writer_tensor_count(w); i++) {
        const cvq_tensor *t = cvq_writer_tensor(w, i);
        const cvq_type_info *info = cvq_type_describe(t->type);
        const double sum_sq = stats[i].sum_sq;
        /* All zeros are stored as zeros. */
        const double rmse = sum_sq > 0.0 ? sqrt(stats[i].sum_sq_error / sum_sq) : 0.0;
        char shape[CVQ_MAX_DIMS * 21], line[CVQ_MAX_TENSOR_NAME + sizeof shape + 80];
        int n = 0;
        for (uint32_t d = 0; d < t->spec.ndim; d++)
            n += snprintf(shape + n, sizeof shape - (size_t)n, "%s%" PRIu64, d ? "x" : "",
                          t->spec.dims[d]);
        n = snprintf(line, sizeof line, "%s\t%s\t%s\t%g\t%.6g\t%.6g\n", t->spec.name, shape,
                     info->name, (double)info->bits, rmse, (double)stats[i].max_error);
        CVQ_TRY(cvq_buffer_append(out, line, (size_t)n, err));
    }
    return CVQ_OK;
}
