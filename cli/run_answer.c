/* One answer: from a session in step with its prompt to text on stdout, or to JSON. */
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/white_space.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/run.h"
#include "imageio/picture.h"

/* ---------------------------------------------------------------- session and picture */

static int on_progress(void *context, cvq_phase phase, uint64_t done, uint64_t total,
                       double seconds_left) {
    static const char *const labels[] = {"encoding the picture", "reading the prompt", "answering"};
    cvq_run *run = context;
    if (phase == CVQ_PHASE_PREFILL && run->phase != (int)phase)
        cvq_run_mark(run, CVQ_MOMENT_PREFILL);
    if (phase == CVQ_PHASE_DECODE && done == 2) cvq_run_mark(run, CVQ_MOMENT_STEADY);
    if (phase == CVQ_PHASE_DECODE && run->streaming) return cvq_interrupted();
    if (run->phase != (int)phase) {
        run->phase = (int)phase;
        snprintf(run->label, sizeof run->label, "%s%s", run->prefix, labels[phase]);
        cvq_progress_begin(&run->progress, run->label,
                           phase == CVQ_PHASE_DECODE ? "token" : "layer");
    }
    cvq_progress_update_left(&run->progress, done, total, seconds_left);
    return cvq_interrupted();
}

int cvq_run_open_model(cvq_run *run) {
    const cvq_run_args *args = run->args;
    const char *path = args->common.operands[0];
    const cvq_model_options options = {.verify_weights = args->verify != CVQ_VERIFY_NEVER};
    cvq_error err = {0};
    if (cvq_model_open(&run->model, path, &options, &err) != CVQ_OK)
        return cvq_say_error(args->common.command, &err);
    if (options.verify_weights && args->verify != CVQ_VERIFY_ALWAYS && !args->no_cache)
        cvq_verified_load(&run->verified, &args->common, run->model, path);
    run->kind = args->template_choice
                    ? (cvq_prompt_kind)(args->template_choice - 1)
                    : (cvq_prompt_kind)cvq_model_describe(run->model)->default_template;
    return CVQ_EXIT_DONE;
}

int cvq_run_open_session(cvq_run *run) {
    const cvq_run_args *args = run->args;
    const cvq_command *command = args->common.command;
    cvq_session_options options = {.context = (uint32_t)args->context,
                                   .kv = (cvq_kv_type)args->kv,
                                   .precision = (cvq_precision)args->precision,
                                   .rope = (cvq_rope)args->rope,
                                   .threads = args->common.threads};
    uint32_t limit = cvq_model_describe(run->model)->max_context;
    cvq_error err = {0};
    if (args->context > limit)
        return cvq_say_usage(command, "--context %llu: this model's limit is %u",
                             (unsigned long long)args->context, limit);
    int exit_code = cvq_run_check_memory(run, &options);
    if (exit_code != CVQ_EXIT_DONE || cvq_run_only_memory(args)) return exit_code;
    if (args->lock && cvq_model_lock(run->model, &err) != CVQ_OK) {
        cvq_say_note(&args->common, "--lock: %s; going on without", err.message);
        err = (cvq_error){0};
    }
    cvq_status status = cvq_session_open(&run->session, run->model, &options, &err);
    if (status == CVQ_INVALID_ARGUMENT) return cvq_say_usage(command, "%s", err.message);
    if (status != CVQ_OK) return cvq_say_error(command, &err);
    cvq_progress_init(&run->progress, &args->common);
    run->phase = -1;
    run->prefix = "";
    cvq_session_set_progress(run->session, on_progress, run);
    run->ready = cvq_progress_clock();
    return CVQ_EXIT_DONE;
}

void cvq_run_close(cvq_run *run) {
    cvq_picture_cache_close(&run->cache);
    if (run->model) cvq_verified_keep(&run->verified, run->model);
    cvq_session_close(run->session);
    cvq_model_close(run->model);
}

cvq_status cvq_run_picture(const cvq_run *run, const char *path, cvq_image **image,
                           cvq_error *err) {
    cvq_picture picture = {0};
    cvq_picture_options options = {.ignore_exif = run->args->no_exif};
    CVQ_TRY(cvq_picture_read(&picture, path, &options, err));
    cvq_status status = CVQ_OK;
    if (picture.width > UINT32_MAX || picture.height > UINT32_MAX)
        status = cvq_fail(err, CVQ_UNSUPPORTED, path, "is too large; make the picture smaller");
    else
        status = cvq_image_create(image, run->model, picture.rgb, (uint32_t)picture.width,
                                  (uint32_t)picture.height, 3 * picture.width, err);
    cvq_picture_free(&picture);
    if (status == CVQ_OK) cvq_picture_cache_find(&run->cache, run->model, run->session, image);
    return status;
}

#define MOST_TEXT (16u << 20) /* bytes of an answer */

/* ---------------------------------------------------------------- tokens as they come */

typedef struct stream {
    cvq_answer *answer;
    bool to_stdout, to_terminal, begun;
    cvq_error error;
} stream;

/* A NUL would end every C string that the text goes through. And a stranger's model may have pieces
 * of text so long that an answer of them takes all memory. */
static cvq_status keep_text(cvq_answer *a, const char *text, size_t length, cvq_error *err) {
    if (a->text.size + length > MOST_TEXT)
        return cvq_fail(err, CVQ_UNSUPPORTED, "answer",
                        "it is longer than %u MiB, which no honest model's is; --max-tokens makes "
                        "it shorter",
                        MOST_TEXT >> 20);
    while (length > 0) {
        const char *nul = memchr(text, '\0', length);
        size_t n = nul ? (size_t)(nul - text) : length;
        CVQ_TRY(cvq_buffer_append(&a->text, text, n, err));
        if (!nul) return CVQ_OK;
        CVQ_TRY(cvq_buffer_append(&a->text, "\xef\xbf\xbd", 3, err));
        text += n + 1;
        length -= n + 1;
    }
    return CVQ_OK;
}

/* A model may write anything; escape sequences are not to reach a terminal. */
static void print_text(const stream *s, const char *text, size_t length) {
    if (s->to_terminal)
        cvq_print_plain_lines(text, length);
    else
        fwrite(text, 1, length, stdout);
}

static void show_text(stream *s, const char *text, size_t length) {
    if (!s->begun) {
        size_t space = cvq_leading_space(text, length);
        text += space;
        length -= space;
        if (length == 0) return;
        cvq_progress_erase();
        s->begun = true;
    }
    print_text(s, text, length);
    fflush(stdout);
}

static int on_token(void *context, int32_t id, const char *text, size_t length) {
    stream *s = context;
    cvq_status status = CVQ_OK;
    if (id >= 0) status = cvq_buffer_append(&s->answer->ids, &id, sizeof id, &s->error);
    if (status == CVQ_OK) status = keep_text(s->answer, text, length, &s->error);
    if (status == CVQ_OK && s->to_stdout) show_text(s, text, length);
    return status != CVQ_OK || cvq_interrupted();
}

/* A Ctrl-C that came when the answer before was just complete has cancelled nothing yet; it must
 * not cost the next question. */
static cvq_status sync_session(cvq_run *run, const cvq_prompt *prompt, cvq_error *err) {
    cvq_error first = {0};
    cvq_interrupt_session(run->session);
    if (cvq_interrupted()) return cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
    cvq_status status = cvq_session_sync(run->session, prompt, &first);
    if (status == CVQ_CANCELLED && !cvq_interrupted())
        return cvq_session_sync(run->session, prompt, err);
    if (status != CVQ_OK) return cvq_fail(err, first.code, first.where, "%s", first.message);
    return CVQ_OK;
}

cvq_status cvq_run_answer(cvq_run *run, const cvq_prompt *prompt, bool to_stdout, cvq_answer *a,
                          cvq_error *err) {
    const cvq_run_args *args = run->args;
    cvq_sampling sampling = {.temperature = (float)args->temperature,
                             .top_k = (uint32_t)args->top_k,
                             .top_p = (float)args->top_p,
                             .repetition_penalty = (float)args->repetition_penalty,
                             .seed = args->seed};
    stream s = {.answer = a, .to_stdout = to_stdout};
    s.to_terminal = to_stdout && isatty(STDOUT_FILENO);
    run->phase = -1;
    run->streaming = to_stdout;
    cvq_prompt_ids(prompt, &a->prompt_tokens);
    for (int i = 0; i < CVQ_MOMENTS; i++) cvq_run_mark(run, i);
    cvq_status status = sync_session(run, prompt, err);
    cvq_run_mark(run, CVQ_MOMENT_DECODE);
    cvq_run_mark(run, CVQ_MOMENT_STEADY);
    if (status == CVQ_OK)
        status = cvq_session_generate(run->session, &sampling, (size_t)args->max_tokens, on_token,
                                      &s, &a->result, err);
    cvq_interrupt_session(NULL);
    cvq_run_mark(run, CVQ_MOMENT_END);
    cvq_progress_erase();
    if (s.error.code != CVQ_OK)
        status = cvq_fail(err, s.error.code, s.error.where, "%s", s.error.message);
    else if (status == CVQ_OK && cvq_interrupted())
        status = cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
    cvq_error ignored = {0}; /* the NUL behind the text; a failure before matters more */
    cvq_status ended = cvq_buffer_append(&a->text, "", 1, status == CVQ_OK ? err : &ignored);
    if (ended == CVQ_OK) a->text.size--;
    return status == CVQ_OK ? ended : status;
}

void cvq_answer_free(cvq_answer *a) {
    cvq_buffer_free(&a->text);
    cvq_buffer_free(&a->ids);
    *a = (cvq_answer){0};
}

const char *cvq_answer_trimmed(cvq_answer *a) {
    char *text = (char *)a->text.data;
    a->text.size -= cvq_trailing_space(text, a->text.size);
    text[a->text.size] = '\0';
    return text + cvq_leading_space(text, a->text.size);
}

/* ---------------------------------------------------------------- what is said about it */

static double peak_rss_bytes(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#ifdef __APPLE__
    return (double)usage.ru_maxrss;
#else
    return (double)usage.ru_maxrss * 1024;
#endif
}

static double decode_rate(const cvq_result *r) {
    return r->decode_s > 0 ? (double)r->tokens / r->decode_s : 0;
}

cvq_status cvq_run_print_json(const cvq_run *run, cvq_answer *a, cvq_error *err) {
    static const char *const reasons[] = {"stop", "length", "context", "caller"};
    const cvq_result *r = &a->result;
    cvq_buffer text = {0};
    cJSON *root = cJSON_CreateObject();
    cvq_json_add_string(root, "answer", cvq_answer_trimmed(a));
    cJSON *ids = cvq_json_add_array(root, "completion_ids");
    for (size_t i = 0; i < a->ids.size / sizeof(int32_t); i++) {
        int32_t id;
        memcpy(&id, a->ids.data + i * sizeof id, sizeof id);
        cvq_json_append(ids, cJSON_CreateNumber(id));
    }
    cvq_json_add_number(root, "prompt_tokens", (double)a->prompt_tokens);
    cvq_json_add_number(root, "completion_tokens", (double)r->tokens);
    cvq_json_add_string(root, "finish_reason", reasons[r->finish]);
    cvq_json_add_number(root, "encode_s", r->encode_s);
    cvq_json_add_number(root, "prefill_s", r->prefill_s);
    cvq_json_add_number(root, "decode_s", r->decode_s);
    cvq_json_add_number(root, "decode_tokens_per_s", decode_rate(r));
    cvq_json_add_number(root, "peak_rss_bytes", peak_rss_bytes());
    cvq_json_add_number(root, "start_s", run->ready - run->started);
    cvq_run_add_usage(run, r, root);
    if (run->args->memory) cvq_json_add_item(root, "memory", cvq_run_plan_json(&run->plan));
    cvq_status status = cvq_json_print(&text, root, err);
    if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
    cJSON_Delete(root);
    cvq_buffer_free(&text);
    return status;
}

void cvq_run_print_times(const cvq_run *run, const cvq_answer *a) {
    const cvq_result *r = &a->result;
    char memory[32];
    cvq_say_more(&run->args->common,
                 "ready in %.0f ms; picture %.2f s; prompt %.2f s (%zu tokens); answer %.2f s (%zu "
                 "tokens, %.1f a "
                 "second); peak memory %s",
                 1e3 * (run->ready - run->started), r->encode_s, r->prefill_s, a->prompt_tokens,
                 r->decode_s, r->tokens, decode_rate(r),
                 cvq_human_bytes((uint64_t)peak_rss_bytes(), memory));
}
