/* cvq-run: questions about pictures, answered. Options and the choice of what to do; the doing is
 * in run_*.c. */
#include <stdio.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/run.h"

#define MEMBER(name) offsetof(cvq_run_args, name)
static const cvq_option options[] = {
    {.name = "image",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(image),
     .value = "FILE",
     .help = "the picture to ask about: PNG or JPEG"},
    {.name = "prompt",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(prompt),
     .value = "TEXT",
     .help = "the question; without it a conversation is held, a question a line"},
    {.name = "history",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(history),
     .value = "FILE.json",
     .help = "earlier turns: [[\"question\", \"answer\"], ...]"},
    CVQ_OPTION_TEMPLATE(MEMBER(template_choice)),
    CVQ_OPTION_MAX_TOKENS(MEMBER(max_tokens)),
    {.name = "temperature",
     .kind = CVQ_OPTION_REAL,
     .offset = MEMBER(temperature),
     .value = "T",
     .high = 100,
     .help = "draw tokens at random at this temperature; default 0: always the likeliest"},
    {.name = "top-k",
     .kind = CVQ_OPTION_COUNT,
     .offset = MEMBER(top_k),
     .value = "K",
     .max = UINT32_MAX,
     .help = "draw among the K likeliest tokens; 0 (default): among all"},
    {.name = "top-p",
     .kind = CVQ_OPTION_REAL,
     .offset = MEMBER(top_p),
     .value = "P",
     .high = 1,
     .help = "draw among the likeliest tokens that make up this share; 1 (default): among all"},
    {.name = "repetition-penalty",
     .kind = CVQ_OPTION_REAL,
     .offset = MEMBER(repetition_penalty),
     .value = "R",
     .low = 0.01,
     .high = 100,
     .help = "make tokens that stand in prompt or answer less likely, as Hugging Face does; 1 "
             "(default): no penalty"},
    {.name = "seed",
     .kind = CVQ_OPTION_COUNT,
     .offset = MEMBER(seed),
     .value = "S",
     .max = UINT64_MAX,
     .help = "of the random draws (default 0): the same seed gives the same answer"},
    {.name = "json",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(json),
     .help = "print one JSON object: answer, token ids, counts, times and memory"},
    {.name = "batch",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(batch),
     .value = "TASK.jsonl",
     .help = "answer a file of questions, one JSON object a line: question, and optionally image "
             "(relative to the file), id, template, history"},
    {.name = "out",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(out),
     .value = "OUT.jsonl",
     .help = "where --batch writes: {\"id\", \"answer\"} or {\"id\", \"error\"} a line; questions "
             "whose id is there already are skipped (with --force they are answered anew)"},
    CVQ_OPTION_ROPE(MEMBER(rope)),
    CVQ_OPTION_CONTEXT(MEMBER(context)),
    CVQ_OPTION_KV(MEMBER(kv)),
    CVQ_OPTION_PRECISION(MEMBER(precision)),
    CVQ_OPTION_VERIFY(MEMBER(verify)),
    CVQ_OPTION_NO_EXIF(MEMBER(no_exif)),
    {.name = "no-cache",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(no_cache),
     .help = "neither look for the picture among those of earlier runs nor keep it for later ones"},
    {.name = "cache-size",
     .kind = CVQ_OPTION_REAL,
     .offset = MEMBER(cache_size),
     .value = "GB",
     .high = 1e6,
     .help = "how much the pictures of earlier runs may take on the disk (default 4): those not "
             "used for the longest time are removed"},
    {.name = "memory",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(memory),
     .help = "say first what will be in memory in each phase, and what there is; without --prompt "
             "and --batch do nothing else"},
    {.name = "lock",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(lock),
     .help = "keep the weights that every token needs in memory, if the system allows it"},
    {.name = "logits",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(logits),
     .value = "FILE",
     .help = "also write ids and logits of every position of the prompt, as safetensors"},
    {.name = "taps",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(taps),
     .help = "with --logits: the pixels and every layer's output too"},
    {.name = "tokenize",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(tokenize),
     .value = "TEXT",
     .help = "print the ids of a text, without bos and template, and do nothing else; '-' reads "
             "stdin"},
    {.name = "detokenize",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(detokenize),
     .value = "'IDS'",
     .help = "print the bytes that ids stand for; '-' reads stdin"},
};

static const cvq_command command = {
    .name = "cvq-run",
    .summary = "Ask a CogVLM2 model about a picture, or about anything.",
    .operands = "MODEL.cvq",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes =
        "Answers are streamed to stdout. Without --prompt, questions are read a line each from the "
        "terminal or a pipe, and these lines are commands: /image FILE looks at a picture and "
        "begins a new conversation, /clear forgets the conversation but not the picture, /quit "
        "leaves. Ctrl-C stops an answer; at the mark it leaves.\n"
        "What was computed of a picture is kept in $XDG_CACHE_HOME/cvq (~/.cache/cvq), 340 MB for "
        "each at full size, so that another question about it starts at once; answers do not "
        "depend on it.\n"
        "--batch succeeds when every question has its line in OUT.jsonl, be it an error: a picture "
        "that cannot be read does not stop the others. How many there were is said on stderr.",
};

/* Options that do not go together: the exit code of wrong usage, or 0. */
static int check_usage(const cvq_run_args *a) {
    int modes =
        (a->tokenize != NULL) + (a->detokenize != NULL) + (a->batch != NULL) + (a->prompt != NULL);
    if (modes > 1)
        return cvq_say_usage(&command,
                             "--prompt, --batch, --tokenize and --detokenize exclude each other");
    if (!a->batch != !a->out)
        return cvq_say_usage(&command, "--batch TASK.jsonl and --out OUT.jsonl go together");
    if (a->batch && (a->image || a->history))
        return cvq_say_usage(&command, "--batch takes picture and history from the task's lines, "
                                       "not from --image and --history");
    if (a->taps && !a->logits) return cvq_say_usage(&command, "--taps needs --logits FILE");
    if (a->logits && !a->prompt) return cvq_say_usage(&command, "--logits needs --prompt TEXT");
    if (a->json && !a->prompt && !cvq_run_only_memory(a))
        return cvq_say_usage(&command, "--json needs --prompt TEXT or --memory");
    return 0;
}

/* One question, one answer. */
static cvq_status answer_once(cvq_run *run, cvq_error *err) {
    const cvq_run_args *args = run->args;
    cvq_history history = {0};
    cvq_image *image = NULL;
    cvq_prompt *prompt = NULL;
    cvq_answer answer = {0};
    cvq_status status = CVQ_OK;
    if (args->history) status = cvq_history_read(&history, args->history, err);
    if (status == CVQ_OK && args->image) status = cvq_run_picture(run, args->image, &image, err);
    if (status == CVQ_OK)
        status = cvq_prompt_create(&prompt, run->model, run->kind, history.turns, history.count,
                                   args->prompt, image, err);
    if (status == CVQ_OK && args->logits) status = cvq_run_logits(run, prompt, err);
    if (status == CVQ_OK) {
        status = cvq_run_answer(run, prompt, !args->json, &answer, err);
        if (!args->json && answer.ids.size > 0) putchar('\n');
    }
    if (status == CVQ_OK && args->json) status = cvq_run_print_json(run, &answer, err);
    if (status == CVQ_OK) cvq_run_print_times(run, &answer);
    fflush(stdout);
    cvq_picture_cache_keep(&run->cache, run->session, image);
    cvq_answer_free(&answer);
    cvq_prompt_free(prompt);
    cvq_image_free(image);
    cvq_history_free(&history);
    return status;
}

static int answer_with_session(cvq_run *run) {
    cvq_error err = {0};
    int exit_code = cvq_run_open_session(run);
    if (exit_code != CVQ_EXIT_DONE || cvq_run_only_memory(run->args)) return exit_code;
    /* What --logits shows is computed here and now. */
    if (!run->args->no_cache && !run->args->logits)
        cvq_picture_cache_open(&run->cache, &run->args->common,
                               (uint64_t)(run->args->cache_size * 1e9));
    if (run->args->batch) return cvq_run_batch(run);
    if (!run->args->prompt) return cvq_run_chat(run);
    return answer_once(run, &err) == CVQ_OK ? CVQ_EXIT_DONE : cvq_say_error(&command, &err);
}

int main(int argc, char **argv) {
    double started = cvq_progress_clock();
    cvq_run_args args = {.max_tokens = 2048, .top_p = 1, .repetition_penalty = 1, .cache_size = 4};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    exit_code = check_usage(&args);
    if (exit_code != 0) return exit_code;
    if (args.temperature <= 0 && (args.top_k > 0 || args.top_p < 1))
        cvq_say_note(&args.common, "--top-k and --top-p change nothing without --temperature");

    cvq_run run = {.args = &args, .started = started};
    exit_code = cvq_run_open_model(&run);
    if (exit_code == CVQ_EXIT_DONE)
        exit_code = args.tokenize     ? cvq_run_tokenize(&run)
                    : args.detokenize ? cvq_run_detokenize(&run)
                                      : answer_with_session(&run);
    cvq_run_close(&run);
    return cvq_finish_stdout(&command, exit_code);
}
