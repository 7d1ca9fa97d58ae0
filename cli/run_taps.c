/* --logits and --taps: the whole prompt is scored, every position computed in full, and what comes
 * by goes to a safetensors file. That format wants all shapes before the first byte, while rows of
 * different tensors arrive interleaved (the prompt's parts go through all layers one after another)
 * and may be gigabytes: they are kept in a nameless file beside the output until the end. */
#define CVQ_UNSTABLE /* scoring and the observer */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/output.h"
#include "cli/run.h"
#include "cli/tap_spool.h"
#include "formats/safetensors.h"

#define COPY_BYTES (1u << 20)

typedef struct scoring {
    cvq_session *session;
    cvq_tap_spool spool;
    size_t vocab_size;
    cvq_error error; /* the observer cannot return one: the session is cancelled instead */
} scoring;

/* ---------------------------------------------------------------- what the session calls */

static int on_wants(void *context, const char *name) {
    static const char *const whole[] = {"pixels", "vision.patch_embedding", "vision.conv",
                                        "vision.out"};
    (void)context;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(whole[i], name) == 0) return 1;
    return cvq_tap_numbered(name, "vision.layer.") || cvq_tap_numbered(name, "layer.");
}

static void on_sees(void *context, const char *name, size_t first, size_t rows, size_t cols,
                    const float *values) {
    scoring *s = context;
    if (s->error.code != CVQ_OK) return;
    if (cvq_tap_spool_add(&s->spool, name, first, rows, cols, values, &s->error) != CVQ_OK)
        cvq_session_cancel(s->session);
}

static int on_logits(void *context, size_t slot, const float *logits) {
    scoring *s = context;
    if (s->error.code == CVQ_OK)
        (void)cvq_tap_spool_add(&s->spool, "logits", slot, 1, s->vocab_size, logits, &s->error);
    return s->error.code != CVQ_OK || cvq_interrupted();
}

/* ---------------------------------------------------------------- the file */

/* The taps' tensors as they are announced: "ids" first, then the taps in order of appearance. */
static cvq_status announce(const cvq_tap_spool *s, size_t num_ids, uint32_t image_size,
                           cvq_st_tensor **tensors, cvq_error *err) {
    CVQ_TRY(cvq_alloc((void **)tensors, s->num_taps + 1, sizeof **tensors, "the taps", err));
    (*tensors)[0] = (cvq_st_tensor){.name = "ids", .dtype = CVQ_ST_I32, .ndim = 1};
    (*tensors)[0].dims[0] = num_ids;
    (*tensors)[0].size = num_ids * sizeof(int32_t);
    for (size_t i = 0; i < s->num_taps; i++) {
        const cvq_tap *t = &s->taps[i];
        cvq_st_tensor *out = &(*tensors)[i + 1];
        *out = (cvq_st_tensor){.name = t->name, .dtype = CVQ_ST_F32, .ndim = 2};
        out->dims[0] = t->rows;
        out->dims[1] = t->cols;
        if (strcmp(t->name, "pixels") == 0) { /* planes, whatever the rows they came in */
            out->ndim = 3;
            out->dims[0] = t->rows * t->cols / ((uint64_t)image_size * image_size);
            out->dims[1] = out->dims[2] = image_size;
        }
        out->size = t->rows * t->cols * sizeof(float);
    }
    return CVQ_OK;
}

static cvq_status copy_piece(const cvq_tap_spool *s, const cvq_tap_piece *p, cvq_st_writer *w,
                             uint8_t *block, cvq_error *err) {
    uint64_t left = p->rows * s->taps[p->tap].cols * sizeof(float), offset = p->offset;
    while (left > 0) {
        size_t n = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
        CVQ_TRY(cvq_read_all(s->fd, offset, block, n, s->where, err));
        CVQ_TRY(cvq_st_writer_append(w, block, n, err));
        offset += n;
        left -= n;
    }
    return CVQ_OK;
}

/* Every tap's rows in order, each exactly once. */
static cvq_status copy_taps(cvq_tap_spool *s, cvq_st_writer *w, cvq_error *err) {
    uint8_t *block = NULL;
    CVQ_TRY(cvq_alloc((void **)&block, COPY_BYTES, 1, "copying the taps", err));
    cvq_tap_spool_sort(s);
    cvq_status status = CVQ_OK;
    uint64_t expected = 0;
    for (size_t i = 0; status == CVQ_OK && i < s->num_pieces; i++) {
        const cvq_tap_piece *p = &s->pieces[i];
        if (i == 0 || s->pieces[i - 1].tap != p->tap) expected = 0;
        if (p->first != expected)
            status = cvq_fail(err, CVQ_INTERNAL, s->taps[p->tap].name,
                              "rows are missing or came twice, at row %" PRIu64, expected);
        else if (cvq_interrupted())
            status = cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
        else
            status = copy_piece(s, p, w, block, err);
        expected = p->first + p->rows;
    }
    free(block);
    return status;
}

static cvq_status write_file(cvq_tap_spool *s, const cvq_prompt *prompt, uint32_t image_size,
                             int fd, cvq_error *err) {
    size_t num_ids;
    const int32_t *ids = cvq_prompt_ids(prompt, &num_ids);
    cvq_st_tensor *tensors = NULL;
    cvq_st_writer *w = NULL;
    cvq_status status = announce(s, num_ids, image_size, &tensors, err);
    if (status == CVQ_OK)
        status = cvq_st_writer_open(&w, fd, tensors, s->num_taps + 1, s->where, err);
    if (status == CVQ_OK) status = cvq_st_writer_append(w, ids, num_ids * sizeof *ids, err);
    if (status == CVQ_OK) status = copy_taps(s, w, err);
    if (status == CVQ_OK) {
        status = cvq_st_writer_finish(w, err);
        w = NULL;
    }
    cvq_st_writer_free(w);
    free(tensors);
    return status;
}

static cvq_status score(cvq_run *run, scoring *s, const cvq_prompt *prompt, cvq_error *err) {
    if (run->args->taps) CVQ_TRY(cvq_session_observe(run->session, on_wants, on_sees, s, err));
    cvq_error cause = {0};
    run->phase = -1;
    cvq_interrupt_session(run->session);
    cvq_status status = cvq_session_score(run->session, prompt, on_logits, s, &cause);
    cvq_interrupt_session(NULL);
    cvq_progress_erase();
    if (run->args->taps) (void)cvq_session_observe(run->session, NULL, NULL, NULL, NULL);
    if (s->error.code != CVQ_OK)
        return cvq_fail(err, s->error.code, s->error.where, "%s", s->error.message);
    if (status != CVQ_OK) return cvq_fail(err, cause.code, cause.where, "%s", cause.message);
    return CVQ_OK;
}

cvq_status cvq_run_logits(cvq_run *run, const cvq_prompt *prompt, cvq_error *err) {
    const cvq_run_args *args = run->args;
    const cvq_model_info *info = cvq_model_describe(run->model);
    const char *inputs[] = {args->common.operands[0], args->image, args->history};
    cvq_output out = CVQ_OUTPUT_NONE;
    scoring s = {
        .session = run->session, .spool = CVQ_TAP_SPOOL_NONE, .vocab_size = info->vocab_size};
    s.spool.where = args->logits;
    CVQ_TRY(cvq_output_open(&out, args->logits, args->common.force, inputs, 3, err));
    cvq_status status = cvq_output_scratch(&out, &s.spool.fd, err);
    if (status == CVQ_OK) status = score(run, &s, prompt, err);
    if (status == CVQ_OK) status = write_file(&s.spool, prompt, info->image_size, out.fd, err);
    if (status == CVQ_OK) status = cvq_output_commit(&out, err);
    cvq_output_discard(&out);
    if (s.spool.fd >= 0) close(s.spool.fd);
    cvq_tap_spool_free(&s.spool);
    return status;
}
