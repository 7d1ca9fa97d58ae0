/* A packed file in memory, for tests: what cvq_file_pack writes to and cvq_file_unpack reads from.
 */
#ifndef CVQ_TESTS_PACKED_ROOM_H
#define CVQ_TESTS_PACKED_ROOM_H

#include <string.h>

#include "formats/packed_file.h"

typedef struct packed_room {
    uint8_t *data;
    size_t size, at; /* bytes there are; where reading or writing goes on */
    size_t most;     /* reading from here on fails; SIZE_MAX for never */
} packed_room;

static inline cvq_status packed_keep(void *context, const void *data, size_t size, cvq_error *err) {
    packed_room *p = context;
    if (size > p->size - p->at) return cvq_fail(err, CVQ_TOO_SMALL, "packed", "too large");
    memcpy(p->data + p->at, data, size);
    p->at += size;
    return CVQ_OK;
}

static inline cvq_status packed_take(void *context, void *data, size_t size, size_t *got,
                                     cvq_error *err) {
    packed_room *p = context;
    if (p->at >= p->most) return cvq_fail(err, CVQ_IO, "packed", "cannot read");
    *got = size < p->size - p->at ? size : p->size - p->at;
    memcpy(data, p->data + p->at, *got);
    p->at += *got;
    return CVQ_OK;
}

#endif
