/* The released code's three templates. Questions and answers go in as they are: nothing is trimmed,
 * and nothing marks the end of a turn but the newline after its answer. */
#include "runtime/prompt.h"

#include <string.h>

/* A NULL text is an error that names what is missing. */
static cvq_status append(cvq_buffer *out, const char *text, const char *what, cvq_error *err) {
    if (!text)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "prompt", "%s is NULL; give its text", what);
    return cvq_buffer_append(out, text, strlen(text), err);
}

static cvq_status append_question(cvq_buffer *out, const char *question, const char *answer_mark,
                                  cvq_error *err) {
    CVQ_TRY(append(out, "Question: ", "", err));
    CVQ_TRY(append(out, question, "a question", err));
    return append(out, answer_mark, "", err);
}

static cvq_status append_all(cvq_buffer *out, const char *answer_mark, const cvq_turn *turns,
                             size_t num_turns, const char *question, cvq_error *err) {
    for (size_t i = 0; i < num_turns; i++) {
        CVQ_TRY(append_question(out, turns[i].question, answer_mark, err));
        CVQ_TRY(append(out, " ", "", err));
        CVQ_TRY(append(out, turns[i].answer, "an answer in the history", err));
        CVQ_TRY(append(out, "\n", "", err));
    }
    return append_question(out, question, answer_mark, err);
}

cvq_status cvq_prompt_text(cvq_buffer *out, cvq_prompt_kind kind, const cvq_turn *turns,
                           size_t num_turns, const char *question, cvq_error *err) {
    size_t before = out->size;
    cvq_status status;
    switch (kind) {
    case CVQ_PROMPT_CHAT:
        status = append_all(out, " Answer:", turns, num_turns, question, err);
        break;
    case CVQ_PROMPT_VQA:
        status = append_all(out, " Short answer:", turns, num_turns, question, err);
        break;
    case CVQ_PROMPT_BASE: /* the released code drops the history here */
        status = append(out, question, "the question", err);
        break;
    default:
        status = cvq_fail(err, CVQ_INVALID_ARGUMENT, "prompt",
                          "%d is no kind of prompt; give chat, vqa or base", (int)kind);
    }
    if (status != CVQ_OK) out->size = before;
    return status;
}
