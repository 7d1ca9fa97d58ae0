/* What cvq-bench measures: rows of one table, each a piece of the model's work at the real shapes,
 * run by the runtime's own functions and held against the machine's peaks of the same run. */
#ifndef CVQ_BENCH_MEASURE_H
#define CVQ_BENCH_MEASURE_H

#include <stdatomic.h>

#include "bench/peaks.h"
#include "cvq.h"
#include "formats/block_types.h"
#include "formats/model_config.h"

typedef enum cvq_bench_phase {
    CVQ_BENCH_ENCODE,
    CVQ_BENCH_PREFILL,
    CVQ_BENCH_DECODE,
    CVQ_BENCH_CONVERT
} cvq_bench_phase;

typedef struct cvq_bench_row {
    char name[40];
    cvq_bench_phase phase;
    size_t shape[3];  /* m, n, k: rows, outputs, inputs */
    const char *type; /* of the weights; static */
    cvq_cpu_level level;
    int threads;
    double median_s, min_s;
    size_t runs;
    double ops;   /* a multiply-add is 2 */
    double bytes; /* weights, input and output, once */
    double rate;  /* of the unit: ops or bytes of the peak that bounds, or what `unit` says */
    const char *unit;
    cvq_peak_kind bound;
    double fraction; /* of that peak; 0 where it was not measured */
    double model_s; /* the whole model's work of this kind: a picture, a prompt with one, a token */
} cvq_bench_row;

typedef struct cvq_bench {
    /* Set by the caller. */
    cvq_cpu_level level; /* of the kernels */
    int threads;
    bool quick;
    const char *only;               /* glob over names, or over NAME:TYPE:M; NULL: all */
    const char *recipe;             /* types of the layers' weights */
    uint32_t scale;                 /* 1: the real model */
    bool (*stopped)(void *context); /* asked between runs: leave with CVQ_CANCELLED? */
    void (*on_peak)(void *context, const cvq_peak *peak);
    void (*on_row)(void *context, const cvq_bench_row *row);
    void (*on_note)(void *context, const char *text);
    /* The session that is running, so that a signal can cancel it; NULL: none any more. */
    void (*on_session)(void *context, cvq_session *session);
    void *context;

    /* Set by cvq_bench_open. */
    atomic_int stop; /* for the engines */
    cvq_model_config config;
    cvq_type *types;   /* [cvq_model_tensor_count(&config)] by the recipe */
    size_t pool_bytes; /* memory in which weights lie, so large that caches do not help */
    double seconds;    /* that a row's runs take together, if that makes more than min_runs */
    size_t min_runs;

    cvq_peak peaks[3 * CVQ_CPU_LEVELS * CVQ_PEAK_KINDS];
    size_t num_peaks;
    cvq_bench_row *rows;
    size_t num_rows, capacity;
} cvq_bench;

cvq_status cvq_bench_open(cvq_bench *b, cvq_error *err);
void cvq_bench_close(cvq_bench *b);

/* The steps of a whole run, in this order; each calls on_row as rows get done. */
cvq_status cvq_bench_peaks(cvq_bench *b, cvq_error *err);
cvq_status cvq_bench_gemm(cvq_bench *b, cvq_error *err);      /* gemm_*, quantize_rows */
cvq_status cvq_bench_attention(cvq_bench *b, cvq_error *err); /* vit_attention */
cvq_status cvq_bench_vit(cvq_bench *b, cvq_error *err);       /* vit_layer, adapter */
cvq_status cvq_bench_prefill(cvq_bench *b, cvq_error *err);   /* decoder_layer_prefill */
cvq_status cvq_bench_decode(cvq_bench *b, cvq_error *err);    /* decoder_layer_decode, lm_head */
cvq_status cvq_bench_kv(cvq_bench *b, cvq_error *err);        /* decode_attention */
cvq_status cvq_bench_convert(cvq_bench *b, cvq_error *err);   /* quantize_* */
/* encode, prefill, decode of a model's file */
cvq_status cvq_bench_model(cvq_bench *b, const char *path, cvq_error *err);

/* ---------------------------------------------------------------- for the files that measure */

/* Times of one row. */
#define CVQ_BENCH_MAX_RUNS 1000
typedef struct cvq_bench_times {
    double values[CVQ_BENCH_MAX_RUNS], sum;
    size_t count;
} cvq_bench_times;

/* Whether the user wants this row. type NULL: "". */
bool cvq_bench_wanted(const cvq_bench *b, const char *name, const char *type, size_t m);
/* Whether another run is due: at least min_runs, then as long as `seconds` have not passed. */
bool cvq_bench_more(cvq_bench *b, const cvq_bench_times *t);
void cvq_bench_add(cvq_bench_times *t, double seconds);
/* Completes a row from its times: level, threads, median, rate, fraction; model_s = median x
 * `whole`. row->bound is the peak of its arithmetic; READ takes its place where the bytes need
 * longer than the operations. Then the row is kept and shown. */
cvq_status cvq_bench_done(cvq_bench *b, cvq_bench_row *row, cvq_bench_times *t, double whole,
                          cvq_error *err);
/* The same with a rate of its own: `units` (tokens, values) a run. */
cvq_status cvq_bench_done_as(cvq_bench *b, cvq_bench_row *row, cvq_bench_times *t, double whole,
                             double units, const char *unit, cvq_error *err);
/* CVQ_CANCELLED once the caller wants to stop. */
cvq_status cvq_bench_check(cvq_bench *b, cvq_error *err);
void cvq_bench_note(const cvq_bench *b, const char *format, ...) CVQ_PRINTF(2, 3);

#endif
