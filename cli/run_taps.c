/* --logits and --taps: the whole prompt is scored, every position computed in full, and what comes
 * by goes to a safetensors file. That format wants all shapes before the first byte, while rows of
 * different tensors arrive interleaved (the prompt's parts go through all layers one after another)
 * and may be gigabytes: they are kept in a nameless file beside the output until the end. */
#define CVQ_UNSTABLE /* scoring and the observer */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/output.h"
#include "cli/run.h"
#include "formats/safetensors.h"

#define MAX_TAP_NAME 48
#define COPY_BYTES (1u << 20)

typedef struct tap {
    char name[MAX_TAP_NAME];
    uint64_t rows, cols;
} tap;

/* Rows [first, first + rows) of a tap, at an offset of the spool. */
typedef struct piece {
    size_t tap;
    uint64_t first, rows, offset;
} piece;

typedef struct spool {
    cvq_session *session;
    const char *where;
    int fd;
    uint64_t size;
    tap *taps;
    size_t num_taps, taps_capacity;
    piece *pieces;
    size_t num_pieces, pieces_capacity;
    size_t vocab_size;
    cvq_error error; /* the observer cannot return one: the session is cancelled instead */
} spool;

/* Room for one more item of `size` bytes. */
static cvq_status grow(void **items, size_t *capacity, size_t count, size_t size, cvq_error *err) {
    if (count < *capacity) return CVQ_OK;
    size_t more = *capacity ? 2 * *capacity : 64;
    void *bigger = realloc(*items, more * size);
    if (!bigger) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "", "no memory for the list of taps");
    *items = bigger;
    *capacity = more;
    return CVQ_OK;
}

static cvq_status find_tap(spool *s, const char *name, size_t cols, size_t *out) {
    for (size_t i = 0; i < s->num_taps; i++) {
        if (strcmp(s->taps[i].name, name) != 0) continue;
        if (s->taps[i].cols != cols)
            return cvq_fail(&s->error, CVQ_INTERNAL, name, "rows of different lengths");
        *out = i;
        return CVQ_OK;
    }
    CVQ_TRY(grow((void **)&s->taps, &s->taps_capacity, s->num_taps, sizeof *s->taps, &s->error));
    tap *t = &s->taps[s->num_taps];
    *t = (tap){.cols = cols};
    snprintf(t->name, sizeof t->name, "%s", name);
    *out = s->num_taps++;
    return CVQ_OK;
}

static cvq_status spool_rows(spool *s, const char *name, size_t first, size_t rows, size_t cols,
                             const float *values) {
    size_t t = 0;
    CVQ_TRY(find_tap(s, name, cols, &t));
    size_t bytes = rows * cols * sizeof *values;
    CVQ_TRY(cvq_write_all(s->fd, s->size, values, bytes, s->where, &s->error));
    piece *last = s->num_pieces ? &s->pieces[s->num_pieces - 1] : NULL;
    if (last && last->tap == t && last->first + last->rows == first) {
        last->rows += rows;
    } else {
        CVQ_TRY(grow((void **)&s->pieces, &s->pieces_capacity, s->num_pieces, sizeof *s->pieces,
                     &s->error));
        s->pieces[s->num_pieces++] = (piece){t, first, rows, s->size};
    }
    s->taps[t].rows += rows;
    s->size += bytes;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- what the session calls */

static bool is_numbered(const char *name, const char *stem) {
    size_t n = strlen(stem);
    return strncmp(name, stem, n) == 0 && name[n] && name[n + strspn(name + n, "0123456789")] == 0;
}

static int on_wants(void *context, const char *name) {
    static const char *const whole[] = {"pixels", "vision.patch_embedding", "vision.conv",
                                        "vision.out"};
    (void)context;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(whole[i], name) == 0) return 1;
    return is_numbered(name, "vision.layer.") || is_numbered(name, "layer.");
}

static void on_sees(void *context, const char *name, size_t first, size_t rows, size_t cols,
                    const float *values) {
    spool *s = context;
    if (s->error.code != CVQ_OK) return;
    if (spool_rows(s, name, first, rows, cols, values) != CVQ_OK) cvq_session_cancel(s->session);
}

static int on_logits(void *context, size_t slot, const float *logits) {
    spool *s = context;
    if (s->error.code == CVQ_OK) (void)spool_rows(s, "logits", slot, 1, s->vocab_size, logits);
    return s->error.code != CVQ_OK || cvq_interrupted();
}

/* ---------------------------------------------------------------- the file */

static int by_place(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->tap != y->tap) return x->tap < y->tap ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* The taps' tensors as they are announced: "ids" first, then the taps in order of appearance. */
static cvq_status announce(const spool *s, size_t num_ids, uint32_t image_size,
                           cvq_st_tensor **tensors, cvq_error *err) {
    CVQ_TRY(cvq_alloc((void **)tensors, s->num_taps + 1, sizeof **tensors, "the taps", err));
    (*tensors)[0] = (cvq_st_tensor){.name = "ids", .dtype = CVQ_ST_I32, .ndim = 1};
    (*tensors)[0].dims[0] = num_ids;
    (*tensors)[0].size = num_ids * sizeof(int32_t);
    for (size_t i = 0; i < s->num_taps; i++) {
        const tap *t = &s->taps[i];
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

static cvq_status copy_piece(const spool *s, const piece *p, cvq_st_writer *w, uint8_t *block,
                             cvq_error *err) {
    uint64_t left = p->rows * s->taps[p->tap].cols * sizeof(float), offset = p->offset;
    while (left > 0) {
        size_t n = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
        ssize_t got = pread(s->fd, block, n, (off_t)offset);
        if (got <= 0) return cvq_fail_errno(err, s->where, "cannot read back the taps");
        CVQ_TRY(cvq_st_writer_append(w, block, (size_t)got, err));
        offset += (uint64_t)got;
        left -= (uint64_t)got;
    }
    return CVQ_OK;
}

/* Every tap's rows in order, each exactly once. */
static cvq_status copy_taps(spool *s, cvq_st_writer *w, cvq_error *err) {
    uint8_t *block = NULL;
    CVQ_TRY(cvq_alloc((void **)&block, COPY_BYTES, 1, "copying the taps", err));
    qsort(s->pieces, s->num_pieces, sizeof *s->pieces, by_place);
    cvq_status status = CVQ_OK;
    uint64_t expected = 0;
    for (size_t i = 0; status == CVQ_OK && i < s->num_pieces; i++) {
        const piece *p = &s->pieces[i];
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

static cvq_status write_file(spool *s, const cvq_prompt *prompt, uint32_t image_size, int fd,
                             cvq_error *err) {
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

static cvq_status score(cvq_run *run, spool *s, const cvq_prompt *prompt, cvq_error *err) {
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
    spool s = {
        .session = run->session, .where = args->logits, .fd = -1, .vocab_size = info->vocab_size};
    CVQ_TRY(cvq_output_open(&out, args->logits, args->common.force, inputs, 3, err));
    cvq_status status = cvq_output_scratch(&out, &s.fd, err);
    if (status == CVQ_OK) status = score(run, &s, prompt, err);
    if (status == CVQ_OK) status = write_file(&s, prompt, info->image_size, out.fd, err);
    if (status == CVQ_OK) status = cvq_output_commit(&out, err);
    cvq_output_discard(&out);
    if (s.fd >= 0) close(s.fd);
    free(s.taps);
    free(s.pieces);
    return status;
}
