/* Writing small safetensors files: outputs, calibration data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "formats/safetensors_internal.h"

struct cvq_st_writer {
    int fd;
    char *where;
    uint64_t at, end; /* file offsets: of the next byte, of the last */
};

/* "name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]} */
static cvq_status print_tensor(cvq_buffer *b, const cvq_st_tensor *t, uint64_t begin, uint64_t end,
                               cvq_error *err) {
    char text[128];
    CVQ_TRY(cvq_buffer_append(b, "\"", 1, err));
    for (const char *c = t->name; *c; c++) {
        if (*c == '"' || *c == '\\') CVQ_TRY(cvq_buffer_append(b, "\\", 1, err));
        CVQ_TRY(cvq_buffer_append(b, c, 1, err));
    }
    int n = snprintf(text, sizeof text, "\":{\"dtype\":\"%s\",\"shape\":[",
                     cvq_st_dtype_name(t->dtype));
    CVQ_TRY(cvq_buffer_append(b, text, (size_t)n, err));
    for (uint32_t i = 0; i < t->ndim; i++) {
        n = snprintf(text, sizeof text, "%s%llu", i ? "," : "", (unsigned long long)t->dims[i]);
        CVQ_TRY(cvq_buffer_append(b, text, (size_t)n, err));
    }
    n = snprintf(text, sizeof text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
                 (unsigned long long)end);
    return cvq_buffer_append(b, text, (size_t)n, err);
}

static cvq_status print_header(cvq_buffer *b, const cvq_st_tensor *tensors, size_t count,
                               uint64_t *data_size, const char *where, cvq_error *err) {
    uint64_t at = 0;
    CVQ_TRY(cvq_buffer_append_le(b, 0, 8, err)); /* the length comes last */
    for (size_t i = 0; i < count; i++) {
        const cvq_st_tensor *t = &tensors[i];
        uint64_t size, end;
        if ((unsigned)t->dtype >= CVQ_ST_DTYPES || t->ndim > CVQ_ST_MAX_DIMS ||
            !cvq_st_good_name(t->name)) {
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where,
                            "tensor %zu has no good name, dtype or number of dimensions", i);
        }
        if (!cvq_st_tensor_size(t, &size) || !cvq_add_u64(at, size, &end) || end > INT64_MAX) {
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "tensor %s is too large", t->name);
        }
        CVQ_TRY(cvq_buffer_append(b, i ? "," : "{", 1, err));
        CVQ_TRY(print_tensor(b, t, at, end, err));
        at = end;
    }
    CVQ_TRY(cvq_buffer_append(b, count ? "}" : "{}", count ? 1 : 2, err));
    while (b->size % 8 != 0) CVQ_TRY(cvq_buffer_append(b, " ", 1, err));
    if (b->size - 8 > CVQ_ST_MAX_HEADER) {
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "a header of more than %u bytes",
                        CVQ_ST_MAX_HEADER);
    }
    cvq_store_le(b->data, b->size - 8, 8);
    *data_size = at;
    return CVQ_OK;
}

static cvq_status check_different(const cvq_st_tensor *tensors, size_t count, const char *where,
                                  cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, count, sizeof(char *), "names of tensors", err));
    const cvq_st_tensor **sorted = p;
    cvq_status status = CVQ_OK;
    for (size_t i = 0; i < count; i++) sorted[i] = &tensors[i];
    if (count > 1) qsort(sorted, count, sizeof *sorted, cvq_st_compare_names);
    for (size_t i = 1; i < count && status == CVQ_OK; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            status = cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "tensor %s stands twice",
                              sorted[i]->name);
        }
    }
    free(p);
    return status;
}

cvq_status cvq_st_writer_open(cvq_st_writer **out, int fd, const cvq_st_tensor *tensors,
                              size_t count, const char *where, cvq_error *err) {
    cvq_buffer header = {0};
    void *p = NULL;
    uint64_t data_size = 0;
    cvq_status status = cvq_alloc(&p, 1, sizeof(cvq_st_writer), "safetensors writer", err);
    if (status != CVQ_OK) return status;
    cvq_st_writer *w = p;
    if ((status = cvq_st_copy_string(&w->where, where, err)) != CVQ_OK) goto done;
    if ((status = print_header(&header, tensors, count, &data_size, where, err)) != CVQ_OK) {
        goto done;
    }
    if ((status = check_different(tensors, count, where, err)) != CVQ_OK) goto done;
    w->fd = fd;
    w->at = header.size;
    w->end = header.size + data_size; /* both below 2^63 */
    status = cvq_write_all(fd, 0, header.data, header.size, where, err);
done:
    cvq_buffer_free(&header);
    if (status != CVQ_OK) {
        cvq_st_writer_free(w);
        return status;
    }
    *out = w;
    return CVQ_OK;
}

static cvq_status check_room(const cvq_st_writer *w, uint64_t size, cvq_error *err) {
    if (size <= w->end - w->at) return CVQ_OK;
    return cvq_fail(err, CVQ_INVALID_ARGUMENT, w->where,
                    "%llu bytes more than the tensors announced",
                    (unsigned long long)(size - (w->end - w->at)));
}

cvq_status cvq_st_writer_append(cvq_st_writer *w, const void *data, size_t size, cvq_error *err) {
    CVQ_TRY(check_room(w, size, err));
    CVQ_TRY(cvq_write_all(w->fd, w->at, data, size, w->where, err));
    w->at += size;
    return CVQ_OK;
}

cvq_status cvq_st_writer_skip(cvq_st_writer *w, uint64_t size, cvq_error *err) {
    struct stat st;
    CVQ_TRY(check_room(w, size, err));
    w->at += size;
    if (fstat(w->fd, &st) != 0) return cvq_fail_errno(err, w->where, "cannot tell its size");
    /* A hole at the file's end has to be made. */
    if ((uint64_t)st.st_size < w->at && ftruncate(w->fd, (off_t)w->at) != 0)
        return cvq_fail_errno(err, w->where, "cannot make it longer");
    return CVQ_OK;
}

cvq_status cvq_st_writer_finish(cvq_st_writer *w, cvq_error *err) {
    cvq_status status = CVQ_OK;
    if (w->at != w->end) {
        status = cvq_fail(err, CVQ_INVALID_ARGUMENT, w->where,
                          "%llu bytes fewer than the tensors announced",
                          (unsigned long long)(w->end - w->at));
    }
    cvq_st_writer_free(w);
    return status;
}

void cvq_st_writer_free(cvq_st_writer *w) {
    if (!w) return;
    free(w->where);
    free(w);
}
