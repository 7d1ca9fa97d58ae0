/* The measurement around the loops, and what has to be known about the machine's memory. */
#include "bench/peaks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/parallel.h"
#include "bench/peaks_internal.h"

#define PIECE_SECONDS 0.008 /* long beside the waking of the threads, short beside other work */
#define READ_UNIT 512       /* what the readers take at once divides this */
#define READ_UNITS_A_THREAD 16

static const char *const kind_names[CVQ_PEAK_KINDS] = {"int8", "bf16", "f32", "read"};
static const char *const kind_units[CVQ_PEAK_KINDS] = {"Gop/s", "GFLOP/s", "GFLOP/s", "GB/s"};

typedef struct level_loops {
    cvq_peak_loop *compute[CVQ_PEAK_READ]; /* NULL: the level has no such instruction */
    cvq_peak_reader *read;
} level_loops;

static const level_loops loops[CVQ_CPU_LEVELS] = {
    [CVQ_CPU_SCALAR] = {{cvq_peak_int8__scalar, NULL, cvq_peak_f32__scalar}, cvq_peak_read__scalar},
#if defined(__x86_64__)
    [CVQ_CPU_AVX2] = {{cvq_peak_int8__avx2, NULL, cvq_peak_f32__avx2}, cvq_peak_read__avx2},
    [CVQ_CPU_AVXVNNI] = {{cvq_peak_int8__avxvnni, NULL, cvq_peak_f32__avx2}, cvq_peak_read__avx2},
    [CVQ_CPU_AVX512] = {{cvq_peak_int8__avx512, NULL, cvq_peak_f32__avx512}, cvq_peak_read__avx512},
    [CVQ_CPU_AVX512BF16] = {{cvq_peak_int8__avx512, cvq_peak_bf16__avx512bf16,
                             cvq_peak_f32__avx512},
                            cvq_peak_read__avx512},
#elif defined(__aarch64__)
    [CVQ_CPU_NEON] = {{cvq_peak_int8__neon, NULL, cvq_peak_f32__neon}, cvq_peak_read__scalar},
    [CVQ_CPU_DOTPROD] = {{cvq_peak_int8__dotprod, NULL, cvq_peak_f32__neon}, cvq_peak_read__scalar},
    [CVQ_CPU_I8MM] = {{cvq_peak_int8__i8mm, NULL, cvq_peak_f32__neon}, cvq_peak_read__scalar},
#endif
};

const char *cvq_peak_kind_name(cvq_peak_kind kind) {
    return kind_names[kind];
}

const char *cvq_peak_unit(cvq_peak_kind kind) {
    return kind_units[kind];
}

double cvq_bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---------------------------------------------------------------- arithmetic */

typedef struct compute_job {
    cvq_peak_loop *loop;
    size_t steps;
} compute_job;

static void compute_unit(void *context, size_t unit, int thread) {
    const compute_job *job = context;
    (void)unit;
    (void)thread;
    job->loop(job->steps);
}

/* Steps that take about PIECE_SECONDS. */
static size_t steps_of_piece(cvq_peak_loop *loop) {
    for (size_t steps = 1000;; steps *= 2) {
        double start = cvq_bench_now();
        loop(steps);
        if (cvq_bench_now() - start > PIECE_SECONDS / 2) return steps;
    }
}

double cvq_peak_compute(cvq_cpu_level level, cvq_peak_kind kind, int threads, double seconds) {
    compute_job job = {.loop = loops[level].compute[kind]};
    if (!job.loop) return 0;
    job.steps = steps_of_piece(job.loop);
    double ops = job.loop(0) + (double)threads * job.loop(job.steps), best = 0;
    double begin = cvq_bench_now();
    for (int piece = 0; piece < 5 || cvq_bench_now() - begin < seconds; piece++) {
        double start = cvq_bench_now();
        cvq_parallel_for(threads, (size_t)threads, compute_unit, &job);
        double rate = ops / (cvq_bench_now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

/* ---------------------------------------------------------------- memory */

typedef struct read_job {
    cvq_peak_reader *read;
    const uint8_t *memory;
    size_t unit_bytes;
    volatile uint64_t sink[CVQ_MAX_THREADS];
} read_job;

static void read_unit(void *context, size_t unit, int thread) {
    read_job *job = context;
    job->sink[thread] ^= job->read(job->memory + unit * job->unit_bytes, job->unit_bytes);
}

double cvq_peak_read(cvq_cpu_level level, int threads, const uint8_t *memory, size_t bytes,
                     double seconds) {
    size_t units = READ_UNITS_A_THREAD * (size_t)threads;
    read_job job = {.read = loops[level].read, .memory = memory};
    job.unit_bytes = bytes / units / READ_UNIT * READ_UNIT;
    double best = 0, begin = cvq_bench_now();
    for (int pass = 0; pass < 4 || cvq_bench_now() - begin < seconds; pass++) {
        double start = cvq_bench_now();
        cvq_parallel_for(threads, units, read_unit, &job);
        double rate = (double)(units * job.unit_bytes) / (cvq_bench_now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

/* The number in the first line of a file (KiB for "512K"); 0 without file or number ("max"). */
static size_t number_in(const char *path) {
    FILE *f = fopen(path, "r");
    unsigned long long value = 0;
    char unit = 0;
    if (!f) return 0;
    int found = fscanf(f, "%20llu%c", &value, &unit);
    fclose(f);
    if (found < 1 || value > SIZE_MAX >> 20) return 0;
    return unit == 'K' ? (size_t)value << 10 : unit == 'M' ? (size_t)value << 20 : (size_t)value;
}

size_t cvq_last_level_cache(void) {
    size_t largest = 0;
    for (int i = 0; i < 8; i++) {
        char path[80];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        size_t size = number_in(path);
        if (size > largest) largest = size;
    }
    return largest;
}

/* "MemAvailable:    1234 kB". */
static size_t available_in_meminfo(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    unsigned long long kib = 0;
    while (f && kib == 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %20llu", &kib) != 1) kib = 0;
    if (f) fclose(f);
    return kib > SIZE_MAX >> 10 ? 0 : (size_t)kib << 10;
}

size_t cvq_free_memory(void) {
    size_t available = available_in_meminfo();
    if (available == 0) { /* no such file: take half of what is built in */
        long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
        available = pages > 0 && size > 0 ? (size_t)pages / 2 * (size_t)size : (size_t)1 << 30;
    }
    static const char *const limits[][2] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        size_t limit = number_in(limits[i][0]), used = number_in(limits[i][1]);
        size_t left = limit > used ? limit - used : 0;
        if (limit > 0 && left < available) available = left;
    }
    return available;
}
