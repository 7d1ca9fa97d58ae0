/* cvq-run's parts: one answer, a conversation, a file of questions, logits and taps, text to ids.
 * cvq_run.c opens model and session and chooses among them. */
#ifndef CVQ_CLI_RUN_H
#define CVQ_CLI_RUN_H

#include "base/memory.h"
#include "cli/history.h"
#include "cli/options.h"
#include "cli/picture_cache.h"
#include "cli/progress.h"
#include "cli/verified.h"
#include "cvq.h"
#include "formats/json.h"

typedef struct cvq_run_args {
    cvq_common common;
    const char *image, *prompt, *history;
    const char *tokenize, *detokenize;
    const char *logits;
    const char *batch, *out;
    bool taps, json, no_exif, no_cache, memory, lock;
    int template_choice, rope, kv, precision, verify; /* 0 = not given */
    uint64_t max_tokens, top_k, seed, context;
    double temperature, top_p, repetition_penalty;
    double cache_size; /* GB */
} cvq_run_args;

/* What the process had read and waited for at some moment. */
typedef struct cvq_usage {
    double major_faults, read_bytes, at; /* at: seconds */
} cvq_usage;

/* Moments of an answer: when it, its phases, and its third token began, and its end. */
enum {
    CVQ_MOMENT_START,
    CVQ_MOMENT_PREFILL,
    CVQ_MOMENT_DECODE,
    CVQ_MOMENT_STEADY,
    CVQ_MOMENT_END,
    CVQ_MOMENTS
};

/* What is open while cvq-run works. */
typedef struct cvq_run {
    const cvq_run_args *args;
    cvq_model *model;
    cvq_session *session;    /* NULL for text to ids */
    cvq_picture_cache cache; /* where cvq_run_picture looks first; {0}: nowhere */
    cvq_verified verified;   /* what is known of the model's file */
    cvq_prompt_kind kind;    /* the template asked for, or the model's own */
    cvq_progress progress;   /* of the phases of an answer */
    const char *prefix;      /* of its label, such as "question 3 of 40, "; "" for none */
    char label[96];
    cvq_memory plan;              /* as the session was opened */
    cvq_usage usage[CVQ_MOMENTS]; /* of the answer at work */
    double started, ready;        /* when the program began; when all was opened */
    int phase;                    /* the cvq_phase being shown, or -1 */
    bool streaming; /* the answer itself is on the terminal: no progress of decoding */
} cvq_run;

/* ---------------------------------------------------------------- run_answer.c */

/* One answer. Start with {0}. */
typedef struct cvq_answer {
    cvq_buffer text; /* as generated: valid UTF-8 without NUL, with its leading space; a NUL stands
                        behind it */
    cvq_buffer ids;  /* int32_t each, without the eos */
    size_t prompt_tokens;
    cvq_result result;
} cvq_answer;

/* The model that the first operand names, and the template; then a session as the options say. Both
 * print what is wrong and give the exit code. */
int cvq_run_open_model(cvq_run *run);
int cvq_run_open_session(cvq_run *run);
void cvq_run_close(cvq_run *run);
/* A picture's file to a picture for prompts. */
cvq_status cvq_run_picture(const cvq_run *run, const char *path, cvq_image **image, cvq_error *err);
/* Sync and generate. With `to_stdout` the text goes to stdout as it comes, without the white space
 * in front. *a may hold a part of the answer after CVQ_CANCELLED. */
cvq_status cvq_run_answer(cvq_run *run, const cvq_prompt *prompt, bool to_stdout, cvq_answer *a,
                          cvq_error *err);
/* The text without surrounding white space: *text is ended by a NUL in the buffer. */
const char *cvq_answer_trimmed(cvq_answer *a);
void cvq_answer_free(cvq_answer *a);
/* --json's object, on stdout. */
cvq_status cvq_run_print_json(const cvq_run *run, cvq_answer *a, cvq_error *err);
/* -v: times and memory, on stderr. */
void cvq_run_print_times(const cvq_run *run, const cvq_answer *a);

/* ---------------------------------------------------------------- run_memory.c */

/* Whether --memory is all that is asked for. */
bool cvq_run_only_memory(const cvq_run_args *args);
/* Makes run->plan, prints it with --memory, and says if there is too little memory: CVQ_EXIT_FAILED
 * if nothing can work, with a note if it will be slow. */
int cvq_run_check_memory(cvq_run *run, const cvq_session_options *options);
/* The plan's members by their names. */
cJSON *cvq_run_plan_json(const cvq_memory *plan);
/* This moment becomes one of the answer's. */
void cvq_run_mark(cvq_run *run, int moment);
/* What was read and waited for between the answer's moments. */
void cvq_run_add_usage(const cvq_run *run, const cvq_result *result, cJSON *root);

/* ---------------------------------------------------------------- the others */

/* run_chat.c: the exit code. */
int cvq_run_chat(cvq_run *run);
/* run_batch.c: the exit code. */
int cvq_run_batch(cvq_run *run);
/* run_taps.c: score the whole prompt and write --logits. */
cvq_status cvq_run_logits(cvq_run *run, const cvq_prompt *prompt, cvq_error *err);
/* run_text.c: the exit codes of --tokenize and --detokenize. */
int cvq_run_tokenize(const cvq_run *run);
int cvq_run_detokenize(const cvq_run *run);

#endif
