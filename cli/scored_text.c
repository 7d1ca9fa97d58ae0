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
    CVQ_TRY(feed_picture(h, t->task.count ? t->task.lines[i].image : NULL, err));
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

cvq_status cvq_scored_text_read(cvq_scored_text *t, cvq_run *run, const char *path, size_t window,
                                cvq_error *err) {
    cvq_buffer file = {0};
    void *pieces;
    t->run = run;
    CVQ_TRY(cvq_read_file(&file, path, MAX_TEXT_BYTES, err));
    cvq_status status = cvq_text_ids(run->model, (const char *)file.data, file.size, &t->ids, err);
    cvq_buffer_free(&file);
    CVQ_TRY(status);
    size_t n = t->ids.size / sizeof(int32_t), count = n / window;
    if (count == 0)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "has %zu tokens, less than one window of %zu; give a longer text or a "
                        "smaller --context",
                        n, window);
    CVQ_TRY(cvq_alloc(&pieces, count, sizeof *t->pieces, "the text's windows", err));
    t->pieces = pieces;
    t->num_pieces = count;
    for (size_t i = 0; i < count; i++)
        t->pieces[i] = (cvq_scored_piece){(int32_t *)(void *)t->ids.data + i * window, window, 0};
    return identify(t, err);
}

static cvq_status read_line(cvq_scored_text *t, size_t i, const char *path, cvq_error *err) {
    const cvq_task_line *line = &t->task.lines[i];
    cvq_buffer ids = {0};
    if (line->problem) return cvq_fail(err, CVQ_FORMAT, path, "%s", line->problem);
    if (line->answers.count == 0)
        return cvq_fail(err, CVQ_FORMAT, path, "line %zu has no \"answers\" to score",
                        line->number);
    cvq_status status = cvq_line_ids(t->run->model, t->run->kind, line, &ids, err);
    size_t first = ids.size / sizeof(int32_t);
    if (status == CVQ_OK) status = cvq_answer_ids(t->run->model, line->answers.items[0], &ids, err);
    if (status == CVQ_OK)
        t->pieces[i] =
            (cvq_scored_piece){(int32_t *)(void *)ids.data, ids.size / sizeof(int32_t), first};
    else
        cvq_buffer_free(&ids);
    return status;
}

cvq_status cvq_scored_task_read(cvq_scored_text *t, cvq_run *run, const char *path,
                                cvq_error *err) {
    void *pieces;
    t->run = run;
    CVQ_TRY(cvq_task_read(&t->task, path, err));
    if (t->task.count == 0) return cvq_fail(err, CVQ_FORMAT, path, "holds no questions");
    CVQ_TRY(cvq_alloc(&pieces, t->task.count, sizeof *t->pieces, "the task", err));
    t->pieces = pieces;
    t->num_pieces = t->task.count;
    for (size_t i = 0; i < t->num_pieces; i++) CVQ_TRY(read_line(t, i, path, err));
    CVQ_TRY(cvq_task_pictures_open(&t->pictures, run, &t->task, NULL, err));
    return identify(t, err);
}

void cvq_scored_text_free(cvq_scored_text *t) {
    for (size_t i = 0; t->task.count && i < t->num_pieces; i++) free(t->pieces[i].ids);
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
    cvq_status status = cvq_task_pictures_get(&t->pictures, i, &image, err);
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
    cvq_task_pictures_done(&t->pictures, i);
    return status;
}

cvq_status cvq_scored_piece_run(cvq_scored_text *t, size_t i, cvq_scored_fn fn, void *context,
                                cvq_error *err) {
    return (t->task.count ? run_answer : run_window)(t, i, fn, context, err);
}
