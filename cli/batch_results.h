/* OUT.jsonl of cvq-run --batch and cvq-eval: a line {"id", "answer"} or {"id", "error"} for each
 * question, of cvq-eval with its "score", appended as it is known, so that the same command goes on
 * where it was stopped. */
#ifndef CVQ_CLI_BATCH_RESULTS_H
#define CVQ_CLI_BATCH_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct cvq_known_line {
    char *id;
    char *answer; /* NULL where the line tells an error */
    bool has_score;
    double score;
    bool taken;
} cvq_known_line;

typedef struct cvq_results {
    int fd;
    const char *path;      /* borrowed */
    cvq_known_line *known; /* what stood in the file when it was opened, in order */
    size_t num_known, next;
    uint64_t size; /* of the whole lines */
} cvq_results;

#define CVQ_RESULTS_NONE                                                                           \
    { .fd = -1 }

/* Creates the file, or reads the lines of an existing one and drops a last line that was not
 * finished; afresh: drops them all. A file that holds anything else is CVQ_FORMAT and left alone.
 */
cvq_status cvq_results_open(cvq_results *out, const char *path, bool afresh, cvq_error *err);
/* The same of a file that is only read. */
cvq_status cvq_results_read(cvq_results *out, const char *path, cvq_error *err);
/* The line that the file had for this id, or NULL. Each line counts for one question. */
const cvq_known_line *cvq_results_take(cvq_results *r, const char *id);
/* key: "answer" or "error"; score NULL: none. On failure the file keeps its whole lines. */
cvq_status cvq_results_add(cvq_results *r, const char *id, const char *key, const char *text,
                           const double *score, cvq_error *err);
void cvq_results_close(cvq_results *r);

#endif
