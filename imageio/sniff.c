/* Which format a file is, by its first bytes, and for those that are not read here the command that
 * converts them. */
#include <stdbool.h>
#include <string.h>

#include "imageio/picture_internal.h"

typedef struct magic {
    size_t offset;
    const char *bytes;
    size_t size;
    const char *name, *convert;
} magic;

#define BYTES(offset, text) offset, text, sizeof text - 1
#define WITH_IMAGEMAGICK(ext) "`convert in." ext " out.png` (ImageMagick)"

static const magic others[] = {
    {BYTES(8, "WEBP"), "a WebP picture", "`dwebp in.webp -o out.png` or " WITH_IMAGEMAGICK("webp")},
    {BYTES(4, "ftypavif"), "an AVIF picture", "`avifdec in.avif out.png` (libavif)"},
    {BYTES(4, "ftypavis"), "an AVIF sequence", "`avifdec in.avif out.png` (libavif)"},
    {BYTES(4, "ftyphe"), "a HEIC picture", "`heif-convert in.heic out.png` (libheif)"},
    {BYTES(4, "ftypmif1"), "a HEIF picture", "`heif-convert in.heic out.png` (libheif)"},
    {BYTES(4, "ftypmsf1"), "a HEIF sequence", "`heif-convert in.heic out.png` (libheif)"},
    {BYTES(4, "ftypcrx "), "a raw photo (CR3)", "`darktable-cli in.cr3 out.png`"},
    {BYTES(4, "ftyp"), "a video", "`ffmpeg -i in.mp4 -frames:v 1 out.png` takes its first frame"},
    {BYTES(0, "GIF8"), "a GIF picture", "`convert 'in.gif[0]' out.png` (ImageMagick)"},
    {BYTES(0, "BM"), "a BMP picture", WITH_IMAGEMAGICK("bmp")},
    {BYTES(0, "II*\0"), "a TIFF picture", "`convert 'in.tif[0]' out.png` (ImageMagick)"},
    {BYTES(0, "MM\0*"), "a TIFF picture", "`convert 'in.tif[0]' out.png` (ImageMagick)"},
    {BYTES(0, "II+\0"), "a BigTIFF picture", "`convert 'in.tif[0]' out.png` (ImageMagick)"},
    {BYTES(0, "MM\0+"), "a BigTIFF picture", "`convert 'in.tif[0]' out.png` (ImageMagick)"},
    {BYTES(0, "%PDF-"), "a PDF document", "`pdftoppm -r 150 -png in.pdf page` (poppler)"},
    {BYTES(0, "%!PS"), "a PostScript document", "`gs -sDEVICE=png16m -r150 -o out%d.png in.ps`"},
    {BYTES(0, "\xff\x0a"), "a JPEG XL picture", "`djxl in.jxl out.png` (libjxl)"},
    {BYTES(4, "JXL \r\n\x87\n"), "a JPEG XL picture", "`djxl in.jxl out.png` (libjxl)"},
    {BYTES(4, "jP  \r\n\x87\n"), "a JPEG 2000 picture", "`opj_decompress -i in.jp2 -o out.png`"},
    {BYTES(0, "\xff\x4f\xff\x51"), "a JPEG 2000 stream", "`opj_decompress -i in.j2k -o out.png`"},
    {BYTES(0, "8BPS"), "a Photoshop file", "`convert 'in.psd[0]' out.png` (ImageMagick)"},
    {BYTES(0, "\0\0\1\0"), "an icon", "`convert 'in.ico[0]' out.png` (ImageMagick)"},
    {BYTES(0, "<svg"), "an SVG drawing", "`rsvg-convert -o out.png in.svg` (librsvg)"},
    {BYTES(0, "<?xml"), "XML, perhaps an SVG drawing", "`rsvg-convert -o out.png in.svg`"},
    {BYTES(0, "qoif"), "a QOI picture", WITH_IMAGEMAGICK("qoi")},
    {BYTES(0, "#?RADIANCE"), "a Radiance HDR picture", WITH_IMAGEMAGICK("hdr")},
    {BYTES(0, "\x76\x2f\x31\x01"), "an OpenEXR picture", WITH_IMAGEMAGICK("exr")},
};

static bool begins(const uint8_t *data, size_t size, size_t offset, const char *bytes, size_t n) {
    return size >= offset + n && memcmp(data + offset, bytes, n) == 0;
}

cvq_status cvq_picture_sniff(cvq_picture_kind *kind, const uint8_t *data, size_t size,
                             const char *path, cvq_error *err) {
    if (size == 0) return cvq_fail(err, CVQ_FORMAT, path, "the file is empty; fetch it again");
    if (begins(data, size, BYTES(0, "\x89PNG\r\n\x1a\n"))) {
        *kind = CVQ_PICTURE_PNG;
        return CVQ_OK;
    }
    if (begins(data, size, BYTES(0, "\xff\xd8"))) {
        *kind = CVQ_PICTURE_JPEG;
        return CVQ_OK;
    }
    if (begins(data, size, BYTES(0, "\x89PNG")))
        return cvq_fail(err, CVQ_FORMAT, path,
                        "a PNG whose signature is damaged, as by a transfer in text mode; "
                        "fetch it again");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (begins(data, size, others[i].offset, others[i].bytes, others[i].size))
            return cvq_fail(err, CVQ_UNSUPPORTED, path,
                            "%s; only PNG and JPEG are read. Convert it: %s", others[i].name,
                            others[i].convert);
    if (size > 2 && data[0] == 'P' && data[1] >= '1' && data[1] <= '7' &&
        (data[2] == '\n' || data[2] == ' '))
        return cvq_fail(err, CVQ_UNSUPPORTED, path,
                        "a PNM picture; only PNG and JPEG are read. Convert it: %s",
                        WITH_IMAGEMAGICK("ppm"));
    return cvq_fail(err, CVQ_UNSUPPORTED, path,
                    "neither a PNG nor a JPEG picture (it begins with byte 0x%02x); convert it to "
                    "PNG",
                    data[0]);
}

cvq_status cvq_picture_check_size(uint32_t width, uint32_t height, size_t max_pixels,
                                  const char *path, cvq_error *err) {
    if (width == 0 || height == 0)
        return cvq_fail(err, CVQ_FORMAT, path, "a picture of %u x %u pixels" CVQ_SAVE_ANEW, width,
                        height);
    if (width > CVQ_PICTURE_SIDE_LIMIT || height > CVQ_PICTURE_SIDE_LIMIT ||
        (uint64_t)width * height > max_pixels)
        return cvq_fail(err, CVQ_UNSUPPORTED, path,
                        "%u x %u pixels; at most %zu pixels and sides of %u are read. Make it "
                        "smaller: `convert in -resize 4000x4000 out.png` (ImageMagick)",
                        width, height, max_pixels, CVQ_PICTURE_SIDE_LIMIT);
    return CVQ_OK;
}
