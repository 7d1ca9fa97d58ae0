/* The structure of a PNG: chunks walked, their checksums compared, and a minimal PNG written of
 * what pixels need: IHDR, the palette filled up to 256 colours, one IDAT, IEND.
 *
 * Everything else is dropped: tRNS, since transparency is dropped, not blended; gamma, profiles and
 * text, as PIL's convert('RGB') ignores them; eXIf (orientation is a JPEG matter); the later frames
 * of an animation. */
#include <stdbool.h>
#include <string.h>

#include "base/checked.h"
#include "imageio/picture_internal.h"

enum { SIGNATURE_BYTES = 8, CHUNK_BYTES = 12, IHDR_BYTES = 13, PALETTE_BYTES = 3 * 256 };
enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGB_ALPHA = 6 };

typedef struct png_header {
    uint32_t width, height, channels, depth;
    int color;
    bool interlaced;
} png_header;

static void crc_table_make(uint32_t table[256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
}

static uint32_t crc32_of(const uint32_t table[256], const uint8_t *p, size_t n) {
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++) c = table[(c ^ p[i]) & 0xff] ^ (c >> 8);
    return ~c;
}

static cvq_status parse_header(png_header *h, const uint8_t *p, size_t max_pixels, const char *path,
                               cvq_error *err) {
    static const uint8_t channels_of[7] = {1, 0, 3, 1, 2, 0, 4};
    /* Bit d set: a sample of d bits is allowed. */
    static const uint32_t depths_of[7] = {0x10116, 0, 0x10100, 0x116, 0x10100, 0, 0x10100};
    h->width = cvq_load_be32(p);
    h->height = cvq_load_be32(p + 4);
    h->depth = p[8];
    h->color = p[9];
    h->interlaced = p[12] == 1;
    if (p[9] > RGB_ALPHA || p[8] > 16 || !(depths_of[p[9]] >> p[8] & 1))
        return cvq_fail(err, CVQ_FORMAT, path,
                        "PNG colour type %u with %u bits does not exist" CVQ_SAVE_ANEW, p[9], p[8]);
    if (p[10] != 0 || p[11] != 0 || p[12] > 1)
        return cvq_fail(
            err, CVQ_FORMAT, path,
            "unknown PNG compression, filter or interlace method (%u, %u, %u)" CVQ_SAVE_ANEW, p[10],
            p[11], p[12]);
    h->channels = channels_of[p[9]];
    return cvq_picture_check_size(h->width, h->height, max_pixels, path, err);
}

/* Filter byte and samples of every row. */
static uint64_t raw_bytes(const png_header *h, uint64_t width, uint64_t height) {
    return width == 0 ? 0 : ((h->channels * h->depth * width + 7) / 8 + 1) * height;
}

/* Every allocation of stb_image for this picture, as if nothing were reused: compressed and
 * inflated bytes (which double until they fit), samples (twice where passes are put together), the
 * palette's colours, the conversion to RGB and to 8 bits. Sides are checked, so nothing overflows.
 */
static uint64_t decoder_bytes(const png_header *h, uint64_t idat) {
    static const uint8_t x0[7] = {0, 4, 0, 2, 0, 1, 0}, xs[7] = {8, 8, 4, 4, 2, 2, 1};
    static const uint8_t y0[7] = {0, 0, 4, 0, 2, 0, 1}, ys[7] = {8, 8, 8, 4, 4, 2, 2};
    const uint64_t pixels = (uint64_t)h->width * h->height;
    const uint64_t sample = h->depth == 16 ? 2 : 1;
    uint64_t raw = 0, samples = pixels * h->channels * sample;
    if (h->interlaced) {
        for (int p = 0; p < 7; p++)
            raw += raw_bytes(h, (h->width + xs[p] - 1u - x0[p]) / xs[p],
                             (h->height + ys[p] - 1u - y0[p]) / ys[p]);
        samples *= 2;
    } else {
        raw = raw_bytes(h, h->width, h->height);
    }
    const uint64_t guess = ((uint64_t)h->width * h->depth + 7) / 8 * h->height * h->channels;
    const uint64_t inflated = 2 * (raw > guess ? raw : guess) + h->height;
    return idat + inflated + samples + pixels * (3 + 3 * sample + 3) + (1u << 17);
}

static cvq_status append_be32(cvq_buffer *b, uint32_t v, cvq_error *err) {
    const uint8_t be[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    return cvq_buffer_append(b, be, 4, err);
}

/* The checksum is left 0: stb_image does not look at it, and this walk has. */
static cvq_status append_chunk(cvq_buffer *b, const char *type, const void *data, size_t size,
                               cvq_error *err) {
    CVQ_TRY(append_be32(b, (uint32_t)size, err));
    CVQ_TRY(cvq_buffer_append(b, type, 4, err));
    CVQ_TRY(cvq_buffer_append(b, data, size, err));
    return append_be32(b, 0, err);
}

/* What the walk has seen. */
typedef struct png_walk {
    const uint8_t *ihdr, *palette;
    size_t palette_bytes;
    cvq_buffer idat;
    bool idat_closed, ended;
} png_walk;

static cvq_status take_chunk(png_walk *w, const uint8_t *type, const uint8_t *data, size_t size,
                             const char *path, cvq_error *err) {
    if (memcmp(type, "IDAT", 4) != 0 && w->idat.size > 0) w->idat_closed = true;
    if (memcmp(type, "IHDR", 4) == 0) {
        if (w->ihdr || size != IHDR_BYTES)
            return cvq_fail(err, CVQ_FORMAT, path,
                            "a PNG with a second or misshapen IHDR" CVQ_SAVE_ANEW);
        w->ihdr = data;
    } else if (!w->ihdr) {
        if (memcmp(type, "CgBI", 4) == 0)
            return cvq_fail(err, CVQ_UNSUPPORTED, path,
                            "an iPhone's own kind of PNG (CgBI); convert it: `xcrun pngcrush "
                            "-revert-iphone-optimizations in.png out.png`");
        return cvq_fail(err, CVQ_FORMAT, path, "a PNG that does not begin with IHDR" CVQ_SAVE_ANEW);
    } else if (memcmp(type, "PLTE", 4) == 0) {
        if (w->palette || w->idat.size > 0 || size == 0 || size % 3 != 0 || size > PALETTE_BYTES)
            return cvq_fail(err, CVQ_FORMAT, path,
                            "a PNG with a misplaced or misshapen palette" CVQ_SAVE_ANEW);
        w->palette = data;
        w->palette_bytes = size;
    } else if (memcmp(type, "IDAT", 4) == 0) {
        if (w->idat_closed)
            return cvq_fail(err, CVQ_FORMAT, path,
                            "a PNG whose IDAT chunks are not in one run" CVQ_SAVE_ANEW);
        return cvq_buffer_append(&w->idat, data, size, err);
    } else if (memcmp(type, "IEND", 4) == 0) {
        w->ended = true;
    } else if (!(type[0] & 0x20)) { /* a capital first letter: needed to understand the picture */
        return cvq_fail(err, CVQ_UNSUPPORTED, path,
                        "a PNG with a required chunk of an unknown type (0x%08x)" CVQ_SAVE_ANEW,
                        cvq_load_be32(type));
    }
    return CVQ_OK;
}

static cvq_status walk_chunks(png_walk *w, const uint8_t *data, size_t size, const char *path,
                              cvq_error *err) {
    uint32_t table[256];
    crc_table_make(table);
    size_t at = SIGNATURE_BYTES;
    while (!w->ended) {
        uint32_t length = 0;
        if (size - at >= CHUNK_BYTES) length = cvq_load_be32(data + at);
        if (size - at < CHUNK_BYTES || length > size - at - CHUNK_BYTES)
            return cvq_fail(err, CVQ_FORMAT, path,
                            "a truncated PNG: it ends at byte %zu, inside a chunk" CVQ_SAVE_ANEW,
                            size);
        const uint8_t *type = data + at + 4;
        /* As in libpng, damage to what only decorates does not spoil the picture. */
        if (!(type[0] & 0x20) &&
            crc32_of(table, type, (size_t)length + 4) != cvq_load_be32(type + 4 + length))
            return cvq_fail(
                err, CVQ_FORMAT, path,
                "a damaged PNG: the checksum of the chunk at byte %zu is wrong" CVQ_SAVE_ANEW, at);
        CVQ_TRY(take_chunk(w, type, type + 4, length, path, err));
        at += CHUNK_BYTES + (size_t)length;
    }
    return CVQ_OK;
}

cvq_status cvq_png_stream(cvq_picture_stream *stream, const uint8_t *data, size_t size,
                          size_t max_pixels, const char *path, cvq_error *err) {
    png_walk w = {0};
    png_header h = {0};
    cvq_buffer *out = &stream->bytes;
    cvq_status status = walk_chunks(&w, data, size, path, err);
    if (status == CVQ_OK) status = parse_header(&h, w.ihdr, max_pixels, path, err);
    if (status != CVQ_OK) goto done;
    if (w.idat.size == 0) {
        status = cvq_fail(err, CVQ_FORMAT, path, "a PNG without pixels (IDAT)" CVQ_SAVE_ANEW);
        goto done;
    }
    if (h.color == PALETTE && !w.palette) {
        status = cvq_fail(err, CVQ_FORMAT, path,
                          "a PNG with palette colours but no palette" CVQ_SAVE_ANEW);
        goto done;
    }
    status = cvq_buffer_append(out, data, SIGNATURE_BYTES, err);
    if (status == CVQ_OK) status = append_chunk(out, "IHDR", w.ihdr, IHDR_BYTES, err);
    if (status == CVQ_OK && h.color == PALETTE) {
        uint8_t palette[PALETTE_BYTES]; /* colours beyond the file's own: PIL's grey ramp */
        for (size_t i = 0; i < PALETTE_BYTES; i++) palette[i] = (uint8_t)(i / 3);
        memcpy(palette, w.palette, w.palette_bytes);
        status = append_chunk(out, "PLTE", palette, sizeof palette, err);
    }
    if (status == CVQ_OK) status = append_chunk(out, "IDAT", w.idat.data, w.idat.size, err);
    if (status == CVQ_OK) status = append_chunk(out, "IEND", NULL, 0, err);
    stream->width = h.width;
    stream->height = h.height;
    stream->orientation = 1;
    stream->decoder_bytes = decoder_bytes(&h, w.idat.size + 4096);
done:
    cvq_buffer_free(&w.idat);
    return status;
}
