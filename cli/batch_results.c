/* Reading back what an earlier run wrote, and appending to it. */
#include "cli/batch_results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"
#include "cli/output.h"
#include "formats/json.h"

#define MAX_RESULTS_BYTES (1u << 30)
static const char line_start[] = "{\"id\":";

static cvq_status not_ours(const char *path, size_t number, cvq_error *err) {
    return cvq_fail(err, CVQ_FORMAT, path,
                    "line %zu is no answer of an earlier run; give another name or use --force",
                    number);
}

static cvq_status know(cvq_results *r, size_t *capacity, const cvq_known_line *line,
                       cvq_error *err) {
    if (r->num_known == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 64;
        cvq_known_line *known = realloc(r->known, more * sizeof *known);
        if (!known) return cvq_fail(err, CVQ_OUT_OF_MEMORY, r->path, "no memory for its lines");
        r->known = known;
        *capacity = more;
    }
    cvq_known_line copy = *line;
    copy.id = strdup(line->id);
    copy.answer = line->answer ? strdup(line->answer) : NULL;
    if (!copy.id || (line->answer && !copy.answer)) {
        free(copy.id);
        free(copy.answer);
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, r->path, "no memory for its lines");
    }
    r->known[r->num_known++] = copy;
    return CVQ_OK;
}

static cvq_status read_line(cvq_results *r, size_t *capacity, const char *text, size_t length,
                            size_t number, cvq_error *err) {
    cJSON *object = NULL;
    const char *id = NULL, *answer = NULL, *error = NULL;
    cvq_known_line line = {.score = NAN};
    cvq_status status = cvq_json_parse(&object, text, length, r->path, NULL);
    if (status == CVQ_OK) status = cvq_json_string(object, "id", true, &id, r->path, NULL);
    if (status == CVQ_OK) status = cvq_json_string(object, "answer", false, &answer, r->path, NULL);
    if (status == CVQ_OK) status = cvq_json_string(object, "error", false, &error, r->path, NULL);
    if (status == CVQ_OK)
        status = cvq_json_number(object, "score", false, &line.score, r->path, NULL);
    if (status == CVQ_OK && (answer || error)) {
        line.id = (char *)id;
        line.answer = (char *)answer;
        line.has_score = isfinite(line.score);
        status = know(r, capacity, &line, err);
    } else {
        status = not_ours(r->path, number, err);
    }
    cJSON_Delete(object);
    return status;
}

/* Fills known and size. */
static cvq_status read_all(cvq_results *r, cvq_error *err) {
    cvq_buffer file = {0};
    size_t capacity = 0, number = 1;
    cvq_status status = cvq_read_file(&file, r->path, MAX_RESULTS_BYTES, err);
    const char *text = (const char *)file.data;
    size_t at = 0;
    while (status == CVQ_OK && at < file.size) {
        size_t left = file.size - at;
        const char *newline = memchr(text + at, '\n', left);
        if (!newline) { /* torn: ours, if it begins like one of our lines */
            size_t n = left < strlen(line_start) ? left : strlen(line_start);
            if (memcmp(text + at, line_start, n) != 0) status = not_ours(r->path, number, err);
            break;
        }
        size_t length = (size_t)(newline - text) - at;
        status = read_line(r, &capacity, text + at, length, number++, err);
        at += length + 1;
    }
    r->size = at;
    cvq_buffer_free(&file);
    return status;
}

cvq_status cvq_results_open(cvq_results *out, const char *path, bool afresh, cvq_error *err) {
    cvq_results r = CVQ_RESULTS_NONE;
    r.path = path;
    CVQ_TRY(cvq_output_open_growing(&r.fd, path, err));
    cvq_status status = CVQ_OK;
    if (!afresh) status = read_all(&r, err);
    if (status == CVQ_OK && ftruncate(r.fd, (off_t)r.size) != 0)
        status = cvq_fail_errno(err, path, "cannot drop its unfinished last line");
    if (status == CVQ_OK)
        *out = r;
    else
        cvq_results_close(&r);
    return status;
}

cvq_status cvq_results_read(cvq_results *out, const char *path, cvq_error *err) {
    cvq_results r = CVQ_RESULTS_NONE;
    r.path = path;
    cvq_status status = read_all(&r, err);
    if (status == CVQ_OK)
        *out = r;
    else
        cvq_results_close(&r);
    return status;
}

/* Questions come in the order of the task, as the lines did: the next one is nearly always it. */
const cvq_known_line *cvq_results_take(cvq_results *r, const char *id) {
    for (size_t i = 0; i < r->num_known; i++) {
        cvq_known_line *known = &r->known[(r->next + i) % r->num_known];
        if (known->taken || strcmp(known->id, id) != 0) continue;
        known->taken = true;
        r->next = (r->next + i + 1) % r->num_known;
        return known;
    }
    return NULL;
}

cvq_status cvq_results_add(cvq_results *r, const char *id, const char *key, const char *text,
                           const double *score, cvq_error *err) {
    cvq_buffer line = {0};
    cJSON *object = cJSON_CreateObject();
    cvq_json_add_string(object, "id", id);
    cvq_json_add_string(object, key, text);
    if (score) cvq_json_add_number(object, "score", *score);
    cvq_status status = cvq_json_print(&line, object, err);
    if (status == CVQ_OK) status = cvq_buffer_append(&line, "\n", 1, err);
    if (status == CVQ_OK)
        status = cvq_write_all(r->fd, r->size, line.data, line.size, r->path, err);
    if (status == CVQ_OK)
        r->size += line.size;
    else
        (void)!ftruncate(r->fd, (off_t)r->size);
    cJSON_Delete(object);
    cvq_buffer_free(&line);
    return status;
}

void cvq_results_close(cvq_results *r) {
    if (!r) return;
    if (r->fd >= 0) close(r->fd);
    for (size_t i = 0; i < r->num_known; i++) {
        free(r->known[i].id);
        free(r->known[i].answer);
    }
    free(r->known);
    *r = (cvq_results)CVQ_RESULTS_NONE;
}
