/* From rows of values to the bytes of a whole .cvq file: what cvq-convert and cvq-quantize share.
 */
#ifndef CVQ_QUANT_QUANTIZE_H
#define CVQ_QUANT_QUANTIZE_H

#include "formats/cvq_reader.h"
#include "formats/cvq_writer.h"
#include "quant/feedback.h"
#include "quant/importance.h"

/* Where values come from: raw bytes are read in the source's own order, each once, and become f32
 * rows later. For matrices and tables the values are those of bf16 (F32 and F16 sources are rounded
 * to bf16 first). Runs of rows start at a multiple of the tensor's panel height. */
typedef struct cvq_row_source {
    void *context;
    const size_t *order; /* [tensor count] tensors as they come; NULL: by number */
    /* Raw bytes of `count` rows. */
    size_t (*size)(void *context, size_t tensor, uint64_t count);
    /* The raw bytes of rows [first, first + count). */
    cvq_status (*read)(void *context, size_t tensor, uint64_t first, uint64_t count, uint8_t *raw,
                       cvq_error *err);
    /* May be NULL: looks at all that was read, in the same order, but later, while other threads
     * read on and decode. */
    cvq_status (*check)(void *context, size_t tensor, uint64_t first, uint64_t count,
                        const uint8_t *raw, cvq_error *err);
    /* To out[count][cols]; from several threads at once. */
    cvq_status (*decode)(void *context, size_t tensor, uint64_t count, const uint8_t *raw,
                         float *out, cvq_error *err);
    /* May be NULL: these rows will be read soon. */
    void (*will_need)(void *context, size_t tensor, uint64_t first, uint64_t count);
} cvq_row_source;

/* Rows of an opened .cvq whose tensors are f32 and bf16 (others decode too, but then errors add up;
 * callers refuse); every chunk's hash is checked. Release with cvq_reader_rows_close. */
typedef struct cvq_reader_rows cvq_reader_rows;
cvq_status cvq_reader_rows_open(cvq_reader_rows **out, const cvq_reader *r, cvq_error *err);
cvq_row_source cvq_reader_rows_source(cvq_reader_rows *rows);
void cvq_reader_rows_close(cvq_reader_rows *rows);

/* Rows out of order and unchecked, from any thread: out[count][cols]. */
cvq_status cvq_rows_read(const cvq_row_source *source, size_t tensor, uint64_t first,
                         uint64_t count, float *out, cvq_error *err);

/* What happened to one tensor; errors against the source's values, weighted by nothing. */
typedef struct cvq_quant_stats {
    double sum_sq_error, sum_sq; /* relative RMSE = sqrt(sum_sq_error / sum_sq) */
    float max_error;
} cvq_quant_stats;

/* Raw bytes done of the source's total. Nonzero = stop with CVQ_CANCELLED. */
typedef int (*cvq_quant_progress_fn)(void *context, uint64_t done, uint64_t total);

typedef struct cvq_quantize_options {
    int threads;
    const cvq_importance *importance;       /* or NULL */
    const cvq_second_moments_file *moments; /* for feedback, or NULL */
    cvq_quant_stats *stats;                 /* [tensor count], or NULL: not computed */
    cvq_quant_progress_fn progress;         /* or NULL */
    void *progress_context;
    size_t done; /* so many tensors, in the source's order, are in the file already */
    /* May be NULL: all of a tensor was handed to the file. In order; an error ends the work. */
    cvq_status (*finished)(void *context, size_t tensor, cvq_error *err);
    void *finished_context;
} cvq_quantize_options;

/* Reads, quantizes and writes every tensor of a writer that has begun: reading ahead, quantizing,
 * hashing and writing behind go on at the same time. Memory is bounded (a few MB a thread, below
 * 700 MB in all). A value that is NaN or infinite is CVQ_FORMAT and names tensor and row. Same
 * input, same bytes, any number of threads. */
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
