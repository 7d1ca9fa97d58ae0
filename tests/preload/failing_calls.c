/* Preloaded into a command (LD_PRELOAD), this makes its calls of the system and of the allocator
 * fail as a plan says, or sends the command a signal at one of them: a file, named by
 * CVQ_FAIL_PLAN, that is mapped and shared with the test that starts the command. All calls are
 * counted there, those of forked children too. tests/failing_calls.py holds the other half. For
 * glibc.
 *
 * With CVQ_FAIL_SERVE the command does not begin at once: it forks for every byte that comes from
 * one pipe, and a child goes on, so that loading and linking are done once for thousands of runs.
 * Of each it tells the child's process and then its exit status, as two int32, through another
 * pipe. Standard input is read from its beginning each time; whoever asks has emptied the others.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum kind {
    MEMORY,
    OPEN,
    READ,
    SCAN,
    WRITE,
    PRINT,
    SYNC,
    NAME,
    MAP,
    LENGTH,
    LOOK,
    START,
    KINDS
} kind;
typedef enum mode {
    ONCE,        /* call number `at` fails */
    FROM,        /* it and all later ones */
    SHORT,       /* reads and writes do at most half of what they are asked for */
    INTERRUPTED, /* every second call fails with EINTR */
    SIGNALLED    /* in front of call number `at` the process gets the signal */
} mode;

enum { NOTED = 65536 }; /* calls of a kind whose way is noted */

typedef struct plan {
    uint32_t kind;
    uint16_t mode, signal;
    uint64_t at;
    _Atomic uint64_t failed, calls[KINDS];
    /* Of each call, where the file has room for it: a hash of those frames of its stack that are in
     * the program itself. */
    uint32_t ways[KINDS][NOTED];
} plan;

static plan *shared;
static bool noting, tracing;
static uintptr_t program_start, program_end;
static _Thread_local bool inside; /* of what is called here: it does not count */

/* The first that is listed is the program. */
static int find_program(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size, (void)context;
    program_start = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        const uintptr_t end = info->dlpi_addr + h->p_vaddr + h->p_memsz;
        if (h->p_type == PT_LOAD && end > program_end) program_end = end;
    }
    return 1;
}

/* Returns in the children only; ends when there is nobody left to ask. from, to: the pipes. */
static void serve(int from, int to) {
    char byte;
    int32_t told;
    inside = true; /* none of this counts */
    while (read(from, &byte, 1) == 1) {
        const pid_t child = fork();
        if (child == 0) {
            close(from);
            close(to);
            lseek(0, 0, SEEK_SET);
            inside = false;
            return;
        }
        int status = -1;
        told = (int32_t)child;
        if (write(to, &told, sizeof told) != sizeof told || waitpid(child, &status, 0) != child)
            break;
        told = (int32_t)status;
        if (write(to, &told, sizeof told) != sizeof told) break;
    }
    _exit(0);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CVQ_FAIL_PLAN");
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    dl_iterate_phdr(find_program, NULL);
    tracing = getenv("CVQ_FAIL_TRACE") != NULL; /* say on stderr where a call failed */
    noting = lseek(fd, 0, SEEK_END) == sizeof(plan);
    void *p = mmap(NULL, sizeof(plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED) shared = p;
    int from, to;
    const char *pipes = getenv("CVQ_FAIL_SERVE");
    if (pipes && sscanf(pipes, "%d,%d", &from, &to) == 2) serve(from, to);
}

static void note_way(uint32_t *way) {
    void *frames[48];
    const int n = backtrace(frames, 48);
    uint64_t hash = 1;
    for (int i = 0; i < n; i++) {
        const uintptr_t at = (uintptr_t)frames[i];
        if (at >= program_start && at < program_end) hash = (hash ^ at) * 0x9e3779b97f4a7c15u;
    }
    *way = (uint32_t)(hash >> 32);
}

static void say_where(void) {
    void *frames[48];
    backtrace_symbols_fd(frames, backtrace(frames, 48), 2);
}

/* Whether this call fails, and errno then. */
static bool fails(kind k, int code) {
    if (!shared || inside) return false;
    const uint64_t n = atomic_fetch_add(&shared->calls[k], 1) + 1;
    inside = true;
    if (noting && n <= NOTED) note_way(&shared->ways[k][n - 1]);
    bool now = false;
    if (shared->kind == k && shared->mode == ONCE) now = n == shared->at;
    if (shared->kind == k && shared->mode == FROM) now = n >= shared->at;
    if (shared->kind == k && shared->mode == INTERRUPTED) now = n % 2 == 1;
    if (now) atomic_fetch_add(&shared->failed, 1);
    if (now && tracing) say_where();
    inside = false;
    if (shared->kind == k && shared->mode == SIGNALLED && n == shared->at)
        kill(getpid(), shared->signal);
    if (now) errno = shared->mode == INTERRUPTED ? EINTR : code;
    return now;
}

/* How much of a transfer is done. */
static size_t part(kind k, size_t size) {
    if (!shared || inside || shared->mode != SHORT || shared->kind != k || size < 2) return size;
    atomic_fetch_add(&shared->failed, 1);
    return size / 2;
}

static void *find(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) _exit(125);
    return found;
}

/* A function of the same name that fails as planned, and else calls the one it hides. */
#define HIDE(kind, code, failure, result, name, parameters, arguments)                             \
    result name parameters {                                                                       \
        static result(*hidden) parameters;                                                         \
        if (!hidden) *(void **)&hidden = find(#name);                                              \
        if (fails(kind, code)) return failure;                                                     \
        return hidden arguments;                                                                   \
    }

HIDE(MEMORY, ENOMEM, NULL, void *, malloc, (size_t size), (size))
HIDE(MEMORY, ENOMEM, NULL, void *, calloc, (size_t n, size_t size), (n, size))
HIDE(MEMORY, ENOMEM, NULL, void *, realloc, (void *p, size_t size), (p, size))
HIDE(MEMORY, ENOMEM, NULL, void *, aligned_alloc, (size_t unit, size_t size), (unit, size))
HIDE(MEMORY, ENOMEM, ENOMEM, int, posix_memalign, (void **p, size_t unit, size_t size),
     (p, unit, size))

HIDE(OPEN, EMFILE, NULL, FILE *, fopen, (const char *restrict path, const char *restrict how),
     (path, how))
HIDE(OPEN, EMFILE, NULL, DIR *, opendir, (const char *path), (path))
HIDE(OPEN, EMFILE, -1, int, mkostemp, (char *path, int flags), (path, flags))
int open(const char *path, int flags, ...) {
    static int (*hidden)(const char *, int, ...);
    va_list list;
    va_start(list, flags);
    const mode_t rights = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    if (!hidden) *(void **)&hidden = find("open");
    return fails(OPEN, EMFILE) ? -1 : hidden(path, flags, rights);
}

HIDE(READ, EIO, -1, ssize_t, read, (int fd, void *data, size_t size), (fd, data, part(READ, size)))
HIDE(READ, EIO, -1, ssize_t, pread, (int fd, void *data, size_t size, off_t at),
     (fd, data, part(READ, size), at))
HIDE(SCAN, EIO, NULL, struct dirent *, readdir, (DIR * folder), (folder))
HIDE(SCAN, EIO, (f->_flags |= _IO_ERR_SEEN, NULL), char *, fgets,
     (char *restrict line, int size, FILE *restrict f), (line, size, f))
HIDE(SCAN, EIO, (f->_flags |= _IO_ERR_SEEN, (size_t)0), size_t, fread,
     (void *restrict data, size_t size, size_t n, FILE *restrict f), (data, size, n, f))
HIDE(SCAN, EIO, (f->_flags |= _IO_ERR_SEEN, -1), ssize_t, __getdelim,
     (char **restrict line, size_t *restrict size, int end, FILE *restrict f), (line, size, end, f))

HIDE(WRITE, ENOSPC, -1, ssize_t, write, (int fd, const void *data, size_t size),
     (fd, data, part(WRITE, size)))
HIDE(WRITE, ENOSPC, -1, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at),
     (fd, data, part(WRITE, size), at))
HIDE(PRINT, ENOSPC, EOF, int, fflush, (FILE * f), (f))

HIDE(SYNC, EIO, -1, int, fsync, (int fd), (fd))
HIDE(NAME, EIO, -1, int, rename, (const char *from, const char *to), (from, to))
HIDE(NAME, EACCES, -1, int, mkdir, (const char *path, mode_t rights), (path, rights))
HIDE(MAP, ENOMEM, MAP_FAILED, void *, mmap,
     (void *p, size_t size, int rights, int flags, int fd, off_t at),
     (p, size, rights, flags, fd, at))
/* Advice to the system: nothing may depend on whether it is taken. */
HIDE(MAP, EAGAIN, -1, int, mlock, (const void *p, size_t size), (p, size))
HIDE(MAP, EAGAIN, -1, int, madvise, (void *p, size_t size, int advice), (p, size, advice))
HIDE(LENGTH, EIO, -1, int, ftruncate, (int fd, off_t size), (fd, size))
HIDE(LENGTH, ENOSPC, -1, int, fallocate, (int fd, int how, off_t at, off_t size),
     (fd, how, at, size))

HIDE(LOOK, EIO, -1, int, stat, (const char *restrict path, struct stat *restrict st), (path, st))
HIDE(LOOK, EIO, -1, int, lstat, (const char *restrict path, struct stat *restrict st), (path, st))
HIDE(LOOK, EIO, -1, int, fstat, (int fd, struct stat *st), (fd, st))
HIDE(LOOK, EIO, -1, int, fstatat,
     (int folder, const char *restrict path, struct stat *restrict st, int how),
     (folder, path, st, how))
HIDE(LOOK, EIO, -1, int, fstatvfs, (int fd, struct statvfs *fs), (fd, fs))
HIDE(LOOK, ENOLCK, -1, int, flock, (int fd, int how), (fd, how))

HIDE(START, EAGAIN, -1, pid_t, fork, (void), ())
HIDE(START, EMFILE, -1, int, pipe, (int ends[2]), (ends))
HIDE(START, ENOMEM, -1, int, poll, (struct pollfd * files, nfds_t n, int ms), (files, n, ms))
HIDE(START, ECHILD, -1, pid_t, waitpid, (pid_t pid, int *status, int how), (pid, status, how))
HIDE(START, EAGAIN, EAGAIN, int, pthread_create,
     (pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*fn)(void *),
      void *restrict context),
     (thread, attributes, fn, context))
