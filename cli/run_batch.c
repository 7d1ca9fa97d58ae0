/* cvq-run --batch: a file of questions to a file of answers. */
#include "cli/answer_task.h"
#include "cli/messages.h"

int cvq_run_batch(cvq_run *run) {
    const cvq_run_args *args = run->args;
    cvq_task_run t = {.run = run, .task_path = args->batch, .out = args->out};
    cvq_error err = {0};
    cvq_status status = cvq_task_run_open(&t, &err);
    if (status == CVQ_OK) status = cvq_task_run_answer(&t, &err);
    int exit_code = status == CVQ_OK ? CVQ_EXIT_DONE : cvq_say_error(args->common.command, &err);
    cvq_task_run_note(&t, status);
    cvq_task_run_close(&t);
    return exit_code;
}
