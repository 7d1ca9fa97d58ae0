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

static inline __m256i spread(int k) {
    const int first = 4 * k;
    return _mm256_or_si256(
        _mm256_set1_epi32((int)0x80808000u),
        _mm256_broadcastsi128_si256(_mm_setr_epi32(first, first + 1, first + 2, first + 3)));
}

static inline constants constants_of(const cvq_search_midpoints *t) {
    constants c = {.below = load_twice(t->below), .entry = load_twice(t->entry)};
    for (int k = 0; k < 4; k++) c.spread[k] = spread(k);
    return c;
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
    const constants c = constants_of(t);
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

/* ---------------------------------------------------------------- q4h */

/* The midpoints of a table sorted by sixteenths of the 256 positions. In none lie more than two, so
 * a position's code is the number of midpoints in the sixteenths before its own, and one more for
 * each of those in it that the position is not below. */
static const struct midpoints {
    uint8_t before[16];
    int8_t first[16], second[16]; /* signed positions, 128 less, after which the midpoint comes;
                                     127: none */
} sorted[2] = {{{0, 0, 1, 2, 3, 4, 5, 7, 9, 10, 12, 13, 14, 14, 15, 15},
                {127, -110, -83, -67, -53, -42, -32, -13, 4, 15, 39, 54, 127, 80, 127, 127},
                {127, 127, 127, 127, 127, 127, -22, -5, 127, 27, 127, 127, 127, 127, 127, 127}},
               {{0, 0, 0, 0, 1, 3, 5, 7, 9, 11, 13, 14, 15, 15, 15, 15},
                {127, 127, 127, -79, -65, -44, -27, -14, -1, 15, 34, 48, 127, 127, 127, 127},
                {127, 127, 127, 127, -54, -35, -20, -8, 7, 24, 127, 127, 127, 127, 127, 127}}};

typedef struct sixteenths {
    __m256i before, first, second, entry; /* twice */
} sixteenths;

static inline sixteenths load_sixteenths(int table) {
    return (sixteenths){load_twice(sorted[table].before), load_twice(sorted[table].first),
                        load_twice(sorted[table].second), load_twice(cvq_q4h_tables[table])};
}

/* The entries nearest to positions. */
static inline __m256i nearest_entries(const sixteenths *t, __m256i at) {
    const __m256i signed_at = _mm256_xor_si256(at, _mm256_set1_epi8(-128));
    const __m256i in = _mm256_and_si256(_mm256_srli_epi16(at, 4), _mm256_set1_epi8(15));
    const __m256i first = _mm256_cmpgt_epi8(signed_at, _mm256_shuffle_epi8(t->first, in));
    const __m256i second = _mm256_cmpgt_epi8(signed_at, _mm256_shuffle_epi8(t->second, in));
    const __m256i code = _mm256_sub_epi8(_mm256_shuffle_epi8(t->before, in), first);
    return _mm256_shuffle_epi8(t->entry, _mm256_sub_epi8(code, second));
}

/* As join, of eight vectors in this order: 0 4 1 5 2 6 3 7 -> eight sums in order. */
static inline __m256 join_pair(__m256 a, __m256 b) {
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}
static inline __m256 join_fours(__m256 a, __m256 b) {
    const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
}
static inline __m256 join_eight(const __m256 *v) {
    const __m256 even = join_fours(join_pair(v[0], v[4]), join_pair(v[1], v[5]));
    const __m256 odd = join_fours(join_pair(v[2], v[6]), join_pair(v[3], v[7]));
    return _mm256_add_ps(_mm256_shuffle_ps(even, odd, 0x88), _mm256_shuffle_ps(even, odd, 0xdd));
}

static void try_halves(const cvq_search *s, cvq_search_halves *o) {
    const __m256 per_step = _mm256_set1_ps(1.0f / o->d), zero = _mm256_set1_ps(CVQ_Q4H_ZERO);
    __m256 t[4], w[4], lanes[2][8];
    __m256i at[4];
    for (int k = 0; k < 4; k++) {
        w[k] = _mm256_loadu_ps(s->w + 8 * k);
        t[k] = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(s->x + 8 * k), per_step), zero);
        at[k] =
            _mm256_cvttps_epi32(_mm256_min_ps(_mm256_set1_ps(255.0f), _mm256_add_ps(t[k], t[k])));
    }
    const __m256i all =
        _mm256_packus_epi16(_mm256_packs_epi32(at[0], at[1]), _mm256_packs_epi32(at[2], at[3]));
    for (int table = 0; table < 2; table++) {
        const sixteenths m = load_sixteenths(table);
        for (int k = 0; k < 4; k++) {
            const int offset = o->first + 2 * k;
            const __m256i moved = _mm256_subs_epu8(all, _mm256_set1_epi8((char)(4 * offset)));
            const __m256i entry =
                _mm256_add_epi8(nearest_entries(&m, moved), _mm256_set1_epi8((char)(2 * offset)));
            __m256 square[4];
            for (int i = 0; i < 4; i++) {
                const __m256i integer = _mm256_shuffle_epi8(entry, spread(i));
                const __m256 r = _mm256_sub_ps(t[i], _mm256_cvtepi32_ps(integer));
                square[i] = _mm256_mul_ps(_mm256_mul_ps(w[i], r), r);
            }
            lanes[0][4 * table + k] = _mm256_add_ps(square[0], square[1]);
            lanes[1][4 * table + k] = _mm256_add_ps(square[2], square[3]);
        }
    }
    for (int half = 0; half < 2; half++)
        _mm256_storeu_ps(&o->error[half][0][0], join_eight(lanes[half]));
}

/* ---------------------------------------------------------------- q4s */

/* Positions in halves of a step, as 16 bits: of the first and of the second 16 weights. */
static inline void halves_of(const __m256 *t, __m256i *at) {
    __m256i whole[4];
    for (int k = 0; k < 4; k++) {
        const __m256 twice = _mm256_max_ps(_mm256_add_ps(t[k], t[k]), _mm256_set1_ps(-1000.0f));
        whole[k] = _mm256_cvttps_epi32(_mm256_min_ps(twice, _mm256_set1_ps(1000.0f)));
    }
    at[0] = _mm256_packs_epi32(whole[0], whole[1]);
    at[1] = _mm256_packs_epi32(whole[2], whole[3]);
}

static inline __m256 offset_error(const __m256 *t, const __m256 *w, const constants *c,
                                  __m256i entry) {
    __m256 square[4];
    for (int k = 0; k < 4; k++) {
        const __m256i integer = _mm256_shuffle_epi8(entry, c->spread[k]);
        const __m256 r = _mm256_sub_ps(t[k], _mm256_cvtepi32_ps(integer));
        square[k] = _mm256_mul_ps(_mm256_mul_ps(w[k], r), r);
    }
    return sum_of(square);
}

static void try_offsets(const cvq_search *s, const cvq_search_midpoints *m, cvq_search_offsets *o) {
    const constants c = constants_of(m);
    const __m256 per_step = _mm256_set1_ps(1.0f / o->d), start = _mm256_set1_ps(o->zero - 5.0f);
    __m256 t[TOGETHER][4], w[4], lanes[TOGETHER * CVQ_SEARCH_OFFSETS];
    __m256i halves[TOGETHER][2];
    for (int k = 0; k < 4; k++) {
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(s->x + 8 * k), per_step);
        w[k] = _mm256_loadu_ps(s->w + 8 * k);
        t[0][k] = _mm256_add_ps(start, x);
        t[1][k] = _mm256_sub_ps(start, x);
    }
    EACH halves_of(t[u], halves[u]);
    for (int k = 0; k < CVQ_SEARCH_OFFSETS; k++) {
        const __m256i by = _mm256_set1_epi16((short)(8 * k));
        __m256i at[TOGETHER], code[TOGETHER];
        EACH at[u] = _mm256_xor_si256(_mm256_packus_epi16(_mm256_sub_epi16(halves[u][0], by),
                                                          _mm256_sub_epi16(halves[u][1], by)),
                                      _mm256_set1_epi8(-128));
        codes_of(&c, at, code);
        EACH {
            const __m256i entry = _mm256_add_epi8(_mm256_shuffle_epi8(c.entry, code[u]),
                                                  _mm256_set1_epi8((char)(4 * k)));
            lanes[CVQ_SEARCH_OFFSETS * u + k] = offset_error(t[u], w, &c, entry);
        }
    }
    _mm256_storeu_ps(&o->error[0][0], join_eight(lanes));
}

const cvq_search_loops cvq_search_loops_avx2 = {prepare,     try_table, try_halves,
                                                try_offsets, try_even,  assign};
