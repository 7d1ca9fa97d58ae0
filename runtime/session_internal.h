/* A session from the inside. */
#ifndef CVQ_RUNTIME_SESSION_INTERNAL_H
#define CVQ_RUNTIME_SESSION_INTERNAL_H

#define CVQ_UNSTABLE
#include "base/half.h"
#include "base/memory.h"
#include "runtime/image_prefix.h"
#include "runtime/language.h"
#include "runtime/residency.h"

/* A session's options without defaults. */
typedef struct cvq_resolved_options {
    size_t context;
    cvq_slot_settings settings;
    int threads;
} cvq_resolved_options;

cvq_status cvq_session_resolve(cvq_resolved_options *r, const cvq_model *m,
                               const cvq_session_options *options, cvq_error *err);
/* The most rows that go through the decoder's layers at once. */
size_t cvq_most_rows(const cvq_model *m, size_t context);
/* How many of the file's first bytes are to stay in memory, in each phase. */
typedef struct cvq_kept {
    uint64_t encode, decoder;
} cvq_kept;
cvq_kept cvq_memory_plan_make(const cvq_model *m, const cvq_resolved_options *r, cvq_memory *p);

/* How far the running phase is. */
typedef struct cvq_pace {
    cvq_phase phase;
    uint64_t done, total, before; /* steps; those of earlier stretches */
    double work_done, work;
    double start, reported; /* when what is counted began; when it was told last */
} cvq_pace;

struct cvq_session {
    cvq_model *model;
    const cvq_model_config *config;
    size_t context;
    cvq_slot_settings settings;
    atomic_int cancelled;
    cvq_engine engine;
    cvq_residency *residency;
    cvq_kept kept;
    cvq_decoder decoder;
    float *inv_freq; /* if recomputed */

    /* What the KV cache holds: ids of slots [0, held), and the picture in them. */
    int32_t *ids; /* [context] */
    size_t held, image_slots;
    cvq_image *image;
    float *logits; /* [vocab_size] of slot held - 1 */
    bool logits_ready;
    bool anew; /* the next sync computes what is not held, whatever a picture keeps */

    cvq_progress_fn progress;
    void *progress_context;
    cvq_pace pace;
    double phase_start, encode_s, prefill_s;
};

/* On the way out of a public call: a cancellation has done its work when a call returns it. */
cvq_status cvq_session_finish(cvq_session *s, cvq_status status);
/* Seconds of a clock that only goes forward. */
double cvq_now(void);
/* runtime/phase.c: total steps; work in multiplications, 0 where steps are all that is known. */
void cvq_phase_begin(cvq_session *s, cvq_phase phase, uint64_t total, double work);
/* A cvq_step_fn whose context is the session. */
int cvq_phase_step(void *context, uint64_t done, uint64_t total);
/* An engine's `worked`. */
void cvq_phase_worked(void *context, double work);

#endif
