/* A .cvq file as the source of another: panels are read in the order of the file, their chunks'
 * hashes are checked on the way, so that damage does not go unseen into the new file. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "formats/chunk_hash.h"
#include "quant/quantize.h"

struct cvq_reader_rows {
    const cvq_reader *reader;
    cvq_hasher *hasher; /* of the chunk that is under way */
};

static size_t panels_size(const cvq_tensor *t, uint64_t rows) {
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): a panel has 1 or 16 rows */
    const uint64_t panels = (rows + t->panel_rows - 1) / t->panel_rows;
    return (size_t)panels *
           cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, (size_t)t->spec.cols);
}

static size_t rows_size(void *context, size_t tensor, uint64_t count) {
    const cvq_reader_rows *rows = context;
    return panels_size(cvq_reader_tensor(rows->reader, tensor), count);
}

static cvq_status read_rows(void *context, size_t tensor, uint64_t first, uint64_t count,
                            uint8_t *raw, cvq_error *err) {
    const cvq_reader_rows *rows = context;
    const cvq_tensor *t = cvq_reader_tensor(rows->reader, tensor);
    const int fd = cvq_reader_map(rows->reader)->fd;
    const uint64_t offset = t->offset + panels_size(t, first);
    const size_t size = panels_size(t, count);
    CVQ_TRY(cvq_read_all(fd, offset, raw, size, cvq_reader_path(rows->reader), err));
    cvq_file_advise(fd, offset, size, CVQ_ADVICE_DONTNEED);
    return CVQ_OK;
}

static void will_need(void *context, size_t tensor, uint64_t first, uint64_t count) {
    const cvq_reader_rows *rows = context;
    const cvq_tensor *t = cvq_reader_tensor(rows->reader, tensor);
    cvq_file_advise(cvq_reader_map(rows->reader)->fd, t->offset + panels_size(t, first),
                    panels_size(t, count), CVQ_ADVICE_WILLNEED);
}

static cvq_status check_chunk(const cvq_reader_rows *rows, const cvq_tensor *t, uint64_t number,
                              cvq_error *err) {
    uint8_t hash[CVQ_HASH_BYTES];
    CVQ_TRY(cvq_hasher_take(rows->hasher, hash, err));
    const uint8_t *wanted = cvq_reader_chunk_hash(rows->reader, t->first_chunk + number);
    if (memcmp(hash, wanted, sizeof hash) == 0) return CVQ_OK;
    return cvq_fail(err, CVQ_MISMATCH, cvq_reader_path(rows->reader),
                    "%s is damaged in the 1 MiB from byte %" PRIu64
                    " on; cvq-info --verify lists all damage, and the file has to be got again",
                    t->spec.name, t->offset + number * CVQ_CHUNK_BYTES);
}

static cvq_status check_rows(void *context, size_t tensor, uint64_t first, uint64_t count,
                             const uint8_t *raw, cvq_error *err) {
    const cvq_reader_rows *rows = context;
    const cvq_tensor *t = cvq_reader_tensor(rows->reader, tensor);
    uint64_t at = panels_size(t, first);
    for (size_t left = panels_size(t, count); left > 0;) {
        const size_t rest = CVQ_CHUNK_BYTES - (size_t)(at % CVQ_CHUNK_BYTES);
        const size_t n = left < rest ? left : rest;
        CVQ_TRY(cvq_hasher_feed(rows->hasher, raw, n, err));
        raw += n;
        left -= n;
        at += n;
        if (n == rest || at == t->size)
            CVQ_TRY(check_chunk(rows, t, (at - 1) / CVQ_CHUNK_BYTES, err));
    }
    return CVQ_OK;
}

static cvq_status decode_rows(void *context, size_t tensor, uint64_t count, const uint8_t *raw,
                              float *out, cvq_error *err) {
    const cvq_reader_rows *rows = context;
    const cvq_tensor *t = cvq_reader_tensor(rows->reader, tensor);
    const size_t cols = (size_t)t->spec.cols, height = t->panel_rows;
    const size_t ld = cvq_padded_cols(cvq_type_describe(t->type), cols);
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, height * ld, sizeof(float), "a panel", err));
    float *panel = memory;
    for (uint64_t row = 0; row < count; row += height, raw += panels_size(t, 1)) {
        const size_t n = count - row < height ? (size_t)(count - row) : height;
        cvq_panel_decode(t->type, t->panel_rows, &t->codebook, raw, cols, panel, ld);
        for (size_t r = 0; r < n; r++, out += cols) memcpy(out, panel + r * ld, cols * sizeof *out);
    }
    free(memory);
    return CVQ_OK;
}

cvq_status cvq_reader_rows_open(cvq_reader_rows **out, const cvq_reader *r, cvq_error *err) {
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_reader_rows), "the source's rows", err));
    cvq_reader_rows *rows = memory;
    rows->reader = r;
    const cvq_status status = cvq_hasher_open(&rows->hasher, err);
    if (status != CVQ_OK) {
        free(rows);
        return status;
    }
    *out = rows;
    return CVQ_OK;
}

cvq_row_source cvq_reader_rows_source(cvq_reader_rows *rows) {
    return (cvq_row_source){.context = rows,
                            .size = rows_size,
                            .read = read_rows,
                            .check = check_rows,
                            .decode = decode_rows,
                            .will_need = will_need};
}

void cvq_reader_rows_close(cvq_reader_rows *rows) {
    if (!rows) return;
    cvq_hasher_close(rows->hasher);
    free(rows);
}
