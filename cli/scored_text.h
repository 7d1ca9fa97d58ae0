/* What is scored: windows of a text, or the answers of a task and the texts among its lines, as
 * pieces of token ids with the place from which they count. */
#ifndef CVQ_CLI_SCORED_TEXT_H
#define CVQ_CLI_SCORED_TEXT_H

#include "bench/divergence.h"
#include "cli/run.h"
#include "cli/task_file.h"
#include "cli/task_pictures.h"

typedef struct cvq_scored_piece {
    int32_t *ids; /* without bos and the picture's slots */
    size_t count, first_scored;
    size_t line; /* of the task; SIZE_MAX for a window of a text */
} cvq_scored_piece;

/* Start with {0}. */
typedef struct cvq_scored_text {
    cvq_run *run;
    cvq_scored_piece *pieces;
    size_t num_pieces;
    uint64_t tokens;  /* that count */
    uint8_t hash[32]; /* of all ids, of where they count, and of the pictures' files */
    cvq_buffer ids;   /* of all pieces */
    cvq_task task;
    cvq_task_pictures pictures;
} cvq_scored_text;

/* The text as a whole to ids, in windows of `window` that do not overlap; what is left over at the
 * end is dropped. CVQ_FORMAT for a text shorter than one. */
cvq_status cvq_scored_text_read(cvq_scored_text *t, cvq_run *run, const char *path, size_t window,
                                cvq_error *err);
/* Of every question the prompt, which does not count, and its first answer with a space in front,
 * which does; a line {"text"} in windows as above. CVQ_FORMAT for a line that cannot be used. */
cvq_status cvq_scored_task_read(cvq_scored_text *t, cvq_run *run, const char *path, size_t window,
                                cvq_error *err);
void cvq_scored_text_free(cvq_scored_text *t);

/* The logits before each token that counts, in order. */
typedef cvq_status (*cvq_scored_fn)(void *context, const float *logits, uint32_t token,
                                    cvq_error *err);
/* Piece i through the session. */
cvq_status cvq_scored_piece_run(cvq_scored_text *t, size_t i, cvq_scored_fn fn, void *context,
                                cvq_error *err);

#endif
