/* The pool of threads behind every parallel loop, and how many threads a process should use.
 *
 * Why not OpenMP: its regions begin and end with a barrier of the whole team, so a loop of 20 us
 * waits for a thread that the system has taken away to run something else, and libgomp spins while
 * it waits (docs/speed.md has the figures). Here nobody is waited for who has taken no unit: units
 * come from one counter, a worker that wakes up late finds the loop closed, and waiting is a short
 * spin, then sleep. */
#include "base/parallel.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include "base/control_group.h"

/* ---------------------------------------------------------------- the pool */

/* Some 50 us: longer than the gap between two loops of a layer, shorter than anybody would notice.
 * A pause takes 40 to 140 cycles on x86, a yield on ARM next to none. */
#if defined(__x86_64__)
#define SPINS 2000
#else
#define SPINS 50000
#endif

/* One loop at a time. Everything but the atomics is written under the lock. */
static struct pool {
    pthread_mutex_t lock;
    pthread_cond_t begun, ended;
    int workers;       /* started; they never end */
    int asleep;        /* of them, waiting for `begun` */
    atomic_uint loops; /* how many have begun: workers watch it */
    bool open;         /* a worker may join the loop */
    int threads;       /* workers with a number below this join */
    atomic_int joined; /* workers inside */
    cvq_parallel_fn fn;
    void *context;
    size_t n;
    atomic_size_t next; /* the unit to be taken next */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .begun = PTHREAD_COND_INITIALIZER,
          .ended = PTHREAD_COND_INITIALIZER};

/* Held by whoever runs a loop; a loop inside a loop, or of another thread, finds it taken and runs
 * alone. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_units(int thread) {
    for (size_t i; (i = atomic_fetch_add(&pool.next, 1)) < pool.n;)
        pool.fn(pool.context, i, thread);
}

static void *work(void *number) {
    int thread = (int)(intptr_t)number;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&pool.loops) == seen; i++) pause_briefly();
        pthread_mutex_lock(&pool.lock);
        while (atomic_load(&pool.loops) == seen) {
            pool.asleep++;
            pthread_cond_wait(&pool.begun, &pool.lock);
            pool.asleep--;
        }
        seen = atomic_load(&pool.loops);
        bool join = pool.open && thread < pool.threads;
        if (join) atomic_fetch_add(&pool.joined, 1);
        pthread_mutex_unlock(&pool.lock);
        if (!join) continue;
        run_units(thread);
        /* The caller may be asleep only once it has closed the loop. */
        pthread_mutex_lock(&pool.lock);
        if (atomic_fetch_sub(&pool.joined, 1) == 1 && !pool.open) pthread_cond_signal(&pool.ended);
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

/* Signals are for the thread that the program itself runs on, except those of its own faults: were
 * they blocked, the system would end the process without asking its handler. */
bool cvq_thread_start(pthread_t *thread, void *(*fn)(void *), void *context) {
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&all, faults[i]);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return false;
    bool started = pthread_create(thread, NULL, fn, context) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* Fewer workers than asked for are enough. */
static void start_workers(int wanted) {
    pthread_t t;
    while (pool.workers < wanted) {
        if (!cvq_thread_start(&t, work, (void *)(intptr_t)(pool.workers + 1))) return;
        pthread_detach(t);
        pool.workers++;
    }
}

/* A child has no workers, and its copy of the locks may be taken by threads that it does not have.
 */
static void forget_workers(void) {
    pthread_mutex_init(&turn, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.begun, NULL);
    pthread_cond_init(&pool.ended, NULL);
    pool.workers = pool.asleep = 0;
    pool.open = false;
    atomic_store(&pool.joined, 0);
}

static void watch_forks(void) {
    (void)pthread_atfork(NULL, NULL, forget_workers);
}

static void begin_loop(int threads, size_t n, cvq_parallel_fn fn, void *context) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&pool.lock);
    start_workers(threads - 1);
    pool.fn = fn;
    pool.context = context;
    pool.n = n;
    pool.threads = threads;
    pool.open = true;
    atomic_store(&pool.next, 0);
    atomic_fetch_add(&pool.loops, 1);
    if (pool.asleep > 0) pthread_cond_broadcast(&pool.begun);
    pthread_mutex_unlock(&pool.lock);
}

static void end_loop(void) {
    pthread_mutex_lock(&pool.lock);
    pool.open = false;
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < SPINS && atomic_load(&pool.joined) > 0; i++) pause_briefly();
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.joined) > 0) pthread_cond_wait(&pool.ended, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void cvq_parallel_for(int threads, size_t n, cvq_parallel_fn fn, void *context) {
    if (threads > CVQ_MAX_THREADS) threads = CVQ_MAX_THREADS;
    if (n < (size_t)CVQ_MAX_THREADS && threads > (int)n) threads = (int)n;
    if (threads <= 1 || pthread_mutex_trylock(&turn) != 0) {
        for (size_t i = 0; i < n; i++) fn(context, i, 0);
        return;
    }
    begin_loop(threads, n, fn, context);
    run_units(0);
    end_loop();
    pthread_mutex_unlock(&turn);
}

/* ---------------------------------------------------------------- how many */

#if defined(__linux__)

/* Hyper-threads of one core count once: a processor counts if it is the lowest of its siblings that
 * may be used. */
static int usable_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int cores = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        char folder[96], line[256];
        snprintf(folder, sizeof folder, "/sys/devices/system/cpu/cpu%zu/topology", cpu);
        int counted = 0;
        if (cvq_system_line(folder, "thread_siblings_list", line, sizeof line)) {
            for (char *p = line; *p && !counted;) { /* "0,64" or "0-1" */
                char *end;
                long first = strtol(p, &end, 10), last = first;
                if (end == p) break;
                if (*end == '-') last = strtol(end + 1, &end, 10);
                for (long s = first; s <= last && s < (long)cpu; s++)
                    if (s >= 0 && CPU_ISSET((size_t)s, &set)) counted = 1;
                p = *end == ',' ? end + 1 : end + strlen(end);
            }
        }
        if (!counted) cores++;
    }
    return cores > 0 ? cores : 1;
}

/* The quota of one control group in cores, or 0 where it has none. */
static double quota_of(const char *folder) {
    char line[128];
    double quota, period;
    if (cvq_system_line(folder, "cpu.max", line, sizeof line))
        return sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0 ? quota / period : 0;
    if (!cvq_system_line(folder, "cpu.cfs_quota_us", line, sizeof line) ||
        sscanf(line, "%lf", &quota) != 1 || quota <= 0)
        return 0;
    if (!cvq_system_line(folder, "cpu.cfs_period_us", line, sizeof line) ||
        sscanf(line, "%lf", &period) != 1 || period <= 0)
        return 0;
    return quota / period;
}

static void least_quota(void *least, const char *folder) {
    double quota = quota_of(folder);
    if (quota > 0 && (*(double *)least == 0 || quota < *(double *)least)) *(double *)least = quota;
}

int cvq_default_threads(void) {
    int cores = usable_cores();
    double quota = 0;
    cvq_control_groups("cpu", least_quota, &quota);
    if (quota > 0 && ceil(quota) < cores) cores = (int)ceil(quota);
    if (cores > CVQ_MAX_THREADS) cores = CVQ_MAX_THREADS;
    return cores > 0 ? cores : 1;
}

#else

int cvq_default_threads(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > CVQ_MAX_THREADS ? CVQ_MAX_THREADS : (int)n;
}

#endif
