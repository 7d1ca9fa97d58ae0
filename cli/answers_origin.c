/* One JSON object of strings and numbers; two origins agree if the members that both have do. */
#include "cli/answers_origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "formats/chunk_hash.h"

#define MAX_ORIGIN_BYTES (1u << 16)

/* choice: 0 = not given, which the model decides. */
static void add_choice(cJSON *object, const char *key, const char *const *names, int choice) {
    cvq_json_add_string(object, key, choice > 0 ? names[choice - 1] : "default");
}

static cvq_status add_task(cJSON *object, const char *path, cvq_error *err) {
    cvq_file_map task = {.fd = -1};
    uint8_t hash[CVQ_HASH_BYTES];
    char hex[CVQ_HASH_DIGITS + 1];
    CVQ_TRY(cvq_file_map_open(&task, path, err));
    const cvq_status status = cvq_sha256_file(&task, hash, err);
    cvq_file_map_close(&task);
    CVQ_TRY(status);
    cvq_hash_hex(hash, hex);
    cvq_json_add_string(object, "task", hex);
    return CVQ_OK;
}

static cvq_status describe(cJSON *object, const cvq_run *run, const char *task_path,
                           cvq_error *err) {
    const cvq_run_args *a = run->args;
    cvq_json_add_string(object, "model", cvq_model_describe(run->model)->id);
    if (task_path) CVQ_TRY(add_task(object, task_path, err));
    add_choice(object, "template", cvq_template_names, a->template_choice);
    add_choice(object, "rope", cvq_rope_names, a->rope);
    add_choice(object, "kv", cvq_kv_names, a->kv);
    add_choice(object, "precision", cvq_precision_names, a->precision);
    cvq_json_add_bool(object, "exif", !a->no_exif);
    cvq_json_add_number(object, "context", (double)a->context);
    cvq_json_add_number(object, "max-tokens", (double)a->max_tokens);
    cvq_json_add_number(object, "temperature", a->temperature);
    cvq_json_add_number(object, "top-k", (double)a->top_k);
    cvq_json_add_number(object, "top-p", a->top_p);
    cvq_json_add_number(object, "repetition-penalty", a->repetition_penalty);
    cvq_json_add_number(object, "seed", (double)a->seed);
    return CVQ_OK;
}

/* The record of a run whose answers are gone may be replaced, a file of something else may not. */
static cvq_status check_replaced(const char *path, cvq_error *err) {
    cvq_buffer text = {0};
    cJSON *before = NULL;
    cvq_status status = cvq_read_file(&text, path, MAX_ORIGIN_BYTES, NULL);
    if (status == CVQ_OK)
        status = cvq_json_parse(&before, (const char *)text.data, text.size, path, NULL);
    if (status != CVQ_OUT_OF_MEMORY && !cJSON_GetObjectItemCaseSensitive(before, "model"))
        status = CVQ_FORMAT;
    cJSON_Delete(before);
    cvq_buffer_free(&text);
    if (status == CVQ_OK) return CVQ_OK;
    return cvq_fail(err, status == CVQ_OUT_OF_MEMORY ? status : CVQ_EXISTS, path,
                    "is in the way: the model and options of the answers are kept under this name; "
                    "remove it, or use --force");
}

static cvq_status write_origin(const char *path, bool replace, const char *const *inputs,
                               size_t num_inputs, const cJSON *object, cvq_error *err) {
    cvq_output output = CVQ_OUTPUT_NONE;
    cvq_buffer text = {0};
    if (!replace) CVQ_TRY(check_replaced(path, err));
    cvq_status status = cvq_json_print(&text, object, err);
    if (status == CVQ_OK) status = cvq_buffer_append(&text, "\n", 1, err);
    if (status == CVQ_OK) status = cvq_output_open(&output, path, true, inputs, num_inputs, err);
    if (status == CVQ_OK)
        status = cvq_write_all(output.fd, 0, text.data, text.size, output.temp, err);
    if (status == CVQ_OK) status = cvq_output_commit(&output, err);
    cvq_output_discard(&output);
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
                                    bool fresh, const char *const *inputs, size_t num_inputs,
                                    cvq_error *err) {
    static const char ending[] = ".origin";
    char *path = NULL;
    bool there = false;
    CVQ_TRY(cvq_alloc((void **)&path, strlen(out) + sizeof ending, 1, "a name", err));
    sprintf(path, "%s%s", out, ending);
    cJSON *object = cJSON_CreateObject();
    cvq_status status = describe(object, run, task_path, err);
    if (status == CVQ_OK) status = cvq_file_there(&there, path, err);
    if (status == CVQ_OK && fresh)
        status =
            write_origin(path, !there || run->args->common.force, inputs, num_inputs, object, err);
    else if (status == CVQ_OK && there)
        status = compare(path, out, object, err);
    else if (status == CVQ_OK)
        cvq_say_note(&run->args->common,
                     "%s is not there: which model gave the answers of %s is not checked", path,
                     out);
    cJSON_Delete(object);
    free(path);
    return status;
}
