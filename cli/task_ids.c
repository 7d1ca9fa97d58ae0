/* Texts to ids, as the parts of a prompt. */
#include "cli/task_ids.h"

#include <stdlib.h>
#include <string.h>

#include "base/white_space.h"

cvq_status cvq_text_ids(const cvq_model *model, const char *text, size_t length, cvq_buffer *ids,
                        cvq_error *err) {
    size_t n = 0;
    void *room;
    cvq_status status = cvq_tokenize(model, text, length, NULL, 0, &n, NULL);
    if (status != CVQ_OK && status != CVQ_TOO_SMALL)
        return cvq_tokenize(model, text, length, NULL, 0, &n, err);
    CVQ_TRY(cvq_alloc(&room, n, sizeof(int32_t), "the text's tokens", err));
    status = cvq_tokenize(model, text, length, room, n, &n, err);
    if (status == CVQ_OK) status = cvq_buffer_append(ids, room, n * sizeof(int32_t), err);
    free(room);
    return status;
}

cvq_status cvq_line_ids(const cvq_model *model, cvq_prompt_kind kind, const cvq_task_line *line,
                        cvq_buffer *ids, cvq_error *err) {
    cvq_prompt *prompt = NULL;
    size_t n;
    if (line->kind >= 0) kind = (cvq_prompt_kind)line->kind;
    CVQ_TRY(cvq_prompt_create(&prompt, model, kind, line->history.turns, line->history.count,
                              line->question, NULL, err));
    const int32_t *all = cvq_prompt_ids(prompt, &n);
    cvq_status status = cvq_buffer_append(ids, all + 1, (n - 1) * sizeof *all, err);
    cvq_prompt_free(prompt);
    return status;
}

cvq_status cvq_answer_ids(const cvq_model *model, const char *answer, cvq_buffer *ids,
                          cvq_error *err) {
    cvq_buffer text = {0};
    size_t length = strlen(answer);
    cvq_status status = CVQ_OK;
    if (cvq_leading_space(answer, length) == 0) status = cvq_buffer_append(&text, " ", 1, err);
    if (status == CVQ_OK) status = cvq_buffer_append(&text, answer, length, err);
    if (status == CVQ_OK)
        status = cvq_text_ids(model, (const char *)text.data, text.size, ids, err);
    cvq_buffer_free(&text);
    return status;
}
