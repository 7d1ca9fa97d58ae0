/* A picture from a file: read, named by its first bytes, its structure checked, decoded in the
 * child, and turned the way EXIF says while it is copied out. */
#include "imageio/picture.h"

#include <stdbool.h>
#include <string.h>

#include "base/file_map.h"
#include "base/memory.h"
#include "imageio/picture_internal.h"

/* Copy [height][width][3] as EXIF's orientation wants it: mirrored for 2, 4, 5 and 7, on its side
 * for 5 to 8. A walk through the source of one step a pixel and another a row, as
 * PIL.ImageOps.exif_transpose. */
static void copy_oriented(uint8_t *to, const uint8_t *from, size_t width, size_t height,
                          int orientation) {
    const ptrdiff_t w = (ptrdiff_t)width, h = (ptrdiff_t)height;
    const bool sideways = orientation >= 5;
    /* Which source column and row the output's first pixel is: the far ones for these. */
    const bool right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool bottom =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const ptrdiff_t column_step = right ? -1 : 1, row_step = bottom ? -w : w;
    const ptrdiff_t dx = sideways ? row_step : column_step, dy = sideways ? column_step : row_step;
    const ptrdiff_t start = (right ? w - 1 : 0) + (bottom ? (h - 1) * w : 0);
    const ptrdiff_t out_w = sideways ? h : w, out_h = sideways ? w : h;
    for (ptrdiff_t y = 0; y < out_h; y++) {
        ptrdiff_t at = start + y * dy;
        for (ptrdiff_t x = 0; x < out_w; x++, at += dx, to += 3) memcpy(to, from + 3 * at, 3);
    }
}

static cvq_status copy_out(cvq_picture *picture, const cvq_picture_stream *stream,
                           const uint8_t *rgb, bool ignore_exif, cvq_error *err) {
    const size_t width = stream->width, height = stream->height;
    const int orientation = ignore_exif ? 1 : stream->orientation;
    uint8_t *pixels = NULL;
    CVQ_TRY(cvq_alloc((void **)&pixels, (uint64_t)width * height, 3, "picture", err));
    if (orientation == 1)
        memcpy(pixels, rgb, width * height * 3);
    else
        copy_oriented(pixels, rgb, width, height, orientation);
    const bool sideways = orientation >= 5;
    *picture = (cvq_picture){pixels, sideways ? height : width, sideways ? width : height};
    return CVQ_OK;
}

cvq_status cvq_picture_read(cvq_picture *picture, const char *path,
                            const cvq_picture_options *options, cvq_error *err) {
    const size_t max_pixels = options && options->max_pixels ? options->max_pixels : 200000000;
    const unsigned max_seconds = options && options->max_seconds ? options->max_seconds : 60;
    if (max_pixels > CVQ_PICTURE_PIXELS_LIMIT)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, path, "a limit of %zu pixels; at most %u",
                        max_pixels, CVQ_PICTURE_PIXELS_LIMIT);
    cvq_buffer file = {0};
    cvq_picture_stream stream = {0};
    cvq_decoded decoded = {0};
    cvq_picture_kind kind;
    cvq_status status = cvq_read_file(&file, path, CVQ_PICTURE_FILE_LIMIT, err);
    if (status == CVQ_OK) status = cvq_picture_sniff(&kind, file.data, file.size, path, err);
    if (status != CVQ_OK) goto done;
    if (kind == CVQ_PICTURE_PNG)
        status = cvq_png_stream(&stream, file.data, file.size, max_pixels, path, err);
    else
        status = cvq_jpeg_stream(&stream, file.data, file.size, max_pixels, path, err);
    if (status != CVQ_OK) goto done;
    cvq_buffer_free(&file);
    status = cvq_decode_in_child(&decoded, &stream, max_seconds, path, err);
    if (status == CVQ_OK)
        status = copy_out(picture, &stream, decoded.rgb, options && options->ignore_exif, err);
done:
    cvq_decoded_free(&decoded);
    cvq_buffer_free(&stream.bytes);
    cvq_buffer_free(&file);
    return status;
}

void cvq_picture_free(cvq_picture *picture) {
    if (!picture) return;
    free(picture->rgb);
    *picture = (cvq_picture){0};
}
