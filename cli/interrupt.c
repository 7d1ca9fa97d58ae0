/* Signal handlers do only what is async-signal-safe: set a flag, call cvq_session_cancel, unlink
 * files whose names stand in a fixed table; and before the end open, read and write. */
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
static const char *program_name = "cvq";
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

/* ---------------------------------------------------------------- a mapped file that is gone */

#define MAPS_LINE (PATH_MAX + 128)

/* A line of /proc/self/maps: "from-to rights offset device inode    path". -> the path of the one
 * that holds the address, or NULL. */
static const char *path_of_mapping(char *line, uintptr_t address) {
    uintptr_t ends[2] = {0, 0};
    for (int i = 0; i < 2; i++, line++)
        for (; (*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f'); line++)
            ends[i] = ends[i] << 4 | (uintptr_t)(*line <= '9' ? *line - '0' : *line - 'a' + 10);
    return address >= ends[0] && address < ends[1] ? strchr(line, '/') : NULL;
}

static void say(const char *text) {
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n; /* there is nobody else to be told */
}

/* The file that is mapped at an address; "a file" where the system does not say. */
static void say_mapped_file(uintptr_t address) {
    static char line[MAPS_LINE];
    char bytes[512];
    size_t length = 0;
    const char *path = NULL;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && !path && (n = read(fd, bytes, sizeof bytes)) > 0;)
        for (ssize_t i = 0; i < n && !path; i++) {
            if (bytes[i] != '\n') {
                const bool control = (unsigned char)bytes[i] < 0x20 || bytes[i] == 0x7f;
                if (length + 1 < sizeof line) line[length++] = control ? '?' : bytes[i];
                continue;
            }
            line[length] = 0;
            length = 0;
            path = path_of_mapping(line, address);
        }
    if (fd >= 0) close(fd);
    say(path ? path : "a file");
}

/* A page of a mapped file cannot be read: the file was cut off, or its disk fails. There is no way
 * back into the loop that wanted it. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
    static atomic_flag dying = ATOMIC_FLAG_INIT;
    (void)number, (void)context;
    if (atomic_flag_test_and_set(&dying))
        for (;;) pause(); /* another thread is at it */
    say(program_name);
    say(": ");
    say_mapped_file((uintptr_t)info->si_addr);
    say(": a part that was there when it was opened cannot be read any more: the file was cut off "
        "or replaced in place, or its disk fails; get it again and leave it alone meanwhile\n");
    remove_temp_files();
    _exit(CVQ_EXIT_FAILED);
}

/* ---------------------------------------------------------------- the door */

void cvq_interrupt_install(const char *program) {
    owner = getpid();
    program_name = program;
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
    action = (struct sigaction){.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
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
