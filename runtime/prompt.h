/* The three templates with history, as text. */
#ifndef CVQ_RUNTIME_PROMPT_H
#define CVQ_RUNTIME_PROMPT_H

#include "base/memory.h"
#include "formats/model_config.h"

typedef struct cvq_prompt_turn {
    const char *question, *answer; /* UTF-8, used as they are */
} cvq_prompt_turn;

/* Appends the prompt's text to out (no NUL). */
cvq_status cvq_prompt_text(cvq_buffer *out, cvq_template_kind kind, const cvq_prompt_turn *turns,
                           size_t num_turns, const char *question, cvq_error *err);

#endif
