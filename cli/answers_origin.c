/* One JSON object of strings and numbers; two origins agree if the members that both have do. */
#include "cli/answers_origin.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "formats/chunk_hash.h"

#define MAX_ORIGIN_BYTES (1u << 16)
#define MAX_TASK_BYTES (1u << 30)

/* choice: 0 = not given, which the model decides. */
static void add_choice(cJSON *object, const char *key, const char *const *names, int choice) {
    cJSON_AddStringToObject(object, key, choice > 0 ? names[choice - 1] : "default");
}

static cvq_status add_task(cJSON *object, const char *path, cvq_error *err) {
    cvq_buffer task = {0};
    uint8_t hash[CVQ_HASH_BYTES];
    char hex[CVQ_HASH_DIGITS + 1];
    cvq_status status = cvq_read_file(&task, path, MAX_TASK_BYTES, err);
    if (status == CVQ_OK) status = cvq_sha256(task.data, task.size, hash, err);
    if (status == CVQ_OK) {
        cvq_hash_hex(hash, hex);
        cJSON_AddStringToObject(object, "task", hex);
    }
    cvq_buffer_free(&task);
    return status;
}

static cvq_status describe(cJSON *object, const cvq_run *run, const char *task_path,
                           cvq_error *err) {
    const cvq_run_args *a = run->args;
    cJSON_AddStringToObject(object, "model", cvq_model_describe(run->model)->id);
    if (task_path) CVQ_TRY(add_task(object, task_path, err));
    add_choice(object, "template", cvq_template_names, a->template_choice);
    add_choice(object, "rope", cvq_rope_names, a->rope);
    add_choice(object, "kv", cvq_kv_names, a->kv);
    add_choice(object, "precision", cvq_precision_names, a->precision);
    cJSON_AddBoolToObject(object, "exif", !a->no_exif);
    cJSON_AddNumberToObject(object, "context", (double)a->context);
    cJSON_AddNumberToObject(object, "max-tokens", (double)a->max_tokens);
    cJSON_AddNumberToObject(object, "temperature", a->temperature);
    cJSON_AddNumberToObject(object, "top-k", (double)a->top_k);
    cJSON_AddNumberToObject(object, "top-p", a->top_p);
    cJSON_AddNumberToObject(object, "repetition-penalty", a->repetition_penalty);
    cJSON_AddNumberToObject(object, "seed", (double)a->seed);
    return CVQ_OK;
}

static cvq_status write_origin(const char *path, const cJSON *object, cvq_error *err) {
    cvq_buffer text = {0};
    cvq_status status = cvq_json_print(&text, object, err);
    if (status == CVQ_OK) status = cvq_buffer_append(&text, "\n", 1, err);
    int fd = -1;
    if (status == CVQ_OK) {
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        status = fd < 0 ? cvq_fail_errno(err, path, "cannot write")
                        : cvq_write_all(fd, 0, text.data, text.size, path, err);
    }
    if (fd >= 0) close(fd);
    cvq_buffer_free(&text);
    return status;
}

static cvq_status compare(const char *path, const char *out, const cJSON *object, cvq_error *err) {
    cvq_buffer text = {0};
    cJSON *before = NULL;
    cvq_status status = cvq_read_file(&text, path, MAX_ORIGIN_BYTES, err);
    if (status == CVQ_OK)
        status = cvq_json_parse(&before, (const char *)text.data, text.size, path, err);
    for (const cJSON *now = object->child; status == CVQ_OK && now; now = now->next) {
        const bool option = strcmp(now->string, "model") != 0 && strcmp(now->string, "task") != 0;
        const cJSON *then = cJSON_GetObjectItemCaseSensitive(before, now->string);
        if (!then || cJSON_Compare(then, now, true)) continue;
        status = cvq_fail(err, CVQ_MISMATCH, out,
                          "its answers are of another %s%s; give another name, or use --force to "
                          "answer all again",
                          option ? "--" : "", now->string);
    }
    cJSON_Delete(before);
    cvq_buffer_free(&text);
    return status;
}

cvq_status cvq_answers_origin_check(const cvq_run *run, const char *task_path, const char *out,
                                    bool fresh, cvq_error *err) {
    static const char ending[] = ".origin";
    char *path = NULL;
    cJSON *object = cJSON_CreateObject();
    CVQ_TRY(cvq_alloc((void **)&path, strlen(out) + sizeof ending, 1, "a name", err));
    sprintf(path, "%s%s", out, ending);
    cvq_status status = describe(object, run, task_path, err);
    if (status == CVQ_OK && fresh)
        status = write_origin(path, object, err);
    else if (status == CVQ_OK && access(path, F_OK) == 0)
        status = compare(path, out, object, err);
    else if (status == CVQ_OK)
        cvq_say_note(&run->args->common,
                     "%s is not there: which model gave the answers of %s is not checked", path,
                     out);
    cJSON_Delete(object);
    free(path);
    return status;
}
