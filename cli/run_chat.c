/* A conversation: questions and commands from a terminal or a pipe, a line each. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/white_space.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/run.h"

typedef struct chat {
    cvq_run *run;
    cvq_image *image; /* or NULL */
    cvq_history history;
    bool terminal; /* somebody types: show a mark, go on after Ctrl-C */
    bool failed;   /* something in a piped conversation went wrong */
} chat;

static const char hint[] = "/image FILE looks at a picture, /clear forgets the conversation, /quit "
                           "leaves; Ctrl-C stops an answer";

static void say(chat *c, const cvq_error *err) {
    cvq_say_error(c->run->args->common.command, err);
    c->failed = true;
}

/* "/image FILE": a conversation is about one picture, so a new one begins. Without FILE it goes on
 * without a picture. */
static void change_picture(chat *c, const char *path) {
    cvq_image *image = NULL;
    cvq_error err = {0};
    if (*path && cvq_run_picture(c->run, path, &image, &err) != CVQ_OK) {
        say(c, &err);
        return;
    }
    cvq_image_free(c->image);
    c->image = image;
    cvq_history_free(&c->history);
}

/* Keeps the turn, also of an answer that was stopped half way. */
static void keep_turn(chat *c, const char *question, const cvq_answer *a) {
    cvq_error err = {0};
    if (a->ids.size == 0) return;
    if (cvq_history_append(&c->history, question, (const char *)a->text.data, &err) != CVQ_OK)
        say(c, &err);
}

static void ask(chat *c, const char *question) {
    cvq_error err = {0};
    cvq_answer answer = {0};
    cvq_prompt *prompt = NULL;
    cvq_status status = cvq_prompt_create(&prompt, c->run->model, c->run->kind, c->history.turns,
                                          c->history.count, question, c->image, &err);
    if (status == CVQ_OK) {
        status = cvq_run_answer(c->run, prompt, true, &answer, &err);
        if (status == CVQ_OK || answer.ids.size > 0) putchar('\n');
        fflush(stdout);
        cvq_picture_cache_keep(&c->run->cache, c->run->session, c->image);
    }
    if (status == CVQ_OK || status == CVQ_CANCELLED) keep_turn(c, question, &answer);
    if (status == CVQ_OK) cvq_run_print_times(c->run, &answer);
    if (status == CVQ_CONTEXT_FULL) {
        say(c, &err);
        cvq_say_note(&c->run->args->common, "/clear forgets the conversation and begins anew");
    } else if (status != CVQ_OK && status != CVQ_CANCELLED) {
        say(c, &err);
    }
    cvq_prompt_free(prompt);
    cvq_answer_free(&answer);
}

/* False: leave. The line is trimmed and not empty. */
static bool obey(chat *c, const char *line) {
    if (strcmp(line, "/quit") == 0) return false;
    if (strcmp(line, "/clear") == 0) {
        cvq_history_free(&c->history);
    } else if (strncmp(line, "/image", 6) == 0 && (line[6] == '\0' || line[6] == ' ')) {
        change_picture(c, line + 6 + cvq_leading_space(line + 6, strlen(line + 6)));
    } else if (line[0] == '/') {
        cvq_error err = {0};
        cvq_fail(&err, CVQ_INVALID_ARGUMENT, line, "no such command; %s", hint);
        say(c, &err);
    } else {
        ask(c, line);
    }
    return true;
}

/* Ctrl-C while an answer was made: a person at a terminal goes on. */
static bool goes_on(const chat *c) {
    if (!cvq_interrupted()) return true;
    if (!c->terminal || !cvq_interrupted_by_key()) return false;
    cvq_interrupt_clear();
    return true;
}

static void say_unreadable(chat *c) {
    cvq_error err = {0};
    cvq_fail_errno(&err, "standard input", "cannot read");
    say(c, &err);
}

static void converse(chat *c) {
    char *line = NULL;
    size_t capacity = 0;
    for (;;) {
        if (c->terminal) fputs("> ", stderr);
        ssize_t n = getline(&line, &capacity, stdin);
        if (n < 0 && !feof(stdin) && !cvq_interrupted()) say_unreadable(c);
        if (n < 0 || cvq_interrupted()) break;
        size_t length = (size_t)n - cvq_trailing_space(line, (size_t)n);
        line[length] = '\0';
        char *text = line + cvq_leading_space(line, length);
        if (!*text) continue;
        if (!obey(c, text) || !goes_on(c)) break;
    }
    if (c->terminal && (feof(stdin) || cvq_interrupted())) fputc('\n', stderr);
    free(line);
}

int cvq_run_chat(cvq_run *run) {
    const cvq_run_args *args = run->args;
    chat c = {.run = run, .terminal = isatty(STDIN_FILENO) != 0};
    cvq_error err = {0};
    cvq_status status = CVQ_OK;
    if (args->history) status = cvq_history_read(&c.history, args->history, &err);
    if (status == CVQ_OK && args->image) status = cvq_run_picture(run, args->image, &c.image, &err);
    int exit_code = CVQ_EXIT_DONE;
    if (status != CVQ_OK) {
        exit_code = cvq_say_error(args->common.command, &err);
    } else {
        if (c.terminal) cvq_say_note(&args->common, "%s", hint);
        converse(&c);
        if (c.failed && !c.terminal) exit_code = CVQ_EXIT_FAILED;
        if (cvq_interrupted()) exit_code = CVQ_EXIT_INTERRUPTED;
    }
    cvq_history_free(&c.history);
    cvq_image_free(c.image);
    return exit_code;
}
