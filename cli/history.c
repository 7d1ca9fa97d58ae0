/* Turns as owned strings. */
#include "cli/history.h"

#include <stdlib.h>
#include <string.h>

#define MAX_HISTORY_BYTES (16u << 20)
#define WRITE_TURNS "; write [[\"question\", \"answer\"], ...]"

cvq_status cvq_history_append(cvq_history *h, const char *question, const char *answer,
                              cvq_error *err) {
    cvq_turn *turns = realloc(h->turns, (h->count + 1) * sizeof *turns);
    if (!turns) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "", "no memory for the conversation");
    h->turns = turns;
    char *q = strdup(question), *a = strdup(answer);
    if (!q || !a) {
        free(q);
        free(a);
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, "", "no memory for the conversation");
    }
    h->turns[h->count++] = (cvq_turn){q, a};
    return CVQ_OK;
}

cvq_status cvq_history_from_json(cvq_history *h, const cJSON *list, const char *where,
                                 cvq_error *err) {
    const cJSON *turn;
    if (!cJSON_IsArray(list))
        return cvq_fail(err, CVQ_FORMAT, where, "the history is not a list" WRITE_TURNS);
    cJSON_ArrayForEach(turn, list) {
        const cJSON *q = cJSON_GetArrayItem(turn, 0), *a = cJSON_GetArrayItem(turn, 1);
        if (!cJSON_IsArray(turn) || cJSON_GetArraySize(turn) != 2 || !cJSON_IsString(q) ||
            !cJSON_IsString(a))
            return cvq_fail(err, CVQ_FORMAT, where,
                            "turn %zu of the history is not a pair of texts" WRITE_TURNS,
                            h->count + 1);
        CVQ_TRY(cvq_history_append(h, q->valuestring, a->valuestring, err));
    }
    return CVQ_OK;
}

cvq_status cvq_history_read(cvq_history *h, const char *path, cvq_error *err) {
    cJSON *list = NULL;
    cvq_error problem = {0};
    if (cvq_json_read_file(&list, path, MAX_HISTORY_BYTES, &problem) != CVQ_OK)
        return cvq_fail_advising(err, path, &problem,
                                 problem.code == CVQ_FORMAT ? WRITE_TURNS : "");
    cvq_status status = cvq_history_from_json(h, list, path, err);
    cJSON_Delete(list);
    return status;
}

void cvq_history_free(cvq_history *h) {
    for (size_t i = 0; i < h->count; i++) {
        free((void *)(uintptr_t)h->turns[i].question);
        free((void *)(uintptr_t)h->turns[i].answer);
    }
    free(h->turns);
    *h = (cvq_history){0};
}
