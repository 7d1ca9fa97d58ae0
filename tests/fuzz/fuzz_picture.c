/* A picture's structure, as the parent walks it, with a PNG's checksums made to fit, and what is
 * left of it through stb_image, as the child does - here without the child, whose limits stand
 * between stb_image and everything else. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "imageio/picture_internal.h"
#include "tests/fuzz/fuzz.h"

#define MOST_PIXELS 65536
#define MOST_ARENA (16u << 20)

static uint32_t checksum(const uint8_t *p, size_t n) {
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < 8 * n; i++) {
        if (i % 8 == 0) c ^= p[i / 8];
        c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    }
    return ~c;
}

static void mend_png(uint8_t *data, size_t size) {
    for (size_t at = 8; size - at >= 12;) {
        const size_t length = cvq_load_be32(data + at);
        if (length > size - at - 12) return;
        const uint32_t c = checksum(data + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            data[at + 8 + length + (size_t)i] = (uint8_t)(c >> (24 - 8 * i));
        at += 12 + length;
    }
}

static void read_picture(const uint8_t *data, size_t size, cvq_picture_kind kind) {
    cvq_picture_stream stream = {0};
    const cvq_status status = kind == CVQ_PICTURE_PNG
                                  ? cvq_png_stream(&stream, data, size, MOST_PIXELS, "fuzz", NULL)
                                  : cvq_jpeg_stream(&stream, data, size, MOST_PIXELS, "fuzz", NULL);
    if (status == CVQ_OK && stream.decoder_bytes <= MOST_ARENA) {
        uint8_t *arena = aligned_alloc(64, MOST_ARENA);
        const char *reason = NULL;
        int width = 0, height = 0;
        if (!arena) abort();
        if (cvq_stb_decode(stream.bytes.data, stream.bytes.size, arena, MOST_ARENA, &width, &height,
                           &reason))
            fuzz_accepted();
        free(arena);
    }
    cvq_buffer_free(&stream.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_picture_kind kind;
    if (cvq_picture_sniff(&kind, data, size, "fuzz", NULL) != CVQ_OK) return 0;
    uint8_t *mended = malloc(size);
    if (!mended) abort();
    memcpy(mended, data, size);
    if (kind == CVQ_PICTURE_PNG) mend_png(mended, size);
    read_picture(mended, size, kind);
    free(mended);
    return 0;
}
