/* The structure of a JPEG: segments walked and checked, and a minimal JPEG written of what pixels
 * need: tables, the frame, the scans.
 *
 * Comments and application segments are dropped after EXIF's orientation and the two that say what
 * the colours are (JFIF, Adobe) were read. Components get the numbers 1, 2, 3, and an Adobe segment
 * says so where they are RGB, so that stb_image decides on the colours as libjpeg (and so PIL)
 * does. Bytes that stb_image 2.27 would trust are checked here: counts in Huffman tables, tables
 * that a scan uses but nothing defined, a file that stops before its end marker. */
#include <stdbool.h>
#include <string.h>

#include "base/checked.h"
#include "imageio/picture_internal.h"

enum {
    SOF0 = 0xc0,
    SOF1 = 0xc1,
    SOF2 = 0xc2,
    DHT = 0xc4,
    JPG = 0xc8,
    DAC = 0xcc,
    SOF15 = 0xcf,
    RST0 = 0xd0,
    RST7 = 0xd7,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    DQT = 0xdb,
    DNL = 0xdc,
    DRI = 0xdd,
    DHP = 0xde,
    EXP = 0xdf,
    APP0 = 0xe0,
    APP1 = 0xe1,
    APP14 = 0xee,
    APP15 = 0xef,
    SOF55 = 0xf7, /* JPEG-LS */
    COM = 0xfe,
    TEM = 0x01
};

#define CONVERT "convert it: `convert in.jpg -colorspace sRGB out.png` (ImageMagick)"
enum { MAX_COMPONENTS = 3, TABLES = 4 };

typedef struct jpeg_component {
    uint8_t id, h, v, quant;
    bool decoded; /* a scan with its first coefficients was seen */
} jpeg_component;

typedef struct jpeg_walk {
    const uint8_t *data;
    size_t size, at, max_pixels;
    const char *path;
    cvq_picture_stream *stream;
    bool framed, progressive, jfif, adobe, exif;
    uint8_t adobe_transform;
    unsigned count; /* of components */
    jpeg_component component[MAX_COMPONENTS];
    bool huffman[2][TABLES], quant[TABLES];
} jpeg_walk;

static cvq_status damaged(const jpeg_walk *w, const char *what, cvq_error *err) {
    return cvq_fail(err, CVQ_FORMAT, w->path, "a damaged JPEG: %s (before byte %zu)" CVQ_SAVE_ANEW,
                    what, w->at);
}

static cvq_status truncated(const jpeg_walk *w, cvq_error *err) {
    return cvq_fail(err, CVQ_FORMAT, w->path,
                    "a truncated JPEG: it ends at byte %zu, before its end marker" CVQ_SAVE_ANEW,
                    w->size);
}

/* A segment is marker, length (which counts itself), payload. */
static cvq_status copy_segment(jpeg_walk *w, uint8_t marker, const uint8_t *payload, size_t n,
                               cvq_error *err) {
    const uint8_t head[4] = {0xff, marker, (uint8_t)((n + 2) >> 8), (uint8_t)(n + 2)};
    CVQ_TRY(cvq_buffer_append(&w->stream->bytes, head, 4, err));
    return cvq_buffer_append(&w->stream->bytes, payload, n, err);
}

/* The sum of what stb_image allocates: planes of whole MCUs (coefficients too, if progressive), a
 * line a component, the picture, its own state. */
static uint64_t decoder_bytes(const jpeg_walk *w, unsigned h_max, unsigned v_max) {
    const uint64_t width = w->stream->width, height = w->stream->height;
    const uint64_t mcu_x = (width + 8 * h_max - 1) / (8 * h_max);
    const uint64_t mcu_y = (height + 8 * v_max - 1) / (8 * v_max);
    uint64_t total = 3 * width * height + (1u << 17);
    for (unsigned i = 0; i < w->count; i++) {
        const uint64_t plane = mcu_x * mcu_y * 64 * w->component[i].h * w->component[i].v;
        total += plane * (w->progressive ? 3 : 1) + width + 128;
    }
    return total;
}

static cvq_status check_components(const jpeg_walk *w, unsigned *h_max, unsigned *v_max,
                                   cvq_error *err) {
    for (unsigned i = 0; i < w->count; i++) {
        const jpeg_component *c = &w->component[i];
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->quant >= TABLES)
            return damaged(w, "sampling or table number out of range", err);
        for (unsigned j = 0; j < i; j++)
            if (w->component[j].id == c->id) return damaged(w, "two components of one name", err);
        if (c->h > *h_max) *h_max = c->h;
        if (c->v > *v_max) *v_max = c->v;
    }
    for (unsigned i = 0; i < w->count; i++)
        if (*h_max % w->component[i].h != 0 || *v_max % w->component[i].v != 0)
            return cvq_fail(err, CVQ_UNSUPPORTED, w->path,
                            "a JPEG with fractional colour sampling; " CONVERT);
    return CVQ_OK;
}

static cvq_status take_frame(jpeg_walk *w, uint8_t marker, const uint8_t *p, size_t n,
                             cvq_error *err) {
    if (marker == SOF55 || (marker != SOF0 && marker != SOF1 && marker != SOF2))
        return cvq_fail(err, CVQ_UNSUPPORTED, w->path,
                        "%s JPEG; only baseline and progressive Huffman-coded ones are read, "
                        "so " CONVERT,
                        marker == SOF55                   ? "a JPEG-LS kind of"
                        : marker == 0xc3                  ? "a lossless"
                        : marker >= 0xc9 && marker <= DAC ? "an arithmetic-coded"
                                                          : "a hierarchical or arithmetic-coded");
    if (w->framed) return damaged(w, "a second frame header", err);
    if (n < 6 || n != 6 + 3 * (size_t)p[5]) return damaged(w, "a misshapen frame header", err);
    if (p[0] != 8)
        return cvq_fail(err, CVQ_UNSUPPORTED, w->path,
                        "a JPEG of %u-bit samples; only 8 bits are "
                        "read, so " CONVERT,
                        p[0]);
    if (p[5] == 4)
        return cvq_fail(err, CVQ_UNSUPPORTED, w->path,
                        "a CMYK JPEG (4 colour components), whose colours depend on a printing "
                        "profile; " CONVERT);
    if (p[5] != 1 && p[5] != 3)
        return cvq_fail(err, CVQ_UNSUPPORTED, w->path, "a JPEG of %u colour components; " CONVERT,
                        p[5]);
    if (cvq_load_be16(p + 1) == 0)
        return cvq_fail(err, CVQ_UNSUPPORTED, w->path,
                        "a JPEG that tells its height only at its end; " CONVERT);
    CVQ_TRY(cvq_picture_check_size(cvq_load_be16(p + 3), cvq_load_be16(p + 1), w->max_pixels,
                                   w->path, err));
    w->framed = true;
    w->progressive = marker == SOF2;
    w->stream->height = cvq_load_be16(p + 1);
    w->stream->width = cvq_load_be16(p + 3);
    w->count = p[5];
    for (unsigned i = 0; i < w->count; i++) {
        const uint8_t *c = p + 6 + 3 * i;
        w->component[i] = (jpeg_component){c[0], c[1] >> 4, c[1] & 15, c[2], false};
    }
    unsigned h_max = 1, v_max = 1;
    CVQ_TRY(check_components(w, &h_max, &v_max, err));
    w->stream->decoder_bytes = decoder_bytes(w, h_max, v_max);

    CVQ_TRY(copy_segment(w, marker, p, n, err));
    uint8_t *copy = w->stream->bytes.data + w->stream->bytes.size - n;
    for (unsigned i = 0; i < w->count; i++) copy[6 + 3 * i] = (uint8_t)(i + 1);
    return CVQ_OK;
}

static cvq_status take_huffman(jpeg_walk *w, const uint8_t *p, size_t n, cvq_error *err) {
    for (size_t at = 0; at < n;) {
        size_t symbols = 0;
        if (n - at < 17) return damaged(w, "a misshapen Huffman table", err);
        const uint8_t class = p[at] >> 4, number = p[at] & 15;
        for (unsigned i = 1; i <= 16; i++) symbols += p[at + i];
        if (class > 1 || number >= TABLES || symbols > 256 || symbols > n - at - 17)
            return damaged(w, "a Huffman table out of range", err);
        w->huffman[class][number] = true;
        at += 17 + symbols;
    }
    return copy_segment(w, DHT, p, n, err);
}

static cvq_status take_quantization(jpeg_walk *w, const uint8_t *p, size_t n, cvq_error *err) {
    for (size_t at = 0; at < n;) {
        const size_t bytes = 1 + (p[at] >> 4 ? 128 : 64);
        if (p[at] >> 4 > 1 || (p[at] & 15) >= TABLES || bytes > n - at)
            return damaged(w, "a quantization table out of range", err);
        w->quant[p[at] & 15] = true;
        at += bytes;
    }
    return copy_segment(w, DQT, p, n, err);
}

/* The offset of the marker that ends entropy-coded data, or size. */
static size_t scan_end(const uint8_t *data, size_t at, size_t size) {
    while (at < size) {
        const uint8_t *found = memchr(data + at, 0xff, size - at);
        if (!found) return size;
        at = (size_t)(found - data);
        if (size - at < 2) return size;
        const uint8_t next = data[at + 1];
        if (next == 0 || (next >= RST0 && next <= RST7))
            at += 2;
        else if (next == 0xff)
            at += 1; /* a fill byte */
        else
            return at;
    }
    return size;
}

/* The header of a scan and the data behind it; w->at stands behind the header. */
static cvq_status take_scan(jpeg_walk *w, const uint8_t *p, size_t n, cvq_error *err) {
    if (!w->framed) return damaged(w, "a scan before the frame header", err);
    if (n < 4 || p[0] < 1 || p[0] > w->count || n != 4 + 2 * (size_t)p[0])
        return damaged(w, "a misshapen scan header", err);
    const uint8_t *spectral = p + n - 3; /* first and last coefficient, bit positions */
    const bool has_dc = !w->progressive || spectral[0] == 0;
    const bool has_ac = !w->progressive || spectral[0] > 0;
    const bool refines = spectral[2] >> 4 != 0;
    uint8_t numbers[MAX_COMPONENTS] = {0};
    for (unsigned i = 0; i < p[0]; i++) {
        const uint8_t id = p[1 + 2 * i], dc = p[2 + 2 * i] >> 4, ac = p[2 + 2 * i] & 15;
        unsigned which = 0;
        while (which < w->count && w->component[which].id != id) which++;
        if (which == w->count || dc >= TABLES || ac >= TABLES)
            return damaged(w, "a scan of a component or table that there is not", err);
        jpeg_component *c = &w->component[which];
        if (!w->quant[c->quant]) return damaged(w, "no quantization table", err);
        if ((has_dc && !refines && !w->huffman[0][dc]) || (has_ac && !w->huffman[1][ac]))
            return cvq_fail(err, CVQ_UNSUPPORTED, w->path,
                            "a JPEG without Huffman tables (a frame of a Motion JPEG?); " CONVERT);
        c->decoded = c->decoded || has_dc;
        numbers[i] = (uint8_t)(which + 1);
    }
    CVQ_TRY(copy_segment(w, SOS, p, n, err));
    uint8_t *copy = w->stream->bytes.data + w->stream->bytes.size - n;
    for (unsigned i = 0; i < p[0]; i++) copy[1 + 2 * i] = numbers[i];

    const size_t end = scan_end(w->data, w->at, w->size);
    if (end == w->size) return truncated(w, err);
    CVQ_TRY(cvq_buffer_append(&w->stream->bytes, w->data + w->at, end - w->at, err));
    w->at = end;
    return CVQ_OK;
}

static void take_application(jpeg_walk *w, uint8_t marker, const uint8_t *p, size_t n) {
    if (marker == APP0 && n >= 5 && memcmp(p, "JFIF", 5) == 0) {
        w->jfif = true;
    } else if (marker == APP14 && n >= 12 && memcmp(p, "Adobe", 5) == 0) {
        w->adobe = true;
        w->adobe_transform = p[11];
    } else if (marker == APP1 && n >= 6 && memcmp(p, "Exif\0", 6) == 0 && !w->exif) {
        w->exif = true;
        w->stream->orientation = cvq_exif_orientation(p + 6, n - 6);
    }
}

static cvq_status take_segment(jpeg_walk *w, uint8_t marker, const uint8_t *p, size_t n,
                               cvq_error *err) {
    if (marker == DHT) return take_huffman(w, p, n, err);
    if (marker == DQT) return take_quantization(w, p, n, err);
    if (marker == SOS) return take_scan(w, p, n, err);
    if (marker == DRI)
        return n == 2 ? copy_segment(w, DRI, p, n, err)
                      : damaged(w, "a misshapen restart interval", err);
    if ((marker >= SOF0 && marker <= SOF15 && marker != JPG) || marker == SOF55)
        return take_frame(w, marker, p, n, err);
    if (marker == DHP || marker == EXP)
        return cvq_fail(err, CVQ_UNSUPPORTED, w->path, "a hierarchical JPEG; " CONVERT);
    if (marker >= APP0 && marker <= APP15)
        take_application(w, marker, p, n);
    else if (marker != COM && marker != DNL)
        return damaged(w, "an unknown marker", err);
    return CVQ_OK;
}

static cvq_status walk_segments(jpeg_walk *w, cvq_error *err) {
    for (;;) {
        /* As libjpeg, pass over stray bytes in front of a marker. */
        while (w->at < w->size && w->data[w->at] != 0xff) w->at++;
        while (w->at < w->size && w->data[w->at] == 0xff) w->at++;
        if (w->at == w->size) return truncated(w, err);
        const uint8_t marker = w->data[w->at++];
        if (marker == EOI) return CVQ_OK;
        if (marker == SOI) return damaged(w, "a second start marker", err);
        if (marker == 0 || marker == TEM || (marker >= RST0 && marker <= RST7)) continue;
        if (w->size - w->at < 2) return truncated(w, err);
        const size_t length = cvq_load_be16(w->data + w->at);
        if (length < 2) return damaged(w, "a segment shorter than its own length", err);
        if (length > w->size - w->at) return truncated(w, err);
        const uint8_t *payload = w->data + w->at + 2;
        w->at += length;
        CVQ_TRY(take_segment(w, marker, payload, length - 2, err));
    }
}

cvq_status cvq_jpeg_stream(cvq_picture_stream *stream, const uint8_t *data, size_t size,
                           size_t max_pixels, const char *path, cvq_error *err) {
    static const uint8_t start[2] = {0xff, SOI}, end[2] = {0xff, EOI};
    static const uint8_t adobe_rgb[12] = {'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0};
    stream->orientation = 1;
    jpeg_walk w = {.data = data, .size = size, .at = 2, .max_pixels = max_pixels, .path = path};
    w.stream = stream;
    CVQ_TRY(cvq_buffer_append(&stream->bytes, start, 2, err));
    CVQ_TRY(walk_segments(&w, err));
    if (!w.framed) return damaged(&w, "no picture in it", err);
    for (unsigned i = 0; i < w.count; i++)
        if (!w.component[i].decoded) return damaged(&w, "no data for one of the colours", err);

    const jpeg_component *c = w.component;
    const bool named_rgb = c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B';
    const bool is_rgb = w.jfif ? false : w.adobe ? w.adobe_transform == 0 : named_rgb;
    if (w.count == 3 && is_rgb) CVQ_TRY(copy_segment(&w, APP14, adobe_rgb, sizeof adobe_rgb, err));
    return cvq_buffer_append(&stream->bytes, end, 2, err);
}
