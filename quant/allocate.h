/* A size to order: of several things that each come in several sizes, the largest sum of gains that
 * fits. */
#ifndef CVQ_QUANT_ALLOCATE_H
#define CVQ_QUANT_ALLOCATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CVQ_MAX_SIZES 8

typedef struct cvq_sizes {
    int count; /* 1 to CVQ_MAX_SIZES, bytes rising; with equal bytes the first is taken */
    uint64_t bytes[CVQ_MAX_SIZES];
    double loss[CVQ_MAX_SIZES];
    int chosen; /* the answer */
} cvq_sizes;

/* Chooses a size of each of n things so that all bytes together are at most `budget` and the losses
 * add up to as little as can be: by what a byte gains most, along the lower convex hull, then by
 * what still fits. Off the best by less than one step. *used: the bytes taken. CVQ_INVALID_ARGUMENT
 * where even the smallest do not fit; *used is then what they take. */
cvq_status cvq_allocate(cvq_sizes *things, size_t n, uint64_t budget, uint64_t *used,
                        cvq_error *err);

#endif
