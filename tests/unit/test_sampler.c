/* The sampler: greedy choice, each filter against Hugging Face's definition written out plainly,
 * how often each id is drawn, and that the same seed draws the same ids everywhere. */
#include "runtime/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "tests/unit/harness.h"

static cvq_sampler *open_sampler(float temperature, uint32_t top_k, float top_p, float penalty,
                                 uint64_t seed, uint32_t vocab) {
    cvq_sampler_options options = {temperature, top_k, top_p, penalty, seed};
    cvq_sampler *s = NULL;
    cvq_error err = {0};
    CHECK_SAY(cvq_sampler_open(&s, &options, vocab, &err) == CVQ_OK, "%s: %s", err.where,
              err.message);
    return s;
}

static uint64_t random_state = 1;
static double random_unit(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

/* ---------------------------------------------------------------- greedy */

static int32_t greedy(const float *logits, uint32_t n) {
    cvq_sampler *s = open_sampler(0, 0, 0, 0, 0, n);
    int32_t id = cvq_sampler_next(s, logits);
    cvq_sampler_close(s);
    return id;
}

static void test_greedy(void) {
    const float plain[] = {0.5f, 2, -1, 2}, low[] = {-5, -3, -3, -9}, one[] = {-1};
    const float infinite[] = {1, -INFINITY, INFINITY, 3}, lowest[] = {-INFINITY, -INFINITY};
    const float some_nan[] = {NAN, -INFINITY, 1, NAN, 2, NAN}, all_nan[] = {NAN, NAN, NAN};
    CHECK(greedy(plain, 4) == 1); /* of equals the lowest id */
    CHECK(greedy(low, 4) == 1);
    CHECK(greedy(one, 1) == 0);
    CHECK(greedy(infinite, 4) == 2);
    CHECK(greedy(lowest, 2) == 0);
    CHECK(greedy(some_nan, 6) == 4);
    CHECK(greedy(all_nan, 3) == 0);
}

static void test_penalty(void) {
    const float logits[] = {4, 3, -1, -2};
    cvq_sampler *s = open_sampler(0, 0, 0, 1.5f, 0, 4);
    CHECK(cvq_sampler_next(s, logits) == 0);
    const int32_t seen[] = {0, 0,         0,        -1,
                            4, INT32_MAX, INT32_MIN}; /* counted once; others ignored */
    cvq_sampler_seen(s, seen, 7);
    CHECK(cvq_sampler_next(s, logits) == 1); /* 4 / 1.5 = 2.67 < 3 */
    const int32_t more = 1;
    cvq_sampler_seen(s, &more, 1);
    CHECK(cvq_sampler_next(s, logits) == 0); /* 2.67 > 3 / 1.5 = 2 */
    cvq_sampler_seen(s, NULL, 0);
    const float negative[] = {-4, -5, -7, -8}; /* -6, -7.5, -7 and -8 */
    CHECK(cvq_sampler_next(s, negative) == 0);
    const float negative_2[] = {-5, -5, -7, -8}; /* -7.5 and -7.5: now id 2 leads */
    CHECK(cvq_sampler_next(s, negative_2) == 2);
    cvq_sampler_close(s);
    /* 1 and 0 both mean none. */
    for (int off = 0; off < 2; off++) {
        s = open_sampler(0, 0, 0, (float)off, 0, 4);
        cvq_sampler_seen(s, seen, 1);
        CHECK(cvq_sampler_next(s, logits) == 0);
        cvq_sampler_close(s);
    }
}

/* ---------------------------------------------------------------- Hugging Face's definition */

#define VOCAB 40

/* Probabilities after repetition penalty, temperature, TopKLogitsWarper and TopPLogitsWarper, as
 * transformers computes them, in double. */
static void reference(const cvq_sampler_options *o, const float *logits, const bool *seen,
                      double *p) {
    double score[VOCAB], sum = 0;
    int order[VOCAB]; /* by rising score; of equals the higher id first */
    for (int i = 0; i < VOCAB; i++) {
        float l = logits[i];
        if (seen[i] && o->repetition_penalty > 0)
            l = l < 0 ? l * o->repetition_penalty : l / o->repetition_penalty;
        score[i] = (double)l / (double)o->temperature;
        int at = i;
        while (at > 0 && score[order[at - 1]] >= score[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    if (o->top_k > 0 && o->top_k < VOCAB) {
        double kth = score[order[VOCAB - (int)o->top_k]];
        for (int i = 0; i < VOCAB; i++)
            if (score[i] < kth) score[i] = -INFINITY;
    }
    for (int i = 0; i < VOCAB; i++) sum += exp(score[i] - score[order[VOCAB - 1]]);
    if (o->top_p > 0 && o->top_p < 1) {
        double cumulative = 0;
        for (int i = 0; i < VOCAB - 1; i++) {
            cumulative += exp(score[order[i]] - score[order[VOCAB - 1]]) / sum;
            if (cumulative <= 1 - (double)o->top_p) score[order[i]] = -INFINITY;
        }
    }
    sum = 0;
    for (int i = 0; i < VOCAB; i++) sum += p[i] = exp(score[i] - score[order[VOCAB - 1]]);
    for (int i = 0; i < VOCAB; i++) p[i] /= sum;
}

/* Draws many ids: only those the definition keeps, each about as often as it says (chi-squared with
 * fewer than 40 degrees of freedom is below 90 but once in 100,000 times; seeds are fixed). */
static void agrees(const cvq_sampler_options *o, const float *logits, const bool *seen) {
    enum { DRAWS = 6000 };
    double p[VOCAB], chi = 0, rest = 0;
    int count[VOCAB] = {0}, rest_count = 0, kept = 0, met = 0;
    reference(o, logits, seen, p);
    cvq_sampler *s =
        open_sampler(o->temperature, o->top_k, o->top_p, o->repetition_penalty, o->seed, VOCAB);
    for (int32_t i = 0; i < VOCAB; i++)
        if (seen[i]) cvq_sampler_seen(s, &i, 1);
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = cvq_sampler_next(s, logits);
        CHECK(id >= 0 && id < VOCAB);
        if (id >= 0 && id < VOCAB) count[id]++;
    }
    cvq_sampler_close(s);
    for (int i = 0; i < VOCAB; i++) {
        CHECK_SAY(p[i] > 0 || count[i] == 0, "id %d should never be drawn", i);
        if (p[i] > 3e-3) {
            kept++;
            met += count[i] > 0;
        }
        double expected = p[i] * DRAWS;
        if (expected >= 5) {
            chi += (count[i] - expected) * (count[i] - expected) / expected;
        } else { /* rare ones count together */
            rest += expected;
            rest_count += count[i];
        }
    }
    if (rest >= 5) chi += (rest_count - rest) * (rest_count - rest) / rest;
    CHECK_SAY(chi < 90, "chi-squared is %g: T %g, k %u, p %g", chi, (double)o->temperature,
              o->top_k, (double)o->top_p);
    CHECK_SAY(met == kept, "%d of %d kept ids were drawn", met, kept);
}

static void test_filters(void) {
    random_state = 5;
    for (int round = 0; round < 16; round++) {
        float logits[VOCAB];
        bool seen[VOCAB];
        for (int i = 0; i < VOCAB; i++) {
            logits[i] = (float)(random_unit() * 8 - 3);
            if (round % 2) logits[i] = roundf(logits[i]); /* many equal ones */
            seen[i] = random_unit() < 0.3;
        }
        cvq_sampler_options o = {.temperature = (float)(0.3 + random_unit() * 2),
                                 .repetition_penalty = round % 5 ? 0 : 1.3f,
                                 .seed = (uint64_t)round};
        if (round % 4 != 1) o.top_p = (float)random_unit();
        if (round % 3 != 1) o.top_k = 1 + (uint32_t)(random_unit() * VOCAB);
        agrees(&o, logits, seen);
    }
}

/* One id must be left, whatever the filters. */
static void test_narrow(void) {
    float logits[VOCAB] = {0};
    logits[7] = 1e-3f;
    for (int k = 0; k < 2; k++) {
        cvq_sampler *s =
            k ? open_sampler(1, 1, 0, 0, 3, VOCAB) : open_sampler(1, 0, 1e-30f, 0, 3, VOCAB);
        for (int i = 0; i < 100; i++) CHECK(cvq_sampler_next(s, logits) == 7);
        cvq_sampler_close(s);
    }
    /* Of equal ids top-k keeps all and top-p the lowest. */
    logits[7] = 0;
    cvq_sampler *s = open_sampler(1, 1, 0, 0, 3, VOCAB);
    bool other = false;
    for (int i = 0; i < 100; i++) other |= cvq_sampler_next(s, logits) != 0;
    CHECK(other);
    cvq_sampler_close(s);
    s = open_sampler(1, 0, 0.9f / VOCAB, 0, 3, VOCAB);
    for (int i = 0; i < 100; i++) CHECK(cvq_sampler_next(s, logits) == 0);
    cvq_sampler_close(s);
}

/* Nothing crashes, loops or leaves the vocabulary. */
static void test_odd_logits(void) {
    static const float odd[][6] = {
        {NAN, NAN, NAN, NAN, NAN, NAN},
        {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
        {INFINITY, INFINITY, 0, NAN, -INFINITY, 3},
        {3.4e38f, -3.4e38f, 3.4e38f, 0, NAN, 1},
        {NAN, NAN, 1, -INFINITY, NAN, 1},
    };
    static const float temperatures[] = {0, 1e-45f, 0.6f, 3.4e38f};
    static const float penalties[] = {0, 1e-45f, 1.3f, 3.4e38f};
    for (size_t l = 0; l < 5; l++)
        for (size_t t = 0; t < 4; t++)
            for (size_t r = 0; r < 4; r++)
                for (uint32_t k = 0; k < 4; k++) {
                    cvq_sampler *s =
                        open_sampler(temperatures[t], k, k % 2 ? 0.5f : 0, penalties[r], 1, 6);
                    const int32_t seen[] = {0, 3};
                    cvq_sampler_seen(s, seen, 2);
                    for (int i = 0; i < 10; i++) {
                        int32_t id = cvq_sampler_next(s, odd[l]);
                        CHECK(id >= 0 && id < 6);
                        /* what is no number is not chosen while there is another */
                        if (l == 4) CHECK(id == 2 || id == 5);
                    }
                    cvq_sampler_close(s);
                }
}

/* ---------------------------------------------------------------- the same everywhere */

static void test_seed(void) {
    /* Exact in binary, so that every machine starts from the same logits. */
    float logits[16];
    for (int i = 0; i < 16; i++) logits[i] = (float)((i * 7) % 16) * 0.25f;
    /* Computed apart from this program, in Python with integers and its own exp. */
    static const int32_t expected[3][12] = {{13, 9, 2, 15, 2, 4, 2, 11, 4, 13, 6, 11},
                                            {9, 11, 15, 9, 9, 11, 13, 9, 4, 11, 9, 9},
                                            {9, 11, 9, 11, 4, 6, 11, 11, 4, 11, 4, 9}};
    for (uint64_t seed = 0; seed < 3; seed++) {
        cvq_sampler *s = open_sampler(0.75f, 12, 0.9f, 0, seed, 16),
                    *again = open_sampler(0.75f, 12, 0.9f, 0, seed, 16);
        for (int i = 0; i < 12; i++) {
            int32_t id = cvq_sampler_next(s, logits);
            CHECK_SAY(id == expected[seed][i], "seed %d, draw %d: %d", (int)seed, i, id);
            CHECK(cvq_sampler_next(again, logits) == id);
        }
        cvq_sampler_close(s);
        cvq_sampler_close(again);
    }
}

static void test_options(void) {
    static const cvq_sampler_options bad[] = {
        {.temperature = -0.1f},
        {.temperature = NAN},
        {.temperature = INFINITY},
        {.top_p = -0.1f},
        {.top_p = 1.1f},
        {.top_p = NAN},
        {.repetition_penalty = -1},
        {.repetition_penalty = NAN},
        {.repetition_penalty = INFINITY},
    };
    static const char *const names[] = {
        "temperature",        "temperature",        "temperature",       "top_p", "top_p", "top_p",
        "repetition_penalty", "repetition_penalty", "repetition_penalty"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cvq_sampler *s = NULL;
        cvq_error err = {0};
        CHECK(cvq_sampler_open(&s, &bad[i], 8, &err) == CVQ_INVALID_ARGUMENT);
        CHECK_SAY(s == NULL && strcmp(err.where, names[i]) == 0, "case %zu names '%s'", i,
                  err.where);
    }
    cvq_sampler *s = NULL;
    const cvq_sampler_options defaults = {0};
    CHECK(cvq_sampler_open(&s, &defaults, 0, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_sampler_open(&s, &defaults, UINT32_MAX, NULL) == CVQ_INVALID_ARGUMENT);
    cvq_sampler_close(NULL);
}

int main(void) {
    RUN(test_greedy);
    RUN(test_penalty);
    RUN(test_filters);
    RUN(test_narrow);
    RUN(test_odd_logits);
    RUN(test_seed);
    RUN(test_options);
    return REPORT();
}
