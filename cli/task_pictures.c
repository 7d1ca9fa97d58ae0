/* Which lines share a picture, and which pictures are held. */
#include "cli/task_pictures.h"

#include <stdlib.h>
#include <string.h>

/* Pictures held at once: 340 MB each in the real model. More than these in turn, and the least
 * recently used one comes from the cache or is computed again. */
#define MAX_HELD 4

typedef struct use {
    const char *path;
    size_t line;
} use;

static int by_path(const void *a, const void *b) {
    return strcmp(((const use *)a)->path, ((const use *)b)->path);
}

/* By sorting the paths. */
cvq_status cvq_task_pictures_open(cvq_task_pictures *p, const cvq_run *run, const cvq_task *task,
                                  const bool *pending, cvq_error *err) {
    use *uses = NULL;
    size_t n = 0;
    p->run = run;
    p->task = task;
    CVQ_TRY(
        cvq_alloc((void **)&p->picture_of, task->count, sizeof *p->picture_of, "the task", err));
    CVQ_TRY(cvq_alloc((void **)&p->pictures, task->count, sizeof *p->pictures, "the task", err));
    CVQ_TRY(cvq_alloc((void **)&uses, task->count, sizeof *uses, "the task", err));
    for (size_t i = 0; i < task->count; i++) {
        const cvq_task_line *line = &task->lines[i];
        if ((!pending || pending[i]) && !line->problem && line->image)
            uses[n++] = (use){line->image, i};
    }
    qsort(uses, n, sizeof *uses, by_path);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(uses[i - 1].path, uses[i].path) != 0)
            p->pictures[p->count++] = (cvq_task_picture){.path = uses[i].path};
        p->pictures[p->count - 1].uses_left++;
        p->picture_of[uses[i].line] = p->count - 1;
    }
    free(uses);
    return CVQ_OK;
}

static void drop(cvq_task_picture *picture) {
    cvq_image_free(picture->image);
    picture->image = NULL;
}

/* Room for one more. */
static void drop_oldest(cvq_task_pictures *p) {
    cvq_task_picture *oldest = NULL;
    size_t held = 0;
    for (size_t i = 0; i < p->count; i++) {
        cvq_task_picture *picture = &p->pictures[i];
        if (!picture->image) continue;
        held++;
        if (!oldest || picture->last_use < oldest->last_use) oldest = picture;
    }
    if (held >= MAX_HELD) drop(oldest);
}

cvq_status cvq_task_pictures_get(cvq_task_pictures *p, size_t line, cvq_image **image,
                                 cvq_error *err) {
    *image = NULL;
    if (!p->task->lines[line].image) return CVQ_OK;
    cvq_task_picture *picture = &p->pictures[p->picture_of[line]];
    picture->last_use = ++p->clock;
    if (!picture->image) {
        drop_oldest(p);
        CVQ_TRY(cvq_run_picture(p->run, picture->path, &picture->image, err));
    }
    *image = picture->image;
    return CVQ_OK;
}

void cvq_task_pictures_done(cvq_task_pictures *p, size_t line) {
    if (!p->task->lines[line].image) return;
    cvq_task_picture *picture = &p->pictures[p->picture_of[line]];
    if (--picture->uses_left == 0) drop(picture);
}

void cvq_task_pictures_close(cvq_task_pictures *p) {
    for (size_t i = 0; i < p->count; i++) drop(&p->pictures[i]);
    free(p->pictures);
    free(p->picture_of);
    *p = (cvq_task_pictures){0};
}
