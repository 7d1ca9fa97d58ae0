/* The pictures of a task's lines: read when first needed, shared by the lines that show the same
 * one, so that each is encoded once, and dropped when the last of them is done. */
#ifndef CVQ_CLI_TASK_PICTURES_H
#define CVQ_CLI_TASK_PICTURES_H

#include <stdbool.h>

#include "cli/run.h"
#include "cli/task_file.h"

typedef struct cvq_task_picture {
    const char *path; /* borrowed from the task */
    cvq_image *image; /* NULL while not held */
    size_t uses_left, last_use;
} cvq_task_picture;

/* Start with {0}. */
typedef struct cvq_task_pictures {
    const cvq_run *run;
    const cvq_task *task;
    cvq_task_picture *pictures; /* different ones */
    size_t *picture_of;         /* [task->count] */
    size_t count, clock;
} cvq_task_pictures;

/* pending: which lines will be asked for; NULL: all. */
cvq_status cvq_task_pictures_open(cvq_task_pictures *p, const cvq_run *run, const cvq_task *task,
                                  const bool *pending, cvq_error *err);
/* The picture of a pending line, NULL where it has none; borrowed until the line is done. */
cvq_status cvq_task_pictures_get(cvq_task_pictures *p, size_t line, cvq_image **image,
                                 cvq_error *err);
void cvq_task_pictures_done(cvq_task_pictures *p, size_t line);
void cvq_task_pictures_close(cvq_task_pictures *p);

#endif
