/* A reference's predictions in a file, 2 bytes a token of the vocabulary and 16 a row: 257 KB for
 * each token of text with the real model.
 *
 *   at  bytes
 *    0      8  "cvqlogit"
 *    8      4  version, 1
 *   12      4  vocabulary
 *   16      4  tokens of a window, 0 for the answers of a task
 *   20      4  0
 *   24      8  rows
 *   32     32  SHA-256 of what is scored
 *   64     64  id of the model, in hex digits
 *  128     32  SHA-256 of the 128 bytes before
 *  160         the rows: f32 top, f32 step, f32 loss of the token, u32 likeliest token,
 *              u16 code of every token; log-probability = top - step * code
 *
 * All little-endian; a file has no more bytes than that.
 *
 * What saving costs: a log-probability is off by at most half a step, the row's range / 131,070,
 * which is 0.0003 for a range of 40 (what is more than 200 below the top is cut off there: a
 * probability under 1e-86). Rows are made to add up to 1 again when they are read, so that a
 * divergence D changes by less than step (D + sqrt(2 D)) + step^2, and that of a model from its own
 * saved predictions is about step^2 / 24, or 2e-8. Perplexity, ratio and agreement lose nothing:
 * the token's loss and the likeliest token stand in the row.
 */
#ifndef CVQ_BENCH_LOGITS_FILE_H
#define CVQ_BENCH_LOGITS_FILE_H

#include "base/file_map.h"
#include "bench/divergence.h"

#define CVQ_LOGITS_ID_LENGTH 64

/* What must agree before rows can be compared. */
typedef struct cvq_logits_head {
    uint32_t vocab;
    uint32_t context; /* tokens of a window; 0: the answers of a task */
    uint64_t rows;
    uint8_t text[32];                 /* SHA-256 of what is scored, by whoever scores */
    char model[CVQ_LOGITS_ID_LENGTH]; /* id; not compared: the reference is another model */
} cvq_logits_head;

typedef struct cvq_logits_writer {
    int fd;
    const char *path;
    cvq_logits_head head;
    uint8_t *row;
    uint64_t written;
} cvq_logits_writer;

/* fd and path stay the caller's. */
cvq_status cvq_logits_writer_open(cvq_logits_writer *w, int fd, const char *path,
                                  const cvq_logits_head *head, cvq_error *err);
cvq_status cvq_logits_writer_add(cvq_logits_writer *w, const float *logits, const cvq_prediction *p,
                                 cvq_error *err);
/* After head.rows rows: the head, which makes it a file of saved logits. */
cvq_status cvq_logits_writer_finish(cvq_logits_writer *w, cvq_error *err);
void cvq_logits_writer_free(cvq_logits_writer *w);

typedef struct cvq_logits_file {
    cvq_file_map map;
    const char *path;
    cvq_logits_head head;
} cvq_logits_file;

/* CVQ_FORMAT for a file that is none or not whole, CVQ_MISMATCH where vocabulary, context or text
 * are not the expected ones. Nothing is taken on trust: rows are checked when they are read. */
cvq_status cvq_logits_open(cvq_logits_file *out, const char *path, const cvq_logits_head *expected,
                           cvq_error *err);
/* Row i, borrowed from the file. */
cvq_status cvq_logits_row(const cvq_logits_file *f, uint64_t i, cvq_saved_row *row, cvq_error *err);
void cvq_logits_close(cvq_logits_file *f);

#endif
