/* Rows of many tensors that come interleaved, kept in a scratch file until they are wanted again:
 * a whole tensor in order, or the rows of it that another model has just computed. */
#ifndef CVQ_CLI_TAP_SPOOL_H
#define CVQ_CLI_TAP_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CVQ_MAX_TAP_NAME 48

typedef struct cvq_tap {
    char name[CVQ_MAX_TAP_NAME];
    uint64_t rows, cols;
} cvq_tap;

/* Rows [first, first + rows) of a tap, at an offset of the file. */
typedef struct cvq_tap_piece {
    size_t tap;
    uint64_t first, rows, offset;
} cvq_tap_piece;

/* Start with CVQ_TAP_SPOOL_NONE and the file. */
typedef struct cvq_tap_spool {
    const char *where; /* names the file in errors; borrowed */
    int fd;            /* the caller's */
    uint64_t size;
    cvq_tap *taps; /* in order of appearance */
    size_t num_taps, taps_capacity;
    cvq_tap_piece *pieces;
    size_t num_pieces, pieces_capacity;
    size_t next; /* where cvq_tap_spool_read looks first */
} cvq_tap_spool;

#define CVQ_TAP_SPOOL_NONE                                                                         \
    { .fd = -1 }

/* names is shorter than CVQ_MAX_TAP_NAME; cols the same whenever it comes. */
cvq_status cvq_tap_spool_add(cvq_tap_spool *s, const char *name, size_t first, size_t rows,
                             size_t cols, const float *values, cvq_error *err);
/* Rows that were added: CVQ_NOT_FOUND where some were not. */
cvq_status cvq_tap_spool_read(cvq_tap_spool *s, const char *name, size_t first, size_t rows,
                              size_t cols, float *values, cvq_error *err);
/* Pieces by tap and place from now on. */
void cvq_tap_spool_sort(cvq_tap_spool *s);
/* Nothing is in it any more; the file's bytes are written over. */
void cvq_tap_spool_clear(cvq_tap_spool *s);
/* Does not close the file. */
void cvq_tap_spool_free(cvq_tap_spool *s);

/* Whether a name is stem and a number, as "layer.3" of "layer.". */
int cvq_tap_numbered(const char *name, const char *stem);

#endif
