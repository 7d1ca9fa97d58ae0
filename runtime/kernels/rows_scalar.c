/* Rows in plain C. Sums are kept in double: what the vector levels approximate within a bound. */
#include <math.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

void rms_norm__scalar(const float *x, const float *weight, float eps, size_t n, float *out) {
    double squares = 0;
    for (size_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
    float inverse = (float)(1.0 / sqrt(squares / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++) out[i] = x[i] * inverse * weight[i];
}

void layer_norm__scalar(const float *x, const float *weight, const float *bias, float eps, size_t n,
                        float *out) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    double inverse = 1.0 / sqrt(squares / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(((double)x[i] - mean) * inverse) * weight[i] + bias[i];
}

void gelu__scalar(float *x, size_t n) {
    const float sqrt_half = 0.70710678118654752f;
    for (size_t i = 0; i < n; i++) /* erfc keeps the small values on the left exact */
        x[i] = 0.5f * x[i] * erfcf(-x[i] * sqrt_half);
}

void silu_mul__scalar(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

void add__scalar(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

void mul__scalar(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= y[i];
}

void scale__scalar(float *x, float s, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= s;
}

float max__scalar(const float *x, size_t n) {
    float max = x[0];
    for (size_t i = 1; i < n; i++)
        if (x[i] > max) max = x[i];
    return max;
}

float exp_sum__scalar(float *x, float max, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += (double)x[i];
    }
    return (float)sum;
}

void rotate__scalar(float *x, const float *cos, const float *sin, size_t half) {
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cos[i] - b * sin[i];
        x[half + i] = b * cos[i] + a * sin[i];
    }
}

void transpose16__scalar(const float *x, size_t ld, size_t n, size_t d, float *out) {
    for (size_t k = 0; k < d; k++)
        for (size_t r = 0; r < CVQ_PANEL_ROWS; r++)
            out[k * CVQ_PANEL_ROWS + r] = r < n ? x[r * ld + k] : 0.0f;
}

void f32_to_f16__scalar(const float *x, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i++) out[i] = cvq_f32_to_f16(x[i]);
}

void f16_to_f32__scalar(const uint16_t *x, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = cvq_f16_to_f32(x[i]);
}
