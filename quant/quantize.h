/* From rows of values to the bytes of a whole .cvq file: what cvq-convert and cvq-quantize share.
 */
#ifndef CVQ_QUANT_QUANTIZE_H
#define CVQ_QUANT_QUANTIZE_H

#include "formats/cvq_reader.h"
#include "formats/cvq_writer.h"
#include "quant/feedback.h"
#include "quant/importance.h"

/* Where values come from. read: `count` rows from row `first` of tensor number `tensor` into
 * out[count][cols] as f32; called from several threads at once. For matrices and tables the values
 * are those of bf16 (F32 and F16 sources are rounded to bf16 first). */
typedef struct cvq_row_source {
    void *context;
    cvq_status (*read)(void *context, size_t tensor, uint64_t first, uint64_t count, float *out,
                       cvq_error *err);
    /* Optional: tensor `tensor` will be read next / will not be read again. */
    void (*will_need)(void *context, size_t tensor);
    void (*done)(void *context, size_t tensor);
} cvq_row_source;

/* Rows of an opened .cvq whose tensors are f32 and bf16 (others decode too, but then errors add up;
 * callers refuse). context = the reader. */
cvq_row_source cvq_reader_source(const cvq_reader *r);

/* What happened to one tensor; errors against the source's values, weighted by nothing. */
typedef struct cvq_quant_stats {
    double sum_sq_error, sum_sq; /* relative RMSE = sqrt(sum_sq_error / sum_sq) */
    float max_error;
} cvq_quant_stats;

/* Tensor by tensor: bytes done of the file's total data. Nonzero = stop with CVQ_CANCELLED. */
typedef int (*cvq_quant_progress_fn)(void *context, uint64_t done, uint64_t total);

typedef struct cvq_quantize_options {
    int threads;
    const cvq_importance *importance;       /* or NULL */
    const cvq_second_moments_file *moments; /* for feedback, or NULL */
    cvq_quant_stats *stats;                 /* [tensor count], or NULL: not computed */
    cvq_quant_progress_fn progress;         /* or NULL */
    void *progress_context;
} cvq_quantize_options;

/* Reads, quantizes and appends every tensor of a writer that has begun. Memory is bounded (a few MB
 * a thread). A value that is NaN or infinite is CVQ_FORMAT and names tensor and row. Same input,
 * same bytes, any number of threads. */
cvq_status cvq_quantize_all(cvq_writer *w, const cvq_row_source *source,
                            const cvq_quantize_options *options, cvq_error *err);

/* One panel of a tensor, from values to the bytes of the file. rows [panel height][cols], all
 * finite, those from count on are padding and zero; importance [cols] or NULL; panel as long as
 * cvq_panel_bytes says. Any type. */
void cvq_panel_quantize(const cvq_tensor *t, const float *rows, size_t count,
                        const float *importance, uint8_t *panel);

/* One line a tensor as TSV with a header: tensor, shape, type, bits, relative_rmse, max_error. */
cvq_status cvq_quant_report(cvq_buffer *out, const cvq_writer *w, const cvq_quant_stats *stats,
                            cvq_error *err);

#endif
