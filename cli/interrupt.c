/* Signal handlers do three things only, all of them async-signal-safe: set a flag, call
 * cvq_session_cancel, unlink files whose names stand in a fixed table. */
#include "cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/options.h"

typedef struct temp_file {
    volatile sig_atomic_t used;
    char path[PATH_MAX];
} temp_file;

static temp_file temp_files[CVQ_MAX_TEMP_FILES];
static volatile sig_atomic_t interrupted; /* the signal's number; 0 = none */
static _Atomic(cvq_session *) running_session;
static pid_t owner; /* a child that decodes a picture inherits the handlers, but not the files */

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
#define NUM_STOP_SIGNALS (sizeof stop_signals / sizeof *stop_signals)

static void remove_temp_files(void) {
    if (getpid() != owner) return;
    for (int i = 0; i < CVQ_MAX_TEMP_FILES; i++)
        if (temp_files[i].used) unlink(temp_files[i].path);
}

static void on_stop(int number) {
    if (interrupted) {
        remove_temp_files();
        _exit(CVQ_EXIT_INTERRUPTED);
    }
    interrupted = number;
    int saved = errno;
    cvq_session *session = atomic_load(&running_session);
    if (session) cvq_session_cancel(session);
    errno = saved;
}

/* The reader of our output has gone: end as a program without a handler would, quietly. */
static void on_pipe(int number) {
    remove_temp_files();
    signal(number, SIG_DFL);
    raise(number);
}

void cvq_interrupt_install(void) {
    owner = getpid();
    struct sigaction action = {.sa_handler = on_stop}; /* no SA_RESTART: reading a line ends */
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < NUM_STOP_SIGNALS; i++) {
        struct sigaction before;
        int number = stop_signals[i];
        /* nohup: a hang-up that was ignored before us stays ignored */
        if (number == SIGHUP && sigaction(number, NULL, &before) == 0 &&
            before.sa_handler == SIG_IGN)
            continue;
        sigaction(number, &action, NULL);
    }
    action.sa_handler = on_pipe;
    sigaction(SIGPIPE, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is then an error of write, with a message */
}

bool cvq_interrupted(void) {
    return interrupted != 0;
}

bool cvq_interrupted_by_key(void) {
    return interrupted == SIGINT;
}

void cvq_interrupt_clear(void) {
    interrupted = 0;
}

void cvq_interrupt_session(cvq_session *session) {
    atomic_store(&running_session, session);
}

bool cvq_temp_note(const char *path, int *slot) {
    int i = 0;
    while (i < CVQ_MAX_TEMP_FILES && temp_files[i].used) i++;
    if (i == CVQ_MAX_TEMP_FILES || strlen(path) >= PATH_MAX) return false;
    memcpy(temp_files[i].path, path, strlen(path) + 1);
    temp_files[i].used = 1;
    *slot = i;
    return true;
}

int cvq_temp_create(char *path, int *slot) {
    sigset_t all, before; /* no signal between the file's birth and its entry in the table */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    int fd = mkostemp(path, O_CLOEXEC);
    int saved = errno;
    if (fd >= 0 && !cvq_temp_note(path, slot)) {
        unlink(path);
        close(fd);
        fd = -1;
        saved = EMFILE;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return fd;
}

void cvq_temp_forget(int slot) {
    if (slot >= 0) temp_files[slot].used = 0;
}
