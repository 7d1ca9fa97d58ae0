/* Keys and values to int8, the definition. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

static uint8_t code_of(float x, float factor) {
    return (uint8_t)((int)rintf(x * factor) & 255);
}

static void quantize_lane(const float *x, size_t ld, size_t n, const float *mean, bool mean_of_rows,
                          size_t lane, const cvq_lane_codes *out) {
    float most = 0, factor = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i * ld] - mean[mean_of_rows ? i : 0]);
        finite = finite && isfinite(a);
        most = a > most ? a : most;
    }
    out->scale[lane] = finite ? 0 : NAN;
    if (finite && most > CVQ_ACT_TINY) {
        factor = 127.0f / most;
        out->scale[lane] = most / 127.0f;
    }
    int32_t sum = 0;
    for (size_t i = 0; i < (n + 3) / 4 * 4; i++) {
        int8_t *to = out->lines + i / 4 * out->line_bytes + 4 * lane + i % 4;
        bool there = i < n && factor > 0;
        uint8_t code = there ? code_of(x[i * ld] - mean[mean_of_rows ? i : 0], factor) : 0;
        memcpy(to, &code, 1);
        sum += *to;
    }
    if (out->start) out->start[lane] = -128 * sum;
}

void quantize_lanes_16__scalar(const float *x, size_t ld, size_t n, const float *mean,
                               bool mean_of_rows, const cvq_lane_codes *out) {
    for (size_t lane = 0; lane < CVQ_PANEL_ROWS; lane++)
        quantize_lane(x + lane, ld, n, mean_of_rows ? mean : mean + lane, mean_of_rows, lane, out);
}
