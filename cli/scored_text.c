/* Text to pieces, and pieces through the model. */
#define CVQ_UNSTABLE
#include "cli/scored_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/file_map.h"
#include "cli/interrupt.h"
#include "cli/task_ids.h"
#include "formats/chunk_hash.h"

#define MAX_TEXT_BYTES (256u << 20)
#define MAX_PICTURE_BYTES (256u << 20)

/* ---------------------------------------------------------------- identity */

static cvq_status feed_u64(cvq_hasher *h, uint64_t v, cvq_error *err) {
    uint8_t bytes[8];
    cvq_store_le(bytes, v, 8);
    return cvq_hasher_feed(h, bytes, sizeof bytes, err);
}

static cvq_status feed_picture(cvq_hasher *h, const char *path, cvq_error *err) {
    cvq_buffer file = {0};
    uint8_t hash[CVQ_HASH_BYTES] = {0};
    cvq_status status = CVQ_OK;
    if (path) status = cvq_read_file(&file, path, MAX_PICTURE_BYTES, err);
    if (path && status == CVQ_OK) status = cvq_sha256(file.data, file.size, hash, err);
    cvq_buffer_free(&file);
    return status == CVQ_OK ? cvq_hasher_feed(h, hash, sizeof hash, err) : status;
}

static cvq_status feed_piece(cvq_hasher *h, const cvq_scored_text *t, size_t i, cvq_error *err) {
    const cvq_scored_piece *p = &t->pieces[i];
    CVQ_TRY(feed_u64(h, p->count, err));
    CVQ_TRY(feed_u64(h, p->first_scored, err));
    CVQ_TRY(feed_picture(h, p->line < t->task.count ? t->task.lines[p->line].image : NULL, err));
    for (size_t k = 0; k < p->count; k++) CVQ_TRY(feed_u64(h, (uint64_t)p->ids[k], err));
    return CVQ_OK;
}

/* Counts the tokens, too. */
static cvq_status identify(cvq_scored_text *t, cvq_error *err) {
    cvq_hasher *h = NULL;
    CVQ_TRY(cvq_hasher_open(&h, err));
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < t->num_pieces; i++) {
        t->tokens += t->pieces[i].count - t->pieces[i].first_scored;
        status = feed_piece(h, t, i, err);
    }
    if (status == CVQ_OK) status = cvq_hasher_take(h, t->hash, err);
    cvq_hasher_close(h);
    return status;
}

/* ---------------------------------------------------------------- reading */

/* Pieces while they are collected: their ids begin at an offset of a buffer that still moves. */
typedef struct cut {
    size_t first, count, first_scored, line;
} cut;

/* Ids from `first` on in whole windows; what is left over is dropped from the buffer too. */
static cvq_status cut_windows(cvq_scored_text *t, cvq_buffer *cuts, size_t first, size_t window,
                              cvq_error *err) {
    size_t n = t->ids.size / sizeof(int32_t) - first;
    for (size_t at = 0; at + window <= n; at += window) {
        cut c = {first + at, window, 0, SIZE_MAX};
        CVQ_TRY(cvq_buffer_append(cuts, &c, sizeof c, err));
    }
    t->ids.size = (first + n / window * window) * sizeof(int32_t);
    return CVQ_OK;
}

static cvq_status cut_question(cvq_scored_text *t, cvq_buffer *cuts, size_t line, const char *path,
                               cvq_error *err) {
    const cvq_task_line *l = &t->task.lines[line];
    const size_t first = t->ids.size / sizeof(int32_t);
    if (l->answers.count == 0)
        return cvq_fail(err, CVQ_FORMAT, path, "line %zu has no \"answers\" to score", l->number);
    CVQ_TRY(cvq_line_ids(t->run->model, t->run->kind, l, &t->ids, err));
    const size_t scored = t->ids.size / sizeof(int32_t) - first;
    CVQ_TRY(cvq_answer_ids(t->run->model, l->answers.items[0], &t->ids, err));
    cut c = {first, t->ids.size / sizeof(int32_t) - first, scored, line};
    return cvq_buffer_append(cuts, &c, sizeof c, err);
}

/* Now that the ids stay where they are. */
static cvq_status take_pieces(cvq_scored_text *t, const cvq_buffer *cuts, cvq_error *err) {
    void *pieces;
    const cut *c = (const cut *)(const void *)cuts->data;
    t->num_pieces = cuts->size / sizeof *c;
    CVQ_TRY(cvq_alloc(&pieces, t->num_pieces, sizeof *t->pieces, "what is scored", err));
    t->pieces = pieces;
    for (size_t i = 0; i < t->num_pieces; i++)
        t->pieces[i] = (cvq_scored_piece){(int32_t *)(void *)t->ids.data + c[i].first, c[i].count,
                                          c[i].first_scored, c[i].line};
    return identify(t, err);
}

cvq_status cvq_scored_text_read(cvq_scored_text *t, cvq_run *run, const char *path, size_t window,
                                cvq_error *err) {
    cvq_buffer file = {0}, cuts = {0};
    t->run = run;
    CVQ_TRY(cvq_read_file(&file, path, MAX_TEXT_BYTES, err));
    cvq_status status = cvq_text_ids(run->model, (const char *)file.data, file.size, &t->ids, err);
    cvq_buffer_free(&file);
    CVQ_TRY(status);
    size_t n = t->ids.size / sizeof(int32_t);
    if (n < window)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "has %zu tokens, less than one window of %zu; give a longer text or a "
                        "smaller --context",
                        n, window);
    status = cut_windows(t, &cuts, 0, window, err);
    if (status == CVQ_OK) status = take_pieces(t, &cuts, err);
    cvq_buffer_free(&cuts);
    return status;
}

static cvq_status cut_line(cvq_scored_text *t, cvq_buffer *cuts, size_t i, const char *path,
                           size_t window, cvq_error *err) {
    const cvq_task_line *line = &t->task.lines[i];
    if (line->problem) return cvq_fail(err, CVQ_FORMAT, path, "%s", line->problem);
    if (!line->text) return cut_question(t, cuts, i, path, err);
    const size_t first = t->ids.size / sizeof(int32_t);
    CVQ_TRY(cvq_text_ids(t->run->model, line->text, strlen(line->text), &t->ids, err));
    return cut_windows(t, cuts, first, window, err);
}

cvq_status cvq_scored_task_read(cvq_scored_text *t, cvq_run *run, const char *path, size_t window,
                                cvq_error *err) {
    cvq_buffer cuts = {0};
    t->run = run;
    CVQ_TRY(cvq_task_read_data(&t->task, path, err));
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < t->task.count; i++)
        status = cut_line(t, &cuts, i, path, window, err);
    if (status == CVQ_OK && cuts.size == 0)
        status = cvq_fail(err, CVQ_FORMAT, path,
                          "holds no question, nor a text of %zu tokens (--context)", window);
    if (status == CVQ_OK) status = take_pieces(t, &cuts, err);
    cvq_buffer_free(&cuts);
    if (status != CVQ_OK) return status;
    return cvq_task_pictures_open(&t->pictures, run, &t->task, NULL, err);
}

void cvq_scored_text_free(cvq_scored_text *t) {
    free(t->pieces);
    cvq_buffer_free(&t->ids);
    cvq_task_pictures_close(&t->pictures);
    cvq_task_free(&t->task);
    *t = (cvq_scored_text){0};
}

/* ---------------------------------------------------------------- running */

typedef struct window_run {
    const cvq_scored_piece *piece;
    cvq_scored_fn fn;
    void *context;
    cvq_error error; /* of fn */
} window_run;

/* Slot 0 is bos, so that the logits of slot s are about token s. */
static int on_slot(void *context, size_t slot, const float *logits) {
    window_run *w = context;
    if (slot >= w->piece->count || slot < w->piece->first_scored) return cvq_interrupted();
    cvq_status status = w->fn(w->context, logits, (uint32_t)w->piece->ids[slot], &w->error);
    return status != CVQ_OK || cvq_interrupted();
}

static cvq_status run_window(cvq_scored_text *t, size_t i, cvq_scored_fn fn, void *context,
                             cvq_error *err) {
    window_run w = {.piece = &t->pieces[i], .fn = fn, .context = context};
    cvq_prompt *prompt = NULL;
    cvq_error problem = {0};
    CVQ_TRY(cvq_prompt_from_ids(&prompt, t->run->model, w.piece->ids, w.piece->count, NULL, err));
    cvq_status status = cvq_session_score(t->run->session, prompt, on_slot, &w, &problem);
    cvq_prompt_free(prompt);
    if (w.error.code != CVQ_OK) problem = w.error;
    return status == CVQ_OK ? CVQ_OK
                            : cvq_fail(err, problem.code, problem.where, "%s", problem.message);
}

/* The session keeps the picture from line to line; the answer is decoded token by token. */
static cvq_status run_answer(cvq_scored_text *t, size_t i, cvq_scored_fn fn, void *context,
                             cvq_error *err) {
    const cvq_scored_piece *p = &t->pieces[i];
    cvq_prompt *prompt = NULL;
    cvq_image *image;
    cvq_status status = cvq_task_pictures_get(&t->pictures, p->line, &image, err);
    if (status == CVQ_OK)
        status = cvq_prompt_from_ids(&prompt, t->run->model, p->ids, p->first_scored, image, err);
    if (status == CVQ_OK) status = cvq_session_sync(t->run->session, prompt, err);
    for (size_t k = p->first_scored; status == CVQ_OK && k < p->count; k++) {
        status = fn(context, cvq_session_logits(t->run->session), (uint32_t)p->ids[k], err);
        if (status == CVQ_OK && cvq_interrupted())
            status = cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
        if (status == CVQ_OK && k + 1 < p->count)
            status = cvq_session_accept(t->run->session, p->ids[k], err);
    }
    cvq_prompt_free(prompt);
    cvq_task_pictures_done(&t->pictures, p->line);
    return status;
}

cvq_status cvq_scored_piece_run(cvq_scored_text *t, size_t i, cvq_scored_fn fn, void *context,
                                cvq_error *err) {
    return (t->pieces[i].line == SIZE_MAX ? run_window : run_answer)(t, i, fn, context, err);
}
