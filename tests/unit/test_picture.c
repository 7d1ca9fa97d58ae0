/* Pictures from files without PIL at hand: the fixtures of tests/pictures (a .rgb beside each holds
 * PIL's pixels; tests/test_pictures.py makes them), EXIF's eight orientations, and files that must
 * be refused. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/memory.h"
#include "imageio/picture.h"
#include "tests/unit/harness.h"

static char folder[256];

static const char *path_of(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const void *data, size_t size) {
    const char *path = path_of(name);
    unlink(path); /* some file systems flush a file that is cut and written anew: slow */
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
    return path;
}

static cvq_buffer fixture(const char *name) {
    char path[512];
    cvq_buffer b = {0};
    cvq_error err = {0};
    snprintf(path, sizeof path, "tests/pictures/%s", name);
    if (cvq_read_file(&b, path, 1 << 20, &err) != CVQ_OK) {
        printf("%s: %s (run from the root of the checkout)\n", err.where, err.message);
        exit(1);
    }
    return b;
}

/* The largest difference between a fixture's pixels and PIL's, or 999. */
static int difference(const char *name, const char *extension) {
    char path[128];
    cvq_picture p = {0};
    cvq_error err = {0};
    snprintf(path, sizeof path, "tests/pictures/%s.%s", name, extension);
    if (cvq_picture_read(&p, path, NULL, &err) != CVQ_OK) {
        printf("  %s: %s\n", err.where, err.message);
        return 999;
    }
    snprintf(path, sizeof path, "%s.rgb", name);
    cvq_buffer want = fixture(path);
    int most = want.size == p.width * p.height * 3 ? 0 : 999;
    for (size_t i = 0; i < want.size && most < 999; i++) {
        const int d = abs(p.rgb[i] - want.data[i]);
        if (d > most) most = d;
    }
    cvq_buffer_free(&want);
    cvq_picture_free(&p);
    return most;
}

static void png_modes_equal_pil(void) {
    static const char *const names[] = {"type0_1bit",  "type0_2bit", "type0_4bit",  "type0_8bit",
                                        "type0_16bit", "type2_8bit", "type2_16bit", "type3_1bit",
                                        "type3_2bit",  "type3_4bit", "type3_8bit",  "type4_8bit",
                                        "type4_16bit", "type6_8bit", "type6_16bit"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        CHECK_SAY(difference(names[i], "png") == 0, "%s.png", names[i]);
}

static void jpegs_are_near_pil(void) {
    static const char *const names[] = {"photo420", "photo_progressive", "photo_grey"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const int most = difference(names[i], "jpg");
        CHECK_SAY(most <= 4, "%s.jpg: %d", names[i], most);
    }
}

/* A JPEG with an EXIF block behind its first marker. */
static const char *with_orientation(const cvq_buffer *jpeg, unsigned orientation, bool big_endian) {
    static const uint8_t little[36] =
        "\xff\xe1\0\x22"
        "Exif\0\0II*\0\x08\0\0\0\1\0\x12\x01\3\0\1\0\0\0\0\0\0\0\0\0\0";
    static const uint8_t big[36] = "\xff\xe1\0\x22"
                                   "Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\0\0\0\0\0\0";
    uint8_t block[36];
    cvq_buffer b = {0};
    memcpy(block, big_endian ? big : little, sizeof block);
    block[big_endian ? 29 : 28] = (uint8_t)orientation;
    if (cvq_buffer_append(&b, jpeg->data, 2, NULL) != CVQ_OK ||
        cvq_buffer_append(&b, block, sizeof block, NULL) != CVQ_OK ||
        cvq_buffer_append(&b, jpeg->data + 2, jpeg->size - 2, NULL) != CVQ_OK)
        abort();
    const char *path = write_file("exif.jpg", b.data, b.size);
    cvq_buffer_free(&b);
    return path;
}

/* Where the pixel (x, y) of the picture that the camera means lies in what it stored, from the
 * TIFF specification's words: row 0 is top, left, ... and column 0 is left, top, ... */
static void stored_place(unsigned orientation, size_t w, size_t h, size_t x, size_t y, size_t *sx,
                         size_t *sy) {
    const size_t u = orientation >= 5 ? y : x, v = orientation >= 5 ? x : y;
    const bool from_right =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_bottom =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    *sx = from_right ? w - 1 - u : u;
    *sy = from_bottom ? h - 1 - v : v;
}

static void exif_orientations(void) {
    cvq_buffer jpeg = fixture("photo420.jpg");
    cvq_picture plain = {0}, p = {0};
    CHECK(cvq_picture_read(&plain, "tests/pictures/photo420.jpg", NULL, NULL) == CVQ_OK);
    const size_t w = plain.width, h = plain.height;
    for (unsigned o = 0; o <= 9; o++) {
        const char *path = with_orientation(&jpeg, o, o % 2);
        CHECK(cvq_picture_read(&p, path, NULL, NULL) == CVQ_OK);
        const unsigned meant = o >= 1 && o <= 8 ? o : 1;
        CHECK_SAY(meant < 5 ? p.width == w && p.height == h : p.width == h && p.height == w,
                  "orientation %u", o);
        size_t wrong = 0;
        for (size_t y = 0; y < p.height; y++)
            for (size_t x = 0; x < p.width; x++) {
                size_t sx, sy;
                stored_place(meant, w, h, x, y, &sx, &sy);
                wrong +=
                    memcmp(p.rgb + 3 * (y * p.width + x), plain.rgb + 3 * (sy * w + sx), 3) != 0;
            }
        CHECK_SAY(wrong == 0, "orientation %u: %zu pixels", o, wrong);
        cvq_picture_free(&p);
    }
    const cvq_picture_options ignore = {.ignore_exif = true};
    CHECK(cvq_picture_read(&p, with_orientation(&jpeg, 6, true), &ignore, NULL) == CVQ_OK);
    CHECK(p.width == w && memcmp(p.rgb, plain.rgb, w * h * 3) == 0);
    cvq_picture_free(&p);
    cvq_picture_free(&plain);
    cvq_buffer_free(&jpeg);
}

/* The status of reading it; *picture must be left alone on failure. */
static cvq_status status_of(const char *path, const cvq_picture_options *options, cvq_error *err) {
    uint8_t marker = 0;
    cvq_picture p = {&marker, 1, 2};
    *err = (cvq_error){0};
    const cvq_status status = cvq_picture_read(&p, path, options, err);
    if (status == CVQ_OK) {
        cvq_picture_free(&p);
    } else {
        CHECK(p.rgb == &marker && p.width == 1 && p.height == 2);
        CHECK(strcmp(err->where, path) == 0 && err->message[0] != 0);
    }
    return status;
}

static void other_formats_are_named(void) {
    static const struct {
        const char *bytes;
        size_t size;
        const char *says;
    } files[] = {{"RIFF\0\0\0\0WEBPVP8 ", 16, "WebP"},
                 {"\0\0\0\x18"
                  "ftypheic",
                  12, "HEIC"},
                 {"\0\0\0\x18"
                  "ftypavif",
                  12, "AVIF"},
                 {"GIF89a", 6, "GIF"},
                 {"BM\0\0\0\0", 6, "BMP"},
                 {"II*\0\0\0", 6, "TIFF"},
                 {"MM\0*\0\0", 6, "TIFF"},
                 {"%PDF-1.5", 8, "PDF"},
                 {"hello", 5, "neither"},
                 {"\xff", 1, "neither"}};
    cvq_error err;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = write_file("other", files[i].bytes, files[i].size);
        CHECK_SAY(status_of(path, NULL, &err) == CVQ_UNSUPPORTED, "%s", files[i].says);
        CHECK_SAY(strstr(err.message, files[i].says) != NULL, "%s", err.message);
    }
    CHECK(status_of(write_file("other", "", 0), NULL, &err) == CVQ_FORMAT);
    CHECK(status_of("tests/pictures/cmyk.jpg", NULL, &err) == CVQ_UNSUPPORTED);
    CHECK(strstr(err.message, "CMYK") != NULL);
    CHECK(status_of("tests/pictures", NULL, &err) == CVQ_IO);
    CHECK(status_of(path_of("nowhere"), NULL, &err) == CVQ_NOT_FOUND);
}

static void limits_are_heeded(void) {
    cvq_error err;
    const char *path = "tests/pictures/type2_8bit.png"; /* 9 x 5 */
    CHECK(status_of(path, &(cvq_picture_options){.max_pixels = 45}, &err) == CVQ_OK);
    CHECK(status_of(path, &(cvq_picture_options){.max_pixels = 44}, &err) == CVQ_UNSUPPORTED);
    CHECK(status_of(path, &(cvq_picture_options){.max_pixels = SIZE_MAX}, &err) ==
          CVQ_INVALID_ARGUMENT);
    CHECK(status_of(path, &(cvq_picture_options){.max_seconds = 1}, &err) == CVQ_OK);
}

static void truncated_files_are_refused(void) {
    static const char *const names[] = {"photo420.jpg", "photo_progressive.jpg", "type6_8bit.png"};
    cvq_error err;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cvq_buffer b = fixture(names[i]);
        size_t accepted = 0;
        for (size_t n = 0; n < b.size; n++)
            accepted += status_of(write_file("cut", b.data, n), NULL, &err) == CVQ_OK;
        CHECK_SAY(accepted == 0, "%s: %zu cut ones were read", names[i], accepted);
        cvq_buffer_free(&b);
    }
}

/* One flipped bit in each byte (a few of them at a time for speed): whatever comes of it, the
 * caller survives; a PNG's checksums find every one. */
static void flipped_bits(void) {
    static const char *const names[] = {"photo420.jpg", "photo_progressive.jpg", "type3_8bit.png"};
    cvq_error err;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cvq_buffer b = fixture(names[i]);
        const size_t step = i < 2 ? 13 : 3;
        for (size_t at = 2; at < b.size; at += step) {
            b.data[at] ^= (uint8_t)(1u << at % 8);
            const cvq_status status = status_of(write_file("flip", b.data, b.size), NULL, &err);
            CHECK(status == CVQ_OK || status == CVQ_FORMAT || status == CVQ_UNSUPPORTED);
            b.data[at] ^= (uint8_t)(1u << at % 8);
        }
        cvq_buffer_free(&b);
    }
}

static int open_files(void) {
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void leaves_nothing_behind(void) {
    const int before = open_files();
    cvq_error err;
    CHECK(status_of("tests/pictures/photo420.jpg", NULL, &err) == CVQ_OK);
    CHECK(status_of("tests/pictures/type2_8bit.png", NULL, &err) == CVQ_OK);
    CHECK(open_files() == before);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0); /* no child is left */
    cvq_picture_free(NULL);
}

static volatile sig_atomic_t handled;
static void on_signal(int number) {
    (void)number;
    handled++;
}

/* In programs that ignore SIGCHLD or handle it, as any may. */
static void works_whatever_becomes_of_sigchld(void) {
    cvq_error err;
    signal(SIGCHLD, SIG_IGN);
    CHECK(status_of("tests/pictures/photo420.jpg", NULL, &err) == CVQ_OK);
    signal(SIGCHLD, on_signal);
    CHECK(status_of("tests/pictures/photo420.jpg", NULL, &err) == CVQ_OK);
    CHECK(handled > 0);
    signal(SIGCHLD, SIG_DFL);
}

int main(void) {
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/cvq-picture-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder)) return 1;
    RUN(png_modes_equal_pil);
    RUN(jpegs_are_near_pil);
    RUN(exif_orientations);
    RUN(other_formats_are_named);
    RUN(limits_are_heeded);
    RUN(truncated_files_are_refused);
    RUN(flipped_bits);
    RUN(leaves_nothing_behind);
    RUN(works_whatever_becomes_of_sigchld);
    static const char *const files[] = {"exif.jpg", "other", "cut", "flip"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(path_of(files[i]));
    rmdir(folder);
    return REPORT();
}
