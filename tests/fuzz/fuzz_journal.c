/* The journal of an interrupted conversion, whose key and hashes are made to fit. */
#include "convert/journal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"

#define MAGIC_BYTES 8
#define HEAD_BYTES (MAGIC_BYTES + sizeof(cvq_journal_key))
#define FRAME_BYTES 16

/* The hash behind `size` bytes, if it has room. */
static bool mend_hash(uint8_t *bytes, size_t left, size_t size, uint8_t chain[CVQ_HASH_BYTES]) {
    cvq_hasher *h = NULL;
    if (left < size || left - size < CVQ_HASH_BYTES) return false;
    const bool good = cvq_hasher_open(&h, NULL) == CVQ_OK &&
                      cvq_hasher_feed(h, chain, CVQ_HASH_BYTES, NULL) == CVQ_OK &&
                      cvq_hasher_feed(h, bytes, size, NULL) == CVQ_OK &&
                      cvq_hasher_take(h, chain, NULL) == CVQ_OK;
    if (!good) abort();
    cvq_hasher_close(h);
    memcpy(bytes + size, chain, CVQ_HASH_BYTES);
    return true;
}

static void mend(uint8_t *bytes, size_t size, const cvq_journal_key *key) {
    uint8_t chain[CVQ_HASH_BYTES] = {0};
    if (size < HEAD_BYTES) return;
    memcpy(bytes + MAGIC_BYTES, key, sizeof *key);
    size_t record = HEAD_BYTES;
    while (mend_hash(bytes, size, record, chain)) {
        bytes += record + CVQ_HASH_BYTES;
        size -= record + CVQ_HASH_BYTES;
        const uint64_t length = size < FRAME_BYTES ? UINT64_MAX : cvq_load_le(bytes + 8, 8);
        if (length > size) return;
        record = FRAME_BYTES + (size_t)length;
    }
}

typedef struct told {
    size_t records;
    uint64_t bytes;
} told;

static cvq_status note(void *context, uint32_t kind, uint32_t number, const uint8_t *data,
                       size_t size, cvq_error *err) {
    told *t = context;
    uint8_t sum = (uint8_t)(kind ^ number);
    (void)err;
    for (size_t i = 0; i < size; i++) sum ^= data[i];
    volatile uint8_t used = sum;
    (void)used;
    t->records++;
    t->bytes += FRAME_BYTES + size + CVQ_HASH_BYTES;
    return CVQ_OK;
}

/* What was read stays; with it and one record more it is read again. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const cvq_journal_key key = {{{0}}};
    uint8_t *bytes = malloc(size + 1);
    told first = {0}, second = {0};
    cvq_journal *j = NULL;
    struct stat st;
    if (!bytes) abort();
    memcpy(bytes, data, size);
    mend(bytes, size, &key);
    int fd = open(fuzz_file(bytes, size, 0), O_RDWR);
    free(bytes);
    if (fd < 0) abort();
    if (cvq_journal_open(&j, fd, "fuzz", &key, true, note, &first, NULL) != CVQ_OK)
        __builtin_trap(); /* the key is right, and a stranger's bytes are an end, not an error */
    if (cvq_journal_add(j, 1, 2, "record", 6, NULL) != CVQ_OK ||
        cvq_journal_sync(j, NULL) != CVQ_OK)
        abort();
    if (first.records > 0) fuzz_accepted();
    cvq_journal_close(j);
    if (cvq_journal_open(&j, fd, "fuzz", &key, true, note, &second, NULL) != CVQ_OK ||
        second.records != first.records + 1 || fstat(fd, &st) != 0 ||
        (uint64_t)st.st_size != HEAD_BYTES + CVQ_HASH_BYTES + second.bytes)
        __builtin_trap();
    cvq_journal_close(j);
    close(fd);
    return 0;
}
