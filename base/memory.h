/* Allocation with checked sizes. Everything is released with free(). */
#ifndef CVQ_BASE_MEMORY_H
#define CVQ_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/status.h"

/* count x size bytes, zeroed, on a 64-byte boundary (a cache line and the widest vector); never
 * NULL on success, also for 0. The product is checked. `what` names the thing in the error message.
 */
cvq_status cvq_alloc(void **out, uint64_t count, uint64_t size, const char *what, cvq_error *err);

/* A growing run of bytes. Start with {0}; release with cvq_buffer_free, which leaves {0}. */
typedef struct cvq_buffer {
    uint8_t *data;
    size_t size, capacity;
} cvq_buffer;

cvq_status cvq_buffer_append(cvq_buffer *b, const void *data, size_t size, cvq_error *err);
cvq_status cvq_buffer_append_le(cvq_buffer *b, uint64_t value, unsigned bytes, cvq_error *err);
/* Zero bytes up to the next multiple of unit. */
cvq_status cvq_buffer_pad(cvq_buffer *b, size_t unit, cvq_error *err);
void cvq_buffer_free(cvq_buffer *b);

#endif
