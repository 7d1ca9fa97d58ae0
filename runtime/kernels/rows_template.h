/* The row kernels in terms of a vector type, included once by each rows_SET.c, which defines
 * before: KERNEL_NAME(operation)        the function's name V, W                          the
 * vector of W floats v_load, v_store               unaligned v_load_some, v_store_some     the
 * first n < W, the others read as 0 v_set, v_add, v_sub, v_mul, v_div, v_fma(a, b, c) = a b + c,
 * v_abs, v_round v_max, v_min                  a NaN in the second argument comes through
 *   v_mul_pow2(x, n)              x 2^n for whole n of EXP_LOWEST / ln 2 .. 127
 *   v_sum, v_largest              across the vector
 *   EXP_LOWEST                    exp of this and less is 0 */

#include <math.h>
#include <stdbool.h>

static inline V v_load_at(const float *x, size_t left) {
    return left >= W ? v_load(x) : v_load_some(x, left);
}
static inline void v_store_at(float *x, V v, size_t left) {
    if (left >= W)
        v_store(x, v);
    else
        v_store_some(x, v, left);
}

/* e^x: x = n ln 2 + r with |r| <= ln 2 / 2, n ln 2 taken off in two parts; the polynomial for e^r
 * is the one of Cephes' expf. Off by 1 to 2 units in the last place. */
static inline V v_exp(V x) {
    x = v_min(v_set(88.3f), v_max(v_set(EXP_LOWEST), x));
    V n = v_round(v_mul(x, v_set(1.44269504088896341f)));
    V r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    V p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(v_mul(r, r), p, v_add(r, v_set(1.0f)));
    return v_mul_pow2(p, n);
}

/* Sum of (x - mean)^2 in 4 x W partial sums. */
static inline double squares(const float *x, V mean, size_t n) {
    V sum[4] = {v_set(0), v_set(0), v_set(0), v_set(0)};
    size_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
        for (size_t j = 0; j < 4; j++) {
            V d = v_sub(v_load(x + i + j * W), mean);
            sum[j] = v_fma(d, d, sum[j]);
        }
    for (; i + W <= n; i += W) {
        V d = v_sub(v_load(x + i), mean);
        sum[0] = v_fma(d, d, sum[0]);
    }
    double total = (double)v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
    for (; i < n; i++) {
        float d = x[i] - v_first(mean);
        total += (double)d * (double)d;
    }
    return total;
}

void KERNEL_NAME(rms_norm)(const float *x, const float *weight, float eps, size_t n, float *out) {
    double mean_square = squares(x, v_set(0), n) / (double)n;
    V inverse = v_set((float)(1.0 / sqrt(mean_square + (double)eps)));
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i;
        V y = v_mul(v_load_at(x + i, left), inverse);
        v_store_at(out + i, v_mul(y, v_load_at(weight + i, left)), left);
    }
}

void KERNEL_NAME(layer_norm)(const float *x, const float *weight, const float *bias, float eps,
                             size_t n, float *out) {
    V sum[2] = {v_set(0), v_set(0)};
    for (size_t i = 0; i < n; i += W)
        sum[i / W % 2] = v_add(sum[i / W % 2], v_load_at(x + i, n - i));
    V mean = v_set((float)((double)v_sum(v_add(sum[0], sum[1])) / (double)n));
    double variance = squares(x, mean, n) / (double)n;
    V inverse = v_set((float)(1.0 / sqrt(variance + (double)eps)));
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i;
        V y = v_mul(v_sub(v_load_at(x + i, left), mean), inverse);
        y = v_fma(y, v_load_at(weight + i, left), v_load_at(bias + i, left));
        v_store_at(out + i, y, left);
    }
}

/* With q = erfc(|x| / sqrt 2) the result is max(x, 0) - |x| q / 2. q after Abramowitz and Stegun,
 * 7.1.26: t (a1 + t (a2 + ...)) exp(-x^2 / 2), t = 1 / (1 + p |x| / sqrt 2), within 1.5e-7. */
void KERNEL_NAME(gelu)(float *x, size_t n) {
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i;
        V v = v_load_at(x + i, left), a = v_abs(v);
        V t = v_div(v_set(1.0f), v_fma(a, v_set(0.3275911f * 0.70710678118654752f), v_set(1.0f)));
        V q = v_set(1.061405429f);
        q = v_fma(q, t, v_set(-1.453152027f));
        q = v_fma(q, t, v_set(1.421413741f));
        q = v_fma(q, t, v_set(-0.284496736f));
        q = v_fma(q, t, v_set(0.254829592f));
        q = v_mul(v_mul(q, t), v_exp(v_mul(v_mul(a, a), v_set(-0.5f))));
        V half = v_mul(a, v_set(-0.5f));
        v_store_at(x + i, v_fma(half, q, v_max(v_set(0), v)), left);
    }
}

void KERNEL_NAME(silu_mul)(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i;
        V g = v_load_at(gate + i, left);
        V e = v_exp(v_sub(v_set(0), g));
        g = v_div(g, v_add(v_set(1.0f), e));
        v_store_at(gate + i, v_mul(g, v_load_at(up + i, left)), left);
    }
}

void KERNEL_NAME(add)(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i;
        v_store_at(x + i, v_add(v_load_at(x + i, left), v_load_at(y + i, left)), left);
    }
}

void KERNEL_NAME(mul)(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i;
        v_store_at(x + i, v_mul(v_load_at(x + i, left), v_load_at(y + i, left)), left);
    }
}

void KERNEL_NAME(scale)(float *x, float s, size_t n) {
    for (size_t i = 0; i < n; i += W)
        v_store_at(x + i, v_mul(v_load_at(x + i, n - i), v_set(s)), n - i);
}

float KERNEL_NAME(max)(const float *x, size_t n) {
    float largest = x[0];
    size_t i = 0;
    if (n >= 2 * W) {
        V m0 = v_load(x), m1 = v_load(x + W);
        for (i = 2 * W; i + 2 * W <= n; i += 2 * W) {
            m0 = v_max(m0, v_load(x + i));
            m1 = v_max(m1, v_load(x + i + W));
        }
        largest = v_largest(v_max(m0, m1));
    }
    for (; i < n; i++)
        if (x[i] > largest) largest = x[i];
    return largest;
}

float KERNEL_NAME(exp_sum)(float *x, float max, size_t n) {
    V sum[2] = {v_set(0), v_set(0)};
    size_t i = 0;
    for (; i + W <= n; i += W) {
        V e = v_exp(v_sub(v_load(x + i), v_set(max)));
        sum[i / W % 2] = v_add(sum[i / W % 2], e);
        v_store(x + i, e);
    }
    double total = (double)v_sum(v_add(sum[0], sum[1]));
    if (i < n) {
        v_store_some(x + i, v_exp(v_sub(v_load_some(x + i, n - i), v_set(max))), n - i);
        for (; i < n; i++) total += (double)x[i];
    }
    return (float)total;
}

void KERNEL_NAME(rotate)(float *x, const float *cos, const float *sin, size_t half) {
    for (size_t i = 0; i < half; i += W) {
        size_t left = half - i;
        V a = v_load_at(x + i, left), b = v_load_at(x + half + i, left);
        V c = v_load_at(cos + i, left), s = v_load_at(sin + i, left);
        v_store_at(x + i, v_sub(v_mul(a, c), v_mul(b, s)), left);
        v_store_at(x + half + i, v_add(v_mul(b, c), v_mul(a, s)), left);
    }
}
