/* The resize of a picture to the model's input, integer-exact with PIL's Image.resize(BICUBIC), and
 * the normalization that follows it.
 *
 * PIL (Resample.c) makes the coefficients of each output position in double, rounds them to 22-bit
 * fixed point, and runs a horizontal and then a vertical pass, each into 8 bits. The coefficients
 * here are computed by the same operations in the same order, so every bit agrees (the build turns
 * contraction into fused operations off). A pass whose size does not change is skipped, as there.
 *
 * Instead of a whole intermediate picture, a ring keeps the horizontally resized rows that the
 * current output row reads. Memory beside input and output: the ring, out_width x 3 bytes x
 * (4 x max(1, height / out_height) + 3) rows; the coefficients, at most 7 x out + 4 x in of 4 bytes
 * an axis; one row of sums. For 5000 x 4000 to 1344 x 1344 that is 0.3 MB. */
#include "runtime/resize.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"

enum { PRECISION_BITS = 32 - 8 - 2 };

/* One axis: output position i is the sum over t < count[i] of k[i * taps + t] * in[first[i] + t].
 */
typedef struct axis {
    bool skip; /* same size: this pass copies */
    size_t taps;
    size_t *first, *count; /* [out] */
    int32_t *k;            /* [out][taps], zero behind count */
} axis;

static double bicubic(double x) {
    const double a = -0.5;
    if (x < 0.0) x = -x;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

/* A weight in fixed point, rounded half away from zero. */
static int32_t fixed_point(double w) {
    return (int32_t)((w < 0 ? -0.5 : 0.5) + w * (1 << PRECISION_BITS));
}

static void axis_free(axis *a) {
    free(a->first);
    free(a->count);
    free(a->k);
}

static cvq_status axis_make(axis *a, size_t in, size_t out, cvq_error *err) {
    a->skip = in == out;
    if (a->skip) return CVQ_OK;

    const double scale = (double)in / (double)out;
    const double stretch = scale < 1.0 ? 1.0 : scale; /* antialiasing: the filter widens */
    const double support = 2.0 * stretch, ss = 1.0 / stretch;
    a->taps = (size_t)ceil(support) * 2 + 1;

    double *w = NULL;
    cvq_status status = cvq_alloc((void **)&w, a->taps, sizeof *w, "resize weights", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&a->first, out, sizeof *a->first, "resize bounds", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&a->count, out, sizeof *a->count, "resize bounds", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&a->k, (uint64_t)out * a->taps, sizeof *a->k,
                           "resize coefficients", err);
    if (status != CVQ_OK) goto done;

    for (size_t i = 0; i < out; i++) {
        const double center = ((double)i + 0.5) * scale;
        /* Conversion to int truncates towards zero, which is what PIL rounds by. */
        int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
        if (low < 0) low = 0;
        if (high > (int)in) high = (int)in;
        const int n = high - low;
        double sum = 0.0;
        for (int t = 0; t < n; t++) {
            w[t] = bicubic((t + low - center + 0.5) * ss);
            sum += w[t];
        }
        for (int t = 0; t < n; t++)
            a->k[i * a->taps + (size_t)t] = fixed_point(sum != 0.0 ? w[t] / sum : w[t]);
        a->first[i] = (size_t)low;
        a->count[i] = (size_t)n;
    }
done:
    free(w);
    return status;
}

static inline uint8_t clip8(int32_t sum) {
    const int32_t v = sum >> PRECISION_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* One row of pixels, [in][3] to [out][3]. */
static void resize_row(const axis *a, const uint8_t *row, size_t out, uint8_t *to) {
    for (size_t i = 0; i < out; i++) {
        const uint8_t *p = row + 3 * a->first[i];
        const int32_t *k = a->k + i * a->taps;
        const size_t n = a->count[i];
        /* Sums stay within 32 bits: weights sum to 2^22 and, negative lobes included, their
         * magnitudes to less than 1.5 times that. */
        int32_t r = 1 << (PRECISION_BITS - 1), g = r, b = r;
        for (size_t t = 0; t < n; t++, p += 3) {
            r += p[0] * k[t];
            g += p[1] * k[t];
            b += p[2] * k[t];
        }
        to[3 * i] = clip8(r);
        to[3 * i + 1] = clip8(g);
        to[3 * i + 2] = clip8(b);
    }
}

/* sums[i] += k * row[i] */
static void add_row(int32_t *restrict sums, const uint8_t *restrict row, int32_t k, size_t n) {
    for (size_t i = 0; i < n; i++) sums[i] += row[i] * k;
}

/* The rows that an output row reads, resized horizontally when they are first needed. */
typedef struct row_source {
    const axis *horizontal;
    const uint8_t *rgb;
    size_t stride, out_width;
    uint8_t *ring; /* [slots][out_width][3] */
    size_t slots, next;
} row_source;

/* Row y; rows are asked for within a window of `slots` that only moves down. */
static const uint8_t *source_row(row_source *s, size_t y) {
    if (s->horizontal->skip) return s->rgb + y * s->stride;
    if (s->next < y && y - s->next >= s->slots) s->next = y; /* rows that nothing reads */
    for (; s->next <= y; s->next++)
        resize_row(s->horizontal, s->rgb + s->next * s->stride, s->out_width,
                   s->ring + s->next % s->slots * s->out_width * 3);
    return s->ring + y % s->slots * s->out_width * 3;
}

cvq_status cvq_resize_bicubic(const uint8_t *rgb, size_t width, size_t height, size_t stride,
                              uint8_t *out, size_t out_width, size_t out_height, cvq_error *err) {
    const size_t most = CVQ_MAX_PICTURE_SIDE;
    if (!rgb || !out) return cvq_fail(err, CVQ_INVALID_ARGUMENT, "resize", "no pixels given");
    if (width < 1 || width > most || height < 1 || height > most || out_width < 1 ||
        out_width > most || out_height < 1 || out_height > most)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "resize",
                        "%zu x %zu to %zu x %zu: sides must be 1 to %zu", width, height, out_width,
                        out_height, most);
    if (stride < 3 * width)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "resize",
                        "a row of %zu pixels needs %zu bytes, but the stride is %zu", width,
                        3 * width, stride);

    axis horizontal = {0}, vertical = {0};
    row_source source = {&horizontal, rgb, stride, out_width, NULL, 1, 0};
    int32_t *sums = NULL;
    const size_t row_bytes = out_width * 3;
    cvq_status status = axis_make(&horizontal, width, out_width, err);
    if (status == CVQ_OK) status = axis_make(&vertical, height, out_height, err);
    if (status != CVQ_OK) goto done;
    if (!vertical.skip) source.slots = vertical.taps < height ? vertical.taps : height;
    if (!horizontal.skip)
        status = cvq_alloc((void **)&source.ring, source.slots, row_bytes, "resized rows", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&sums, row_bytes, sizeof *sums, "a row of sums", err);
    if (status != CVQ_OK) goto done;

    for (size_t y = 0; y < out_height; y++) {
        uint8_t *to = out + y * row_bytes;
        if (vertical.skip) {
            memcpy(to, source_row(&source, y), row_bytes);
            continue;
        }
        for (size_t i = 0; i < row_bytes; i++) sums[i] = 1 << (PRECISION_BITS - 1);
        for (size_t t = 0; t < vertical.count[y]; t++)
            add_row(sums, source_row(&source, vertical.first[y] + t),
                    vertical.k[y * vertical.taps + t], row_bytes);
        for (size_t i = 0; i < row_bytes; i++) to[i] = clip8(sums[i]);
    }
done:
    free(sums);
    free(source.ring);
    axis_free(&horizontal);
    axis_free(&vertical);
    return status;
}

void cvq_normalize_pixels(const uint8_t *rgb, size_t size, float *out) {
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
    static const float deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    const size_t n = size * size;
    for (size_t c = 0; c < 3; c++) {
        float value[256]; /* of each of the 256 possible bytes */
        for (int v = 0; v < 256; v++) value[v] = ((float)v / 255.0f - mean[c]) / deviation[c];
        for (size_t i = 0; i < n; i++) out[c * n + i] = value[rgb[3 * i + c]];
    }
}
