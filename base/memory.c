/* Allocation with checked sizes, and the growing byte buffer. */
#include "base/memory.h"

#include <stdalign.h>
#include <string.h>

#include "base/checked.h"

#define ALIGNMENT 64

cvq_status cvq_alloc(void **out, uint64_t count, uint64_t size, const char *what, cvq_error *err) {
    uint64_t bytes, rounded;
    size_t n;
    if (!cvq_mul_u64(count, size, &bytes) || !cvq_round_up_u64(bytes, ALIGNMENT, &rounded) ||
        !cvq_to_size(rounded, &n) || n > PTRDIFF_MAX)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, what, "its size does not fit in the address space");
    void *p = aligned_alloc(ALIGNMENT, n ? n : ALIGNMENT);
    if (!p)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, what, "no memory for %llu bytes",
                        (unsigned long long)bytes);
    memset(p, 0, n);
    *out = p;
    return CVQ_OK;
}

static cvq_status reserve(cvq_buffer *b, size_t more, cvq_error *err) {
    if (more <= b->capacity - b->size) return CVQ_OK;
    if (more > PTRDIFF_MAX - b->size)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, "buffer",
                        "its size does not fit in the address space");
    size_t need = b->size + more, capacity = b->capacity > PTRDIFF_MAX / 2 ? need : 2 * b->capacity;
    if (capacity < need) capacity = need;
    if (capacity < 256) capacity = 256;
    uint8_t *data = realloc(b->data, capacity);
    if (!data)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, "buffer", "no memory for %zu bytes", capacity);
    b->data = data;
    b->capacity = capacity;
    return CVQ_OK;
}

cvq_status cvq_buffer_append(cvq_buffer *b, const void *data, size_t size, cvq_error *err) {
    if (size == 0) return CVQ_OK;
    CVQ_TRY(reserve(b, size, err));
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return CVQ_OK;
}

cvq_status cvq_buffer_append_le(cvq_buffer *b, uint64_t value, unsigned bytes, cvq_error *err) {
    uint8_t le[8];
    cvq_store_le(le, value, bytes);
    return cvq_buffer_append(b, le, bytes, err);
}

cvq_status cvq_buffer_pad(cvq_buffer *b, size_t unit, cvq_error *err) {
    size_t n = (unit - b->size % unit) % unit;
    if (n == 0) return CVQ_OK;
    CVQ_TRY(reserve(b, n, err));
    memset(b->data + b->size, 0, n);
    b->size += n;
    return CVQ_OK;
}

void cvq_buffer_free(cvq_buffer *b) {
    if (!b) return;
    free(b->data);
    *b = (cvq_buffer){0};
}
