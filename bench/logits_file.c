/* Writing and reading saved logits. */
#include "bench/logits_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "formats/chunk_hash.h"

static const uint8_t magic[8] = "cvqlogit";
#define HASHED_BYTES 128
#define HEAD_BYTES (HASHED_BYTES + CVQ_HASH_BYTES)
#define ROW_HEAD_BYTES 16
#define LOWEST 200.0 /* a range of more than this below the top is cut off */
#define MAX_VOCAB (1u << 24)

static size_t row_bytes(uint32_t vocab) {
    return ROW_HEAD_BYTES + 2 * (size_t)vocab;
}

static cvq_status head_bytes(uint8_t out[HEAD_BYTES], const cvq_logits_head *h, cvq_error *err) {
    memset(out, 0, HEAD_BYTES);
    memcpy(out, magic, sizeof magic);
    cvq_store_le(out + 8, 1, 4);
    cvq_store_le(out + 12, h->vocab, 4);
    cvq_store_le(out + 16, h->context, 4);
    cvq_store_le(out + 24, h->rows, 8);
    memcpy(out + 32, h->text, sizeof h->text);
    memcpy(out + 64, h->model, sizeof h->model);
    return cvq_sha256(out, HASHED_BYTES, out + HASHED_BYTES, err);
}

/* ---------------------------------------------------------------- writing */

cvq_status cvq_logits_writer_open(cvq_logits_writer *w, int fd, const char *path,
                                  const cvq_logits_head *head, cvq_error *err) {
    void *row;
    CVQ_TRY(cvq_alloc(&row, row_bytes(head->vocab), 1, path, err));
    *w = (cvq_logits_writer){.fd = fd, .path = path, .head = *head, .row = row};
    return CVQ_OK;
}

cvq_status cvq_logits_writer_add(cvq_logits_writer *w, const float *logits, const cvq_prediction *p,
                                 cvq_error *err) {
    uint32_t vocab = w->head.vocab;
    double least = logits[p->best];
    for (uint32_t i = 0; i < vocab; i++)
        if ((double)logits[i] < least) least = logits[i];
    double range = (double)logits[p->best] - least;
    float top = (float)((double)logits[p->best] - p->log_sum);
    if (top > 0) top = 0; /* rounding */
    float step = (float)((range < LOWEST ? range : LOWEST) / 65535);
    cvq_store_le(w->row, cvq_f32_bits(top), 4);
    cvq_store_le(w->row + 4, cvq_f32_bits(step), 4);
    cvq_store_le(w->row + 8, cvq_f32_bits((float)p->nll), 4);
    cvq_store_le(w->row + 12, p->best, 4);
    for (uint32_t i = 0; i < vocab; i++) {
        double below = (double)top - ((double)logits[i] - p->log_sum), code = 0;
        if (step > 0 && below > 0) code = floor(below / (double)step + 0.5);
        cvq_store_le(w->row + ROW_HEAD_BYTES + 2 * (size_t)i, code < 65535 ? (uint64_t)code : 65535,
                     2);
    }
    size_t size = row_bytes(vocab);
    CVQ_TRY(cvq_write_all(w->fd, HEAD_BYTES + w->written * size, w->row, size, w->path, err));
    w->written++;
    return CVQ_OK;
}

cvq_status cvq_logits_writer_finish(cvq_logits_writer *w, cvq_error *err) {
    uint8_t head[HEAD_BYTES];
    if (w->written != w->head.rows)
        return cvq_fail(err, CVQ_INTERNAL, w->path, "not all rows were written");
    CVQ_TRY(head_bytes(head, &w->head, err));
    return cvq_write_all(w->fd, 0, head, sizeof head, w->path, err);
}

void cvq_logits_writer_free(cvq_logits_writer *w) {
    free(w->row);
    *w = (cvq_logits_writer){.fd = -1};
}

/* ---------------------------------------------------------------- reading */

static cvq_status read_head(cvq_logits_file *f, cvq_error *err) {
    uint8_t whole[HEAD_BYTES];
    if (f->map.size < HEAD_BYTES || memcmp(f->map.data, magic, sizeof magic) != 0)
        return cvq_fail(err, CVQ_FORMAT, f->path,
                        "holds no saved logits; make them with cvq-perplexity --save-logits");
    cvq_cursor c = cvq_cursor_make(f->map.data + 8, HASHED_BYTES - 8);
    uint32_t version = cvq_cursor_u32(&c);
    if (version != 1)
        return cvq_fail(err, CVQ_UNSUPPORTED, f->path,
                        "saved logits of version %u; this program reads version 1", version);
    f->head.vocab = cvq_cursor_u32(&c);
    f->head.context = cvq_cursor_u32(&c);
    cvq_cursor_u32(&c);
    f->head.rows = cvq_cursor_u64(&c);
    memcpy(f->head.text, f->map.data + 32, sizeof f->head.text);
    memcpy(f->head.model, f->map.data + 64, sizeof f->head.model);
    CVQ_TRY(head_bytes(whole, &f->head, err));
    if (memcmp(whole, f->map.data, HEAD_BYTES) != 0)
        return cvq_fail(err, CVQ_FORMAT, f->path, "its head is damaged; save the logits again");
    return CVQ_OK;
}

static cvq_status check_size(const cvq_logits_file *f, cvq_error *err) {
    uint64_t size;
    if (f->head.vocab == 0 || f->head.vocab > MAX_VOCAB ||
        !cvq_mul_u64(f->head.rows, row_bytes(f->head.vocab), &size) ||
        !cvq_add_u64(size, HEAD_BYTES, &size) || size != f->map.size)
        return cvq_fail(err, CVQ_FORMAT, f->path,
                        "is not as long as its head says; save the logits again");
    return CVQ_OK;
}

static cvq_status check_match(const cvq_logits_file *f, const cvq_logits_head *expected,
                              cvq_error *err) {
    const char *what = NULL;
    if (f->head.vocab != expected->vocab)
        what = "are of a model with another vocabulary";
    else if (f->head.context != expected->context)
        what = "are of another --context, or of a text and not of a task, or the reverse";
    else if (f->head.rows != expected->rows ||
             memcmp(f->head.text, expected->text, sizeof expected->text) != 0)
        what = "are of another text";
    if (!what) return CVQ_OK;
    return cvq_fail(err, CVQ_MISMATCH, f->path,
                    "the saved logits %s; both runs must score the same", what);
}

cvq_status cvq_logits_open(cvq_logits_file *out, const char *path, const cvq_logits_head *expected,
                           cvq_error *err) {
    cvq_logits_file f = {.path = path};
    CVQ_TRY(cvq_file_map_open(&f.map, path, err));
    cvq_status status = read_head(&f, err);
    if (status == CVQ_OK) status = check_size(&f, err);
    if (status == CVQ_OK) status = check_match(&f, expected, err);
    if (status == CVQ_OK)
        *out = f;
    else
        cvq_logits_close(&f);
    return status;
}

cvq_status cvq_logits_row(const cvq_logits_file *f, uint64_t i, cvq_saved_row *row,
                          cvq_error *err) {
    if (i >= f->head.rows)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, f->path, "has no row %llu",
                        (unsigned long long)i);
    size_t size = row_bytes(f->head.vocab);
    cvq_cursor c = cvq_cursor_make(f->map.data + HEAD_BYTES + i * size, size);
    cvq_saved_row r = {0};
    r.top = cvq_cursor_f32(&c);
    r.step = cvq_cursor_f32(&c);
    r.nll = (double)cvq_cursor_f32(&c);
    r.best = cvq_cursor_u32(&c);
    r.codes = cvq_cursor_bytes(&c, 2 * (size_t)f->head.vocab);
    bool sound = r.codes && isfinite(r.top) && r.top <= 0 && isfinite(r.step) && r.step >= 0 &&
                 (double)r.step <= 1.01 * LOWEST / 65535 && isfinite(r.nll) && r.nll >= 0 &&
                 r.best < f->head.vocab;
    if (!sound)
        return cvq_fail(err, CVQ_FORMAT, f->path, "row %llu is damaged; save the logits again",
                        (unsigned long long)i);
    *row = r;
    return CVQ_OK;
}

void cvq_logits_close(cvq_logits_file *f) {
    cvq_file_map_close(&f->map);
    *f = (cvq_logits_file){.map = {.fd = -1}};
}
