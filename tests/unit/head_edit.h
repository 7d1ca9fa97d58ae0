/* A small .cvq file in a folder of its own, and its head to be changed. */
#ifndef CVQ_TESTS_HEAD_EDIT_H
#define CVQ_TESTS_HEAD_EDIT_H

#include <fcntl.h>
#include <unistd.h>

#include "formats/cvq_head_internal.h"
#include "formats/cvq_index_internal.h"
#include "formats/cvq_reader.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"
#include "tests/unit/temp_folder.h"

static char path[sizeof temp_folder + 16]; /* the file, in temp_folder */

static inline bool make_folder(void) {
    if (!temp_open()) return false;
    snprintf(path, sizeof path, "%s/small.cvq", temp_folder);
    return true;
}

/* A fresh small file under `path`; its descriptor, open for changes. */
static inline int fresh(const char *metadata, bool backwards, uint8_t id[CVQ_ID_BYTES]) {
    cvq_error err = {0};
    unlink(path);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) abort();
    const cvq_status s = small_write(fd, metadata, backwards, id, &err);
    CHECK_SAY(s == CVQ_OK, "%s: %s", err.where, err.message);
    return fd;
}

/* What a case may look at and change. */
typedef struct edit {
    uint8_t *head;
    uint64_t size; /* of the head */
    cvq_section s[CVQ_SECTIONS];
    int fd;       /* of the file */
    uint64_t cut; /* bytes that are left of it */
} edit;

static inline uint8_t *entry_of(const edit *e, size_t tensor) {
    return e->head + e->s[CVQ_SECTION_INDEX].offset + CVQ_INDEX_ENTRY_BYTES * tensor;
}
static inline uint8_t *row_of(const edit *e, cvq_section_kind kind) {
    return e->head + 72 + 24 * (size_t)kind;
}
static inline void add(uint8_t *at, uint64_t n) {
    cvq_store_le(at, cvq_load_le(at, 8) + n, 8);
}

static inline uint8_t *read_head(int fd, edit *e) {
    uint8_t start[CVQ_HEADER_BYTES];
    if (pread(fd, start, sizeof start, 0) != sizeof start) abort();
    e->size = cvq_load_le(start + 24, 8);
    for (size_t i = 0; i < CVQ_SECTIONS; i++) {
        const uint8_t *row = start + 72 + 24 * i;
        e->s[i] = (cvq_section){cvq_load_le(row + 8, 8), cvq_load_le(row + 16, 8)};
    }
    uint8_t *head = malloc((size_t)e->size);
    if (!head || pread(fd, head, (size_t)e->size, 0) != (ssize_t)e->size) abort();
    return head;
}

static inline void put_head(int fd, edit *e, bool hash) {
    if (hash && cvq_head_hash(e->head, e->size, e->head + CVQ_HASH_OFFSET, NULL) != CVQ_OK) abort();
    if (pwrite(fd, e->head, (size_t)e->size, 0) != (ssize_t)e->size) abort();
}

#endif
