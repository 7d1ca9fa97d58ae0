/* How far a phase has come, and what is told about it: layer by layer, and between two layers of a
 * large picture too, so that time left is known from the first second. Work is counted in
 * multiplications: matrices and attention, which take all of the time, run at about the same rate.
 */
#include <time.h>

#include "runtime/session_internal.h"

#define REPORT_INTERVAL 0.1 /* seconds between two reports within a layer */

double cvq_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int report(cvq_session *s) {
    cvq_pace *p = &s->pace;
    double passed = p->reported - p->start, left = -1;
    if (!s->progress) return 0;
    if (p->done == p->total)
        left = 0;
    else if (p->work_done > 0)
        left = p->work_done < p->work ? passed / p->work_done * (p->work - p->work_done) : 0;
    else if (p->work == 0 && p->done > 0)
        left = passed / (double)p->done * (double)(p->total - p->done);
    return s->progress(s->progress_context, p->phase, p->done, p->total, left);
}

void cvq_phase_begin(cvq_session *s, cvq_phase phase, uint64_t total, double work) {
    double now = cvq_now();
    s->phase_start = now;
    s->pace =
        (cvq_pace){.phase = phase, .start = now, .reported = now, .total = total, .work = work};
    if (phase != CVQ_PHASE_DECODE && report(s)) cvq_session_cancel(s);
}

int cvq_phase_step(void *context, uint64_t done, uint64_t total) {
    cvq_session *s = context;
    cvq_pace *p = &s->pace;
    (void)total;
    p->reported = cvq_now();
    p->done = p->before + done;
    if (p->phase == CVQ_PHASE_ENCODE && done == 1) { /* patches, which say nothing about layers */
        p->start = p->reported;
        p->work_done = 0;
    }
    return report(s);
}

void cvq_phase_worked(void *context, double work) {
    cvq_session *s = context;
    cvq_pace *p = &s->pace;
    if (p->phase == CVQ_PHASE_DECODE || p->done == p->total) return;
    if (p->phase == CVQ_PHASE_ENCODE && p->done == 0) return;
    p->work_done += work;
    double now = cvq_now();
    if (now - p->reported < REPORT_INTERVAL) return;
    p->reported = now;
    if (report(s)) cvq_session_cancel(s);
}
