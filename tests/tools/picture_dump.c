/* For tests/test_pictures.py: what the picture code makes of a file or of raw pixels, on stdout.
 *
 *   picture_dump [-n] [-s SECONDS] [-p PIXELS] FILE      "width height\n", then RGB
 *   picture_dump -m FILE...                              a line each: "ok WIDTH HEIGHT HASH", the
 *                                                        hash FNV-1a of the RGB, or "CODE: message"
 *   picture_dump -r WIDTH HEIGHT OUT_WIDTH OUT_HEIGHT    resizes the RGB on stdin
 *   picture_dump -f SIZE                                 SIZE x SIZE RGB on stdin to f32 planes
 *
 * An error goes to stderr as "CODE: where: message", exit status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "imageio/picture.h"
#include "runtime/resize.h"

static int fail(const cvq_error *err) {
    fprintf(stderr, "%s: %s: %s\n", cvq_status_name(err->code), err->where, err->message);
    return 1;
}

static int dump_file(const char *path, const cvq_picture_options *options) {
    cvq_error err = {0};
    cvq_picture picture = {0};
    if (cvq_picture_read(&picture, path, options, &err) != CVQ_OK) return fail(&err);
    printf("%zu %zu\n", picture.width, picture.height);
    size_t bytes = picture.width * picture.height * 3;
    int bad = fwrite(picture.rgb, 1, bytes, stdout) != bytes;
    cvq_picture_free(&picture);
    return bad;
}

static void tell_file(const char *path, const cvq_picture_options *options) {
    cvq_error err = {0};
    cvq_picture picture = {0};
    if (cvq_picture_read(&picture, path, options, &err) != CVQ_OK) {
        printf("%s: %s\n", cvq_status_name(err.code), err.message);
        return;
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < picture.width * picture.height * 3; i++)
        hash = (hash ^ picture.rgb[i]) * 0x100000001b3u;
    printf("ok %zu %zu %016llx\n", picture.width, picture.height, (unsigned long long)hash);
    cvq_picture_free(&picture);
}

static int read_stdin(uint8_t **data, size_t bytes, cvq_error *err) {
    if (cvq_alloc((void **)data, bytes, 1, "pixels", err) != CVQ_OK) return fail(err);
    if (fread(*data, 1, bytes, stdin) == bytes) return 0;
    fprintf(stderr, "stdin ended before %zu bytes\n", bytes);
    return 1;
}

static int dump_resized(char **size) {
    cvq_error err = {0};
    size_t w = strtoul(size[0], NULL, 10), h = strtoul(size[1], NULL, 10);
    size_t ow = strtoul(size[2], NULL, 10), oh = strtoul(size[3], NULL, 10);
    uint8_t *in = NULL, *out = NULL;
    int bad = read_stdin(&in, w * h * 3, &err);
    if (!bad && cvq_alloc((void **)&out, ow * oh, 3, "result", &err) != CVQ_OK) bad = fail(&err);
    clock_t start = clock();
    if (!bad && cvq_resize_bicubic(in, w, h, w * 3, out, ow, oh, &err) != CVQ_OK) bad = fail(&err);
    if (!bad) {
        fprintf(stderr, "%.1f ms\n", 1e3 * (double)(clock() - start) / CLOCKS_PER_SEC);
        bad = fwrite(out, 3, ow * oh, stdout) != ow * oh;
    }
    free(in);
    free(out);
    return bad;
}

static int dump_normalized(const char *text) {
    cvq_error err = {0};
    size_t size = strtoul(text, NULL, 10);
    uint8_t *in = NULL;
    float *out = NULL;
    int bad = read_stdin(&in, size * size * 3, &err);
    if (!bad && cvq_alloc((void **)&out, size * size * 3, sizeof *out, "planes", &err) != CVQ_OK)
        bad = fail(&err);
    if (!bad) {
        cvq_normalize_pixels(in, size, out);
        bad = fwrite(out, sizeof *out, size * size * 3, stdout) != size * size * 3;
    }
    free(in);
    free(out);
    return bad;
}

int main(int argc, char **argv) {
    cvq_picture_options options = {0};
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "-n"))
            options.ignore_exif = true;
        else if (!strcmp(argv[i], "-s") && i + 1 < argc)
            options.max_seconds = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "-p") && i + 1 < argc)
            options.max_pixels = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "-m")) {
            for (i++; i < argc; i++) tell_file(argv[i], &options);
            return 0;
        } else if (!strcmp(argv[i], "-r") && i + 5 == argc)
            return dump_resized(argv + i + 1);
        else if (!strcmp(argv[i], "-f") && i + 2 == argc)
            return dump_normalized(argv[i + 1]);
        else
            break;
    }
    if (i + 1 != argc) {
        fprintf(stderr, "use: see the head of tests/tools/picture_dump.c\n");
        return 2;
    }
    return dump_file(argv[i], &options);
}
