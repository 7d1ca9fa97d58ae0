/* All threads of cvq: one pool for what computes, and now and then one for what waits. */
#ifndef CVQ_BASE_PARALLEL_H
#define CVQ_BASE_PARALLEL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* Work on unit `index` of n; `thread` is 0 .. threads - 1, for per-thread scratch memory. */
typedef void (*cvq_parallel_fn)(void *context, size_t index, int thread);

/* Call fn for 0 .. n - 1, each once, units handed out dynamically in order; returns when all are
 * done. With threads = 1 or n = 1 it runs in the caller. What is computed must not depend on which
 * thread takes which unit. */
void cvq_parallel_for(int threads, size_t n, cvq_parallel_fn fn, void *context);

/* A helper beside the loops, to be joined; it gets no signals. False: there is no thread to be had.
 */
bool cvq_thread_start(pthread_t *thread, void *(*fn)(void *), void *context);

/* Physical cores that this process may use: affinity, hyper-threads and cgroup quota (v1 and v2)
 * are heeded. At least 1. */
int cvq_default_threads(void);

#define CVQ_MAX_THREADS 256

#endif
