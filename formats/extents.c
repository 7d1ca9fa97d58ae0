/* Extents: cutting, and checking many at a time with all threads. */
#include "formats/extents.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "formats/cvq_layout.h"

#define BATCH 64 /* extents checked between two calls of the progress function: 64 MiB */

static cvq_status push(cvq_extents *e, cvq_extent extent, cvq_error *err) {
    if (e->count == e->capacity) {
        size_t capacity = e->capacity ? 2 * e->capacity : 256;
        cvq_extent *items = capacity <= SIZE_MAX / sizeof *items
                                ? realloc(e->items, capacity * sizeof *items)
                                : NULL;
        if (!items) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "extents", "no memory for the list");
        e->items = items;
        e->capacity = capacity;
    }
    e->items[e->count++] = extent;
    e->end = extent.offset + extent.size;
    return CVQ_OK;
}

cvq_status cvq_extents_add(cvq_extents *e, size_t owner, uint64_t offset, uint64_t size,
                           const uint8_t *hashes, cvq_error *err) {
    uint64_t end;
    if (e->count == 0) e->end = e->start;
    if (offset < e->end || !cvq_add_u64(offset, size, &end))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "extents", "out of order");
    if (offset > e->end)
        CVQ_TRY(push(e, (cvq_extent){e->end, offset - e->end, NULL, CVQ_OWNER_PADDING}, err));
    for (uint64_t at = offset; at < end; at += CVQ_CHUNK_BYTES, hashes += CVQ_HASH_BYTES) {
        uint64_t n = end - at < CVQ_CHUNK_BYTES ? end - at : CVQ_CHUNK_BYTES;
        CVQ_TRY(push(e, (cvq_extent){at, n, hashes, owner}, err));
    }
    return CVQ_OK;
}

void cvq_extents_free(cvq_extents *e) {
    if (!e) return;
    free(e->items);
    *e = (cvq_extents){0};
}

cvq_status cvq_extent_match(const cvq_extent *extent, const uint8_t *data, bool *matches,
                            cvq_error *err) {
    uint8_t hash[CVQ_HASH_BYTES];
    if (!extent->hash) {
        *matches = cvq_all_zero(data, (size_t)extent->size);
        return CVQ_OK;
    }
    CVQ_TRY(cvq_sha256(data, (size_t)extent->size, hash, err));
    *matches = memcmp(hash, extent->hash, sizeof hash) == 0;
    return CVQ_OK;
}

typedef struct check_job {
    const cvq_extent *extents;
    const cvq_file_map *file;
    bool *good;
    const cvq_extents_watch *watch;
    atomic_bool failed;
} check_job;

static void check_unit(void *context, size_t index, int thread) {
    check_job *job = context;
    const cvq_extent *x = &job->extents[index];
    (void)thread;
    job->good[index] = false;
    if (!cvq_range_within(x->offset, x->size, job->file->size)) return;
    if (cvq_extent_match(x, job->file->data + x->offset, &job->good[index], NULL) != CVQ_OK)
        job->failed = true;
    if (job->good[index] && job->watch->look) job->watch->look(job->watch->look_context, x);
}

cvq_status cvq_extents_check(const cvq_extents *e, const cvq_file_map *file, int threads,
                             bool *good, const cvq_extents_watch *watch, const char *where,
                             cvq_error *err) {
    for (size_t first = 0; first < e->count; first += BATCH) {
        size_t n = e->count - first < BATCH ? e->count - first : BATCH;
        check_job job = {
            .extents = e->items + first, .file = file, .good = good + first, .watch = watch};
        const cvq_extent *last = &job.extents[n - 1];
        uint64_t end = last->offset + last->size;
        cvq_file_map_advise(file, end, (uint64_t)BATCH * CVQ_CHUNK_BYTES, CVQ_ADVICE_WILLNEED);
        cvq_parallel_for(threads, n, check_unit, &job);
        cvq_file_map_advise(file, job.extents[0].offset, end - job.extents[0].offset,
                            CVQ_ADVICE_DONTNEED);
        if (job.failed)
            return cvq_fail(err, CVQ_INTERNAL, where, "libcrypto refused to hash; try again");
        if (watch->progress &&
            watch->progress(watch->progress_context, end - e->start, e->end - e->start) != 0)
            return cvq_fail(err, CVQ_CANCELLED, where, "verifying was stopped");
    }
    return CVQ_OK;
}

size_t cvq_extents_damage(const cvq_extents *e, const bool *good, cvq_damage_fn damage,
                          void *context) {
    size_t ranges = 0;
    for (size_t i = 0; i < e->count;) {
        const cvq_extent *first = &e->items[i];
        uint64_t size = 0;
        if (good[i]) {
            i++;
            continue;
        }
        while (i < e->count && !good[i] && e->items[i].owner == first->owner)
            size += e->items[i++].size;
        ranges++;
        if (damage) damage(context, first->owner, first->offset, size);
    }
    return ranges;
}

static int compare_contents(const void *a, const void *b) {
    const cvq_extent *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return memcmp(x->hash, y->hash, CVQ_HASH_BYTES);
}

void cvq_extents_sort_by_hash(cvq_extents *e) {
    size_t n = 0;
    for (size_t i = 0; i < e->count; i++)
        if (e->items[i].hash) e->items[n++] = e->items[i];
    e->count = n;
    if (n > 0) qsort(e->items, n, sizeof *e->items, compare_contents);
}

const cvq_extent *cvq_extents_find(const cvq_extents *sorted, const cvq_extent *content) {
    if (sorted->count == 0) return NULL;
    return bsearch(content, sorted->items, sorted->count, sizeof *content, compare_contents);
}
