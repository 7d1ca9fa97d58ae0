/* The loops behind the peaks, one file for each instruction set. Read only inside this folder. */
#ifndef CVQ_BENCH_PEAKS_INTERNAL_H
#define CVQ_BENCH_PEAKS_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

/* Runs so many steps in registers; returns the operations done (a multiply-add is 2). */
typedef double cvq_peak_loop(size_t steps);
/* Reads all of it, in whole cache lines (bytes: a multiple of 512); returns what depends on all. */
typedef uint64_t cvq_peak_reader(const uint8_t *p, size_t bytes);

cvq_peak_loop cvq_peak_int8__scalar, cvq_peak_f32__scalar;
cvq_peak_reader cvq_peak_read__scalar;
cvq_peak_loop cvq_peak_int8__avx2, cvq_peak_f32__avx2;
cvq_peak_reader cvq_peak_read__avx2;
cvq_peak_loop cvq_peak_int8__avxvnni;
cvq_peak_loop cvq_peak_int8__avx512, cvq_peak_f32__avx512;
cvq_peak_reader cvq_peak_read__avx512;
cvq_peak_loop cvq_peak_bf16__avx512bf16;
cvq_peak_loop cvq_peak_int8__neon, cvq_peak_f32__neon;
cvq_peak_loop cvq_peak_int8__dotprod;
cvq_peak_loop cvq_peak_int8__i8mm;

#ifdef __clang__
#define PEAK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PEAK_UNROLL _Pragma("GCC unroll 16")
#endif
/* The compiler may assume nothing about v from here on. R: the constraint of its register. */
#define PEAK_HIDE(R, v) __asm__ volatile("" : "+" R(v))

/* The body of a loop: N independent sums of type T, so that latency is hidden, each starting
 * unknown (or all sums were one to the compiler); `next` computes s[j] from s[j], a and b. */
#define PEAK_LOOP(T, R, N, start, steps, next)                                                     \
    T s[N];                                                                                        \
    PEAK_UNROLL for (int j = 0; j < (N); j++) {                                                    \
        s[j] = (start);                                                                            \
        PEAK_HIDE(R, s[j]);                                                                        \
    }                                                                                              \
    for (size_t i = 0; i < (steps); i++) {                                                         \
        PEAK_UNROLL for (int j = 0; j < (N); j++) {                                                \
            PEAK_HIDE(R, a);                                                                       \
            s[j] = (next);                                                                         \
        }                                                                                          \
    }                                                                                              \
    PEAK_UNROLL for (int j = 0; j < (N); j++) {                                                    \
        PEAK_HIDE(R, s[j]);                                                                        \
    }

#endif
