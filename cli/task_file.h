/* TASK.jsonl: one question a line, {"image", "question", "answers", "id", "template", "history"},
 * and of some tasks "choices" (what the letters A, B, ... stand for) and "dataset_name"
 * (OCRBench's). A line that cannot be used keeps its place with the reason why. */
#ifndef CVQ_CLI_TASK_FILE_H
#define CVQ_CLI_TASK_FILE_H

#include "cli/history.h"

/* Start with {0}. */
typedef struct cvq_texts {
    char **items;
    size_t count;
} cvq_texts;

typedef struct cvq_task_line {
    size_t number;  /* in the file, from 1 */
    char *id;       /* never NULL; the line's number where the file gives none */
    char *image;    /* as a path from here, or NULL */
    char *question; /* NULL only with a problem or a text */
    char *text;     /* of a line {"text"}: plain text, and no question; else NULL */
    int kind;       /* cvq_prompt_kind, or -1: not given */
    cvq_history history;
    cvq_texts answers, choices; /* empty where not given */
    char *dataset;              /* or NULL */
    char *problem;              /* NULL, or why this line cannot be answered */
} cvq_task_line;

typedef struct cvq_task {
    cvq_task_line *lines; /* without the empty ones */
    size_t count;
} cvq_task;

/* Fails only where the file itself cannot be read. */
cvq_status cvq_task_read(cvq_task *task, const char *path, cvq_error *err);
/* The same, where lines {"text": ...} stand among the questions: data for calibration. */
cvq_status cvq_task_read_data(cvq_task *task, const char *path, cvq_error *err);
void cvq_task_free(cvq_task *task);
/* Refuse an output that is one of the task's pictures, as cvq_output_check_inputs does. */
cvq_status cvq_task_check_output(const cvq_task *task, const char *output, cvq_error *err);
/* The same of several, NULL for none, before the data are read for good; what is wrong with them is
 * then told as well, but not that there are none. */
cvq_status cvq_data_check_outputs(const char *path, const char *const *outputs, size_t num_outputs,
                                  cvq_error *err);

#endif
