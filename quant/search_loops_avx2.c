/* The loops for AVX2: the trials, where most of a conversion's time goes, in intrinsics, the others
 * as a compiler makes them. Every operation is that of search_loops.c, in its order. */
#include <immintrin.h>

#include "quant/search_loops_template.h"

/* Trials that are made together, step by step: a step waits for the one before, and a processor
 * looks ahead less far than one trial is long. */
#define TOGETHER 2
#define EACH for (int u = 0; u < TOGETHER; u++)

typedef struct constants {
    __m256i below, entry; /* twice */
    /* Takes the four bytes of one vector of floats out of each half; the others become 0. */
    __m256i spread[4];
} constants;

static inline __m256i load_twice(const void *bytes) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes));
}

/* Doubled positions of eight weights, at most 255; what is no number becomes less than 0. */
static inline __m256i position(const float *x, __m256 per_step, __m256 start) {
    const __m256 at = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(x), per_step), start);
    return _mm256_cvttps_epi32(_mm256_min_ps(_mm256_set1_ps(255.0f), at));
}

/* All 32 as signed bytes, 128 less. Saturation cuts to 0 .. 255. A half has four weights of each
 * eight, in order. */
static inline __m256i positions(const float *x, float d, float shift) {
    const __m256 per_step = _mm256_set1_ps(2.0f / d), start = _mm256_set1_ps(-2.0f * shift);
    const __m256i low =
        _mm256_packs_epi32(position(x, per_step, start), position(x + 8, per_step, start));
    const __m256i high =
        _mm256_packs_epi32(position(x + 16, per_step, start), position(x + 24, per_step, start));
    return _mm256_xor_si256(_mm256_packus_epi16(low, high), _mm256_set1_epi8(-128));
}

/* The code of each position: its four bits from the highest, each by the midpoint that halves what
 * is left. */
static inline void codes_of(const constants *c, const __m256i *at, __m256i *code) {
    EACH code[u] = _mm256_setzero_si256();
    for (int bit = 8; bit > 0; bit /= 2) EACH {
            const __m256i middle = _mm256_add_epi8(code[u], _mm256_set1_epi8((char)(bit - 1)));
            const __m256i above = _mm256_cmpgt_epi8(at[u], _mm256_shuffle_epi8(c->below, middle));
            code[u] =
                _mm256_or_si256(code[u], _mm256_and_si256(above, _mm256_set1_epi8((char)bit)));
        }
}

/* ((0+4)+(2+6)) + ((1+5)+(3+7)), as cvq_search_join. */
static inline float join(__m256 v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline __m256 sum_of(const __m256 v[4]) {
    return _mm256_add_ps(_mm256_add_ps(v[0], v[1]), _mm256_add_ps(v[2], v[3]));
}

static inline void try_together(const cvq_search *s, const constants *c,
                                cvq_search_trial *const *trials) {
    __m256i at[TOGETHER], code[TOGETHER], entry[TOGETHER];
    __m256 xq[TOGETHER][4], qq[TOGETHER][4];
    EACH at[u] = positions(s->x, trials[u]->d, trials[u]->shift);
    codes_of(c, at, code);
    EACH entry[u] = _mm256_shuffle_epi8(c->entry, code[u]);
    for (int k = 0; k < 4; k++) EACH {
            const __m256i integer = _mm256_shuffle_epi8(entry[u], c->spread[k]);
            const __m256 q =
                _mm256_add_ps(_mm256_cvtepi32_ps(integer), _mm256_set1_ps(trials[u]->shift));
            xq[u][k] = _mm256_mul_ps(_mm256_loadu_ps(s->wx + 8 * k), q);
            qq[u][k] = _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(s->w + 8 * k), q), q);
        }
    EACH trials[u]->wxq = join(sum_of(xq[u]));
    EACH trials[u]->wqq = join(sum_of(qq[u]));
}

static void try_table(const cvq_search *s, const cvq_search_midpoints *t, cvq_search_trial *trials,
                      size_t count) {
    constants c = {.below = load_twice(t->below), .entry = load_twice(t->entry)};
    for (int k = 0; k < 4; k++) {
        const int first = 4 * k;
        c.spread[k] = _mm256_or_si256(
            _mm256_set1_epi32((int)0x80808000u),
            _mm256_broadcastsi128_si256(_mm_setr_epi32(first, first + 1, first + 2, first + 3)));
    }
    for (size_t i = 0; i < count; i += TOGETHER) {
        cvq_search_trial *const pair[TOGETHER] = {&trials[i], &trials[i + 1 < count ? i + 1 : i]};
        try_together(s, &c, pair);
    }
}

static void try_even(const cvq_search *s, float zero, float d, cvq_choice *best) {
    float q[CVQ_SEARCH_MAX_BLOCK];
    const __m256 per_step = _mm256_set1_ps(1.0f / d), half_up = _mm256_set1_ps(zero + 0.5f);
    const __m256 first = _mm256_set1_ps(zero), last = _mm256_set1_ps(2.0f * zero - 1.0f);
    __m256 xq = _mm256_setzero_ps(), qq = _mm256_setzero_ps(), sum = _mm256_setzero_ps();
    for (uint32_t i = 0; i < s->n; i += 8) {
        const __m256 at =
            _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(s->x + i), per_step), half_up);
        const __m256 cut = _mm256_min_ps(_mm256_max_ps(at, _mm256_setzero_ps()), last);
        const __m256 c = _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_cvttps_epi32(cut)), first);
        _mm256_storeu_ps(q + i, c);
        xq = _mm256_add_ps(xq, _mm256_mul_ps(_mm256_loadu_ps(s->wx + i), c));
        qq = _mm256_add_ps(qq, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(s->w + i), c), c));
    }
    const float wqq = join(qq);
    if (!(wqq > 0.0f)) return;
    const uint16_t scale = cvq_search_finite_f16(join(xq) / wqq * s->from_unit);
    const __m256 stored = _mm256_set1_ps(cvq_search_scale(s, scale));
    for (uint32_t i = 0; i < s->n; i += 8) {
        const __m256 value = _mm256_mul_ps(stored, _mm256_loadu_ps(q + i));
        const __m256 e = _mm256_sub_ps(_mm256_loadu_ps(s->x + i), value);
        sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(s->w + i), e), e));
    }
    const float error = join(sum);
    if (error < best->error) *best = (cvq_choice){error, scale};
}

static void try_halves(const cvq_search *s, cvq_search_halves *o) {
    cvq_search_loops_plain.try_halves(s, o);
}

const cvq_search_loops cvq_search_loops_avx2 = {prepare, try_table, try_halves, try_even, assign};
