/* Greedy along convex hulls: for a sum of losses under one budget this is what a Lagrange
 * multiplier finds, up to the last step that does not fit. */
#include "quant/allocate.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"

/* From one size of a thing to a larger one, which gains most for a byte. */
typedef struct step {
    size_t thing;
    int to;
    uint64_t bytes; /* more */
    double gain;    /* of loss, for a byte */
} step;

static double slope(const cvq_sizes *t, int from, int to) {
    return (t->loss[from] - t->loss[to]) / (double)(t->bytes[to] - t->bytes[from]);
}

/* The next corner of the lower hull; -1 where nothing larger is better. */
static int next_corner(const cvq_sizes *t, int from) {
    int best = -1;
    for (int to = from + 1; to < t->count; to++) {
        if (t->bytes[to] <= t->bytes[from] || t->loss[to] >= t->loss[from]) continue;
        if (best < 0 || slope(t, from, to) >= slope(t, from, best)) best = to;
    }
    return best;
}

/* By gain; of equals the first thing, and of one thing the earlier step, first. */
static int by_gain(const void *a, const void *b) {
    const step *x = a, *y = b;
    if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1;
    if (x->thing != y->thing) return x->thing < y->thing ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

/* What still fits, the largest gain first, until nothing does. */
static void fill(cvq_sizes *things, size_t n, uint64_t budget, uint64_t *used) {
    for (;;) {
        size_t best = n;
        int best_to = 0;
        double most = 0;
        for (size_t i = 0; i < n; i++) {
            const cvq_sizes *t = &things[i];
            for (int to = t->chosen + 1; to < t->count; to++) {
                const double gain = t->loss[t->chosen] - t->loss[to];
                if (t->bytes[to] - t->bytes[t->chosen] > budget - *used || gain <= most) continue;
                most = gain;
                best = i;
                best_to = to;
            }
        }
        if (best == n) return;
        *used += things[best].bytes[best_to] - things[best].bytes[things[best].chosen];
        things[best].chosen = best_to;
    }
}

cvq_status cvq_allocate(cvq_sizes *things, size_t n, uint64_t budget, uint64_t *used,
                        cvq_error *err) {
    void *memory;
    size_t count = 0;
    *used = 0;
    for (size_t i = 0; i < n; i++) {
        things[i].chosen = 0;
        *used += things[i].bytes[0];
    }
    if (*used > budget)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "", "the smallest sizes do not fit");
    CVQ_TRY(cvq_alloc(&memory, n, CVQ_MAX_SIZES * sizeof(step), "the steps", err));
    step *steps = memory;
    for (size_t i = 0; i < n; i++) {
        const cvq_sizes *t = &things[i];
        for (int from = 0, to; (to = next_corner(t, from)) >= 0; from = to)
            steps[count++] = (step){i, to, t->bytes[to] - t->bytes[from], slope(t, from, to)};
    }
    qsort(steps, count, sizeof *steps, by_gain);
    for (size_t s = 0; s < count; s++) {
        cvq_sizes *t = &things[steps[s].thing];
        const uint64_t more = t->bytes[steps[s].to] - t->bytes[t->chosen];
        if (more > budget - *used) continue;
        *used += more;
        t->chosen = steps[s].to;
    }
    free(memory);
    fill(things, n, budget, used);
    return CVQ_OK;
}
