/* The resize and the normalization against values from PIL 9.4 and numpy, for pictures from a
 * linear congruential generator; tests/test_pictures.py compares more sizes with the PIL that is
 * there. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/resize.h"
#include "tests/unit/harness.h"

static uint8_t *random_bytes(size_t n, uint32_t seed) {
    uint8_t *p = malloc(n);
    if (!p) abort();
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (uint8_t)(seed >> 24);
    }
    return p;
}

/* FNV-1a */
static uint64_t hash_of(const uint8_t *p, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static const struct {
    size_t width, height, out_width, out_height;
    uint64_t hash; /* of PIL's result; the seed is the row's number, from 1 */
} sizes[] = {
    {1, 1, 1, 1, 0x70368918303614bau},         {1, 1, 7, 5, 0xbe1b8a0d424fd010u},
    {3, 2, 112, 112, 0x720f2d8af57794b6u},     {112, 112, 112, 112, 0x793b81afbcdb76c0u},
    {333, 190, 112, 112, 0xe6c980d703341613u}, {300, 17, 134, 134, 0x7bab149d33460ddfu},
    {17, 300, 134, 134, 0x4ee960d18c9bb183u},  {640, 480, 112, 112, 0x6b0b46d644f4efa7u},
    {112, 40, 112, 112, 0xee917deb9f2df5a0u},  {40, 112, 112, 112, 0x2db862f008a9988eu},
    {2000, 2, 3, 1, 0xc37b985a1a85ef57u},      {2, 2000, 1, 3, 0x044d4a1a553d0e07u},
    {100, 100, 1, 1, 0x2d34371adf582fadu},     {135, 133, 134, 134, 0x8e6a0598f51d7169u},
};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void equals_pil(void) {
    for (uint32_t i = 0; i < SIZES; i++) {
        const size_t w = sizes[i].width, h = sizes[i].height;
        const size_t n = sizes[i].out_width * sizes[i].out_height * 3;
        uint8_t *in = random_bytes(w * h * 3, i + 1), *out = malloc(n);
        cvq_error err = {0};
        CHECK(out && cvq_resize_bicubic(in, w, h, w * 3, out, sizes[i].out_width,
                                        sizes[i].out_height, &err) == CVQ_OK);
        CHECK_SAY(hash_of(out, n) == sizes[i].hash, "%zu x %zu to %zu x %zu: %016llx", w, h,
                  sizes[i].out_width, sizes[i].out_height, (unsigned long long)hash_of(out, n));
        free(in);
        free(out);
    }
}

/* Rows further apart than they are long; what lies between must not be read. */
static void heeds_the_stride(void) {
    enum { W = 31, H = 23, STRIDE = 3 * W + 5, OUT = 12 };
    uint8_t *tight = random_bytes(W * H * 3, 5), wide[H * STRIDE - 5];
    uint8_t a[OUT * OUT * 3], b[OUT * OUT * 3];
    memset(wide, 0xaa, sizeof wide);
    for (size_t y = 0; y < H; y++) memcpy(wide + y * STRIDE, tight + y * W * 3, W * 3);
    CHECK(cvq_resize_bicubic(tight, W, H, W * 3, a, OUT, OUT, NULL) == CVQ_OK);
    CHECK(cvq_resize_bicubic(wide, W, H, STRIDE, b, OUT, OUT, NULL) == CVQ_OK);
    CHECK(memcmp(a, b, sizeof a) == 0);
    free(tight);
}

/* The longest sides, and values that overshoot: both ends must be clipped, nothing may wrap. */
static void extremes(void) {
    const size_t most = CVQ_MAX_PICTURE_SIDE;
    uint8_t *line = calloc(most, 3), out[5 * 3], *long_out = malloc(most * 3);
    CHECK(line && long_out);
    for (size_t i = 0; i < most * 3; i++) line[i] = i / 3 % 2 ? 255 : 0;
    CHECK(cvq_resize_bicubic(line, most, 1, most * 3, out, 5, 1, NULL) == CVQ_OK);
    for (size_t i = 0; i < sizeof out; i++) CHECK(out[i] == 127 || out[i] == 128);
    CHECK(cvq_resize_bicubic(line, 1, most, 3, out, 1, 5, NULL) == CVQ_OK);
    const uint8_t step[4 * 3] = {0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255};
    CHECK(cvq_resize_bicubic(step, 4, 1, 12, long_out, most, 1, NULL) == CVQ_OK);
    CHECK(long_out[0] == 0 && long_out[most * 3 - 1] == 255);
    uint8_t low = 255, high = 0;
    for (size_t i = 0; i < most * 3; i++) {
        if (long_out[i] < low) low = long_out[i];
        if (long_out[i] > high) high = long_out[i];
    }
    CHECK(low == 0 && high == 255);
    free(line);
    free(long_out);
}

static void refuses(void) {
    uint8_t pixel[3] = {0}, out[3] = {7, 7, 7};
    const size_t most = CVQ_MAX_PICTURE_SIDE;
    const struct {
        size_t w, h, stride, ow, oh;
    } bad[] = {{0, 1, 3, 1, 1}, {1, 0, 3, 1, 1},        {1, 1, 3, 0, 1},
               {1, 1, 3, 1, 0}, {most + 1, 1, 9, 1, 1}, {1, 1, 2, 1, 1},
               {2, 1, 5, 1, 1}, {1, 1, 3, 1, most + 1}, {SIZE_MAX, 1, 3, 1, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cvq_error err = {0};
        CHECK_SAY(cvq_resize_bicubic(pixel, bad[i].w, bad[i].h, bad[i].stride, out, bad[i].ow,
                                     bad[i].oh, &err) == CVQ_INVALID_ARGUMENT,
                  "case %zu", i);
        CHECK(err.message[0] != 0);
    }
    CHECK(cvq_resize_bicubic(NULL, 1, 1, 3, out, 1, 1, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(out[0] == 7 && out[1] == 7 && out[2] == 7);
}

static const struct {
    uint8_t value;
    uint32_t bits[3]; /* numpy's float32 for red, green, blue */
} normalized[] = {
    {0, {0xbfe568dcu, 0xbfe044b8u, 0xbfbd77d8u}},   {1, {0xbfe38a7fu, 0xbfde58f1u, 0xbfbba5e1u}},
    {127, {0x3d7ce092u, 0x3e1d9531u, 0x3ea6c5e6u}}, {128, {0x3d9c5620u, 0x3e2cf36bu, 0x3eae0dc4u}},
    {254, {0x3ff536e5u, 0x4003d502u, 0x40086d66u}}, {255, {0x3ff71541u, 0x4004cae5u, 0x40095660u}},
};

static void normalizes_as_numpy(void) {
    for (size_t i = 0; i < sizeof normalized / sizeof *normalized; i++) {
        uint8_t rgb[2 * 2 * 3];
        float out[3 * 2 * 2];
        memset(rgb, normalized[i].value, sizeof rgb);
        cvq_normalize_pixels(rgb, 2, out);
        for (size_t c = 0; c < 3; c++)
            for (size_t p = 0; p < 4; p++) {
                uint32_t bits;
                memcpy(&bits, &out[4 * c + p], 4);
                CHECK_SAY(bits == normalized[i].bits[c], "value %u, channel %zu",
                          normalized[i].value, c);
            }
    }
    /* Planes: channel, row, column. */
    uint8_t rgb[2 * 2 * 3];
    float out[12], one[12];
    for (uint8_t i = 0; i < 12; i++) rgb[i] = (uint8_t)(20 * i);
    cvq_normalize_pixels(rgb, 2, out);
    for (size_t i = 0; i < 12; i++) {
        const uint8_t pixel[3] = {rgb[i], rgb[i], rgb[i]};
        cvq_normalize_pixels(pixel, 1, one);
        CHECK(memcmp(&out[i % 3 * 4 + i / 3], &one[i % 3], sizeof(float)) == 0);
    }
}

int main(void) {
    RUN(equals_pil);
    RUN(heeds_the_stride);
    RUN(extremes);
    RUN(refuses);
    RUN(normalizes_as_numpy);
    return REPORT();
}
