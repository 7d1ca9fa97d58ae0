/* OUT.jsonl of cvq-run --batch: a line {"id", "answer"} or {"id", "error"} for each question,
 * appended as it is known, so that the same command goes on where it was stopped. */
#ifndef CVQ_CLI_BATCH_RESULTS_H
#define CVQ_CLI_BATCH_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct cvq_known_id {
    char *id;
    bool taken;
} cvq_known_id;

typedef struct cvq_results {
    int fd;
    const char *path;    /* borrowed */
    cvq_known_id *known; /* what stood in the file when it was opened, in order */
    size_t num_known, next;
    uint64_t size; /* of the whole lines */
} cvq_results;

#define CVQ_RESULTS_NONE                                                                           \
    { .fd = -1 }

/* Creates the file, or reads the lines of an existing one and drops a last line that was not
 * finished; afresh: drops them all. A file that holds anything else is CVQ_FORMAT and left alone.
 */
cvq_status cvq_results_open(cvq_results *r, const char *path, bool afresh, cvq_error *err);
/* Whether the file had a line with this id. Each line counts for one question. */
bool cvq_results_take(cvq_results *r, const char *id);
/* key: "answer" or "error". On failure the file keeps its whole lines. */
cvq_status cvq_results_add(cvq_results *r, const char *id, const char *key, const char *text,
                           cvq_error *err);
void cvq_results_close(cvq_results *r);

#endif
