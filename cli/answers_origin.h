/* OUT.jsonl.origin, beside the answers of cvq-run --batch and cvq-eval: which model answered, with
 * which options, so that a later run does not mix its own answers with those of another. */
#ifndef CVQ_CLI_ANSWERS_ORIGIN_H
#define CVQ_CLI_ANSWERS_ORIGIN_H

#include "cli/run.h"

/* Of the file `out`. fresh: it holds no answers yet, and the origin is written; else CVQ_MISMATCH
 * if there is one and it differs, naming what does. What is written appears whole or not at all;
 * a file there that is no origin is CVQ_EXISTS without --force. task_path: NULL where the questions
 * may change. inputs: files that the run reads, which are never written over. */
cvq_status cvq_answers_origin_check(const cvq_run *run, const char *task_path, const char *out,
                                    bool fresh, const char *const *inputs, size_t num_inputs,
                                    cvq_error *err);

#endif
