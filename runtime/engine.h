/* What every operation of a session needs: kernels, threads, precision, scratch memory, the flag
 * that stops it, the observer. */
#ifndef CVQ_RUNTIME_ENGINE_H
#define CVQ_RUNTIME_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "cvq.h"
#include "runtime/kernels/kernels.h"

/* The observer's functions have the types of cvq.h (its unstable section). */
typedef struct cvq_observer {
    int (*wants)(void *context, const char *name);
    void (*sees)(void *context, const char *name, size_t first, size_t rows, size_t cols,
                 const float *values);
    void *context;
} cvq_observer;

typedef struct cvq_engine {
    const cvq_kernels *k;
    int threads;
    bool fast; /* int8 activations where weights are quantized */
    const atomic_int
        *stop; /* nonzero: units of work return at once; the layer loop then says CVQ_CANCELLED */
    cvq_observer observer;           /* wants NULL: nobody looks */
    struct cvq_residency *residency; /* of the weights' file; NULL: they are elsewhere */
    /* Told from the thread of the call how many multiplications were done; or NULL. */
    void (*worked)(void *context, double multiplications);
    void *worked_context;
    float *scratch; /* [threads][CVQ_SCRATCH_FLOATS], 64-byte aligned */
} cvq_engine;

#define CVQ_SCRATCH_FLOATS ((size_t)196608) /* 768 KiB a thread: the largest user is attention */

cvq_status cvq_engine_open(cvq_engine *e, const cvq_kernels *kernels, int threads, bool fast,
                           const atomic_int *stop, cvq_error *err);
void cvq_engine_close(cvq_engine *e);

static inline float *cvq_engine_scratch(const cvq_engine *e, int thread) {
    return e->scratch + (size_t)thread * CVQ_SCRATCH_FLOATS;
}
static inline bool cvq_engine_stopped(const cvq_engine *e) {
    return atomic_load_explicit(e->stop, memory_order_relaxed) != 0;
}
static inline void cvq_engine_worked(const cvq_engine *e, double multiplications) {
    if (e->worked) e->worked(e->worked_context, multiplications);
}
/* CVQ_CANCELLED once the flag is up. */
cvq_status cvq_engine_check(const cvq_engine *e, cvq_error *err);

/* Show rows [first, first + rows) of a tensor to the observer, if there is one that wants it. rows
 * of `ld` floats, cols of them shown; they are handed over contiguous. */
void cvq_engine_show(const cvq_engine *e, const char *name, size_t first, size_t rows, size_t cols,
                     const float *values, size_t ld);
bool cvq_engine_wants(const cvq_engine *e, const char *name);

/* Rows in parallel: fn(context, row). For norms and the like, where a unit is small: rows go out in
 * runs. */
typedef void (*cvq_row_fn)(void *context, const cvq_engine *e, size_t row);
void cvq_engine_rows(const cvq_engine *e, size_t rows, cvq_row_fn fn, void *context);

#endif
