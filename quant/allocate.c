/* The multiple-choice knapsack by dynamic programming: thing by thing, the least loss for every
 * number of units. (Steps along convex hulls, the largest gain for a byte first, waste what does
 * not fit: on a small model a third more loss.) */
#include "quant/allocate.h"

#include <stdlib.h>

#include "base/memory.h"

typedef struct table {
    uint64_t unit;   /* bytes */
    size_t units;    /* that can be spent beyond the smallest sizes */
    double *least;   /* [units + 1]: loss of the things so far, with at most that many units */
    double *next;    /* [units + 1]: and of one thing more */
    uint8_t *choice; /* [n][units + 1]: that thing's size in it */
} table;

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint64_t extra_bytes(const cvq_sizes *t, int size) {
    return t->bytes[size] - t->bytes[0];
}

/* The unit of all steps; larger where that makes too many. No more is spare than can be spent. */
static void choose_unit(table *t, const cvq_sizes *things, size_t n, uint64_t spare) {
    uint64_t most = 0;
    t->unit = 0;
    for (size_t i = 0; i < n; i++) {
        for (int c = 1; c < things[i].count; c++)
            t->unit = common_divisor(t->unit, extra_bytes(&things[i], c));
        most += extra_bytes(&things[i], things[i].count - 1);
    }
    if (spare > most) spare = most;
    if (t->unit == 0) t->unit = 1;
    if (spare / t->unit >= CVQ_ALLOCATE_UNITS) t->unit = spare / CVQ_ALLOCATE_UNITS + 1;
    t->units = (size_t)(spare / t->unit);
}

/* Rounded up: what was chosen always fits. */
static uint64_t units_of(const table *t, const cvq_sizes *thing, int size) {
    const uint64_t bytes = extra_bytes(thing, size);
    return bytes / t->unit + (bytes % t->unit != 0);
}

/* Of equal losses the smaller size. */
static void add_thing(table *t, const cvq_sizes *thing, uint8_t *choice) {
    for (size_t u = 0; u <= t->units; u++) {
        t->next[u] = t->least[u] + thing->loss[0];
        choice[u] = 0;
    }
    for (int c = 1; c < thing->count; c++) {
        const uint64_t cost = units_of(t, thing, c);
        for (uint64_t u = cost; u <= t->units; u++) {
            const double loss = t->least[u - cost] + thing->loss[c];
            if (!(loss < t->next[u])) continue;
            t->next[u] = loss;
            choice[u] = (uint8_t)c;
        }
    }
    double *swapped = t->least;
    t->least = t->next;
    t->next = swapped;
}

/* What still fits, as units were rounded up: the largest gain first, until nothing does. */
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

static cvq_status choose(table *t, cvq_sizes *things, size_t n, cvq_error *err) {
    const size_t length = t->units + 1;
    CVQ_TRY(cvq_alloc((void **)&t->least, length, sizeof(double), "the sizes", err));
    CVQ_TRY(cvq_alloc((void **)&t->next, length, sizeof(double), "the sizes", err));
    CVQ_TRY(cvq_alloc((void **)&t->choice, n, length, "the sizes", err));
    for (size_t u = 0; u < length; u++) t->least[u] = 0;
    for (size_t i = 0; i < n; i++) add_thing(t, &things[i], t->choice + i * length);
    size_t left = t->units;
    for (size_t i = n; i-- > 0;) {
        things[i].chosen = t->choice[i * length + left];
        left -= (size_t)units_of(t, &things[i], things[i].chosen);
    }
    return CVQ_OK;
}

cvq_status cvq_allocate(cvq_sizes *things, size_t n, uint64_t budget, uint64_t *used,
                        cvq_error *err) {
    table t = {0};
    *used = 0;
    for (size_t i = 0; i < n; i++) {
        things[i].chosen = 0;
        *used += things[i].bytes[0];
    }
    if (*used > budget)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "", "the smallest sizes do not fit");
    choose_unit(&t, things, n, budget - *used);
    const cvq_status status = choose(&t, things, n, err);
    free(t.least);
    free(t.next);
    free(t.choice);
    if (status != CVQ_OK) return status;
    *used = 0;
    for (size_t i = 0; i < n; i++) *used += things[i].bytes[things[i].chosen];
    fill(things, n, budget, used);
    return CVQ_OK;
}
