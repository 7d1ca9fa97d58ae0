/* What the files of imageio share: a file is named by its first bytes (sniff.c), its structure is
 * walked and checked here in the parent (png_stream.c, jpeg_stream.c, exif.c), and what is left of
 * it, nothing but what decoding needs, goes to stb_image (stb_decode.c) in a child without rights
 * (decode_child.c). */
#ifndef CVQ_IMAGEIO_PICTURE_INTERNAL_H
#define CVQ_IMAGEIO_PICTURE_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "imageio/picture.h"

/* stb_image's own arithmetic is in int: below this count of pixels none of it overflows, at 8 bytes
 * a pixel. */
#define CVQ_PICTURE_PIXELS_LIMIT 250000000u
#define CVQ_PICTURE_SIDE_LIMIT 65535u
#define CVQ_PICTURE_FILE_LIMIT ((size_t)256 << 20)

/* What to do about a damaged picture, or one that a careless program wrote. */
#define CVQ_SAVE_ANEW "; fetch it again, or save it anew: `convert in out.png` (ImageMagick)"

typedef enum cvq_picture_kind { CVQ_PICTURE_PNG, CVQ_PICTURE_JPEG } cvq_picture_kind;

/* PNG or JPEG; everything else is refused by its name and with the command that converts it. */
cvq_status cvq_picture_sniff(cvq_picture_kind *kind, const uint8_t *data, size_t size,
                             const char *path, cvq_error *err);

/* A file's structure, checked: what the decoder gets and what it may use. */
typedef struct cvq_picture_stream {
    cvq_buffer bytes; /* a minimal file of the same pixels; release with cvq_buffer_free */
    size_t width, height;
    int orientation;        /* EXIF's, 1 to 8 */
    uint64_t decoder_bytes; /* an upper bound of all that stb_image allocates for an honest file */
} cvq_picture_stream;

/* Each reads the whole file's structure, refuses more than max_pixels, and fills *stream, which is
 * {0} before. On failure bytes may be there and must be freed all the same. */
cvq_status cvq_png_stream(cvq_picture_stream *stream, const uint8_t *data, size_t size,
                          size_t max_pixels, const char *path, cvq_error *err);
cvq_status cvq_jpeg_stream(cvq_picture_stream *stream, const uint8_t *data, size_t size,
                           size_t max_pixels, const char *path, cvq_error *err);
/* Sides within CVQ_PICTURE_SIDE_LIMIT, none of them 0, at most max_pixels. */
cvq_status cvq_picture_check_size(uint32_t width, uint32_t height, size_t max_pixels,
                                  const char *path, cvq_error *err);

/* The orientation that an APP1 segment's TIFF structure (behind "Exif\0\0") holds, 1 to 8; 1 where
 * it holds none or is malformed. */
int cvq_exif_orientation(const uint8_t *tiff, size_t size);

/* RGB in a mapping shared with a child that has ended. */
typedef struct cvq_decoded {
    const uint8_t *rgb; /* [height][width][3], inside the mapping */
    void *mapping;
    size_t mapping_bytes;
} cvq_decoded;

/* Decode in a child process. *decoded is {0} before; release with cvq_decoded_free. */
cvq_status cvq_decode_in_child(cvq_decoded *decoded, const cvq_picture_stream *stream,
                               unsigned max_seconds, const char *path, cvq_error *err);
void cvq_decoded_free(cvq_decoded *decoded);

/* stb_image over memory that it is given: input in, RGB at a place inside the arena out, NULL with
 * a reason (static or inside stb_image) on failure. Neither allocates elsewhere nor makes a system
 * call. For one thread of a process that has no other use for stb_image: the child. */
const uint8_t *cvq_stb_decode(const uint8_t *input, size_t size, uint8_t *memory,
                              size_t memory_size, int *width, int *height, const char **reason);

static inline uint32_t cvq_load_be16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}
static inline uint32_t cvq_load_be32(const uint8_t *p) {
    return cvq_load_be16(p) << 16 | cvq_load_be16(p + 2);
}

#endif
