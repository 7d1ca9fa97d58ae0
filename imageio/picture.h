/* Pictures from files: PNG and JPEG by stb_image, in a child process that can do nothing but
 * decode. */
#ifndef CVQ_IMAGEIO_PICTURE_H
#define CVQ_IMAGEIO_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct cvq_picture {
    uint8_t *rgb; /* [height][width][3]; release with cvq_picture_free */
    size_t width, height;
} cvq_picture;

typedef struct cvq_picture_options {
    bool ignore_exif;     /* as the released code does */
    size_t max_pixels;    /* 0: 200 million */
    unsigned max_seconds; /* of the child's CPU time; 0: 60 */
} cvq_picture_options;

/* RGB as PIL's convert('RGB'): alpha dropped, palettes expanded, grey repeated; 16-bit channels
 * take the high byte. A JPEG's pixels are within 3 of 255 of libjpeg-turbo's, less than 0.2 in the
 * mean (stb_image rounds otherwise; the last columns of a 4:2:2 picture may differ more). EXIF's
 * orientation applied (JPEG only). WebP, HEIC/AVIF, GIF, BMP, TIFF, PDF and CMYK JPEG are
 * CVQ_UNSUPPORTED and say how to convert them; a damaged file is CVQ_FORMAT. options may be NULL.
 */
cvq_status cvq_picture_read(cvq_picture *picture, const char *path,
                            const cvq_picture_options *options, cvq_error *err);
void cvq_picture_free(cvq_picture *picture);

#endif
