/* A file of questions: every picture is encoded once, every answer written as soon as it is known,
 * and a question that cannot be answered costs only itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/batch_results.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/output.h"
#include "cli/run.h"
#include "cli/task_file.h"

/* Encodings held at once: 38 MB each in the real model. More pictures than these in turn, and the
 * least recently used one is encoded again. */
#define MAX_PICTURES 8

typedef struct batch_picture {
    const char *path; /* borrowed from the task */
    cvq_image *image; /* NULL while not held */
    size_t uses_left, last_use;
} batch_picture;

typedef struct batch {
    cvq_run *run;
    cvq_task task;
    cvq_results results;
    bool *pending;           /* [task.count] not yet in OUT */
    batch_picture *pictures; /* different ones of the pending lines */
    size_t *picture_of;      /* [task.count] */
    size_t num_pictures;
    size_t num_pending, num_done, num_errors, clock;
    double started;
    char prefix[80];
} batch;

/* ---------------------------------------------------------------- pictures */

typedef struct use {
    const char *path;
    size_t line;
} use;

static int by_path(const void *a, const void *b) {
    return strcmp(((const use *)a)->path, ((const use *)b)->path);
}

/* Which lines share a picture: by sorting their paths. */
static cvq_status list_pictures(batch *b, cvq_error *err) {
    use *uses = NULL;
    size_t n = 0;
    CVQ_TRY(
        cvq_alloc((void **)&b->picture_of, b->task.count, sizeof *b->picture_of, "the task", err));
    CVQ_TRY(cvq_alloc((void **)&b->pictures, b->task.count, sizeof *b->pictures, "the task", err));
    CVQ_TRY(cvq_alloc((void **)&uses, b->task.count, sizeof *uses, "the task", err));
    for (size_t i = 0; i < b->task.count; i++) {
        const cvq_task_line *line = &b->task.lines[i];
        if (b->pending[i] && !line->problem && line->image) uses[n++] = (use){line->image, i};
    }
    qsort(uses, n, sizeof *uses, by_path);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(uses[i - 1].path, uses[i].path) != 0)
            b->pictures[b->num_pictures++] = (batch_picture){.path = uses[i].path};
        b->pictures[b->num_pictures - 1].uses_left++;
        b->picture_of[uses[i].line] = b->num_pictures - 1;
    }
    free(uses);
    return CVQ_OK;
}

static void drop_picture(batch_picture *p) {
    cvq_image_free(p->image);
    p->image = NULL;
}

/* Room for one more. */
static void drop_oldest(batch *b) {
    batch_picture *oldest = NULL;
    size_t held = 0;
    for (size_t i = 0; i < b->num_pictures; i++) {
        batch_picture *p = &b->pictures[i];
        if (!p->image) continue;
        held++;
        if (!oldest || p->last_use < oldest->last_use) oldest = p;
    }
    if (held >= MAX_PICTURES) drop_picture(oldest);
}

static cvq_status get_picture(batch *b, batch_picture *p, cvq_error *err) {
    p->last_use = ++b->clock;
    if (p->image) return CVQ_OK;
    drop_oldest(b);
    return cvq_run_picture(b->run, p->path, &p->image, err);
}

/* ---------------------------------------------------------------- questions */

/* *fatal: the failure is not this question's. */
static cvq_status answer(batch *b, size_t i, cvq_answer *a, bool *fatal, cvq_error *err) {
    const cvq_task_line *line = &b->task.lines[i];
    cvq_prompt *prompt = NULL;
    batch_picture *picture = line->image ? &b->pictures[b->picture_of[i]] : NULL;
    cvq_prompt_kind kind = line->kind >= 0 ? (cvq_prompt_kind)line->kind : b->run->kind;
    cvq_status status = picture ? get_picture(b, picture, err) : CVQ_OK;
    *fatal = false;
    if (status == CVQ_OK)
        status = cvq_prompt_create(&prompt, b->run->model, kind, line->history.turns,
                                   line->history.count, line->question,
                                   picture ? picture->image : NULL, err);
    if (status == CVQ_OK) {
        status = cvq_run_answer(b->run, prompt, false, a, err);
        *fatal = status != CVQ_OK && status != CVQ_CONTEXT_FULL;
    }
    cvq_prompt_free(prompt);
    if (picture && --picture->uses_left == 0) drop_picture(picture);
    return status;
}

static cvq_status add_error(batch *b, const char *id, const char *where, const char *message,
                            cvq_error *err) {
    char text[sizeof err->where + sizeof err->message + 4];
    snprintf(text, sizeof text, "%s%s%s", where, where[0] ? ": " : "", message);
    b->num_errors++;
    return cvq_results_add(&b->results, id, "error", text, err);
}

static cvq_status do_question(batch *b, size_t i, cvq_error *err) {
    const cvq_task_line *line = &b->task.lines[i];
    if (line->problem) return add_error(b, line->id, "", line->problem, err);
    cvq_answer a = {0};
    cvq_error problem = {0};
    bool fatal;
    cvq_status status = answer(b, i, &a, &fatal, &problem);
    if (status == CVQ_OK)
        status = cvq_results_add(&b->results, line->id, "answer", cvq_answer_trimmed(&a), err);
    else if (cvq_interrupted())
        status = cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
    else if (fatal)
        status = cvq_fail(err, problem.code, problem.where, "%s", problem.message);
    else
        status = add_error(b, line->id, problem.where, problem.message, err);
    cvq_answer_free(&a);
    return status;
}

/* "question 3 of 40, 2 m 10 s left, " in front of what the phases say. */
static void set_prefix(batch *b) {
    char left[40] = "", duration[32];
    if (b->num_done > 0) {
        double each = (cvq_progress_clock() - b->started) / (double)b->num_done;
        cvq_format_duration(each * (double)(b->num_pending - b->num_done), duration,
                            sizeof duration);
        snprintf(left, sizeof left, "%s left, ", duration);
    }
    snprintf(b->prefix, sizeof b->prefix, "question %zu of %zu, %s", b->num_done + 1,
             b->num_pending, left);
    b->run->prefix = b->prefix;
}

static cvq_status do_all(batch *b, cvq_error *err) {
    b->started = cvq_progress_clock();
    for (size_t i = 0; i < b->task.count; i++) {
        if (!b->pending[i]) continue;
        if (cvq_interrupted()) return cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
        set_prefix(b);
        CVQ_TRY(do_question(b, i, err));
        b->num_done++;
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- the whole */

static cvq_status open_batch(batch *b, cvq_error *err) {
    const cvq_run_args *args = b->run->args;
    const char *inputs[] = {args->batch, args->common.operands[0]};
    CVQ_TRY(cvq_task_read(&b->task, args->batch, err));
    CVQ_TRY(cvq_output_check_inputs(args->out, inputs, 2, err));
    CVQ_TRY(cvq_results_open(&b->results, args->out, args->common.force, err));
    CVQ_TRY(cvq_alloc((void **)&b->pending, b->task.count, sizeof *b->pending, "the task", err));
    for (size_t i = 0; i < b->task.count; i++) {
        b->pending[i] = !cvq_results_take(&b->results, b->task.lines[i].id);
        if (b->pending[i]) b->num_pending++;
    }
    return list_pictures(b, err);
}

static void close_batch(batch *b) {
    for (size_t i = 0; i < b->num_pictures; i++) drop_picture(&b->pictures[i]);
    free(b->pictures);
    free(b->picture_of);
    free(b->pending);
    cvq_results_close(&b->results);
    cvq_task_free(&b->task);
}

int cvq_run_batch(cvq_run *run) {
    const cvq_common *common = &run->args->common;
    batch b = {.run = run, .results = CVQ_RESULTS_NONE};
    cvq_error err = {0};
    cvq_status status = open_batch(&b, &err);
    if (status == CVQ_OK) status = do_all(&b, &err);
    int exit_code = status == CVQ_OK ? CVQ_EXIT_DONE : cvq_say_error(common->command, &err);
    if (b.pending)
        cvq_say_note(common, "%s: %zu answered, %zu of them with an error; %zu were there before%s",
                     run->args->out, b.num_done, b.num_errors, b.task.count - b.num_pending,
                     status == CVQ_OK ? "" : "; the same command goes on from here");
    run->prefix = "";
    close_batch(&b);
    return exit_code;
}
