/* The file: magic, key, SHA-256 of both; then records of u32 kind, u32 number, u64 size, the data,
 * and the SHA-256 of the hash before and all of that. */
#include "convert/journal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/file_map.h"

#define MAGIC_BYTES 8u
static const uint8_t magic[MAGIC_BYTES] = {'C', 'V', 'Q', 'J', 0, 0, 0, 1};
#define HEAD_BYTES (MAGIC_BYTES + sizeof(cvq_journal_key))
#define FRAME_BYTES 16u                     /* of a record, before its data */
#define MAX_JOURNAL_BYTES ((size_t)1 << 29) /* twice a .cvq's head, whose hashes it holds */

struct cvq_journal {
    int fd;
    const char *where;
    uint64_t end; /* of what is in the file */
    uint8_t chain[CVQ_HASH_BYTES];
    cvq_buffer added;
};

/* Hash of the last hash and some bytes. */
static cvq_status chain_hash(uint8_t chain[CVQ_HASH_BYTES], const void *data, size_t size,
                             cvq_error *err) {
    cvq_hasher *h = NULL;
    CVQ_TRY(cvq_hasher_open(&h, err));
    cvq_status status = cvq_hasher_feed(h, chain, CVQ_HASH_BYTES, err);
    if (status == CVQ_OK) status = cvq_hasher_feed(h, data, size, err);
    if (status == CVQ_OK) status = cvq_hasher_take(h, chain, err);
    cvq_hasher_close(h);
    return status;
}

static cvq_status append_chained(cvq_journal *j, size_t from, cvq_error *err) {
    CVQ_TRY(chain_hash(j->chain, j->added.data + from, j->added.size - from, err));
    return cvq_buffer_append(&j->added, j->chain, CVQ_HASH_BYTES, err);
}

static cvq_status begin(cvq_journal *j, const cvq_journal_key *key, cvq_error *err) {
    if (ftruncate(j->fd, 0) != 0) return cvq_fail_errno(err, j->where, "cannot empty it");
    j->end = 0;
    memset(j->chain, 0, sizeof j->chain);
    CVQ_TRY(cvq_buffer_append(&j->added, magic, sizeof magic, err));
    CVQ_TRY(cvq_buffer_append(&j->added, key, sizeof *key, err));
    CVQ_TRY(append_chained(j, 0, err));
    return cvq_journal_sync(j, err);
}

/* ---------------------------------------------------------------- going on */

static cvq_status refuse_other_key(const cvq_journal *j, const cvq_journal_key *key,
                                   const uint8_t *found, cvq_error *err) {
    static const char *const why[CVQ_JOURNAL_PARTS] = {
        "was begun by another version of this program",
        "was begun from another source, or from files that have changed since",
        "was begun with another recipe, imatrix, feedback, revision, card or licence",
        "was begun with other options about a report"};
    for (size_t i = 0; i < CVQ_JOURNAL_PARTS; i++) {
        if (memcmp(found + CVQ_HASH_BYTES * i, key->parts[i], CVQ_HASH_BYTES) == 0) continue;
        return cvq_fail(err, CVQ_MISMATCH, j->where,
                        "%s: repeat that run's command with --resume, or start over without it",
                        why[i]);
    }
    return CVQ_OK;
}

/* Whether the next size bytes and a right hash are there; the chain goes on then. */
static bool take_chained(cvq_journal *j, cvq_cursor *c, const uint8_t *bytes, size_t size) {
    uint8_t chain[CVQ_HASH_BYTES];
    memcpy(chain, j->chain, sizeof chain);
    const uint8_t *hash = cvq_cursor_bytes(c, CVQ_HASH_BYTES);
    if (!hash || chain_hash(chain, bytes, size, NULL) != CVQ_OK) return false;
    if (memcmp(hash, chain, sizeof chain) != 0) return false;
    memcpy(j->chain, chain, sizeof chain);
    return true;
}

static cvq_status read_records(cvq_journal *j, cvq_cursor *c, cvq_journal_fn record, void *context,
                               cvq_error *err) {
    for (;;) {
        const uint8_t *start = c->at;
        const uint32_t kind = cvq_cursor_u32(c), number = cvq_cursor_u32(c);
        const uint64_t size = cvq_cursor_u64(c);
        if (c->failed || size > c->left) return CVQ_OK;
        const uint8_t *data = cvq_cursor_bytes(c, (size_t)size);
        if (!take_chained(j, c, start, FRAME_BYTES + (size_t)size)) return CVQ_OK;
        CVQ_TRY(record(context, kind, number, data, (size_t)size, err));
        j->end += FRAME_BYTES + size + CVQ_HASH_BYTES;
    }
}

/* *empty: not even the head is whole, so that nothing was done. */
static cvq_status go_on(cvq_journal *j, const cvq_journal_key *key, cvq_journal_fn record,
                        void *context, bool *empty, cvq_error *err) {
    struct stat st;
    void *bytes = NULL;
    if (fstat(j->fd, &st) != 0) return cvq_fail_errno(err, j->where, "cannot tell its size");
    const size_t size =
        (uint64_t)st.st_size < MAX_JOURNAL_BYTES ? (size_t)st.st_size : MAX_JOURNAL_BYTES;
    CVQ_TRY(cvq_alloc(&bytes, size, 1, "the journal", err));
    cvq_status status = cvq_read_all(j->fd, 0, bytes, size, j->where, err);
    cvq_cursor c = cvq_cursor_make(bytes, size);
    const uint8_t *head = cvq_cursor_bytes(&c, HEAD_BYTES);
    *empty = status == CVQ_OK && (!head || memcmp(head, magic, MAGIC_BYTES) != 0 ||
                                  !take_chained(j, &c, head, HEAD_BYTES));
    if (status == CVQ_OK && !*empty) {
        j->end = HEAD_BYTES + CVQ_HASH_BYTES;
        status = refuse_other_key(j, key, head + MAGIC_BYTES, err);
        if (status == CVQ_OK) status = read_records(j, &c, record, context, err);
        if (status == CVQ_OK && ftruncate(j->fd, (off_t)j->end) != 0)
            status = cvq_fail_errno(err, j->where, "cannot cut its end off");
    }
    free(bytes);
    return status;
}

cvq_status cvq_journal_open(cvq_journal **out, int fd, const char *where,
                            const cvq_journal_key *key, bool resume, cvq_journal_fn record,
                            void *context, cvq_error *err) {
    void *memory = NULL;
    bool empty = true;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_journal), "a journal", err));
    cvq_journal *j = memory;
    j->fd = fd;
    j->where = where;
    cvq_status status = CVQ_OK;
    if (resume) status = go_on(j, key, record, context, &empty, err);
    if (status == CVQ_OK && empty) status = begin(j, key, err);
    if (status != CVQ_OK) {
        cvq_journal_close(j);
        return status;
    }
    *out = j;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- adding */

cvq_status cvq_journal_add(cvq_journal *j, uint32_t kind, uint32_t number, const void *data,
                           size_t size, cvq_error *err) {
    const size_t start = j->added.size;
    CVQ_TRY(cvq_buffer_append_le(&j->added, kind, 4, err));
    CVQ_TRY(cvq_buffer_append_le(&j->added, number, 4, err));
    CVQ_TRY(cvq_buffer_append_le(&j->added, size, 8, err));
    CVQ_TRY(cvq_buffer_append(&j->added, data, size, err));
    return append_chained(j, start, err);
}

cvq_status cvq_journal_sync(cvq_journal *j, cvq_error *err) {
    CVQ_TRY(cvq_write_all(j->fd, j->end, j->added.data, j->added.size, j->where, err));
    if (fsync(j->fd) != 0) return cvq_fail_errno(err, j->where, "cannot write it to the disk");
    j->end += j->added.size;
    j->added.size = 0;
    return CVQ_OK;
}

void cvq_journal_close(cvq_journal *j) {
    if (!j) return;
    cvq_buffer_free(&j->added);
    free(j);
}
