/* The one home of size arithmetic, and a cursor over untrusted bytes that knows its end. */
#ifndef CVQ_BASE_CHECKED_H
#define CVQ_BASE_CHECKED_H

/* Weights are read where they lie in their files, which are little-endian: a machine of the other
 * order would need every matrix swapped, and read nothing but noise without. */
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "big-endian machines are not supported: model files are used in place, little-endian"
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Each returns false, and leaves *out alone, where the exact result does not fit. */
static inline bool cvq_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (a > UINT64_MAX - b) return false;
    *out = a + b;
    return true;
}
static inline bool cvq_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (b != 0 && a > UINT64_MAX / b) return false;
    *out = a * b;
    return true;
}
static inline bool cvq_to_size(uint64_t a, size_t *out) {
    if (a > SIZE_MAX) return false;
    *out = (size_t)a;
    return true;
}
/* a rounded up to a multiple of unit (not 0). */
static inline bool cvq_round_up_u64(uint64_t a, uint64_t unit, uint64_t *out) {
    uint64_t rest = a % unit;
    return cvq_add_u64(a, rest ? unit - rest : 0, out);
}
/* Whether [offset, offset + length) lies within a total of size bytes. */
static inline bool cvq_range_within(uint64_t offset, uint64_t length, uint64_t size) {
    return offset <= size && length <= size - offset;
}
/* For sizes that were validated before (shapes of an opened model): no overflow possible. */
static inline size_t cvq_round_up(size_t a, size_t unit) {
    return (a + unit - 1) / unit * unit;
}

/* Reads little-endian values; the first read past the end sets `failed`, and every read from then
 * on gives zeros. Check `failed` once a structure. */
typedef struct cvq_cursor {
    const uint8_t *at;
    size_t left;
    bool failed;
} cvq_cursor;

static inline cvq_cursor cvq_cursor_make(const void *data, size_t size) {
    cvq_cursor c = {(const uint8_t *)data, size, false};
    return c;
}
/* Pointer to the next n bytes, or NULL (and failed). */
static inline const uint8_t *cvq_cursor_bytes(cvq_cursor *c, size_t n) {
    if (c->failed || n > c->left) {
        c->failed = true;
        return NULL;
    }
    const uint8_t *p = c->at;
    c->at += n;
    c->left -= n;
    return p;
}
static inline uint64_t cvq_load_le(const uint8_t *p, unsigned bytes) {
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}
static inline void cvq_store_le(uint8_t *p, uint64_t v, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static inline uint32_t cvq_cursor_u32(cvq_cursor *c) {
    const uint8_t *p = cvq_cursor_bytes(c, 4);
    return p ? (uint32_t)cvq_load_le(p, 4) : 0;
}
static inline uint64_t cvq_cursor_u64(cvq_cursor *c) {
    const uint8_t *p = cvq_cursor_bytes(c, 8);
    return p ? cvq_load_le(p, 8) : 0;
}
static inline float cvq_cursor_f32(cvq_cursor *c) {
    uint32_t u = cvq_cursor_u32(c);
    float f;
    memcpy(&f, &u, 4);
    return f;
}
/* Each byte equals the next: by memcmp, which is fast in every build, sanitized ones too. */
static inline bool cvq_all_zero(const uint8_t *p, size_t n) {
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

#endif
