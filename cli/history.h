/* The past turns of a conversation, and the JSON that they come in: [["question", "answer"], ...].
 */
#ifndef CVQ_CLI_HISTORY_H
#define CVQ_CLI_HISTORY_H

#include <stddef.h>

#include "cvq.h"
#include "formats/json.h"

/* Start with {0}; the texts are owned. */
typedef struct cvq_history {
    cvq_turn *turns;
    size_t count;
} cvq_history;

cvq_status cvq_history_append(cvq_history *h, const char *question, const char *answer,
                              cvq_error *err);
/* where names the file in errors; *h may hold some of the turns after a failure. */
cvq_status cvq_history_from_json(cvq_history *h, const cJSON *list, const char *where,
                                 cvq_error *err);
cvq_status cvq_history_read(cvq_history *h, const char *path, cvq_error *err);
/* Leaves {0}. */
void cvq_history_free(cvq_history *h);

#endif
