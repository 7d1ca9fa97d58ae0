/* The only file that knows stb_image. PNG and JPEG, no stdio, and every allocation from an arena
 * that the caller gives, so that decoding makes no system call: it runs in a forked child, where
 * malloc must not be relied on and the kernel would refuse. */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "imageio/picture_internal.h"

/* Blocks follow each other; only the last one can grow in place or be given back. That is enough:
 * the arena is as large as all blocks of an honest picture together. */
static struct {
    uint8_t *base;
    size_t size, used, last;
} arena;

static void *arena_alloc(size_t n) {
    const size_t at = (arena.used + 15) & ~(size_t)15;
    if (at > arena.size || n > arena.size - at) return NULL;
    arena.last = at;
    arena.used = at + n;
    return arena.base + at;
}

static void arena_free(const void *p) {
    if (p && p == arena.base + arena.last) arena.used = arena.last;
}

static void *arena_realloc(void *p, size_t old_size, size_t n) {
    if (p && p == arena.base + arena.last && n <= arena.size - arena.last) {
        arena.used = arena.last + n;
        return p;
    }
    void *q = arena_alloc(n);
    if (p && q) memcpy(q, p, old_size < n ? old_size : n);
    return q;
}

/* stb_image is not written for our warnings; some of gcc's come only at the end of the file, so
 * they stay off from here on. */
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS CVQ_PICTURE_SIDE_LIMIT
#define STBI_MALLOC(n) arena_alloc(n)
#define STBI_REALLOC_SIZED(p, old_size, n) arena_realloc(p, old_size, n)
#define STBI_FREE(p) arena_free(p)
#define STBI_ASSERT(x) ((x) ? (void)0 : _exit(3))
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

const uint8_t *cvq_stb_decode(const uint8_t *input, size_t size, uint8_t *memory,
                              size_t memory_size, int *width, int *height, const char **reason) {
    arena.base = memory;
    arena.size = memory_size;
    arena.used = arena.last = 0;
    int components;
    const uint8_t *rgb = stbi_load_from_memory(input, (int)size, width, height, &components, 3);
    if (!rgb) *reason = stbi_failure_reason();
    return rgb;
}
