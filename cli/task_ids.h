/* Texts, prompts and answers of a task's lines to token ids. */
#ifndef CVQ_CLI_TASK_IDS_H
#define CVQ_CLI_TASK_IDS_H

#include "base/memory.h"
#include "cli/task_file.h"

/* All append int32_t ids to the buffer. */
cvq_status cvq_text_ids(const cvq_model *model, const char *text, size_t length, cvq_buffer *ids,
                        cvq_error *err);
/* The prompt without bos: what cvq_prompt_from_ids puts a picture in front of. kind: where the line
 * gives none. */
cvq_status cvq_line_ids(const cvq_model *model, cvq_prompt_kind kind, const cvq_task_line *line,
                        cvq_buffer *ids, cvq_error *err);
/* An answer as it follows a prompt: with a space in front. */
cvq_status cvq_answer_ids(const cvq_model *model, const char *answer, cvq_buffer *ids,
                          cvq_error *err);

#endif
