/* runtime/attention and kv_cache: against attention in double precision, for every cache type and
 * several shapes; and a query's result does not depend on what is computed beside it.
 * cvq-test: processor threads */
#include "runtime/attention.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/attention_int8.h"
#include "tests/unit/harness.h"

static uint32_t seed = 1;
static float noise(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / 8388608.0f - 1.0f;
}

typedef struct problem {
    size_t queries, keys, heads, kv_heads, d;
    bool causal; /* the queries are the last of the keys */
    float *q, *k, *v, *out;
    size_t *visible;
    cvq_kv_cache kv;
} problem;

static void setup(problem *p, cvq_kv_type type, const cvq_kernels *kernels) {
    p->q = malloc(p->queries * p->heads * p->d * sizeof(float));
    p->out = malloc(p->queries * p->heads * p->d * sizeof(float));
    p->k = malloc(p->keys * p->kv_heads * p->d * sizeof(float));
    p->v = malloc(p->keys * p->kv_heads * p->d * sizeof(float));
    p->visible = malloc(p->queries * sizeof(size_t));
    for (size_t i = 0; i < p->queries * p->heads * p->d; i++) p->q[i] = 3 * noise();
    for (size_t i = 0; i < p->keys * p->kv_heads * p->d; i++) p->k[i] = 2 * noise();
    for (size_t i = 0; i < p->keys * p->kv_heads * p->d; i++) p->v[i] = noise();
    for (size_t i = 0; i < p->queries; i++)
        p->visible[i] = p->causal ? p->keys - p->queries + i + 1 : p->keys;
    cvq_kv_init(&p->kv, type, p->kv_heads, p->d);
    CHECK(cvq_kv_reserve(&p->kv, p->keys, NULL) == CVQ_OK);
    for (size_t i = 0; i < p->keys; i++)
        cvq_kv_store(&p->kv, kernels, i, p->k + i * p->kv_heads * p->d,
                     p->v + i * p->kv_heads * p->d);
}

static void teardown(problem *p) {
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->out);
    free(p->visible);
    cvq_kv_free(&p->kv);
}

static void run(const problem *p, const cvq_engine *e, size_t first, size_t n, float *out) {
    size_t width = p->heads * p->d;
    cvq_attention_call call = {.kv = &p->kv,
                               .q = p->q + first * width,
                               .ldq = width,
                               .queries = n,
                               .heads = p->heads,
                               .visible = p->visible + first,
                               .scale = 1.0f / sqrtf((float)p->d),
                               .out = out,
                               .ldo = width};
    cvq_attention(e, &call);
}

static double worst_error(const problem *p) {
    double worst = 0;
    double *s = malloc(p->keys * sizeof(double));
    for (size_t i = 0; i < p->queries; i++)
        for (size_t h = 0; h < p->heads; h++) {
            size_t g = h / (p->heads / p->kv_heads);
            const float *q = p->q + (i * p->heads + h) * p->d;
            double max = -INFINITY, sum = 0;
            for (size_t j = 0; j < p->visible[i]; j++) {
                double dot = 0;
                for (size_t c = 0; c < p->d; c++)
                    dot += (double)q[c] * (double)p->k[(j * p->kv_heads + g) * p->d + c];
                s[j] = dot / sqrt((double)p->d);
                max = fmax(max, s[j]);
            }
            for (size_t j = 0; j < p->visible[i]; j++) sum += s[j] = exp(s[j] - max);
            for (size_t c = 0; c < p->d; c++) {
                double want = 0;
                for (size_t j = 0; j < p->visible[i]; j++)
                    want += s[j] / sum * (double)p->v[(j * p->kv_heads + g) * p->d + c];
                worst = fmax(worst, fabs(want - (double)p->out[(i * p->heads + h) * p->d + c]));
            }
        }
    free(s);
    return worst;
}

static const problem shapes[] = {
    {.queries = 1, .keys = 1, .heads = 4, .kv_heads = 1, .d = 32, .causal = true},
    {.queries = 300, .keys = 300, .heads = 2, .kv_heads = 2, .d = 112},
    {.queries = 70, .keys = 530, .heads = 8, .kv_heads = 2, .d = 128, .causal = true},
    {.queries = 5, .keys = 261, .heads = 3, .kv_heads = 3, .d = 40, .causal = true},
    {.queries = 33, .keys = 33, .heads = 6, .kv_heads = 2, .d = 7, .causal = true},
};

static atomic_int never;

static void check_level(cvq_cpu_level level) {
    static const struct {
        cvq_kv_type type;
        double bound; /* values lie within [-1, 1] */
    } types[] = {{CVQ_KV_F32, 2e-6}, {CVQ_KV_F16, 4e-3}, {CVQ_KV_Q8, 6e-2}};
    const cvq_kernels *kernels = cvq_kernels_for(level);
    cvq_engine e;
    CHECK(cvq_engine_open(&e, kernels, 2, false, &never, NULL) == CVQ_OK);
    for (size_t t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            problem p = shapes[i];
            setup(&p, types[t].type, kernels);
            run(&p, &e, 0, p.queries, p.out);
            double error = worst_error(&p);
            CHECK_SAY(error <= types[t].bound, "%s, KV type %d, shape %zu: %g",
                      cvq_cpu_level_name(level), (int)types[t].type, i, error);
            size_t width = p.heads * p.d;
            float *alone = malloc(width * sizeof(float));
            for (size_t n = 0; n < p.queries; n += 13) {
                run(&p, &e, n, 1, alone);
                CHECK_SAY(memcmp(alone, p.out + n * width, width * sizeof(float)) == 0,
                          "%s: query %zu of shape %zu alone differs", cvq_cpu_level_name(level), n,
                          i);
            }
            free(alone);
            teardown(&p);
        }
    cvq_engine_close(&e);
}

static void attention_is_right_at_every_level(void) {
    for (int level = 0; level < CVQ_CPU_LEVELS; level++)
        if (cvq_cpu_has((cvq_cpu_level)level)) check_level((cvq_cpu_level)level);
}

/* A query alone has its keys in ranges of which several threads take care, one among many others
 * has them one after another. */
static void check_ranges(cvq_kv_type type, double bound, cvq_cpu_level level) {
    static const int threads[] = {1, 2, 3, 16};
    problem p = {.queries = 20, .keys = 2600, .heads = 6, .kv_heads = 2, .d = 40, .causal = true};
    size_t width = p.heads * p.d;
    float *alone = malloc(width * sizeof(float));
    setup(&p, type, cvq_kernels_for(level));
    for (size_t i = 0; i < 6; i++) p.visible[i] = 1023 + i; /* about where a range ends */
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        cvq_engine e;
        CHECK(cvq_engine_open(&e, cvq_kernels_for(level), threads[t], false, &never, NULL) ==
              CVQ_OK);
        if (t == 0) run(&p, &e, 0, p.queries, p.out);
        for (size_t n = 0; n < p.queries; n++) {
            run(&p, &e, n, 1, alone);
            CHECK_SAY(memcmp(alone, p.out + n * width, width * sizeof(float)) == 0,
                      "%s: query %zu alone with %d threads differs", cvq_cpu_level_name(level), n,
                      threads[t]);
        }
        cvq_engine_close(&e);
    }
    double error = worst_error(&p);
    CHECK_SAY(error <= bound, "%s, KV type %d: %g", cvq_cpu_level_name(level), (int)type, error);
    free(alone);
    teardown(&p);
}

static void ranges_of_keys_do_not_depend_on_threads(void) {
    for (int level = 0; level < CVQ_CPU_LEVELS; level++) {
        if (!cvq_cpu_has((cvq_cpu_level)level)) continue;
        check_ranges(CVQ_KV_F32, 2e-6, (cvq_cpu_level)level);
        check_ranges(CVQ_KV_F16, 4e-3, (cvq_cpu_level)level);
        check_ranges(CVQ_KV_Q8, 6e-2, (cvq_cpu_level)level);
    }
}

/* Tokens among themselves, in int8: worst error relative to the values' size of 1. */
static const struct {
    size_t tokens, heads, d;
    float sharp; /* factor on the queries: 0.1 weighs alike, 10 all but picks one key */
    double bound;
} int8_shapes[] = {
    {1, 2, 112, 1, 1e-6},   {300, 2, 112, 1, 0.06}, {300, 2, 112, 0.1f, 0.01},
    {300, 1, 112, 10, 0.2}, {261, 3, 40, 1, 0.06},  {33, 2, 7, 1, 0.05},
    {513, 1, 128, 1, 0.05},
};

static void run_int8(const problem *p, cvq_cpu_level level, int threads, float *out) {
    size_t width = p->heads * p->d;
    cvq_engine e;
    cvq_kv_int8 kv;
    CHECK(cvq_engine_open(&e, cvq_kernels_for(level), threads, true, &never, NULL) == CVQ_OK);
    CHECK(cvq_kv_int8_alloc(&kv, p->kv_heads, p->d, p->keys, "test", NULL) == CVQ_OK);
    cvq_kv_rows rows = {p->k, p->v, width, p->keys};
    cvq_kv_int8_store(&e, &kv, &rows);
    cvq_attention_int8_call call = {.kv = &kv,
                                    .q = p->q,
                                    .ldq = width,
                                    .queries = p->queries,
                                    .heads = p->heads,
                                    .scale = 1.0f / sqrtf((float)p->d),
                                    .out = out,
                                    .ldo = width};
    cvq_attention_int8(&e, &call);
    cvq_kv_int8_free(&kv);
    cvq_engine_close(&e);
}

static problem problem_int8(size_t shape) {
    problem p = {.queries = int8_shapes[shape].tokens,
                 .keys = int8_shapes[shape].tokens,
                 .heads = int8_shapes[shape].heads,
                 .kv_heads = int8_shapes[shape].heads,
                 .d = int8_shapes[shape].d};
    setup(&p, CVQ_KV_F32, cvq_kernels_for(CVQ_CPU_SCALAR));
    size_t width = p.heads * p.d;
    for (size_t i = 0; i < p.queries * width; i++) {
        p.q[i] *= int8_shapes[shape].sharp;
        p.k[i] += 5 * sinf((float)(i % width)); /* what the tokens have in common */
        p.v[i] += 3 * cosf((float)(i % width));
    }
    return p;
}

static void int8_is_close_and_the_same_everywhere(void) {
    for (size_t i = 0; i < sizeof int8_shapes / sizeof *int8_shapes; i++) {
        problem p = problem_int8(i);
        size_t bytes = p.queries * p.heads * p.d * sizeof(float);
        run_int8(&p, CVQ_CPU_SCALAR, 1, p.out);
        double error = worst_error(&p);
        CHECK_SAY(error <= int8_shapes[i].bound, "shape %zu: %g", i, error);
        float *other = malloc(bytes);
        for (int level = 0; level < CVQ_CPU_LEVELS; level++) {
            if (!cvq_cpu_has((cvq_cpu_level)level)) continue;
            run_int8(&p, (cvq_cpu_level)level, 3, other);
            CHECK_SAY(memcmp(other, p.out, bytes) == 0, "%s: shape %zu differs",
                      cvq_cpu_level_name((cvq_cpu_level)level), i);
        }
        free(other);
        teardown(&p);
    }
}

/* The last queries of a sequence, in int8 over keys and values in a cache of any type or in rows.
 */
static void run_causal(const problem *p, const cvq_engine *e, const cvq_kv_int8 *kv, size_t first,
                       size_t n, float *out) {
    size_t width = p->heads * p->d;
    cvq_attention_int8_call call = {.kv = kv,
                                    .q = p->q + first * width,
                                    .ldq = width,
                                    .queries = n,
                                    .heads = p->heads,
                                    .visible = p->visible + first,
                                    .scale = 1.0f / sqrtf((float)p->d),
                                    .out = out,
                                    .ldo = width};
    cvq_attention_int8(e, &call);
}

static void check_causal(const problem *shape, cvq_kv_type type, cvq_cpu_level level) {
    problem p = *shape;
    size_t width = p.heads * p.d;
    cvq_engine e;
    cvq_kv_int8 kv;
    setup(&p, type, cvq_kernels_for(level));
    CHECK(cvq_engine_open(&e, cvq_kernels_for(level), 2, true, &never, NULL) == CVQ_OK);
    CHECK(cvq_kv_int8_alloc(&kv, p.kv_heads, p.d, p.keys, "test", NULL) == CVQ_OK);
    cvq_kv_rows rows = {p.k, p.v, p.kv_heads * p.d, p.keys};
    cvq_kv_int8_store_cached(&e, &kv, &p.kv, &rows);
    run_causal(&p, &e, &kv, 0, p.queries, p.out);
    double error = worst_error(&p);
    CHECK_SAY(error <= 0.08, "%s: %zu keys of %zu, KV type %d: %g", cvq_cpu_level_name(level),
              p.keys, p.d, (int)type, error);
    float *other = malloc(p.queries * width * sizeof(float));
    for (size_t n = 0; n < p.queries; n += 13) {
        run_causal(&p, &e, &kv, n, 1, other);
        CHECK_SAY(memcmp(other, p.out + n * width, width * sizeof(float)) == 0,
                  "%s: query %zu alone differs", cvq_cpu_level_name(level), n);
    }
    if (type == CVQ_KV_F32) { /* keeps them as they are */
        cvq_kv_int8_store(&e, &kv, &rows);
        run_causal(&p, &e, &kv, 0, p.queries, other);
        CHECK(memcmp(other, p.out, p.queries * width * sizeof(float)) == 0);
    }
    free(other);
    cvq_kv_int8_free(&kv);
    cvq_engine_close(&e);
    teardown(&p);
}

static void int8_is_close_where_queries_are_grouped_and_see_what_is_before_them(void) {
    for (int level = 0; level < CVQ_CPU_LEVELS; level++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            if (!cvq_cpu_has((cvq_cpu_level)level)) continue;
            check_causal(&shapes[i], CVQ_KV_F32, (cvq_cpu_level)level);
            check_causal(&shapes[i], CVQ_KV_F16, (cvq_cpu_level)level);
            check_causal(&shapes[i], CVQ_KV_Q8, (cvq_cpu_level)level);
        }
}

/* A NaN among the queries is its query's alone, one among keys or values everybody's. */
static void int8_hides_no_nan(void) {
    for (int level = 0; level < CVQ_CPU_LEVELS; level++)
        for (int which = 0; which < 3 && cvq_cpu_has((cvq_cpu_level)level); which++) {
            problem p = problem_int8(4);
            size_t width = p.heads * p.d, head = p.d, nans = 0;
            float *input = which == 0 ? p.q : which == 1 ? p.k : p.v;
            input[7 * width + head + 3] = which == 1 ? INFINITY : NAN;
            run_int8(&p, (cvq_cpu_level)level, 2, p.out);
            for (size_t i = 0; i < p.queries * width; i++) nans += isnan(p.out[i]) != 0;
            size_t want = which == 0 ? p.d : which == 1 ? p.queries * p.d : p.queries;
            CHECK_SAY(nans == want, "%s: %zu NaN, not %zu, from input %d",
                      cvq_cpu_level_name((cvq_cpu_level)level), nans, want, which);
            teardown(&p);
        }
}

static void large_heads_are_refused_not_overrun(void) {
    CHECK(cvq_attention_fits(7) && cvq_attention_fits(128) && cvq_attention_fits(256));
    CHECK(!cvq_attention_fits(768) && !cvq_attention_fits(65536));
}

int main(void) {
    RUN(attention_is_right_at_every_level);
    RUN(ranges_of_keys_do_not_depend_on_threads);
    RUN(int8_is_close_and_the_same_everywhere);
    RUN(int8_is_close_where_queries_are_grouped_and_see_what_is_before_them);
    RUN(int8_hides_no_nan);
    RUN(large_heads_are_refused_not_overrun);
    return REPORT();
}
