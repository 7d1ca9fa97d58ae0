/* Pieces through a session, and every row that comes by into the spool or against it. */
#define CVQ_UNSTABLE /* the observer */
#include "cli/compared_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/messages.h"

#define LOGITS "logits"

/* ---------------------------------------------------------------- opening */

int cvq_compared_open(cvq_compared *c, const cvq_run_args *args, char *path, int precision,
                      const char *data, size_t window, cvq_tap_spool *spool, bool reference) {
    cvq_error err = {0};
    *c = (cvq_compared){.args = *args, .operand = path, .spool = spool, .reference = reference};
    c->args.precision = precision;
    c->args.common.operands = &c->operand;
    c->run.args = &c->args;
    int exit_code = cvq_run_open_model(&c->run);
    if (exit_code == CVQ_EXIT_DONE) exit_code = cvq_run_open_session(&c->run);
    if (exit_code != CVQ_EXIT_DONE) return exit_code;
    const size_t vocab = cvq_model_describe(c->run.model)->vocab_size;
    void *logits;
    cvq_status status = cvq_alloc(&logits, vocab, sizeof(float), "logits", &err);
    if (status == CVQ_OK) {
        c->logits = logits;
        status = cvq_scored_task_read(&c->text, &c->run, data, window, &err);
    }
    return status == CVQ_OK ? CVQ_EXIT_DONE : cvq_say_error(args->common.command, &err);
}

void cvq_compared_close(cvq_compared *c) {
    if (c->run.session) (void)cvq_session_observe(c->run.session, NULL, NULL, NULL, NULL);
    cvq_scored_text_free(&c->text);
    cvq_run_close(&c->run);
    cvq_divergence_free(&c->sum[CVQ_COMPARED_TEXT]);
    cvq_divergence_free(&c->sum[CVQ_COMPARED_ANSWERS]);
    cvq_state_errors_free(&c->states);
    free(c->logits);
    free(c->rows);
    *c = (cvq_compared){0};
}

/* ---------------------------------------------------------------- hidden states */

static int on_wants(void *context, const char *name) {
    (void)context;
    return strcmp(name, "vision.patch_embedding") == 0 || strcmp(name, "vision.conv") == 0 ||
           strcmp(name, "vision.out") == 0 || cvq_tap_numbered(name, "vision.layer.") ||
           cvq_tap_numbered(name, "layer.");
}

/* Room for the reference's rows. */
static cvq_status room(cvq_compared *c, size_t values, cvq_error *err) {
    void *rows;
    if (values <= c->rows_size) return CVQ_OK;
    CVQ_TRY(cvq_alloc(&rows, values, sizeof(float), "hidden states", err));
    free(c->rows);
    c->rows = rows;
    c->rows_size = values;
    return CVQ_OK;
}

/* A decoder's rows: slots of patches go through the vision expert, eoi and text through the
 * language expert. bos and boi, which are the same for every prompt and much larger than all
 * others, are left out. */
static cvq_status add_slots(cvq_compared *c, const char *name, size_t first, size_t rows,
                            size_t cols, const float *values, cvq_error *err) {
    const size_t slots = c->image_slots;
    char place[CVQ_MAX_PLACE_NAME];
    for (size_t r = 0; r < rows;) {
        const size_t slot = first + r;
        const bool vision = slot < slots;
        const size_t end = vision ? slots : first + rows;
        const size_t n = (end < first + rows ? end : first + rows) - slot;
        const size_t skip = slot < (slots ? 2u : 1u) ? 1 : 0;
        snprintf(place, sizeof place, "%s.%s", name, vision ? "vision" : "language");
        if (skip == 0)
            CVQ_TRY(cvq_state_errors_add(&c->states, place, c->rows + r * cols, values + r * cols,
                                         n, cols, err));
        r += skip ? 1 : n;
    }
    return CVQ_OK;
}

static cvq_status see(cvq_compared *c, const char *name, size_t first, size_t rows, size_t cols,
                      const float *values, cvq_error *err) {
    if (c->reference) return cvq_tap_spool_add(c->spool, name, first, rows, cols, values, err);
    CVQ_TRY(room(c, rows * cols, err));
    CVQ_TRY(cvq_tap_spool_read(c->spool, name, first, rows, cols, c->rows, err));
    if (cvq_tap_numbered(name, "layer.")) return add_slots(c, name, first, rows, cols, values, err);
    return cvq_state_errors_add(&c->states, name, c->rows, values, rows, cols, err);
}

static void on_sees(void *context, const char *name, size_t first, size_t rows, size_t cols,
                    const float *values) {
    cvq_compared *c = context;
    if (c->error.code == CVQ_OK && see(c, name, first, rows, cols, values, &c->error) != CVQ_OK)
        cvq_session_cancel(c->run.session);
}

cvq_status cvq_compared_observe(cvq_compared *c, cvq_error *err) {
    return cvq_session_observe(c->run.session, on_wants, on_sees, c, err);
}

/* ---------------------------------------------------------------- predictions */

static cvq_status on_token(void *context, const float *logits, uint32_t token, cvq_error *err) {
    cvq_compared *c = context;
    const uint32_t vocab = cvq_model_describe(c->run.model)->vocab_size;
    const uint64_t row = c->tokens++;
    cvq_prediction p, before;
    CVQ_TRY(cvq_predict(&p, logits, vocab, token, err));
    if (c->reference) {
        CVQ_TRY(cvq_tap_spool_add(c->spool, LOGITS, (size_t)row, 1, vocab, logits, err));
        return cvq_divergence_add(&c->sum[c->kind], &p, NULL, 0, err);
    }
    CVQ_TRY(cvq_tap_spool_read(c->spool, LOGITS, (size_t)row, 1, vocab, c->logits, err));
    CVQ_TRY(cvq_predict(&before, c->logits, vocab, token, err));
    const cvq_saved_row saved = {.nll = before.nll, .best = before.best};
    return cvq_divergence_add(
        &c->sum[c->kind], &p, &saved,
        cvq_logits_divergence(c->logits, before.log_sum, logits, p.log_sum, vocab), err);
}

cvq_status cvq_compared_piece(cvq_compared *c, size_t i, cvq_error *err) {
    const size_t line = c->text.pieces[i].line;
    const bool picture = line != SIZE_MAX && c->text.task.lines[line].image;
    cvq_error problem = {0};
    c->kind = line == SIZE_MAX ? CVQ_COMPARED_TEXT : CVQ_COMPARED_ANSWERS;
    c->image_slots = picture ? cvq_model_describe(c->run.model)->image_slots : 0;
    c->run.phase = -1;
    cvq_interrupt_session(c->run.session);
    cvq_status status = cvq_scored_piece_run(&c->text, i, on_token, c, &problem);
    cvq_interrupt_session(NULL);
    if (c->error.code != CVQ_OK) problem = c->error;
    if (status == CVQ_OK && problem.code == CVQ_OK) return CVQ_OK;
    return cvq_fail(err, problem.code, problem.where, "%s", problem.message);
}
