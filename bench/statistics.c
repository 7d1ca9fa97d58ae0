/* Sums in order, in double: n is thousands. */
#include "bench/statistics.h"

#include <math.h>
#include <stdlib.h>

double cvq_mean(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return n ? sum / (double)n : 0;
}

double cvq_deviation(const double *x, size_t n) {
    double mean = cvq_mean(x, n), sum = 0;
    for (size_t i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (double)(n - 1)) : 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cvq_quantile(double *x, size_t n, double share) {
    qsort(x, n, sizeof *x, by_value);
    double place = share * (double)(n - 1);
    size_t below = (size_t)place;
    if (below + 1 >= n) return x[n - 1];
    return x[below] + (place - (double)below) * (x[below + 1] - x[below]);
}

cvq_interval cvq_paired_difference(const double *a, const double *b, size_t n) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] - b[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
    if (n < 2) return (cvq_interval){mean, -1, 1};
    double half = 1.959963984540054 * sqrt(squares / (double)(n - 1) / (double)n);
    return (cvq_interval){mean, mean - half, mean + half};
}
