/* Appending rows, and finding them again: they mostly come back in the order in which they came. */
#include "cli/tap_spool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"

/* Room for one more item of `size` bytes. */
static cvq_status grow(void **items, size_t *capacity, size_t count, size_t size, cvq_error *err) {
    if (count < *capacity) return CVQ_OK;
    size_t more = *capacity ? 2 * *capacity : 64;
    void *bigger = realloc(*items, more * size);
    if (!bigger) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "", "no memory for the list of taps");
    *items = bigger;
    *capacity = more;
    return CVQ_OK;
}

static cvq_status find_tap(cvq_tap_spool *s, const char *name, size_t cols, size_t *out,
                           cvq_error *err) {
    for (size_t i = 0; i < s->num_taps; i++) {
        if (strcmp(s->taps[i].name, name) != 0) continue;
        if (s->taps[i].cols != cols)
            return cvq_fail(err, CVQ_INTERNAL, name, "rows of different lengths");
        *out = i;
        return CVQ_OK;
    }
    CVQ_TRY(grow((void **)&s->taps, &s->taps_capacity, s->num_taps, sizeof *s->taps, err));
    cvq_tap *t = &s->taps[s->num_taps];
    *t = (cvq_tap){.cols = cols};
    snprintf(t->name, sizeof t->name, "%s", name);
    *out = s->num_taps++;
    return CVQ_OK;
}

cvq_status cvq_tap_spool_add(cvq_tap_spool *s, const char *name, size_t first, size_t rows,
                             size_t cols, const float *values, cvq_error *err) {
    size_t t = 0;
    CVQ_TRY(find_tap(s, name, cols, &t, err));
    size_t bytes = rows * cols * sizeof *values;
    CVQ_TRY(cvq_write_all(s->fd, s->size, values, bytes, s->where, err));
    cvq_tap_piece *last = s->num_pieces ? &s->pieces[s->num_pieces - 1] : NULL;
    if (last && last->tap == t && last->first + last->rows == first) {
        last->rows += rows;
    } else {
        CVQ_TRY(
            grow((void **)&s->pieces, &s->pieces_capacity, s->num_pieces, sizeof *s->pieces, err));
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): grow() set it */
        s->pieces[s->num_pieces++] = (cvq_tap_piece){t, first, rows, s->size};
    }
    s->taps[t].rows += rows;
    s->size += bytes;
    return CVQ_OK;
}

/* The piece that has row `first` of the tap; NULL if there is none. */
static const cvq_tap_piece *find_piece(cvq_tap_spool *s, const char *name, size_t first,
                                       size_t cols) {
    for (size_t i = 0; i < s->num_pieces; i++) {
        const size_t at = (s->next + i) % s->num_pieces;
        const cvq_tap_piece *p = &s->pieces[at];
        const cvq_tap *t = &s->taps[p->tap];
        if (first < p->first || first - p->first >= p->rows || t->cols != cols ||
            strcmp(t->name, name) != 0)
            continue;
        s->next = at;
        return p;
    }
    return NULL;
}

cvq_status cvq_tap_spool_read(cvq_tap_spool *s, const char *name, size_t first, size_t rows,
                              size_t cols, float *values, cvq_error *err) {
    while (rows > 0) {
        const cvq_tap_piece *p = find_piece(s, name, first, cols);
        if (!p)
            return cvq_fail(err, CVQ_NOT_FOUND, name, "row %zu was not computed by the other model",
                            first);
        const uint64_t skipped = first - p->first, left = p->rows - skipped;
        const size_t n = left < rows ? (size_t)left : rows;
        const size_t bytes = n * cols * sizeof *values;
        CVQ_TRY(cvq_read_all(s->fd, p->offset + skipped * cols * sizeof *values, values, bytes,
                             s->where, err));
        values += n * cols;
        first += n;
        rows -= n;
    }
    return CVQ_OK;
}

static int by_place(const void *a, const void *b) {
    const cvq_tap_piece *x = a, *y = b;
    if (x->tap != y->tap) return x->tap < y->tap ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

void cvq_tap_spool_sort(cvq_tap_spool *s) {
    if (s->num_pieces) qsort(s->pieces, s->num_pieces, sizeof *s->pieces, by_place);
}

void cvq_tap_spool_clear(cvq_tap_spool *s) {
    s->num_taps = s->num_pieces = s->next = 0;
    s->size = 0;
}

void cvq_tap_spool_free(cvq_tap_spool *s) {
    free(s->taps);
    free(s->pieces);
    s->taps = NULL;
    s->pieces = NULL;
}

int cvq_tap_numbered(const char *name, const char *stem) {
    size_t n = strlen(stem);
    return strncmp(name, stem, n) == 0 && name[n] && name[n + strspn(name + n, "0123456789")] == 0;
}
