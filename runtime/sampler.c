/* The next id from logits. Owns the order of the filters, the draw and its random numbers.
 *
 * The same logits and seed give the same id on every machine: nothing here depends on libm or on
 * the order of a sum. The exponential is computed below from additions and multiplications alone
 * (which IEEE 754 fixes to the bit; the build forbids contraction), probabilities are whole numbers
 * in units of 2^-40 of the largest, so their sums are exact, and the random numbers are SplitMix64.
 * What is less likely than 2^-40 of the most likely id is never drawn. */
#include "runtime/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

/* 2^22 weights of at most 2^40 add up to less than 2^63. */
#define MAX_VOCAB (1u << 22)
#define ONE 0x1p40

struct cvq_sampler {
    cvq_sampler_options options;
    uint32_t vocab_size;
    uint64_t random;   /* state of SplitMix64 */
    uint8_t *seen;     /* [vocab_size] 1 for every id the penalty applies to */
    float *scores;     /* [vocab_size] penalized logits; NaN has become -infinity */
    uint64_t *weights; /* [vocab_size] probabilities, not normalized, in units of 2^-40 */
    uint32_t *heap;    /* [vocab_size] ids, the best on top */
    size_t heap_size;
};

static cvq_status check_options(const cvq_sampler_options *o, cvq_error *err) {
    /* Written so that NaN fails each. */
    if (!(o->temperature >= 0 && !isinf(o->temperature)))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "temperature",
                        "%g is not a finite number of at least 0", (double)o->temperature);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "top_p", "%g is not within 0 and 1",
                        (double)o->top_p);
    if (!(o->repetition_penalty >= 0 && !isinf(o->repetition_penalty)))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "repetition_penalty",
                        "%g is not a finite number of at least 0", (double)o->repetition_penalty);
    return CVQ_OK;
}

cvq_status cvq_sampler_open(cvq_sampler **out, const cvq_sampler_options *options,
                            uint32_t vocab_size, cvq_error *err) {
    CVQ_TRY(check_options(options, err));
    if (vocab_size == 0 || vocab_size > MAX_VOCAB)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "vocab_size", "%u is not within 1 and %u",
                        vocab_size, MAX_VOCAB);
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_sampler), "the sampler", err));
    cvq_sampler *s = memory;
    s->options = *options;
    s->vocab_size = vocab_size;
    s->random = options->seed;
    void *arrays[4] = {0};
    const size_t sizes[4] = {sizeof *s->seen, sizeof *s->scores, sizeof *s->weights,
                             sizeof *s->heap};
    cvq_status status = CVQ_OK;
    for (int i = 0; i < 4 && status == CVQ_OK; i++)
        status = cvq_alloc(&arrays[i], vocab_size, sizes[i], "the sampler", err);
    s->seen = arrays[0];
    s->scores = arrays[1];
    s->weights = arrays[2];
    s->heap = arrays[3];
    if (status != CVQ_OK) {
        cvq_sampler_close(s);
        return status;
    }
    *out = s;
    return CVQ_OK;
}

void cvq_sampler_close(cvq_sampler *s) {
    if (!s) return;
    free(s->seen);
    free(s->scores);
    free(s->weights);
    free(s->heap);
    free(s);
}

void cvq_sampler_seen(cvq_sampler *s, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0 && (uint32_t)ids[i] < s->vocab_size) s->seen[ids[i]] = 1;
}

/* ---------------------------------------------------------------- numbers */

/* Steele, Lea and Flood's SplitMix64. */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The upper half of the product: a number below b, from one over all 64 bits. */
static uint64_t multiply_high(uint64_t a, uint64_t b) {
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
    uint64_t low_middle = a0 * b1 + (uint32_t)middle;
    return a1 * b1 + (middle >> 32) + (low_middle >> 32);
}

/* exp(x) in units of 2^-40, rounded down, for x <= 0: x = k ln 2 + r with |r| <= ln 2 / 2, and
 * Taylor's series for exp(r), whose 14th term is below 2^-57. */
static uint64_t weight_of(double x) {
    if (!(x > -40 * 0.6931471805599453)) return 0; /* also -infinity and NaN */
    double k = floor(x * 1.4426950408889634 + 0.5);
    /* ln 2 in two parts, the first short enough for k times it to be exact. */
    double r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    static const double reciprocals[14] = {0,        1.0,      1.0 / 2,  1.0 / 3, 1.0 / 4,
                                           1.0 / 5,  1.0 / 6,  1.0 / 7,  1.0 / 8, 1.0 / 9,
                                           1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13};
    double sum = 1;
    for (int i = 13; i > 0; i--) sum = 1 + sum * (r * reciprocals[i]);
    double value = sum * (double)((uint64_t)1 << (40 + (int)k)); /* k is within -40 and 0 */
    return value >= ONE ? (uint64_t)ONE : (uint64_t)value;
}

/* ---------------------------------------------------------------- filters */

/* Copies the logits with the penalty applied, in float32 as Hugging Face does. Returns the id of
 * the highest score, the lowest such id; 0 where no logit is a number. */
static uint32_t penalize(cvq_sampler *s, const float *logits) {
    float penalty = s->options.repetition_penalty;
    bool on = penalty != 0 && penalty != 1;
    uint32_t best = 0;
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        float score = logits[i];
        if (on && s->seen[i]) score = score < 0 ? score * penalty : score / penalty;
        if (isnan(score)) score = -HUGE_VALF;
        s->scores[i] = score;
        if (score > s->scores[best]) best = i;
    }
    return best;
}

/* Probabilities after the temperature, relative to the best id's; returns their sum, at least ONE:
 * scores that equal the best weigh ONE each, also where that is an infinity. */
static uint64_t weigh(cvq_sampler *s, uint32_t best) {
    double top = (double)s->scores[best], temperature = (double)s->options.temperature;
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        double score = (double)s->scores[i];
        s->weights[i] = score == top ? (uint64_t)ONE : weight_of((score - top) / temperature);
        total += s->weights[i];
    }
    return total;
}

/* Higher scores first; of equal ones the lower id. */
static bool comes_first(const cvq_sampler *s, uint32_t a, uint32_t b) {
    return s->scores[a] > s->scores[b] || (s->scores[a] == s->scores[b] && a < b);
}

static void sift_down(cvq_sampler *s, size_t i) {
    uint32_t *heap = s->heap, id = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_size) break;
        if (child + 1 < s->heap_size && comes_first(s, heap[child + 1], heap[child])) child++;
        if (!comes_first(s, heap[child], id)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = id;
}

static void heap_fill(cvq_sampler *s) {
    s->heap_size = 0;
    for (uint32_t i = 0; i < s->vocab_size; i++)
        if (s->weights[i] > 0) s->heap[s->heap_size++] = i;
    for (size_t i = s->heap_size / 2; i-- > 0;) sift_down(s, i);
}

static uint32_t heap_pop(cvq_sampler *s) {
    uint32_t top = s->heap[0];
    s->heap[0] = s->heap[--s->heap_size];
    if (s->heap_size > 0) sift_down(s, 0);
    return top;
}

/* Takes away the weight of every id that comes after `last`; returns what is left. */
static uint64_t cut_after(cvq_sampler *s, uint32_t last) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        if (comes_first(s, last, i)) s->weights[i] = 0;
        total += s->weights[i];
    }
    return total;
}

/* Hugging Face's TopKLogitsWarper: what is below the k-th score goes, so that ids equal to the k-th
 * all stay. */
static uint64_t keep_top_k(cvq_sampler *s, uint64_t total) {
    if (s->options.top_k == 0 || s->options.top_k >= s->vocab_size) return total;
    heap_fill(s);
    if (s->options.top_k >= s->heap_size) return total;
    uint32_t last = 0;
    for (uint32_t k = 0; k < s->options.top_k; k++) last = heap_pop(s);
    while (s->heap_size > 0 && s->scores[s->heap[0]] == s->scores[last]) last = heap_pop(s);
    return cut_after(s, last);
}

/* Hugging Face's TopPLogitsWarper: in rising order, what adds up to no more than 1 - top_p goes,
 * the last never. Seen from above: an id stays while those before it add up to less than top_p. */
static uint64_t keep_top_p(cvq_sampler *s, uint64_t total) {
    if (s->options.top_p == 0 || s->options.top_p == 1) return total;
    double enough = (double)s->options.top_p * (double)total;
    heap_fill(s);
    uint32_t last = heap_pop(s);
    uint64_t before = s->weights[last];
    while (s->heap_size > 0 && (double)before < enough) {
        last = heap_pop(s);
        before += s->weights[last];
    }
    return cut_after(s, last);
}

int32_t cvq_sampler_next(cvq_sampler *s, const float *logits) {
    uint32_t best = penalize(s, logits);
    if (s->options.temperature == 0) return (int32_t)best;
    /* One random number a call, whatever the logits. */
    uint64_t random = next_random(&s->random);
    uint64_t total = weigh(s, best);
    total = keep_top_k(s, total);
    total = keep_top_p(s, total);
    uint64_t draw = multiply_high(random, total);
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        if (draw < s->weights[i]) return (int32_t)i;
        draw -= s->weights[i];
    }
    return (int32_t)best; /* not reached: the weights add up to total, and draw is below it */
}
