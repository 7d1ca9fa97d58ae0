/* cvq-perplexity: how well a model predicts a text, and how far a quantized one has moved from the
 * original. */
#include <stdio.h>
#include <string.h>

#include "bench/divergence.h"
#include "bench/logits_file.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/scored_text.h"
#include "formats/json.h"

typedef struct perplexity_args {
    cvq_run_args run;
    uint64_t window;
    const char *kld, *save;
    bool task;
} perplexity_args;

#define MEMBER(name) offsetof(perplexity_args, name)
static const cvq_option options[] = {
    CVQ_OPTION_WINDOW(MEMBER(window), "default 512"),
    {.name = "save-logits",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(save),
     .value = "REF",
     .help =
         "write all predictions to a file, for --kld: 2 bytes for each token of the text and of "
         "the vocabulary, so 257 KB a token with the real model"},
    {.name = "kld",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(kld),
     .value = "REF",
     .help = "compare with the predictions that another model saved for the same text"},
    {.name = "jsonl",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(task),
     .help = "TEXT is a task, as for cvq-eval: score the tokens of the first answer of each line, "
             "after its picture and question"},
    {.name = "json",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(run.json),
     .help = "print one JSON object: perplexity, stderr, tokens, and with --kld kld_mean, kld_p99, "
             "top1_agreement, perplexity_ratio, and their standard errors"},
    CVQ_OPTION_TEMPLATE(MEMBER(run.template_choice)),
    CVQ_OPTION_ROPE(MEMBER(run.rope)),
    CVQ_OPTION_KV(MEMBER(run.kv)),
    CVQ_OPTION_PRECISION(MEMBER(run.precision)),
    CVQ_OPTION_VERIFY(MEMBER(run.verify)),
    CVQ_OPTION_NO_EXIF(MEMBER(run.no_exif)),
};

static const cvq_command command = {
    .name = "cvq-perplexity",
    .summary = "Measure how well a model predicts a text, and how far that is from a reference.",
    .operands = "MODEL.cvq TEXT",
    .min_operands = 2,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes =
        "The text is encoded as a whole and cut into windows that do not overlap; each is read "
        "after a bos, all its tokens count, and a last one that is too short is dropped. The "
        "standard error (+-) is perplexity x sd(loss) / sqrt(tokens); that of the ratio is taken "
        "from the tokens' differences, so that the text's own difficulty does not count.\n"
        "The divergence is that of the model from the reference, KL(reference || model), in nats, "
        "as mean, median and 99th percentile over the tokens. Saved predictions are rounded to 16 "
        "bits in "
        "the logarithm: a model differs from its own by about 2e-9.",
};

typedef struct measurement {
    const perplexity_args *args;
    cvq_run *run;
    cvq_scored_text text;
    cvq_divergence sum;
    uint32_t vocab;
    cvq_logits_file reference;
    cvq_logits_writer writer;
    cvq_output output;
} measurement;

/* ---------------------------------------------------------------- tokens */

static cvq_status on_token(void *context, const float *logits, uint32_t token, cvq_error *err) {
    measurement *m = context;
    cvq_prediction p;
    cvq_saved_row row;
    double kld = 0;
    CVQ_TRY(cvq_predict(&p, logits, m->vocab, token, err));
    if (m->args->kld) {
        CVQ_TRY(cvq_logits_row(&m->reference, m->sum.count, &row, err));
        CVQ_TRY(cvq_row_divergence(&kld, &row, logits, m->vocab, p.log_sum, err));
    }
    if (m->args->save) CVQ_TRY(cvq_logits_writer_add(&m->writer, logits, &p, err));
    return cvq_divergence_add(&m->sum, &p, m->args->kld ? &row : NULL, kld, err);
}

static cvq_status score_all(measurement *m, cvq_error *err) {
    char prefix[80];
    double started = cvq_progress_clock();
    cvq_status status = CVQ_OK;
    cvq_interrupt_session(m->run->session);
    for (size_t i = 0; status == CVQ_OK && i < m->text.num_pieces; i++) {
        cvq_format_step(m->args->task ? "answer" : "window", i, m->text.num_pieces, started, prefix,
                        sizeof prefix);
        m->run->prefix = prefix;
        m->run->phase = -1; /* a new label */
        status = cvq_interrupted() ? cvq_fail(err, CVQ_CANCELLED, "", "interrupted")
                                   : cvq_scored_piece_run(&m->text, i, on_token, m, err);
    }
    cvq_interrupt_session(NULL);
    cvq_progress_erase();
    m->run->prefix = "";
    return status;
}

/* ---------------------------------------------------------------- output */

static cvq_status print_json(const measurement *m, const cvq_divergence_sum *s, cvq_error *err) {
    cvq_buffer text = {0};
    cJSON *root = cJSON_CreateObject();
    cvq_json_add_number(root, "perplexity", s->perplexity);
    cvq_json_add_number(root, "stderr", s->perplexity_stderr);
    cvq_json_add_number(root, "tokens", (double)m->sum.count);
    if (m->args->kld) {
        cvq_json_add_number(root, "kld_mean", s->kld_mean);
        cvq_json_add_number(root, "kld_stderr", s->kld_stderr);
        cvq_json_add_number(root, "kld_median", s->kld_median);
        cvq_json_add_number(root, "kld_p99", s->kld_p99);
        cvq_json_add_number(root, "top1_agreement", s->top1_agreement);
        cvq_json_add_number(root, "perplexity_ratio", s->perplexity_ratio);
        cvq_json_add_number(root, "perplexity_ratio_stderr", s->perplexity_ratio_stderr);
    }
    cvq_status status = cvq_json_print(&text, root, err);
    if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
    cJSON_Delete(root);
    cvq_buffer_free(&text);
    return status;
}

static cvq_status report(measurement *m, cvq_error *err) {
    char count[32];
    cvq_divergence_sum s = cvq_divergence_summarize(&m->sum);
    if (m->args->run.json) return print_json(m, &s, err);
    printf("perplexity %.4f +- %.4f over %s tokens\n", s.perplexity, s.perplexity_stderr,
           cvq_with_commas(m->sum.count, count));
    if (m->args->kld)
        printf("against %s: perplexity x %.5f +- %.5f, KL divergence %.6f +- %.6f (median %.6f, "
               "99%%: %.6f), the same likeliest token %.2f%%\n",
               m->args->kld, s.perplexity_ratio, s.perplexity_ratio_stderr, s.kld_mean,
               s.kld_stderr, s.kld_median, s.kld_p99, 100 * s.top1_agreement);
    return CVQ_OK;
}

/* ---------------------------------------------------------------- the whole */

/* The reference to compare with, and the file to write. */
static cvq_status open_files(measurement *m, cvq_error *err) {
    const cvq_common *common = &m->args->run.common;
    const char *inputs[] = {common->operands[0], common->operands[1], m->args->kld};
    cvq_logits_head head = {.vocab = m->vocab,
                            .context = m->args->task ? 0 : (uint32_t)m->args->window,
                            .rows = m->text.tokens};
    memcpy(head.text, m->text.hash, sizeof head.text);
    memcpy(head.model, cvq_model_describe(m->run->model)->id, sizeof head.model);
    if (m->args->kld) CVQ_TRY(cvq_logits_open(&m->reference, m->args->kld, &head, err));
    if (!m->args->save) return CVQ_OK;
    CVQ_TRY(cvq_task_check_output(&m->text.task, m->args->save, err));
    CVQ_TRY(cvq_output_open(&m->output, m->args->save, common->force, inputs, m->args->kld ? 3 : 2,
                            err));
    return cvq_logits_writer_open(&m->writer, m->output.fd, m->args->save, &head, err);
}

static cvq_status measure(measurement *m, cvq_error *err) {
    const char *path = m->args->run.common.operands[1];
    if (m->args->task)
        CVQ_TRY(cvq_scored_task_read(&m->text, m->run, path, m->args->window, err));
    else
        CVQ_TRY(cvq_scored_text_read(&m->text, m->run, path, m->args->window, err));
    CVQ_TRY(open_files(m, err));
    CVQ_TRY(score_all(m, err));
    if (m->args->save) {
        CVQ_TRY(cvq_logits_writer_finish(&m->writer, err));
        CVQ_TRY(cvq_output_commit(&m->output, err));
    }
    return report(m, err);
}

/* A window and its bos must fit; a session holds no more than that. */
static int set_context(perplexity_args *args, const cvq_run *run) {
    uint32_t limit = cvq_model_describe(run->model)->max_context;
    if (args->task) return CVQ_EXIT_DONE;
    if (args->window >= limit)
        return cvq_say_usage(&command, "--context %llu: this model's limit is %u and a bos",
                             (unsigned long long)args->window, limit - 1);
    args->run.context = args->window + 1;
    return CVQ_EXIT_DONE;
}

int main(int argc, char **argv) {
    perplexity_args args = {.window = 512};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    cvq_run run = {.args = &args.run};
    measurement m = {
        .args = &args, .run = &run, .reference = {.map = {.fd = -1}}, .output = CVQ_OUTPUT_NONE};
    cvq_error err = {0};
    exit_code = cvq_run_open_model(&run);
    if (exit_code == CVQ_EXIT_DONE) exit_code = set_context(&args, &run);
    if (exit_code == CVQ_EXIT_DONE) exit_code = cvq_run_open_session(&run);
    if (exit_code == CVQ_EXIT_DONE) {
        m.vocab = cvq_model_describe(run.model)->vocab_size;
        if (measure(&m, &err) != CVQ_OK) exit_code = cvq_say_error(&command, &err);
    }
    cvq_output_discard(&m.output);
    cvq_logits_writer_free(&m.writer);
    cvq_logits_close(&m.reference);
    cvq_divergence_free(&m.sum);
    cvq_scored_text_free(&m.text);
    cvq_run_close(&run);
    return cvq_finish_stdout(&command, exit_code);
}
