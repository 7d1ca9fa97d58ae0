/* The released code's three templates. Questions and answers go in as they are: nothing is trimmed,
 * and nothing marks the end of a turn but the newline after its answer. */
#include "runtime/prompt.h"

#include <string.h>

static cvq_status append(cvq_buffer *out, const char *text, cvq_error *err) {
    return cvq_buffer_append(out, text, strlen(text), err);
}

static cvq_status append_question(cvq_buffer *out, const char *question, const char *answer_mark,
                                  cvq_error *err) {
    if (!question)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "prompt", "a question is NULL; give its text");
    CVQ_TRY(append(out, "Question: ", err));
    CVQ_TRY(append(out, question, err));
    return append(out, answer_mark, err);
}

cvq_status cvq_prompt_text(cvq_buffer *out, cvq_prompt_kind kind, const cvq_turn *turns,
                           size_t num_turns, const char *question, cvq_error *err) {
    const char *answer_mark = NULL;
    switch (kind) {
    case CVQ_PROMPT_CHAT:
        answer_mark = " Answer:";
        break;
    case CVQ_PROMPT_VQA:
        answer_mark = " Short answer:";
        break;
    case CVQ_PROMPT_BASE:
        /* The released code drops the history here. */
        if (!question)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, "prompt",
                            "the question is NULL; give its text");
        return append(out, question, err);
    }
    if (!answer_mark)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "template",
                        "%d is no template; give chat, vqa or base", (int)kind);
    for (size_t i = 0; i < num_turns; i++) {
        if (!turns[i].answer)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, "prompt",
                            "the answer of turn %zu is NULL; give its text", i + 1);
        CVQ_TRY(append_question(out, turns[i].question, answer_mark, err));
        CVQ_TRY(append(out, " ", err));
        CVQ_TRY(append(out, turns[i].answer, err));
        CVQ_TRY(append(out, "\n", err));
    }
    return append_question(out, question, answer_mark, err);
}
