/* A file of questions, answered: every picture is encoded once, every answer written as soon as it
 * is known, a question that cannot be answered costs only itself, and what an earlier run wrote
 * is kept. For cvq-run --batch and cvq-eval. */
#ifndef CVQ_CLI_ANSWER_TASK_H
#define CVQ_CLI_ANSWER_TASK_H

#include <stdbool.h>

#include "cli/batch_results.h"
#include "cli/run.h"
#include "cli/task_file.h"
#include "cli/task_pictures.h"

/* The score of an answer to a line of the task; NULL stands for a question without an answer. */
typedef cvq_status (*cvq_score_fn)(void *context, size_t line, const char *answer, double *score,
                                   cvq_error *err);

/* Set the first part; the rest begins as zeros. */
typedef struct cvq_task_run {
    cvq_run *run;
    const char *task_path;
    const char *out;    /* OUT.jsonl; NULL: the answers are not kept */
    const char *beside; /* another file that is read, which out must not be; or NULL */
    cvq_score_fn score; /* NULL: none */
    void *context;

    cvq_task task;
    double *scores; /* [task.count], where there is a score function */
    size_t num_pending, num_done, num_errors;

    bool *pending;          /* [task.count] not yet in OUT */
    size_t num_kept_errors; /* in OUT before */
    cvq_task_pictures pictures;
    cvq_results results;
    double started;
    char prefix[80];
} cvq_task_run;

/* Reads the task, tries the score on every line, and reads what OUT has. */
cvq_status cvq_task_run_open(cvq_task_run *t, cvq_error *err);
/* Answers what is left. */
cvq_status cvq_task_run_answer(cvq_task_run *t, cvq_error *err);
/* How many, on stderr; status: how it ended. */
void cvq_task_run_note(const cvq_task_run *t, cvq_status status);
void cvq_task_run_close(cvq_task_run *t);

#endif
