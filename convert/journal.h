/* The journal of a file that is being made: what of it is complete, so that an interrupted run can
 * go on. It grows record by record; each ends with a hash over all before it, so that a record cut
 * short, or written over something else, ends the journal there. */
#ifndef CVQ_CONVERT_JOURNAL_H
#define CVQ_CONVERT_JOURNAL_H

#include <stdbool.h>

#include "base/memory.h"
#include "formats/chunk_hash.h"

/* What a run must have in common with the one that it continues. */
typedef enum cvq_journal_part {
    CVQ_JOURNAL_PROGRAM, /* version */
    CVQ_JOURNAL_SOURCE,
    CVQ_JOURNAL_PLAN,    /* everything in the head: types, tokenizer, metadata */
    CVQ_JOURNAL_OPTIONS, /* what else decides the bytes */
    CVQ_JOURNAL_PARTS
} cvq_journal_part;

typedef struct cvq_journal_key {
    uint8_t parts[CVQ_JOURNAL_PARTS][CVQ_HASH_BYTES];
} cvq_journal_key;

typedef struct cvq_journal cvq_journal;

/* One record of a run before; data is valid during the call only. An error ends the reading. */
typedef cvq_status (*cvq_journal_fn)(void *context, uint32_t kind, uint32_t number,
                                     const uint8_t *data, size_t size, cvq_error *err);

/* fd: open for reading and writing. With `resume` the records that are there are told, and what
 * follows the last whole one is cut off; a key that differs is CVQ_MISMATCH and says in which part.
 * Without it, and if the journal is empty, a new one is begun. */
cvq_status cvq_journal_open(cvq_journal **out, int fd, const char *where,
                            const cvq_journal_key *key, bool resume, cvq_journal_fn record,
                            void *context, cvq_error *err);
/* Adds a record in memory. */
cvq_status cvq_journal_add(cvq_journal *j, uint32_t kind, uint32_t number, const void *data,
                           size_t size, cvq_error *err);
/* Writes and fsyncs what was added. */
cvq_status cvq_journal_sync(cvq_journal *j, cvq_error *err);
/* Does not write; fd stays the caller's. */
void cvq_journal_close(cvq_journal *j);

#endif
