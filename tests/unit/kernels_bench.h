/* test_kernels --bench [LEVEL]: the rate of the matrix kernels in one thread, and what share that
 * is of a loop that only computes in registers, measured in the same run. Row kernels in values per
 * second. Every time is a sum of short pieces, each the best of several rounds, so that other work
 * on the machine disturbs little. */
#ifndef CVQ_TESTS_KERNELS_BENCH_H
#define CVQ_TESTS_KERNELS_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bench/peaks.h"
#include "runtime/kernels/kernels.h"

static void bench_peaks(cvq_cpu_level level, double *int8, double *f32) {
    *int8 = cvq_peak_compute(level, CVQ_PEAK_INT8, 1, 0.2);
    *f32 = cvq_peak_compute(level, CVQ_PEAK_F32, 1, 0.2);
}

static void *bench_alloc(size_t bytes) {
    void *p;
    if (cvq_alloc(&p, bytes, 1, "bench memory", NULL) != CVQ_OK) exit(1);
    memset(p, 17, bytes); /* small scales, codes of no importance */
    return p;
}

static void bench_print(const char *what, const char *type, size_t rows, size_t k, size_t m,
                        double ops, double bytes, double seconds, double peak) {
    printf("  %-10s %-5s %5zux%-5zu m %3zu %9.1f Gop/s %5.1f%%", what, type, rows, k, m,
           ops / seconds * 1e-9, peak > 0 ? 100 * ops / seconds / peak : 0.0);
    if (bytes > 0) printf(" %6.1f GB/s", bytes / seconds * 1e-9);
    printf("\n");
    fflush(stdout);
}

static void bench_keep(double *best, double seconds, int round) {
    if (round == 0 || seconds < *best) *best = seconds;
}

static void bench_int8(const cvq_kernels *t, cvq_type type, size_t rows, size_t k, size_t m,
                       double peak) {
    const cvq_type_info *info = cvq_type_describe(type);
    size_t stride = cvq_panel_bytes(info, CVQ_PANEL_ROWS, k), panels = rows / CVQ_PANEL_ROWS;
    uint8_t *data = bench_alloc(stride * panels);
    cvq_panels w = {data, &cvq_codebook_default, stride, k, type};
    size_t ld = k + 256; /* rows a multiple of 4 KiB apart would share cache sets */
    cvq_act8 a = {bench_alloc(m * ld), bench_alloc(m * ld / 32), bench_alloc(m * ld / 8), ld};
    float *c = bench_alloc(m * 64 * 4); /* as the driver: 4 panels */
    bool gemv = m <= 4;
    double *best = bench_alloc(panels / 4 * sizeof *best), seconds = 0, begin = cvq_bench_now();
    for (int round = 0; round < 30 && (round < 3 || cvq_bench_now() - begin < 1); round++)
        for (size_t p = 0; p < panels; p += 4) {
            double start = cvq_bench_now();
            (gemv ? t->gemv_int8 : t->gemm_int8)[type](&w, p, 4, &a, 0, m, c, 64);
            bench_keep(&best[p / 4], cvq_bench_now() - start, round);
        }
    for (size_t p = 0; p < panels / 4; p++) seconds += best[p];
    free(best);
    bench_print(gemv ? "gemv_int8" : "gemm_int8", info->name, rows, k, m,
                2.0 * (double)rows * (double)k * (double)m,
                gemv ? (double)stride * (double)panels : 0, seconds, peak);
    free(data);
    free(a.q);
    free(a.scale);
    free(a.sum);
    free(c);
}

/* As the exact path runs: 256 columns of a panel unpacked, then the tile over all rows. */
static void bench_f32(const cvq_kernels *t, cvq_type type, size_t rows, size_t k, size_t m,
                      double peak) {
    const cvq_type_info *info = cvq_type_describe(type);
    size_t stride = cvq_panel_bytes(info, CVQ_PANEL_ROWS, k), panels = rows / CVQ_PANEL_ROWS;
    uint8_t *data = bench_alloc(stride * panels);
    cvq_panels w = {data, &cvq_codebook_default, stride, k, type};
    size_t ld = k + 16;
    float *x = bench_alloc(m * ld * 4), *c = bench_alloc(m * 64 * 4), *u = bench_alloc(256 * 64);
    double *best = bench_alloc(panels * sizeof *best), seconds = 0, begin = cvq_bench_now();
    for (int round = 0; round < 30 && (round < 3 || cvq_bench_now() - begin < 1); round++)
        for (size_t p = 0; p < panels; p++) {
            double start = cvq_bench_now();
            for (size_t k0 = 0; k0 < k; k0 += 256) {
                t->unpack_f32[type](&w, p, k0, k0 + 256, u);
                t->tile_f32(u, 256, x + k0, ld, m, c + p % 4 * 16, 64, k0 != 0);
            }
            bench_keep(&best[p], cvq_bench_now() - start, round);
        }
    for (size_t p = 0; p < panels; p++) seconds += best[p];
    free(best);
    bench_print("f32", info->name, rows, k, m, 2.0 * (double)rows * (double)k * (double)m, 0,
                seconds, peak);
    free(data);
    free(x);
    free(c);
    free(u);
}

/* One head over as many keys as a picture has, blocks outside and rows inside, as the driver. */
static void bench_attention(const cvq_kernels *t, size_t d, double peak) {
    enum { BLOCKS = 36, ROWS = 372 };
    size_t steps = (d + 3) / 4, panels = (d + 15) / 16, size = 64 * (16 * steps + 64 * panels);
    int8_t *memory = bench_alloc(BLOCKS * size);
    for (size_t i = 0; i < BLOCKS * size; i++) memory[i] = (int8_t)(i * 2654435761u >> 13);
    float *scale = bench_alloc(CVQ_ATTENTION_KEYS * 4), *o = bench_alloc(ROWS * panels * 64);
    float *row = bench_alloc(ROWS * 12);
    int32_t *start = bench_alloc(CVQ_ATTENTION_KEYS * 4);
    size_t *seen = bench_alloc(ROWS * sizeof *seen);
    for (size_t i = 0; i < CVQ_ATTENTION_KEYS; i++) {
        scale[i] = 1e-3f;
        start[i] = 0;
    }
    for (size_t i = 0; i < ROWS; i++) {
        row[i] = 1e-2f;
        seen[i] = CVQ_ATTENTION_KEYS;
    }
    cvq_attention_rows r = {
        bench_alloc(ROWS * 4 * steps), row, seen, row + ROWS, row + 2 * ROWS, o};
    double best[BLOCKS] = {0}, seconds = 0, begin = cvq_bench_now();
    for (int round = 0; round < 30 && (round < 3 || cvq_bench_now() - begin < 1); round++)
        for (size_t b = 0; b < BLOCKS; b++) {
            const int8_t *keys = memory + b * size;
            cvq_attention_block kv = {keys,  scale, start, keys + 1024 * steps,
                                      scale, steps, panels};
            double now = cvq_bench_now();
            t->attend_int8(&kv, &r, ROWS);
            bench_keep(&best[b], cvq_bench_now() - now, round);
        }
    for (size_t b = 0; b < BLOCKS; b++) seconds += best[b];
    bench_print("attention", "int8", CVQ_ATTENTION_KEYS * BLOCKS, d, ROWS,
                4.0 * (double)(CVQ_ATTENTION_KEYS * BLOCKS) * (double)d * ROWS, 0, seconds, peak);
    free(memory);
    free(scale);
    free(o);
    free(row);
    free(start);
    free(seen);
    free((void *)(uintptr_t)r.q);
}

#define BENCH_ROW(name, call)                                                                      \
    do {                                                                                           \
        double best = 1e9;                                                                         \
        for (int round = 0; round < 20; round++) {                                                 \
            for (size_t i = 0; i < n; i++) x[i] = (float)(i % 97) * -0.03f;                        \
            double start = cvq_bench_now();                                                        \
            for (int times = 0; times < 10; times++) call;                                         \
            double seconds = (cvq_bench_now() - start) / 10;                                       \
            if (seconds < best) best = seconds;                                                    \
        }                                                                                          \
        printf("  %-14s %8.2f G values/s\n", name, (double)n / best * 1e-9);                       \
    } while (0)

static void bench_rows(const cvq_kernels *t) {
    size_t n = 4096;
    float *x = bench_alloc(4 * n), *y = bench_alloc(4 * n), *o = bench_alloc(64 * n);
    cvq_act8 act = {bench_alloc(n), bench_alloc(n), bench_alloc(n), n};
    void *memory = bench_alloc(65536);
    cvq_lane_codes lanes = {act.q, 64, act.scale, NULL};
    volatile float sink = 0;
    BENCH_ROW("rms_norm", t->rms_norm(x, y, 1e-5f, n, o));
    BENCH_ROW("layer_norm", t->layer_norm(x, y, y, 1e-5f, n, o));
    BENCH_ROW("gelu", t->gelu(x, n));
    BENCH_ROW("silu_mul", t->silu_mul(x, y, n));
    BENCH_ROW("add", t->add(x, y, n));
    BENCH_ROW("mul", t->mul(x, y, n));
    BENCH_ROW("scale", t->scale(x, 0.999f, n));
    BENCH_ROW("max", sink = t->max(x, n));
    BENCH_ROW("exp_sum", sink = t->exp_sum(x, 0, n));
    BENCH_ROW("rotate", t->rotate(x, y, y, n / 2));
    BENCH_ROW("transpose16", t->transpose16(x, 256, 16, 256, o));
    BENCH_ROW("f32_to_f16", t->f32_to_f16(x, n, (uint16_t *)(void *)o));
    BENCH_ROW("f16_to_f32", t->f16_to_f32((const uint16_t *)(const void *)x, n, o));
    BENCH_ROW("quantize_rows", t->quantize_rows(x, n, 1, n, &act));
    BENCH_ROW("quantize_lanes", t->quantize_lanes(x, 16, n / 16, y, false, &lanes));
    for (int few = 1; few <= 4; few += 3) { /* 64 KiB: keys of a block */
        cvq_kv_panels kv = {memory, 2048, 128, NULL};
        printf("  a cache's keys by %d rows:\n", few);
        BENCH_ROW("tile_kv_f16", t->tile_kv_f16(&kv, 16, x, 128, (size_t)few, o, 256, false));
        BENCH_ROW("tile_kv_int8", t->tile_kv_int8(&kv, 16, x, 128, (size_t)few, o, 256, false));
    }
    free(memory);
    (void)sink;
    free(x);
    free(y);
    free(o);
    free(act.q);
    free(act.scale);
    free(act.sum);
}

static int bench(const char *only) {
    static const size_t ms[] = {1, 4, 32, 256};
    for (int i = 0; i < CVQ_CPU_LEVELS; i++) {
        cvq_cpu_level level = (cvq_cpu_level)i;
        if (!cvq_cpu_has(level) || level == CVQ_CPU_AVX512BF16) continue;
        if (only ? strcmp(only, cvq_cpu_level_name(level)) != 0 : level == CVQ_CPU_SCALAR) continue;
        double int8, f32;
        bench_peaks(level, &int8, &f32);
        printf("%s: int8 %.1f Gop/s, f32 %.1f GFLOP/s in registers\n", cvq_cpu_level_name(level),
               int8 * 1e-9, f32 * 1e-9);
        const cvq_kernels *t = cvq_kernels_for(level);
        bench_attention(t, 112, int8);
        bench_attention(t, 128, int8);
        for (cvq_type type = 0; type < CVQ_TYPES; type++) /* out of the second-level cache */
            if (t->gemm_int8[type]) bench_int8(t, type, 256, 4096, 1, int8);
        for (size_t s = 0; s < 2; s++)
            for (cvq_type type = 0; type < CVQ_TYPES; type++)
                for (size_t m = 0; m < 4 && t->gemm_int8[type]; m++)
                    bench_int8(t, type, s ? 14336 : 4096, 4096, ms[m], int8);
        bench_f32(t, CVQ_TYPE_BF16, 4096, 4096, 32, f32);
        for (cvq_type type = 0; type < CVQ_TYPES; type++)
            if (t->unpack_f32[type]) bench_f32(t, type, 4096, 4096, 64, f32);
        bench_rows(t);
    }
    return 0;
}

#endif
