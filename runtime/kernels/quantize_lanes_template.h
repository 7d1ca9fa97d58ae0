/* Keys and values to int8 in terms of vectors of W lanes, included once by each
 * quantize_lanes_SET.c, which defines before:
 * QUANTIZE                       the kernel's name
 * V, I, W                        vectors of W floats, of W 32-bit integers
 * v_load, v_store, v_set, v_sub, v_mul, v_div
 * v_bits(x), v_of_bits(i)        the same bits
 * v_nearest(x)                   to integers
 * i_store, i_set, i_add, i_sub, i_and, i_or, i_max (signed), i_left(i, constant)
 * i_above(a, b)                  all bits of lanes where a > b (signed) */
#include <stdbool.h>

#include "base/half.h"
#include "runtime/kernels/gemm_int8.h"
#include "runtime/kernels/kernels_internal.h"

/* A number's order is that of its magnitude's bits; above all are infinity and then NaNs. */
GEMM_INLINE I magnitude_bits(V x) {
    return i_and(v_bits(x), i_set(0x7fffffff));
}

/* x less its mean: a row's, or the lanes'. */
GEMM_INLINE V centred(const float *x, const float *mean, bool mean_of_rows, size_t row, V lanes) {
    return v_sub(v_load(x), mean_of_rows ? v_set(mean[row]) : lanes);
}

GEMM_INLINE void quantize_part(const float *x, size_t ld, size_t n, const float *mean,
                               bool mean_of_rows, size_t lane, const cvq_lane_codes *out) {
    const V lanes = mean_of_rows ? v_set(0) : v_load(mean + lane);
    const I infinity = i_set(0x7f800000);
    I most = i_set(0);
    x += lane;
    for (size_t i = 0; i < n; i++)
        most = i_max(most, magnitude_bits(centred(x + i * ld, mean, mean_of_rows, i, lanes)));
    I finite = i_above(infinity, most);
    I counts = i_and(finite, i_above(most, v_bits(v_set(CVQ_ACT_TINY))));
    V largest = v_of_bits(most);
    V factor = v_of_bits(i_and(counts, v_bits(v_div(v_set(127.0f), largest))));
    I scale = i_and(counts, v_bits(v_div(largest, v_set(127.0f))));
    v_store(out->scale + lane, v_of_bits(i_or(scale, i_sub(i_set(-1), finite))));
    I sum = i_set(0);
    int8_t *to = out->lines + 4 * lane;
    for (size_t i = 0; i < n; i += 4, to += out->line_bytes) {
        I line = i_set(0);
        GEMM_UNROLL for (size_t j = 0; j < 4; j++) {
            if (i + j >= n) break;
            V y = v_mul(centred(x + (i + j) * ld, mean, mean_of_rows, i + j, lanes), factor);
            I code = i_and(v_nearest(y), counts);
            sum = i_add(sum, code);
            code = i_and(code, i_set(255));
            line = i_or(line, j == 0   ? code
                              : j == 1 ? i_left(code, 8)
                              : j == 2 ? i_left(code, 16)
                                       : i_left(code, 24));
        }
        i_store(to, line);
    }
    if (out->start) i_store(out->start + lane, i_sub(i_set(0), i_left(sum, 7)));
}

void QUANTIZE(const float *x, size_t ld, size_t n, const float *mean, bool mean_of_rows,
              const cvq_lane_codes *out) {
    for (size_t lane = 0; lane < CVQ_PANEL_ROWS; lane += W) {
        if (mean_of_rows)
            quantize_part(x, ld, n, mean, true, lane, out);
        else
            quantize_part(x, ld, n, mean, false, lane, out);
    }
}
