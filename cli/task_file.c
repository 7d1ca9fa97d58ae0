/* Reading a task: every line by itself, so that one bad line costs one answer. */
#include "cli/task_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "cli/output.h"

#define MAX_TASK_BYTES (1u << 30)

/* An image's path stands relative to the task file. */
static char *beside(const char *task_path, const char *image) {
    const char *slash = strrchr(task_path, '/');
    if (image[0] == '/' || !slash) return strdup(image);
    size_t folder = (size_t)(slash - task_path) + 1, length = strlen(image);
    char *path = malloc(folder + length + 1);
    if (!path) return NULL;
    memcpy(path, task_path, folder);
    memcpy(path + folder, image, length + 1);
    return path;
}

/* A text, or a whole number, which some tasks use. */
static cvq_status read_id(cvq_task_line *line, const cJSON *object, const char *where,
                          cvq_error *err) {
    char number[32];
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(object, "id");
    const char *text = number;
    snprintf(number, sizeof number, "%zu", line->number);
    if (cJSON_IsString(id))
        text = id->valuestring;
    else if (cJSON_IsNumber(id) && fabs(id->valuedouble) < 0x1p53 &&
             floor(id->valuedouble) == id->valuedouble)
        snprintf(number, sizeof number, "%.0f", id->valuedouble);
    else if (id && !cJSON_IsNull(id))
        cvq_fail(err, CVQ_FORMAT, where, "\"id\" is neither a text nor a whole number");
    line->id = strdup(text);
    if (!line->id) return cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for the task");
    return err->code;
}

static cvq_status read_kind(cvq_task_line *line, const cJSON *object, const char *where,
                            cvq_error *err) {
    static const char *const names[] = {"chat", "vqa", "base"};
    const char *name = NULL;
    CVQ_TRY(cvq_json_string(object, "template", false, &name, where, err));
    if (!name) return CVQ_OK;
    for (int i = 0; i < 3; i++)
        if (strcmp(names[i], name) == 0) line->kind = i;
    if (line->kind >= 0) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, where, "\"template\" is not chat, vqa or base");
}

/* A list of texts, or a text alone. */
static cvq_status read_texts(cvq_texts *texts, const cJSON *object, const char *key,
                             const char *where, cvq_error *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key), *item;
    void *items;
    if (!list || cJSON_IsNull(list)) return CVQ_OK;
    bool alone = cJSON_IsString(list);
    if (!alone && !cJSON_IsArray(list))
        return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" is not a list of texts", key);
    size_t count = alone ? 1 : (size_t)cJSON_GetArraySize(list);
    CVQ_TRY(cvq_alloc(&items, count, sizeof *texts->items, "the task", err));
    texts->items = items;
    item = alone ? list : list->child;
    for (; texts->count < count; texts->count++, item = item->next) {
        if (!cJSON_IsString(item))
            return cvq_fail(err, CVQ_FORMAT, where, "\"%s\" is not a list of texts", key);
        texts->items[texts->count] = strdup(item->valuestring);
        if (!texts->items[texts->count])
            return cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for the task");
    }
    return CVQ_OK;
}

static void free_texts(cvq_texts *texts) {
    for (size_t i = 0; i < texts->count; i++) free(texts->items[i]);
    free(texts->items);
}

/* What the file is read for. */
typedef enum purpose { QUESTIONS, QUESTIONS_AND_TEXTS } purpose;

/* A line of plain text: *is_text. */
static cvq_status read_text(cvq_task_line *line, const cJSON *object, purpose want, bool *is_text,
                            const char *where, cvq_error *err) {
    const char *text = NULL;
    *is_text = cJSON_HasObjectItem(object, "text") && !cJSON_HasObjectItem(object, "question");
    if (!*is_text) return CVQ_OK;
    if (want == QUESTIONS)
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "is plain text, which is for calibration; a task has \"question\"");
    CVQ_TRY(cvq_json_string(object, "text", true, &text, where, err));
    line->text = strdup(text);
    return line->text ? CVQ_OK : cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for the task");
}

static cvq_status read_fields(cvq_task_line *line, const cJSON *object, purpose want,
                              const char *task_path, const char *where, cvq_error *err) {
    const char *question = NULL, *image = NULL, *dataset = NULL;
    bool is_text;
    if (!cJSON_IsObject(object))
        return cvq_fail(err, CVQ_FORMAT, where, "is not a JSON object; write {\"question\": ...}");
    CVQ_TRY(read_id(line, object, where, err));
    CVQ_TRY(read_text(line, object, want, &is_text, where, err));
    if (is_text) return CVQ_OK;
    CVQ_TRY(cvq_json_string(object, "question", true, &question, where, err));
    CVQ_TRY(cvq_json_string(object, "image", false, &image, where, err));
    CVQ_TRY(cvq_json_string(object, "dataset_name", false, &dataset, where, err));
    CVQ_TRY(read_texts(&line->answers, object, "answers", where, err));
    CVQ_TRY(read_texts(&line->choices, object, "choices", where, err));
    CVQ_TRY(read_kind(line, object, where, err));
    const cJSON *history = cJSON_GetObjectItemCaseSensitive(object, "history");
    if (history && !cJSON_IsNull(history))
        CVQ_TRY(cvq_history_from_json(&line->history, history, where, err));
    line->question = strdup(question);
    if (image) line->image = beside(task_path, image);
    if (dataset) line->dataset = strdup(dataset);
    if (!line->question || (image && !line->image) || (dataset && !line->dataset))
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for the task");
    return CVQ_OK;
}

/* Only lack of memory is a failure here; everything else becomes the line's problem. */
static cvq_status read_line(cvq_task_line *line, const char *text, size_t length, purpose want,
                            const char *task_path, cvq_error *err) {
    char where[64], number[32];
    cvq_error problem = {0};
    cJSON *object = NULL;
    snprintf(where, sizeof where, "line %zu of the task", line->number);
    cvq_status status = cvq_json_parse(&object, text, length, where, &problem);
    if (status == CVQ_OK) status = read_fields(line, object, want, task_path, where, &problem);
    cJSON_Delete(object);
    if (!line->id) {
        snprintf(number, sizeof number, "%zu", line->number);
        line->id = strdup(number);
    }
    if (status != CVQ_OK) {
        size_t size = strlen(problem.where) + strlen(problem.message) + 3;
        line->problem = malloc(size);
        if (line->problem) snprintf(line->problem, size, "%s: %s", problem.where, problem.message);
    }
    if (!line->id || (status != CVQ_OK && !line->problem) || status == CVQ_OUT_OF_MEMORY)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for the task");
    return CVQ_OK;
}

static cvq_status add_line(cvq_task *task, size_t *capacity, size_t number, cvq_error *err) {
    if (task->count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 64;
        cvq_task_line *lines = realloc(task->lines, more * sizeof *lines);
        if (!lines) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "", "no memory for the task");
        task->lines = lines;
        *capacity = more;
    }
    task->lines[task->count++] = (cvq_task_line){.number = number, .kind = -1};
    return CVQ_OK;
}

static cvq_status read_lines(cvq_task *out, const char *path, purpose want, cvq_error *err) {
    cvq_buffer file = {0};
    cvq_task task = {0};
    size_t capacity = 0, number = 0;
    cvq_status status = cvq_read_file(&file, path, MAX_TASK_BYTES, err);
    const char *at = (const char *)file.data;
    const char *end = status == CVQ_OK ? at + file.size : at;
    while (status == CVQ_OK && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        size_t length = (size_t)(stop - at);
        number++;
        if (strspn(at, " \t\r") < length) {
            status = add_line(&task, &capacity, number, err);
            if (status == CVQ_OK)
                status = read_line(&task.lines[task.count - 1], at, length, want, path, err);
        }
        at = newline ? newline + 1 : end;
    }
    cvq_buffer_free(&file);
    if (status == CVQ_OK)
        *out = task;
    else
        cvq_task_free(&task);
    return status;
}

cvq_status cvq_task_read(cvq_task *task, const char *path, cvq_error *err) {
    return read_lines(task, path, QUESTIONS, err);
}

cvq_status cvq_task_read_data(cvq_task *task, const char *path, cvq_error *err) {
    return read_lines(task, path, QUESTIONS_AND_TEXTS, err);
}

cvq_status cvq_task_check_output(const cvq_task *task, const char *output, cvq_error *err) {
    for (size_t i = 0; i < task->count; i++) {
        const char *image = task->lines[i].image;
        if (image) CVQ_TRY(cvq_output_check_inputs(output, &image, 1, err));
    }
    return CVQ_OK;
}

cvq_status cvq_data_check_outputs(const char *path, const char *const *outputs, size_t num_outputs,
                                  cvq_error *err) {
    cvq_task task = {0};
    bool there;
    CVQ_TRY(cvq_file_there(&there, path, err));
    if (!there) return CVQ_OK;
    cvq_status status = cvq_task_read_data(&task, path, err);
    for (size_t i = 0; status == CVQ_OK && i < num_outputs; i++)
        if (outputs[i]) status = cvq_task_check_output(&task, outputs[i], err);
    cvq_task_free(&task);
    return status;
}

void cvq_task_free(cvq_task *task) {
    for (size_t i = 0; i < task->count; i++) {
        cvq_task_line *line = &task->lines[i];
        free(line->id);
        free(line->image);
        free(line->question);
        free(line->text);
        free(line->problem);
        free(line->dataset);
        free_texts(&line->answers);
        free_texts(&line->choices);
        cvq_history_free(&line->history);
    }
    free(task->lines);
    *task = (cvq_task){0};
}
