/* Peaks of plain C: one number an instruction. */
#include "bench/peaks_internal.h"

#include <string.h>

#if defined(__x86_64__)
#define FLOAT_REGISTER "x"
#elif defined(__aarch64__)
#define FLOAT_REGISTER "w"
#else
#define FLOAT_REGISTER "m"
#endif

double cvq_peak_int8__scalar(size_t steps) {
    int32_t a = 3;
    const int32_t b = 5;
    PEAK_LOOP(int32_t, "r", 4, 1, steps, (int32_t)((uint32_t)s[j] + (uint32_t)(a * b)))
    return 2.0 * 4 * (double)steps;
}

double cvq_peak_f32__scalar(size_t steps) {
    float a = 1;
    const float b = 0.5f;
    PEAK_LOOP(float, FLOAT_REGISTER, 8, 1, steps, s[j] * a + b)
    return 2.0 * 8 * (double)steps;
}

uint64_t cvq_peak_read__scalar(const uint8_t *p, size_t bytes) {
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < bytes; i += 64) {
        uint64_t line[8];
        __builtin_prefetch(p + i + 2048);
        memcpy(line, p + i, 64);
        for (int j = 0; j < 8; j++) sum[j] += line[j];
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}
