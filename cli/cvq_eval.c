/* cvq-eval: the answers to a task, scored, and compared with those of another run. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/metrics.h"
#include "bench/statistics.h"
#include "cli/answer_task.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "formats/json.h"

typedef struct eval_args {
    cvq_run_args run;
    int metric; /* a cvq_metric and 1 */
    const char *baseline;
} eval_args;

#define MEMBER(name) offsetof(eval_args, name)
static const cvq_option options[] = {
    {.name = "metric",
     .kind = CVQ_OPTION_CHOICE,
     .offset = MEMBER(metric),
     .value = "NAME",
     .choices = cvq_metric_names,
     .help = "how answers are scored: exact (equal, case counts), vqa (VQA accuracy), anls (edit "
             "distance, documents), relaxed (5% for numbers, charts), ocrbench (contained), mmmu, "
             "or choice (the letter of a choice)"},
    {.name = "out",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(run.out),
     .value = "FILE.jsonl",
     .help = "keep {\"id\", \"answer\", \"score\"} of each question, and go on from there when the "
             "same command runs again (with --force it starts anew)"},
    {.name = "baseline",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(baseline),
     .value = "FILE.jsonl",
     .help = "an earlier --out, of another model or precision: print the difference to it with a "
             "95% interval, question by question"},
    {.name = "json",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(run.json),
     .help = "print one JSON object: metric, score, n, and with a baseline difference, ci_low and "
             "ci_high"},
    CVQ_OPTION_TEMPLATE(MEMBER(run.template_choice)),
    CVQ_OPTION_MAX_TOKENS(MEMBER(run.max_tokens)),
    CVQ_OPTION_ROPE(MEMBER(run.rope)),
    CVQ_OPTION_CONTEXT(MEMBER(run.context)),
    CVQ_OPTION_KV(MEMBER(run.kv)),
    CVQ_OPTION_PRECISION(MEMBER(run.precision)),
    CVQ_OPTION_VERIFY(MEMBER(run.verify)),
    CVQ_OPTION_NO_EXIF(MEMBER(run.no_exif)),
};

static const cvq_command command = {
    .name = "cvq-eval",
    .summary = "Answer a file of questions, greedily, and score the answers.",
    .operands = "MODEL.cvq TASK.jsonl",
    .min_operands = 2,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes =
        "A task is one JSON object a line: question and answers, and optionally image (relative to "
        "the file), id, template, history, choices (what the letters A, B, ... stand for) and "
        "dataset_name (OCRBench's).\n"
        "The score is the mean over all questions, from 0 to 1. A question that cannot be answered "
        "(its picture is missing, say) counts as 0 and has {\"id\", \"error\", \"score\"} in FILE; "
        "how many there were is said on stderr.",
};

/* ---------------------------------------------------------------- scores */

typedef struct evaluation {
    const eval_args *args;
    cvq_task_run answers;
} evaluation;

static cvq_status score_line(void *context, size_t i, const char *answer, double *score,
                             cvq_error *err) {
    const evaluation *e = context;
    const cvq_task_line *line = &e->answers.task.lines[i];
    cvq_answer_key key = {(const char *const *)line->answers.items, line->answers.count,
                          (const char *const *)line->choices.items, line->choices.count,
                          line->dataset};
    *score = 0;
    if (!answer || line->problem) return CVQ_OK;
    if (key.num_answers == 0)
        return cvq_fail(err, CVQ_FORMAT, e->answers.task_path,
                        "line %zu has no \"answers\"; there is nothing to score with",
                        line->number);
    if (key.num_choices > CVQ_MAX_CHOICES)
        return cvq_fail(err, CVQ_FORMAT, e->answers.task_path, "line %zu has more than %d choices",
                        line->number, CVQ_MAX_CHOICES);
    return cvq_metric_score((cvq_metric)(e->args->metric - 1), answer, &key, score, err);
}

/* The scores of an earlier run, in the order of the task; a line without one is scored now. */
static cvq_status read_baseline(evaluation *e, double *scores, cvq_error *err) {
    cvq_results results = CVQ_RESULTS_NONE;
    CVQ_TRY(cvq_results_read(&results, e->args->baseline, err));
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < e->answers.task.count; i++) {
        const char *id = e->answers.task.lines[i].id;
        const cvq_known_line *known = cvq_results_take(&results, id);
        if (!known)
            status = cvq_fail(err, CVQ_NOT_FOUND, e->args->baseline,
                              "has no line for the question '%s'; it must be of the same task", id);
        else if (known->has_score)
            scores[i] = known->score;
        else
            status = score_line(e, i, known->answer, &scores[i], err);
    }
    cvq_results_close(&results);
    return status;
}

/* ---------------------------------------------------------------- output */

static cvq_status print_json(const evaluation *e, double mean, const cvq_interval *difference,
                             cvq_error *err) {
    cvq_buffer text = {0};
    cJSON *root = cJSON_CreateObject();
    cvq_json_add_string(root, "metric", cvq_metric_names[e->args->metric - 1]);
    cvq_json_add_number(root, "score", mean);
    cvq_json_add_number(root, "n", (double)e->answers.task.count);
    if (difference) {
        cvq_json_add_number(root, "difference", difference->middle);
        cvq_json_add_number(root, "ci_low", difference->low);
        cvq_json_add_number(root, "ci_high", difference->high);
    }
    cvq_status status = cvq_json_print(&text, root, err);
    if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
    cJSON_Delete(root);
    cvq_buffer_free(&text);
    return status;
}

static cvq_status report(const evaluation *e, const double *baseline, cvq_error *err) {
    const cvq_task_run *t = &e->answers;
    double mean = cvq_mean(t->scores, t->task.count);
    cvq_interval difference = {0};
    size_t errors = t->num_errors + t->num_kept_errors;
    if (baseline) difference = cvq_paired_difference(t->scores, baseline, t->task.count);
    if (errors > 0)
        cvq_say_note(&e->args->run.common,
                     "%zu of %zu questions could not be answered; they count "
                     "as 0",
                     errors, t->task.count);
    if (e->args->run.json) return print_json(e, mean, baseline ? &difference : NULL, err);
    printf("%s: %.4f over %zu questions\n", cvq_metric_names[e->args->metric - 1], mean,
           t->task.count);
    if (baseline)
        printf("difference to %s: %+.4f (95%%: %+.4f to %+.4f)\n", e->args->baseline,
               difference.middle, difference.low, difference.high);
    return CVQ_OK;
}

/* ---------------------------------------------------------------- the whole */

static cvq_status evaluate(evaluation *e, cvq_error *err) {
    double *baseline = NULL;
    cvq_task_run *t = &e->answers;
    CVQ_TRY(cvq_task_run_open(t, err));
    if (e->args->baseline) {
        void *p;
        CVQ_TRY(cvq_alloc(&p, t->task.count, sizeof *baseline, "the baseline", err));
        baseline = p;
    }
    cvq_status status = baseline ? read_baseline(e, baseline, err) : CVQ_OK;
    if (status == CVQ_OK) status = cvq_task_run_answer(t, err);
    if (status == CVQ_OK) status = report(e, baseline, err);
    free(baseline);
    return status;
}

int main(int argc, char **argv) {
    eval_args args = {.run = {.max_tokens = 2048, .top_p = 1, .repetition_penalty = 1}};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    if (!args.metric)
        return cvq_say_usage(&command, "--metric is needed: exact, vqa, anls, relaxed, ocrbench, "
                                       "mmmu or choice");
    cvq_run run = {.args = &args.run};
    evaluation e = {.args = &args};
    e.answers = (cvq_task_run){.run = &run,
                               .task_path = args.run.common.operands[1],
                               .out = args.run.out,
                               .beside = args.baseline,
                               .score = score_line,
                               .context = &e};
    cvq_error err = {0};
    exit_code = cvq_run_open_model(&run);
    if (exit_code == CVQ_EXIT_DONE) exit_code = cvq_run_open_session(&run);
    if (exit_code == CVQ_EXIT_DONE) {
        cvq_status status = evaluate(&e, &err);
        if (status != CVQ_OK) exit_code = cvq_say_error(&command, &err);
        if (args.run.out && status == CVQ_CANCELLED) cvq_task_run_note(&e.answers, status);
        cvq_task_run_close(&e.answers);
    }
    cvq_run_close(&run);
    return cvq_finish_stdout(&command, exit_code);
}
