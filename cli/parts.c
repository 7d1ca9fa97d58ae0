/* Parts of a file: written side by side, read one after the other. */
#include "cli/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"

void cvq_parts_begin(cvq_parts_writer *w, const char *path, uint64_t part_bytes, bool force,
                     const char *const *inputs, size_t num_inputs) {
    *w = (cvq_parts_writer){.path = path,
                            .part_bytes = part_bytes,
                            .force = force,
                            .inputs = inputs,
                            .num_inputs = num_inputs};
}

static cvq_status next_part(cvq_parts_writer *w, cvq_error *err) {
    char name[4096];
    if (w->count == CVQ_MAX_PARTS)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, w->path,
                        "would have more than %d parts; give a larger --split", CVQ_MAX_PARTS);
    int n = w->part_bytes ? snprintf(name, sizeof name, "%s.%03zu", w->path, w->count + 1)
                          : snprintf(name, sizeof name, "%s", w->path);
    if (n < 0 || (size_t)n >= sizeof name)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, w->path, "its name is too long");
    cvq_output *out = &w->outputs[w->count];
    *out = (cvq_output)CVQ_OUTPUT_NONE;
    CVQ_TRY(cvq_output_open(out, name, w->force, w->inputs, w->num_inputs, err));
    w->count++;
    w->in_part = 0;
    return CVQ_OK;
}

cvq_status cvq_parts_write(void *writer, const void *data, size_t size, cvq_error *err) {
    cvq_parts_writer *w = writer;
    const uint8_t *at = data;
    while (size > 0) {
        if (w->count == 0 || (w->part_bytes && w->in_part == w->part_bytes))
            CVQ_TRY(next_part(w, err));
        const cvq_output *out = &w->outputs[w->count - 1];
        size_t n = size;
        if (w->part_bytes && n > w->part_bytes - w->in_part)
            n = (size_t)(w->part_bytes - w->in_part);
        CVQ_TRY(cvq_write_all(out->fd, w->in_part, at, n, out->path, err));
        w->in_part += n;
        at += n;
        size -= n;
    }
    return CVQ_OK;
}

cvq_status cvq_parts_commit(cvq_parts_writer *w, cvq_error *err) {
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < w->count; i++)
        status = cvq_output_commit(&w->outputs[i], err);
    if (status != CVQ_OK) cvq_parts_discard(w);
    return status;
}

void cvq_parts_discard(cvq_parts_writer *w) {
    for (size_t i = 0; i < w->count; i++) cvq_output_discard(&w->outputs[i]);
    w->count = 0;
}

/* ---------------------------------------------------------------- reading */

static cvq_status open_part(cvq_parts_reader *r, bool must_exist, cvq_error *err) {
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (r->fd >= 0) return CVQ_OK;
    if (errno == ENOENT && !must_exist) {
        r->ended = true;
        return CVQ_OK;
    }
    if (errno == ENOENT) return cvq_fail(err, CVQ_NOT_FOUND, r->path, "no such file");
    return cvq_fail_errno(err, r->path, "cannot open");
}

cvq_status cvq_parts_open(cvq_parts_reader *r, const char *path, cvq_error *err) {
    const size_t length = strlen(path);
    *r = (cvq_parts_reader){.fd = -1, .part = 1};
    r->path = strdup(path);
    if (!r->path) return cvq_fail(err, CVQ_OUT_OF_MEMORY, path, "no memory for its name");
    if (strcmp(path, "-") == 0) {
        r->fd = STDIN_FILENO;
        return CVQ_OK;
    }
    if (length > 4 && strcmp(path + length - 4, ".001") == 0) r->suffix = length - 3;
    return open_part(r, true, err);
}

static cvq_status next_input(cvq_parts_reader *r, cvq_error *err) {
    r->ends[r->part] = r->done;
    if (r->suffix == 0 || r->part == CVQ_LAST_PART) {
        r->ended = true;
        return CVQ_OK;
    }
    close(r->fd);
    r->fd = -1;
    r->part++;
    snprintf(r->path + r->suffix, 4, "%03u", r->part % 1000);
    return open_part(r, false, err);
}

cvq_status cvq_parts_read(void *reader, void *data, size_t size, size_t *got, cvq_error *err) {
    cvq_parts_reader *r = reader;
    *got = 0;
    while (*got < size && !r->ended) {
        ssize_t n = read(r->fd, (uint8_t *)data + *got, size - *got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cvq_fail_errno(err, r->path, "cannot read");
        if (n == 0) CVQ_TRY(next_input(r, err));
        *got += (size_t)n;
        r->done += (uint64_t)n;
    }
    return CVQ_OK;
}

const char *cvq_parts_name_at(cvq_parts_reader *r, uint64_t offset) {
    unsigned part = 1;
    while (part < r->part && r->ends[part] <= offset) part++;
    if (r->suffix) snprintf(r->path + r->suffix, 4, "%03u", part % 1000);
    return r->path;
}

cvq_status cvq_parts_check_output(const cvq_parts_reader *r, const char *output, cvq_error *err) {
    char *name = strdup(r->path);
    if (!name) return cvq_fail(err, CVQ_OUT_OF_MEMORY, r->path, "no memory for its name");
    cvq_status status = CVQ_OK;
    bool there = true;
    for (unsigned part = 1; status == CVQ_OK && there && part <= CVQ_LAST_PART; part++) {
        if (r->suffix) snprintf(name + r->suffix, 4, "%03u", part % 1000);
        status = cvq_file_there(&there, name, err);
        if (status == CVQ_OK)
            status = cvq_output_check_inputs(output, (const char *const *)&name, 1, err);
        if (!r->suffix) break;
    }
    free(name);
    return status;
}

void cvq_parts_close(cvq_parts_reader *r) {
    if (r->fd > STDIN_FILENO) close(r->fd);
    free(r->path);
    *r = (cvq_parts_reader){.fd = -1};
}
