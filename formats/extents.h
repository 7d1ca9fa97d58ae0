/* A file cut into extents, each with the hash that its bytes should have: what verifying, repairing
 * and updating work on. They come from a .cvq file's own chunk table or from a manifest. */
#ifndef CVQ_FORMATS_EXTENTS_H
#define CVQ_FORMATS_EXTENTS_H

#include <stdbool.h>

#include "base/file_map.h"
#include "formats/chunk_hash.h"

/* Owners that are no tensor. */
#define CVQ_OWNER_PADDING SIZE_MAX
#define CVQ_OWNER_HEAD (SIZE_MAX - 1)

typedef struct cvq_extent {
    uint64_t offset, size; /* size at most CVQ_CHUNK_BYTES, but for padding */
    const uint8_t *hash;   /* SHA-256, borrowed; NULL: all bytes are zero */
    size_t owner;          /* a tensor's number, or one of the above */
} cvq_extent;

/* In order and without gaps, from `start` to `end`. Begin with {0} and the start. */
typedef struct cvq_extents {
    cvq_extent *items;
    size_t count, capacity;
    uint64_t start, end;
} cvq_extents;

/* The next bytes with hashes: `size` bytes at `offset` (not before `end`), cut into chunks, whose
 * hashes stand one behind the other; what lies between `end` and offset becomes padding. */
cvq_status cvq_extents_add(cvq_extents *e, size_t owner, uint64_t offset, uint64_t size,
                           const uint8_t *hashes, cvq_error *err);
void cvq_extents_free(cvq_extents *e);

/* Whether the extent's bytes, `data`, are what they should be. Fails where nothing can be hashed.
 */
cvq_status cvq_extent_match(const cvq_extent *extent, const uint8_t *data, bool *matches,
                            cvq_error *err);

/* Bytes done of the total; nonzero stops with CVQ_CANCELLED. Called from the caller's thread. */
typedef int (*cvq_extents_progress_fn)(void *context, uint64_t done, uint64_t total);
/* For a closer look at an extent whose bytes match, while they are in the processor's cache; from
 * several threads. */
typedef void (*cvq_extents_look_fn)(void *context, const cvq_extent *extent);
/* Who is told on the way; each function may be NULL. */
typedef struct cvq_extents_watch {
    cvq_extents_progress_fn progress;
    void *progress_context;
    cvq_extents_look_fn look;
    void *look_context;
} cvq_extents_watch;
/* good[count] says of each extent whether the file's bytes match; one that reaches past the file's
 * end does not. What was read does not stay resident. `where` names the file. */
cvq_status cvq_extents_check(const cvq_extents *e, const cvq_file_map *file, int threads,
                             bool *good, const cvq_extents_watch *watch, const char *where,
                             cvq_error *err);

/* A run of extents of one owner, side by side, that do not match. */
typedef void (*cvq_damage_fn)(void *context, size_t owner, uint64_t offset, uint64_t size);
/* Called for each, in order; returns their number. damage may be NULL. */
size_t cvq_extents_damage(const cvq_extents *e, const bool *good, cvq_damage_fn damage,
                          void *context);

/* Extents with a hash alone, in order of it, for looking up by content; what they cover is no
 * longer whole. */
void cvq_extents_sort_by_hash(cvq_extents *e);
/* An extent of this content in a list that was sorted so, or NULL. */
const cvq_extent *cvq_extents_find(const cvq_extents *sorted, const cvq_extent *content);

#endif
