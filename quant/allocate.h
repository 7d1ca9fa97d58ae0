/* A size to order: of several things that each come in several sizes, the smallest sum of losses
 * that fits. */
#ifndef CVQ_QUANT_ALLOCATE_H
#define CVQ_QUANT_ALLOCATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CVQ_MAX_SIZES 8

typedef struct cvq_sizes {
    int count; /* 1 to CVQ_MAX_SIZES, bytes not falling */
    uint64_t bytes[CVQ_MAX_SIZES];
    double loss[CVQ_MAX_SIZES];
    int chosen; /* the answer */
} cvq_sizes;

/* Chooses a size of each of n things so that all bytes together are at most `budget` and the losses
 * add up to as little as can be. Exact where what lies between the smallest sizes and the budget
 * is at most CVQ_ALLOCATE_UNITS of the largest unit that all sizes are multiples of, as with 4 GB
 * of steps of 64 KiB; beyond that off the best by less than n units of that share of it. *used: the
 * bytes taken. CVQ_INVALID_ARGUMENT where even the smallest do not fit; *used is then what they
 * take. Takes n x CVQ_ALLOCATE_UNITS bytes for the time being, at most. */
#define CVQ_ALLOCATE_UNITS ((size_t)1 << 16)
cvq_status cvq_allocate(cvq_sizes *things, size_t n, uint64_t budget, uint64_t *used,
                        cvq_error *err);

#endif
