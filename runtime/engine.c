/* Opening an engine, running rows in parallel, showing tensors to the observer. */
#include "runtime/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"

cvq_status cvq_engine_open(cvq_engine *e, const cvq_kernels *kernels, int threads, bool fast,
                           const atomic_int *stop, cvq_error *err) {
    void *scratch;
    CVQ_TRY(cvq_alloc(&scratch, (uint64_t)threads, CVQ_SCRATCH_FLOATS * sizeof(float),
                      "scratch memory of the threads", err));
    *e = (cvq_engine){
        .k = kernels, .threads = threads, .fast = fast, .stop = stop, .scratch = scratch};
    return CVQ_OK;
}

void cvq_engine_close(cvq_engine *e) {
    free(e->scratch);
    e->scratch = NULL;
}

cvq_status cvq_engine_check(const cvq_engine *e, cvq_error *err) {
    return cvq_engine_stopped(e) ? cvq_fail(err, CVQ_CANCELLED, NULL, "cancelled") : CVQ_OK;
}

bool cvq_engine_wants(const cvq_engine *e, const char *name) {
    return e->observer.wants && e->observer.wants(e->observer.context, name) != 0;
}

void cvq_engine_show(const cvq_engine *e, const char *name, size_t first, size_t rows, size_t cols,
                     const float *values, size_t ld) {
    if (!cvq_engine_wants(e, name)) return;
    const cvq_observer *o = &e->observer;
    if (ld == cols) {
        o->sees(o->context, name, first, rows, cols, values);
        return;
    }
    for (size_t r = 0; r < rows; r++)
        o->sees(o->context, name, first + r, 1, cols, values + r * ld);
}

typedef struct row_job {
    const cvq_engine *e;
    cvq_row_fn fn;
    void *context;
    size_t rows, run;
} row_job;

static void row_unit(void *context, size_t unit, int thread) {
    const row_job *job = context;
    (void)thread;
    size_t first = unit * job->run, end = first + job->run;
    if (end > job->rows) end = job->rows;
    if (cvq_engine_stopped(job->e)) return;
    for (size_t r = first; r < end; r++) job->fn(job->context, job->e, r);
}

void cvq_engine_rows(const cvq_engine *e, size_t rows, cvq_row_fn fn, void *context) {
    row_job job = {e, fn, context, rows, 16};
    cvq_parallel_for(e->threads, (rows + job.run - 1) / job.run, row_unit, &job);
}
