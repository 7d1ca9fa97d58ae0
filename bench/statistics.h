/* Means with their uncertainty. */
#ifndef CVQ_BENCH_STATISTICS_H
#define CVQ_BENCH_STATISTICS_H

#include <stddef.h>

double cvq_mean(const double *x, size_t n);
/* Sample standard deviation, by n - 1; 0 for fewer than two. */
double cvq_deviation(const double *x, size_t n);
/* The value below which a share of 0 to 1 lies, between the neighbours in proportion (as numpy's
 * default). Sorts x. n > 0. */
double cvq_quantile(double *x, size_t n, double share);

typedef struct cvq_interval {
    double middle, low, high;
} cvq_interval;
/* The mean of a[i] - b[i] and its 95% interval, mean -+ 1.96 sd / sqrt(n): questions answered twice
 * are paired, so that their own difficulty cancels out. Scores are 0 to 1: one pair alone says
 * nothing and gets -1 to 1. n > 0. */
cvq_interval cvq_paired_difference(const double *a, const double *b, size_t n);

#endif
