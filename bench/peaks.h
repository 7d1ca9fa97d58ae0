/* What this machine can do at the most, measured in this run: arithmetic in registers with the best
 * instructions of each level, and reading from memory. Every rate of cvq-bench and of test_kernels
 * --bench is a share of one of these. */
#ifndef CVQ_BENCH_PEAKS_H
#define CVQ_BENCH_PEAKS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"

typedef enum cvq_peak_kind {
    CVQ_PEAK_INT8, /* 8-bit products added in 32 bits; a product and its addition count 2 */
    CVQ_PEAK_BF16, /* the same with bf16 and f32 */
    CVQ_PEAK_F32,
    CVQ_PEAK_READ, /* bytes from memory */
    CVQ_PEAK_KINDS
} cvq_peak_kind;

typedef struct cvq_peak {
    cvq_peak_kind kind;
    cvq_cpu_level level;
    int threads;
    double value; /* operations or bytes a second */
} cvq_peak;

/* "int8", "bf16", "f32", "read"; "Gop/s", "GFLOP/s", "GB/s". Static. */
const char *cvq_peak_kind_name(cvq_peak_kind kind);
const char *cvq_peak_unit(cvq_peak_kind kind);

/* Operations a second of a kind other than READ: the best of short pieces within so many seconds,
 * all threads at once. 0 where the level has no instruction for it. The machine must have the
 * level. */
double cvq_peak_compute(cvq_cpu_level level, cvq_peak_kind kind, int threads, double seconds);
/* Bytes a second, the best of several passes over memory that was written before and must be much
 * larger than the last-level cache. */
double cvq_peak_read(cvq_cpu_level level, int threads, const uint8_t *memory, size_t bytes,
                     double seconds);

/* Seconds on a clock that never jumps. */
double cvq_bench_now(void);
/* Bytes of the largest cache; 0 where it cannot be told. */
size_t cvq_last_level_cache(void);
/* Bytes that may still be allocated without swapping, limits of a container heeded. */
size_t cvq_free_memory(void);

#endif
