/* The three templates with history, as text. */
#ifndef CVQ_RUNTIME_PROMPT_H
#define CVQ_RUNTIME_PROMPT_H

#include "base/memory.h"
#include "cvq.h"

/* Appends the prompt's text to out (no NUL); questions and answers are used as they are. */
cvq_status cvq_prompt_text(cvq_buffer *out, cvq_prompt_kind kind, const cvq_turn *turns,
                           size_t num_turns, const char *question, cvq_error *err);

#endif
