/* Decoding in a child process that can do nothing but decode.
 *
 * stb_image 2.27, which distributions ship, has known memory errors. So the child gets everything
 * beforehand: one anonymous mapping shared with the parent holds the report, the input and the
 * arena of all allocations. It closes every file, drops to a system call filter that allows nothing
 * but exit (Linux; elsewhere, or where the filter is refused, limits on files, processes, time and
 * file sizes remain), decodes, and exits. Memory cannot grow beyond the arena, which is sized for
 * an honest picture and committed only as it is touched. The parent believes nothing in the report
 * that it has not checked.
 *
 * The child is forked from a process that may have threads: until _exit it calls nothing that
 * takes a lock or allocates. Signals stay blocked in it, so that the parent's handlers never run
 * there; the parent's death kills it (Linux). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "imageio/picture_internal.h"

#ifdef __linux__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

/* Valgrind, too, makes system calls of its own inside the child. */
#ifdef __has_include
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef RUNNING_ON_VALGRIND
#define RUNNING_ON_VALGRIND 0
#endif

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

/* A sanitizer makes system calls of its own, and its report needs stderr. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* At the start of the mapping, written by the child. */
typedef struct report {
    uint32_t finished; /* 1: decoded, 2: refused with a reason */
    int32_t width, height;
    uint64_t rgb; /* offset in the mapping */
    char reason[64];
} report;
enum { REPORT_BYTES = 256, DECODED = 1, REFUSED = 2 };
_Static_assert(sizeof(report) <= REPORT_BYTES, "the report fits its place");

#if defined(__linux__) && defined(__x86_64__)
#define FILTER_ARCH AUDIT_ARCH_X86_64
#elif defined(__linux__) && defined(__aarch64__)
#define FILTER_ARCH AUDIT_ARCH_AARCH64
#endif

/* Everything but exit kills. Where the kernel refuses the filter the child goes on without. */
static void forbid_system_calls(void) {
#ifdef FILTER_ARCH
    static struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FILTER_ARCH, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    static const struct sock_fprog filter = {sizeof program / sizeof *program, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        (void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
#endif
}

/* A macro, since the type of a resource's name differs between systems. */
#define LIMIT(resource, soft, hard) (void)setrlimit(resource, &(struct rlimit){(soft), (hard)})

/* Every file but the pipe, whose end tells the parent that the child is gone. */
static void close_files(int keep) {
    int first = SANITIZED ? 3 : 0;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, keep + 1, ~0U, 0) == 0 &&
        (keep == first || syscall(SYS_close_range, first, keep - 1, 0) == 0))
        return;
#endif
    struct rlimit files = {0, 0};
    (void)getrlimit(RLIMIT_NOFILE, &files);
    const int end = files.rlim_cur < 65536 ? (int)files.rlim_cur : 65536;
    for (int fd = first; fd < end; fd++)
        if (fd != keep) close(fd);
}

static void give_up_rights(int keep, unsigned max_seconds) {
#ifdef __linux__
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
#endif
    close_files(keep);
    LIMIT(RLIMIT_CORE, 0, 0);
    LIMIT(RLIMIT_FSIZE, 0, 0);
    LIMIT(RLIMIT_NOFILE, 0, 0);
#ifdef RLIMIT_NPROC
    LIMIT(RLIMIT_NPROC, 0, 0);
#endif
    /* SIGXCPU alone is let through: it kills at the soft limit, and names the cause. */
    sigset_t time_is_up;
    sigemptyset(&time_is_up);
    sigaddset(&time_is_up, SIGXCPU);
    signal(SIGXCPU, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &time_is_up, NULL);
    LIMIT(RLIMIT_CPU, max_seconds, (rlim_t)max_seconds + 1);
    if (!SANITIZED && !RUNNING_ON_VALGRIND) forbid_system_calls();
}

static _Noreturn void child(uint8_t *mapping, size_t mapping_bytes, size_t input_bytes, int keep,
                            unsigned max_seconds) {
    report *r = (report *)(void *)mapping;
    give_up_rights(keep, max_seconds);
    const size_t arena = cvq_round_up(REPORT_BYTES + input_bytes, 64);
    int width = 0, height = 0;
    const char *reason = NULL;
    const uint8_t *rgb = cvq_stb_decode(mapping + REPORT_BYTES, input_bytes, mapping + arena,
                                        mapping_bytes - arena, &width, &height, &reason);
    if (rgb) {
        r->width = width;
        r->height = height;
        r->rgb = (uint64_t)(rgb - mapping);
        r->finished = DECODED;
    } else {
        for (size_t i = 0; reason && reason[i] && i + 1 < sizeof r->reason; i++)
            r->reason[i] = reason[i];
        r->finished = REFUSED;
    }
    _exit(0);
}

/* How the child ended. */
typedef struct ending {
    bool known, overdue; /* its status could be had; the parent's clock ran out */
    int status;
} ending;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Wait until the child is gone; kill it after `seconds` on the wall clock. The pipe's end wakes
 * this up at once; asking every now and then as well covers a pipe end that another fork holds. */
static ending wait_for(pid_t pid, int pipe_end, double seconds) {
    ending e = {0};
    const double deadline = now() + seconds;
    bool open = true;
    for (;;) {
        struct pollfd p = {pipe_end, POLLIN, 0};
        (void)poll(&p, open ? 1 : 0, open ? 50 : 1);
        if (p.revents) open = false;
        const pid_t got = waitpid(pid, &e.status, e.overdue ? 0 : WNOHANG);
        if (got == pid) {
            e.known = true;
            return e;
        }
        if (got < 0 && errno != EINTR) return e; /* reaped elsewhere: SIGCHLD is ignored */
        if (!e.overdue && now() > deadline) {
            e.overdue = true;
            kill(pid, SIGKILL);
        }
    }
}

static cvq_status judge(const report *r, const ending *e, const cvq_picture_stream *stream,
                        size_t mapping_bytes, unsigned max_seconds, const char *path,
                        cvq_error *err) {
    const bool killed = e->known && WIFSIGNALED(e->status);
    if (e->overdue || (killed && WTERMSIG(e->status) == SIGXCPU))
        return cvq_fail(err, CVQ_FORMAT, path,
                        "decoding was stopped after %u seconds: the file is made to take long, or "
                        "the limit is too low for it" CVQ_SAVE_ANEW,
                        max_seconds);
    if (killed && WTERMSIG(e->status) == SIGKILL)
        return cvq_fail(
            err, CVQ_OUT_OF_MEMORY, path,
            "the decoder was killed; most likely the machine ran out of memory: make the "
            "picture smaller or end other programs");
    if (killed)
        return cvq_fail(
            err, CVQ_FORMAT, path,
            "the decoder crashed on it (signal %d): a damaged or a hostile file" CVQ_SAVE_ANEW,
            WTERMSIG(e->status));
    if (e->known && (!WIFEXITED(e->status) || WEXITSTATUS(e->status) != 0))
        return cvq_fail(err, CVQ_FORMAT, path,
                        "the decoder gave up on it: a damaged file" CVQ_SAVE_ANEW);
    if (r->finished == REFUSED) {
        char reason[sizeof r->reason] = "no reason given"; /* untrusted: printable ASCII alone */
        for (size_t i = 0; i + 1 < sizeof reason && r->reason[i]; i++) {
            reason[i] = r->reason[i] >= ' ' && r->reason[i] <= '~' ? r->reason[i] : '?';
            reason[i + 1] = 0;
        }
        if (strcmp(reason, "outofmem") == 0)
            return cvq_fail(
                err, CVQ_FORMAT, path,
                "a damaged file: it holds more data than %zu x %zu pixels need" CVQ_SAVE_ANEW,
                stream->width, stream->height);
        return cvq_fail(err, CVQ_FORMAT, path,
                        "a damaged file: it cannot be decoded (%s)" CVQ_SAVE_ANEW, reason);
    }
    const uint64_t bytes = (uint64_t)stream->width * stream->height * 3;
    if (r->finished != DECODED || r->width < 1 || r->height < 1 ||
        (size_t)r->width != stream->width || (size_t)r->height != stream->height ||
        r->rgb < REPORT_BYTES || !cvq_range_within(r->rgb, bytes, mapping_bytes))
        return cvq_fail(err, CVQ_FORMAT, path,
                        "the decoder's result makes no sense: a hostile file");
    return CVQ_OK;
}

/* Fork with all signals blocked; the child keeps them so. Returns the child's process, or -1 with
 * errno. */
static pid_t start_child(uint8_t *mapping, size_t mapping_bytes, size_t input_bytes,
                         const int ends[2], unsigned max_seconds) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const pid_t pid = fork();
    if (pid == 0) child(mapping, mapping_bytes, input_bytes, ends[1], max_seconds);
    const int saved = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

cvq_status cvq_decode_in_child(cvq_decoded *decoded, const cvq_picture_stream *stream,
                               unsigned max_seconds, const char *path, cvq_error *err) {
    uint64_t total;
    size_t bytes;
    if (!cvq_add_u64(stream->decoder_bytes, stream->bytes.size + REPORT_BYTES + 64, &total) ||
        !cvq_to_size(total, &bytes))
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, path, "too large for the address space");

    void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return cvq_fail_errno(err, path, "no memory to decode it: mapping %zu bytes", bytes);
    memcpy((uint8_t *)mapping + REPORT_BYTES, stream->bytes.data, stream->bytes.size);

    int ends[2] = {-1, -1};
    cvq_status status = CVQ_OK;
    if (pipe(ends) != 0) {
        status = cvq_fail_errno(err, path, "cannot make a pipe to its decoder");
        goto done;
    }
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    const pid_t pid = start_child(mapping, bytes, stream->bytes.size, ends, max_seconds);
    close(ends[1]);
    ends[1] = -1;
    if (pid < 0) {
        status = cvq_fail_errno(err, path, "cannot start the process that decodes it");
        goto done;
    }
    const ending e = wait_for(pid, ends[0], 2.0 * max_seconds + 5);
    const report *r = mapping;
    status = judge(r, &e, stream, bytes, max_seconds, path, err);
    if (status == CVQ_OK) *decoded = (cvq_decoded){(uint8_t *)mapping + r->rgb, mapping, bytes};
done:
    if (ends[0] >= 0) close(ends[0]);
    if (status != CVQ_OK) munmap(mapping, bytes);
    return status;
}

void cvq_decoded_free(cvq_decoded *decoded) {
    if (!decoded || !decoded->mapping) return;
    munmap(decoded->mapping, decoded->mapping_bytes);
    *decoded = (cvq_decoded){0};
}
