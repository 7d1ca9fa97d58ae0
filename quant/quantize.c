/* Rows in, the tensors of a .cvq file out. A tensor goes through in batches of strips: a strip is
 * one panel of 16 rows, or as many single rows as make some work. At any time three batches are
 * under way, and all threads take units of all three: one is read, one is checked and quantized,
 * and the chunks of one are hashed and written. So disk and processors work at the same time,
 * memory does not depend on the model's size, and the bytes do not depend on the number of threads.
 */
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
#define MAX_BATCH_VALUES (1u << 26)
/* Values of a strip of single rows. */
#define STRIP_VALUES (1u << 16)

/* Sizes of the work on one tensor. */
typedef struct strip_plan {
    size_t rows;        /* of a strip: 16, or any number of single ones */
    size_t panel_bytes; /* a strip has rows / panel height panels */
    size_t bytes;       /* of a strip */
    size_t total;       /* strips of the tensor */
    size_t batch;       /* strips of a batch */
} strip_plan;

/* Some strips of a tensor on their way. Batch n uses the buffers n mod 2 of the job. */
typedef struct batch {
    size_t number; /* of all batches */
    size_t index;  /* of the tensor */
    const cvq_tensor *tensor;
    strip_plan plan;
    size_t first, count; /* strips */
    size_t row, rows;
    size_t raw_bytes;
    /* Its output follows `carry` bytes that came before and filled no chunk. */
    uint64_t offset;     /* of those in the tensor: a multiple of the chunk */
    size_t carry, bytes; /* bytes: all, carry included */
    bool last;           /* of its tensor */
} batch;

typedef struct worker {
    float *rows;    /* [strip rows][cols] of the largest strip */
    float *decoded; /* [panel height][padded cols]; only where stats are asked for */
    void *scratch;  /* only with feedback */
    size_t failed;  /* the unit that error is of: the lowest of this thread's */
    cvq_status status;
    cvq_error error;
} worker;

/* A buffer that grows, without keeping its bytes. */
typedef struct space {
    uint8_t *bytes;
    size_t size;
} space;

typedef struct job {
    cvq_writer *writer;
    const cvq_row_source *source;
    const cvq_quantize_options *options;
    int threads;
    uint64_t done, total; /* raw bytes */
    worker *workers;      /* [threads] */
    space raw[2], out[2], results[2];
    /* what comes after the last batch that was planned */
    size_t position, strip, numbers;
    /* the three under way; NULL where there is none */
    batch batches[3];
    const batch *reading, *making, *writing;
    cvq_feedback feedback; /* of the tensor that is being made */
    bool has_feedback;
} job;

static void plan_strips(strip_plan *p, const cvq_tensor *t, int threads) {
    const size_t cols = (size_t)t->spec.cols, height = t->panel_rows;
    p->panel_bytes = cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, cols);
    p->rows = height > 1 ? height : 1 + STRIP_VALUES / cols;
    if (p->rows > t->spec.rows && height == 1) p->rows = (size_t)t->spec.rows;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): a panel has 1 or 16 rows */
    p->bytes = p->rows / height * p->panel_bytes;
    p->total = (size_t)((t->spec.rows + p->rows - 1) / p->rows);
    size_t values = (size_t)threads * BATCH_VALUES;
    if (values > MAX_BATCH_VALUES) values = MAX_BATCH_VALUES;
    p->batch = 1 + values / (p->rows * cols);
}

/* ---------------------------------------------------------------- one strip, on any thread */

/* Every value finite, and within what the type is made for. */
static cvq_status check_values(const cvq_tensor *t, const float *rows, size_t first, size_t count,
                               cvq_error *err) {
    const size_t cols = t->spec.cols;
    const uint32_t infinite = 0x7f800000u, limit = cvq_f32_bits(cvq_type_limit(t->type));
    const uint32_t most = limit == infinite ? infinite - 1 : limit;
    uint32_t largest = 0; /* magnitudes as bits; what is no number is above infinity */
    for (size_t i = 0; i < count * cols; i++) {
        uint32_t magnitude = cvq_f32_bits(rows[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    if (largest <= most) return CVQ_OK;
    size_t i = 0;
    while ((cvq_f32_bits(rows[i]) & 0x7fffffffu) <= most) i++;
    const uint32_t magnitude = cvq_f32_bits(rows[i]) & 0x7fffffffu;
    const size_t row = first + i / cols, col = i % cols;
    if (magnitude < infinite)
        return cvq_fail(err, CVQ_FORMAT, t->spec.name,
                        "row %zu, column %zu is %g, and %s holds magnitudes up to %g; give this "
                        "tensor another type (--type)",
                        row, col, (double)rows[i], cvq_type_describe(t->type)->name,
                        (double)cvq_bits_f32(limit));
    return cvq_fail(err, CVQ_FORMAT, t->spec.name,
                    "row %zu, column %zu is %s; the source is damaged, get it again", row, col,
                    magnitude == infinite ? "infinite" : "not a number");
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

static cvq_status do_strip(const job *j, const batch *b, size_t strip, worker *w, cvq_error *err) {
    const cvq_tensor *t = b->tensor;
    const cvq_row_source *source = j->source;
    const size_t cols = (size_t)t->spec.cols, height = t->panel_rows, slot = b->number % 2;
    const size_t before = strip * b->plan.rows, left = b->rows - before;
    const size_t rows = left < b->plan.rows ? left : b->plan.rows;
    const size_t ld = cvq_padded_cols(cvq_type_describe(t->type), cols);
    const float *importance =
        j->options->importance ? cvq_importance_of(j->options->importance, b->index) : NULL;
    const uint8_t *raw = j->raw[slot].bytes + source->size(source->context, b->index, before);
    CVQ_TRY(source->decode(source->context, b->index, rows, raw, w->rows, err));
    CVQ_TRY(check_values(t, w->rows, b->row + before, rows, err));
    memset(w->rows + rows * cols, 0, (b->plan.rows - rows) * cols * sizeof *w->rows); /* pad rows */
    uint8_t *panel = j->out[slot].bytes + b->carry + strip * b->plan.bytes;
    cvq_quant_stats *stats = (cvq_quant_stats *)(void *)j->results[slot].bytes + strip;
    if (j->options->stats) *stats = (cvq_quant_stats){0};
    for (size_t r = 0; r < rows; r += height, panel += b->plan.panel_bytes) {
        const size_t count = rows - r < height ? rows - r : height;
        if (j->has_feedback)
            cvq_feedback_panel(&j->feedback, t, w->rows + r * cols, count, w->scratch, panel);
        else
            cvq_panel_quantize(t, w->rows + r * cols, count, importance, panel);
        if (!j->options->stats) continue;
        cvq_panel_decode(t->type, t->panel_rows, &t->codebook, panel, cols, w->decoded, ld);
        add_stats(stats, w->rows + r * cols, w->decoded, count, cols, ld);
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- the units of a step */

static size_t whole_chunks(const batch *b) {
    return b->last ? (b->bytes - 1) / CVQ_CHUNK_BYTES + 1 : b->bytes / CVQ_CHUNK_BYTES;
}

static cvq_status write_chunk(const job *j, size_t chunk, cvq_error *err) {
    const batch *b = j->writing;
    const size_t at = chunk * CVQ_CHUNK_BYTES, left = b->bytes - at;
    return cvq_writer_put(j->writer, b->index, b->offset + at, j->out[b->number % 2].bytes + at,
                          left < CVQ_CHUNK_BYTES ? left : CVQ_CHUNK_BYTES, err);
}

/* What nobody can share comes first, what is short last, so that all threads end together. */
static cvq_status do_unit(const job *j, size_t unit, worker *w, cvq_error *err) {
    const cvq_row_source *s = j->source;
    const batch *r = j->reading, *m = j->making;
    if (r && unit-- == 0)
        return s->read(s->context, r->index, r->row, r->rows, j->raw[r->number % 2].bytes, err);
    if (m && s->check && unit-- == 0)
        return s->check(s->context, m->index, m->row, m->rows, j->raw[m->number % 2].bytes, err);
    if (m && unit < m->count) return do_strip(j, m, unit, w, err);
    return write_chunk(j, unit - (m ? m->count : 0), err);
}

static void run_unit(void *context, size_t unit, int thread) {
    job *j = context;
    worker *w = &j->workers[thread];
    cvq_error error = {0};
    const cvq_status status = do_unit(j, unit, w, &error);
    /* Of several failures the first unit's is told, whichever thread had it. */
    if (status == CVQ_OK || unit > w->failed) return;
    w->failed = unit;
    w->status = status;
    w->error = error;
}

static cvq_status step_status(const job *j, cvq_error *err) {
    const worker *first = NULL;
    for (int k = 0; k < j->threads; k++) {
        const worker *w = &j->workers[k];
        if (w->failed != SIZE_MAX && (!first || w->failed < first->failed)) first = w;
    }
    return first ? cvq_fail(err, first->status, first->error.where, "%s", first->error.message)
                 : CVQ_OK;
}

/* ---------------------------------------------------------------- from step to step */

static size_t tensor_at(const job *j, size_t position) {
    return j->source->order ? j->source->order[position] : position;
}

/* The next batch of all; false behind the last. */
static bool plan_batch(job *j, batch *b) {
    const size_t count = cvq_writer_tensor_count(j->writer);
    if (j->position == count) return false;
    *b = (batch){.number = j->numbers++, .index = tensor_at(j, j->position), .first = j->strip};
    b->tensor = cvq_writer_tensor(j->writer, b->index);
    plan_strips(&b->plan, b->tensor, j->threads);
    const size_t left = b->plan.total - b->first;
    b->count = left < b->plan.batch ? left : b->plan.batch;
    b->last = b->count == left;
    b->row = b->first * b->plan.rows;
    b->rows = b->last ? (size_t)b->tensor->spec.rows - b->row : b->count * b->plan.rows;
    b->raw_bytes = j->source->size(j->source->context, b->index, b->rows);
    const size_t height = b->tensor->panel_rows;
    const uint64_t begin = (uint64_t)b->row / height * b->plan.panel_bytes;
    b->carry = (size_t)(begin % CVQ_CHUNK_BYTES);
    b->offset = begin - b->carry;
    b->bytes = b->carry + (b->rows + height - 1) / height * b->plan.panel_bytes;
    j->strip = b->last ? 0 : b->first + b->count;
    if (b->last) j->position++;
    return true;
}

static cvq_status make_space(space *s, size_t size, cvq_error *err) {
    void *memory = NULL;
    if (s->size >= size) return CVQ_OK;
    free(s->bytes);
    *s = (space){0};
    CVQ_TRY(cvq_alloc(&memory, size, 1, "a batch", err));
    *s = (space){memory, size};
    return CVQ_OK;
}

/* Every batch moves on by one, and a new one comes in. */
static cvq_status advance(job *j, cvq_error *err) {
    batch *b = &j->batches[j->numbers % 3];
    const batch *written = j->making;
    j->making = j->reading;
    j->writing = written;
    j->reading = plan_batch(j, b) ? b : NULL;
    if (j->reading) CVQ_TRY(make_space(&j->raw[b->number % 2], b->raw_bytes, err));
    const batch *m = j->making;
    if (!m) return CVQ_OK;
    if (m->first == 0 && j->options->moments)
        CVQ_TRY(cvq_feedback_open(&j->feedback, j->options->moments, m->tensor, m->index,
                                  j->threads, &j->has_feedback, err));
    const size_t slot = m->number % 2;
    CVQ_TRY(make_space(&j->out[slot], m->bytes, err));
    if (j->options->stats)
        CVQ_TRY(make_space(&j->results[slot], m->count * sizeof(cvq_quant_stats), err));
    if (m->carry > 0) /* the tensor's batch before is complete, and about to be written */
        memcpy(j->out[slot].bytes, j->out[1 - slot].bytes + written->bytes - m->carry, m->carry);
    return CVQ_OK;
}

static void sum_stats(const job *j) {
    const batch *b = j->making;
    const cvq_quant_stats *parts =
        (const cvq_quant_stats *)(const void *)j->results[b->number % 2].bytes;
    cvq_quant_stats *s = &j->options->stats[b->index];
    for (size_t i = 0; i < b->count; i++) {
        s->sum_sq_error += parts[i].sum_sq_error;
        s->sum_sq += parts[i].sum_sq;
        if (parts[i].max_error > s->max_error) s->max_error = parts[i].max_error;
    }
}

static cvq_status report_progress(const job *j, cvq_error *err) {
    const cvq_quantize_options *o = j->options;
    if (!o->progress || o->progress(o->progress_context, j->done, j->total) == 0) return CVQ_OK;
    return cvq_fail(err, CVQ_CANCELLED, j->writing->tensor->spec.name, "stopped");
}

static cvq_status run_step(job *j, cvq_error *err) {
    const cvq_quantize_options *o = j->options;
    const batch *r = j->reading, *m = j->making, *w = j->writing;
    if (r && j->source->will_need)
        j->source->will_need(j->source->context, r->index, r->row + r->rows, r->rows);
    size_t units = m ? m->count : 0;
    if (r) units++;
    if (m && j->source->check) units++;
    if (w) units += whole_chunks(w);
    for (int k = 0; k < j->threads; k++) j->workers[k].failed = SIZE_MAX;
    cvq_parallel_for(j->threads, units, run_unit, j);
    CVQ_TRY(step_status(j, err));
    if (m && o->stats) sum_stats(j);
    if (!w) return CVQ_OK;
    if (w->last && o->finished) CVQ_TRY(o->finished(o->finished_context, w->index, err));
    j->done += w->raw_bytes;
    return report_progress(j, err);
}

/* Scratch memory for the largest strip of any tensor. */
static cvq_status open_workers(job *j, cvq_error *err) {
    void *memory = NULL;
    size_t rows = 0, decoded = 0, scratch = 0;
    for (size_t i = 0; i < cvq_writer_tensor_count(j->writer); i++) {
        const cvq_tensor *t = cvq_writer_tensor(j->writer, i);
        strip_plan p;
        plan_strips(&p, t, j->threads);
        const size_t cols = (size_t)t->spec.cols;
        const size_t padded = cvq_padded_cols(cvq_type_describe(t->type), cols) * t->panel_rows;
        rows = p.rows * cols > rows ? p.rows * cols : rows;
        decoded = padded > decoded ? padded : decoded;
        if (j->options->moments && t->panel_rows > 1 && cvq_feedback_scratch(t) > scratch)
            scratch = cvq_feedback_scratch(t);
    }
    CVQ_TRY(cvq_alloc(&memory, (uint64_t)j->threads, sizeof(worker), "threads", err));
    j->workers = memory;
    for (int k = 0; k < j->threads; k++) {
        CVQ_TRY(cvq_alloc(&memory, rows, sizeof(float), "a strip of rows", err));
        j->workers[k].rows = memory;
        if (j->options->moments) {
            CVQ_TRY(cvq_alloc(&memory, scratch, 1, "feedback", err));
            j->workers[k].scratch = memory;
        }
        if (!j->options->stats) continue;
        CVQ_TRY(cvq_alloc(&memory, decoded, sizeof(float), "a decoded panel", err));
        j->workers[k].decoded = memory;
    }
    return CVQ_OK;
}

static void close_job(job *j) {
    for (int k = 0; j->workers && k < j->threads; k++) {
        free(j->workers[k].rows);
        free(j->workers[k].decoded);
        free(j->workers[k].scratch);
    }
    free(j->workers);
    cvq_feedback_close(&j->feedback);
    for (int i = 0; i < 2; i++) {
        free(j->raw[i].bytes);
        free(j->out[i].bytes);
        free(j->results[i].bytes);
    }
}

cvq_status cvq_quantize_all(cvq_writer *w, const cvq_row_source *source,
                            const cvq_quantize_options *options, cvq_error *err) {
    const size_t count = cvq_writer_tensor_count(w);
    job j = {.writer = w, .source = source, .options = options, .threads = options->threads};
    if (j.threads < 1) j.threads = 1;
    if (j.threads > CVQ_MAX_THREADS) j.threads = CVQ_MAX_THREADS;
    for (size_t i = 0; i < count; i++) {
        const size_t tensor = tensor_at(&j, i);
        const uint64_t bytes =
            source->size(source->context, tensor, cvq_writer_tensor(w, tensor)->spec.rows);
        j.total += bytes;
        if (i < options->done)
            j.done += bytes;
        else if (options->stats)
            options->stats[tensor] = (cvq_quant_stats){0};
    }
    j.position = options->done;
    cvq_status status = open_workers(&j, err);
    do {
        if (status == CVQ_OK) status = advance(&j, err);
        if (status == CVQ_OK && (j.reading || j.making || j.writing)) status = run_step(&j, err);
    } while (status == CVQ_OK && (j.reading || j.making || j.writing));
    close_job(&j);
    return status;
}

cvq_status cvq_rows_read(const cvq_row_source *source, size_t tensor, uint64_t first,
                         uint64_t count, float *out, cvq_error *err) {
    void *raw = NULL;
    CVQ_TRY(cvq_alloc(&raw, source->size(source->context, tensor, count), 1, "rows", err));
    cvq_status status = source->read(source->context, tensor, first, count, raw, err);
    if (status == CVQ_OK) status = source->decode(source->context, tensor, count, raw, out, err);
    free(raw);
    return status;
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
