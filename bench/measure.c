/* What all rows share: which are wanted, how often they run, medians, and shares of the peaks. */
#include "bench/measure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bench/synthetic.h"
#include "quant/recipe.h"

#define LEAST_POOL ((size_t)2 << 30)
#define SCALED_POOL ((size_t)16 << 20)

/* ---------------------------------------------------------------- the run */

/* At least four times the last-level cache and 2 GiB, but no more than half of what is free. */
static size_t pool_bytes(const cvq_bench *b) {
    size_t want = 4 * cvq_last_level_cache(), most = cvq_free_memory() / 2;
    if (b->scale > 1) return SCALED_POOL;
    if (want < LEAST_POOL) want = LEAST_POOL;
    if (want > most) {
        cvq_bench_note(b,
                       "memory for %zu MiB of weights only, %zu MiB were wanted: caches may help "
                       "where they would not",
                       most >> 20, want >> 20);
        want = most;
    }
    return want;
}

static cvq_status plan_types(cvq_bench *b, cvq_error *err) {
    cvq_recipe *recipe = NULL;
    void *types = NULL;
    CVQ_TRY(cvq_recipe_open(&recipe, b->recipe, err));
    cvq_status status = cvq_alloc(&types, cvq_model_tensor_count(&b->config), sizeof(cvq_type),
                                  "types of the weights", err);
    if (status == CVQ_OK) status = cvq_recipe_types(recipe, &b->config, CVQ_TYPE_BF16, types, err);
    cvq_recipe_free(recipe);
    b->types = types;
    return status;
}

cvq_status cvq_bench_open(cvq_bench *b, cvq_error *err) {
    atomic_init(&b->stop, 0);
    b->config = cvq_scaled_config(b->scale);
    b->pool_bytes = pool_bytes(b);
    b->seconds = b->scale > 1 ? 0.002 : b->quick ? 0.2 : 0.5;
    b->min_runs = b->quick ? 2 : 3;
    return plan_types(b, err);
}

void cvq_bench_close(cvq_bench *b) {
    free(b->types);
    free(b->rows);
    b->types = NULL;
    b->rows = NULL;
    b->num_rows = b->capacity = 0;
}

static bool stopped(cvq_bench *b) {
    if (b->stopped && b->stopped(b->context)) atomic_store(&b->stop, 1);
    return atomic_load(&b->stop) != 0;
}

cvq_status cvq_bench_check(cvq_bench *b, cvq_error *err) {
    if (stopped(b)) return cvq_fail(err, CVQ_CANCELLED, NULL, "stopped while measuring");
    return CVQ_OK;
}

void cvq_bench_note(const cvq_bench *b, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (b->on_note) b->on_note(b->context, text);
}

bool cvq_bench_wanted(const cvq_bench *b, const char *name, const char *type, size_t m) {
    char whole[128];
    if (!b->only) return true;
    snprintf(whole, sizeof whole, "%s:%s:%zu", name, type ? type : "", m);
    return cvq_glob_match(b->only, name) || cvq_glob_match(b->only, whole);
}

/* ---------------------------------------------------------------- peaks */

static void add_peak(cvq_bench *b, cvq_peak_kind kind, cvq_cpu_level level, int threads,
                     double value) {
    if (value <= 0) return;
    cvq_peak *peak = &b->peaks[b->num_peaks++];
    *peak = (cvq_peak){kind, level, threads, value};
    if (b->on_peak) b->on_peak(b->context, peak);
}

static double peak_of(const cvq_bench *b, cvq_peak_kind kind) {
    for (size_t i = 0; i < b->num_peaks; i++) {
        const cvq_peak *p = &b->peaks[i];
        if (p->kind == kind && p->level == b->level && p->threads == b->threads) return p->value;
    }
    return 0;
}

/* 1 thread, then all. */
static void compute_peaks(cvq_bench *b, cvq_cpu_level level, double seconds) {
    for (int kind = 0; kind < CVQ_PEAK_READ; kind++)
        for (int threads = 1; threads <= b->threads;
             threads = threads < b->threads ? b->threads : b->threads + 1)
            add_peak(b, (cvq_peak_kind)kind, level, threads,
                     cvq_peak_compute(level, (cvq_peak_kind)kind, threads, seconds));
}

static cvq_status read_peaks(cvq_bench *b, double seconds, cvq_error *err) {
    void *memory;
    CVQ_TRY(cvq_alloc(&memory, b->pool_bytes, 1, "memory to read", err));
    for (int threads = 1; threads <= b->threads;
         threads = threads < b->threads ? b->threads : b->threads + 1)
        add_peak(b, CVQ_PEAK_READ, b->level, threads,
                 cvq_peak_read(b->level, threads, memory, b->pool_bytes, seconds));
    free(memory);
    return CVQ_OK;
}

/* Several threads that compute no more than one do not have the machine for themselves. */
static void note_if_busy(cvq_bench *b) {
    double one = 0, all = peak_of(b, CVQ_PEAK_INT8);
    for (size_t i = 0; i < b->num_peaks; i++)
        if (b->peaks[i].kind == CVQ_PEAK_INT8 && b->peaks[i].level == b->level &&
            b->peaks[i].threads == 1)
            one = b->peaks[i].value;
    if (b->threads > 1 && all <= one)
        cvq_bench_note(b,
                       "%d threads compute no faster than one: other programs seem to run, and "
                       "the figures mean little",
                       b->threads);
}

cvq_status cvq_bench_peaks(cvq_bench *b, cvq_error *err) {
    double seconds = b->scale > 1 ? 0.01 : b->quick ? 0.1 : 0.5;
    for (int i = 0; i < CVQ_CPU_LEVELS; i++) {
        if (!cvq_cpu_has((cvq_cpu_level)i)) continue;
        CVQ_TRY(cvq_bench_check(b, err));
        compute_peaks(b, (cvq_cpu_level)i, seconds);
    }
    note_if_busy(b);
    return read_peaks(b, 2 * seconds, err);
}

/* ---------------------------------------------------------------- rows */

bool cvq_bench_more(cvq_bench *b, const cvq_bench_times *t) {
    return !stopped(b) && t->count < CVQ_BENCH_MAX_RUNS &&
           (t->count < b->min_runs || t->sum < b->seconds);
}

void cvq_bench_add(cvq_bench_times *t, double seconds) {
    t->values[t->count++] = seconds;
    t->sum += seconds;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void summarize(cvq_bench_row *row, cvq_bench_times *t) {
    qsort(t->values, t->count, sizeof *t->values, by_size);
    size_t half = t->count / 2;
    row->min_s = t->values[0];
    row->median_s = t->count % 2 ? t->values[half] : (t->values[half - 1] + t->values[half]) / 2;
    row->runs = t->count;
}

/* The peak that bounds is the one under which the row would take longest. */
static void hold_against_peaks(const cvq_bench *b, cvq_bench_row *row) {
    double compute = peak_of(b, row->bound), read = peak_of(b, CVQ_PEAK_READ);
    double compute_s = compute > 0 ? row->ops / compute : 0;
    double read_s = read > 0 ? row->bytes / read : 0;
    if (read_s > compute_s) row->bound = CVQ_PEAK_READ;
    double work = row->bound == CVQ_PEAK_READ ? row->bytes : row->ops;
    double bound_s = row->bound == CVQ_PEAK_READ ? read_s : compute_s;
    row->fraction = bound_s / row->median_s;
    row->rate = work / row->median_s * 1e-9;
    row->unit = cvq_peak_unit(row->bound);
}

static cvq_status keep(cvq_bench *b, const cvq_bench_row *row, cvq_error *err) {
    if (b->num_rows == b->capacity) {
        size_t capacity = b->capacity ? 2 * b->capacity : 64;
        cvq_bench_row *rows = realloc(b->rows, capacity * sizeof *rows);
        if (!rows) return cvq_fail(err, CVQ_OUT_OF_MEMORY, NULL, "no memory for the results");
        b->rows = rows;
        b->capacity = capacity;
    }
    b->rows[b->num_rows++] = *row;
    if (b->on_row) b->on_row(b->context, row);
    return CVQ_OK;
}

static cvq_status finish(cvq_bench *b, cvq_bench_row *row, cvq_bench_times *t, double whole,
                         cvq_error *err) {
    CVQ_TRY(cvq_bench_check(b, err)); /* times may be missing */
    row->level = b->level;
    row->threads = b->threads;
    summarize(row, t);
    hold_against_peaks(b, row);
    row->model_s = row->median_s * whole;
    return CVQ_OK;
}

cvq_status cvq_bench_done(cvq_bench *b, cvq_bench_row *row, cvq_bench_times *t, double whole,
                          cvq_error *err) {
    CVQ_TRY(finish(b, row, t, whole, err));
    return keep(b, row, err);
}

cvq_status cvq_bench_done_as(cvq_bench *b, cvq_bench_row *row, cvq_bench_times *t, double whole,
                             double units, const char *unit, cvq_error *err) {
    CVQ_TRY(finish(b, row, t, whole, err));
    row->rate = units / row->median_s;
    row->unit = unit;
    return keep(b, row, err);
}
