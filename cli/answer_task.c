/* Question by question, in the order of the task. */
#include "cli/answer_task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/answers_origin.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/output.h"

/* ---------------------------------------------------------------- one question */

/* *fatal: the failure is not this question's. */
static cvq_status answer(cvq_task_run *t, size_t i, cvq_answer *a, bool *fatal, cvq_error *err) {
    const cvq_task_line *line = &t->task.lines[i];
    cvq_prompt *prompt = NULL;
    cvq_image *image;
    cvq_prompt_kind kind = line->kind >= 0 ? (cvq_prompt_kind)line->kind : t->run->kind;
    cvq_status status = cvq_task_pictures_get(&t->pictures, i, &image, err);
    *fatal = false;
    if (status == CVQ_OK)
        status = cvq_prompt_create(&prompt, t->run->model, kind, line->history.turns,
                                   line->history.count, line->question, image, err);
    if (status == CVQ_OK) {
        status = cvq_run_answer(t->run, prompt, false, a, err);
        cvq_picture_cache_keep(&t->run->cache, t->run->session, image);
        *fatal = status != CVQ_OK && status != CVQ_CONTEXT_FULL;
    } else {
        *fatal = status == CVQ_OUT_OF_MEMORY; /* another time there may be enough */
    }
    cvq_prompt_free(prompt);
    cvq_task_pictures_done(&t->pictures, i);
    return status;
}

/* Score and write what became of a question: its answer or, where that is NULL, its problem. */
static cvq_status finish(cvq_task_run *t, size_t i, const char *text, const char *problem,
                         cvq_error *err) {
    const char *id = t->task.lines[i].id;
    double *score = NULL;
    if (!text) t->num_errors++;
    if (t->score) {
        score = &t->scores[i];
        CVQ_TRY(t->score(t->context, i, text, score, err));
    }
    if (!t->out) return CVQ_OK;
    return cvq_results_add(&t->results, id, text ? "answer" : "error", text ? text : problem, score,
                           err);
}

static cvq_status do_question(cvq_task_run *t, size_t i, cvq_error *err) {
    const cvq_task_line *line = &t->task.lines[i];
    if (line->problem) return finish(t, i, NULL, line->problem, err);
    cvq_answer a = {0};
    cvq_error problem = {0};
    bool fatal;
    cvq_status status = answer(t, i, &a, &fatal, &problem);
    if (status == CVQ_OK) {
        status = finish(t, i, cvq_answer_trimmed(&a), NULL, err);
    } else if (cvq_interrupted()) {
        status = cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
    } else if (fatal) {
        status = cvq_fail(err, problem.code, problem.where, "%s", problem.message);
    } else {
        char text[sizeof problem.where + sizeof problem.message + 4];
        snprintf(text, sizeof text, "%s%s%s", problem.where, problem.where[0] ? ": " : "",
                 problem.message);
        status = finish(t, i, NULL, text, err);
    }
    cvq_answer_free(&a);
    return status;
}

cvq_status cvq_task_run_answer(cvq_task_run *t, cvq_error *err) {
    t->started = cvq_progress_clock();
    for (size_t i = 0; i < t->task.count; i++) {
        if (!t->pending[i]) continue;
        if (cvq_interrupted()) return cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
        cvq_format_step("question", t->num_done, t->num_pending, t->started, t->prefix,
                        sizeof t->prefix);
        t->run->prefix = t->prefix;
        CVQ_TRY(do_question(t, i, err));
        t->num_done++;
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- the whole */

/* A line of an earlier run: its score must be what this run would give it. */
static cvq_status keep_line(cvq_task_run *t, size_t i, const cvq_known_line *known,
                            cvq_error *err) {
    if (!known->answer) t->num_kept_errors++;
    if (!t->score) return CVQ_OK;
    CVQ_TRY(t->score(t->context, i, known->answer, &t->scores[i], err));
    if (known->has_score && fabs(known->score - t->scores[i]) < 1e-9) return CVQ_OK;
    return cvq_fail(err, CVQ_MISMATCH, t->out, "%s; give another name or use --force",
                    known->has_score ? "was scored by another metric or with other right answers"
                                     : "has an answer without a score");
}

static cvq_status mark_pending(cvq_task_run *t, cvq_error *err) {
    CVQ_TRY(cvq_alloc((void **)&t->pending, t->task.count, sizeof *t->pending, "the task", err));
    CVQ_TRY(cvq_alloc((void **)&t->scores, t->task.count, sizeof *t->scores, "the task", err));
    for (size_t i = 0; i < t->task.count; i++) {
        const cvq_known_line *known =
            t->out ? cvq_results_take(&t->results, t->task.lines[i].id) : NULL;
        if (known) CVQ_TRY(keep_line(t, i, known, err));
        t->pending[i] = !known;
        t->num_pending += !known;
    }
    return CVQ_OK;
}

/* Before OUT is touched: that every line can be scored. */
static cvq_status try_scores(const cvq_task_run *t, cvq_error *err) {
    double score;
    if (t->task.count == 0) return cvq_fail(err, CVQ_FORMAT, t->task_path, "holds no questions");
    for (size_t i = 0; i < t->task.count; i++) CVQ_TRY(t->score(t->context, i, "", &score, err));
    return CVQ_OK;
}

cvq_status cvq_task_run_open(cvq_task_run *t, cvq_error *err) {
    const cvq_common *common = &t->run->args->common;
    const char *inputs[] = {t->task_path, common->operands[0], t->beside};
    t->results = (cvq_results)CVQ_RESULTS_NONE;
    CVQ_TRY(cvq_task_read(&t->task, t->task_path, err));
    if (t->score) CVQ_TRY(try_scores(t, err));
    if (t->out) {
        const size_t num_inputs = t->beside ? 3 : 2;
        CVQ_TRY(cvq_output_check_inputs(t->out, inputs, num_inputs, err));
        CVQ_TRY(cvq_task_check_output(&t->task, t->out, err));
        CVQ_TRY(cvq_results_open(&t->results, t->out, common->force, err));
        CVQ_TRY(cvq_answers_origin_check(t->run, t->score ? t->task_path : NULL, t->out,
                                         t->results.size == 0, inputs, num_inputs, err));
    }
    CVQ_TRY(mark_pending(t, err));
    return cvq_task_pictures_open(&t->pictures, t->run, &t->task, t->pending, err);
}

void cvq_task_run_note(const cvq_task_run *t, cvq_status status) {
    if (!t->pending) return;
    cvq_say_note(&t->run->args->common,
                 "%s: %zu answered, %zu of them with an error; %zu were there before%s", t->out,
                 t->num_done, t->num_errors, t->task.count - t->num_pending,
                 status == CVQ_OK ? "" : "; the same command goes on from here");
}

void cvq_task_run_close(cvq_task_run *t) {
    t->run->prefix = "";
    cvq_task_pictures_close(&t->pictures);
    free(t->pending);
    free(t->scores);
    if (t->out) cvq_results_close(&t->results);
    cvq_task_free(&t->task);
}
