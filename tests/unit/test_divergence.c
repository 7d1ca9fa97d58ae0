/* Perplexity and divergence against closed forms; saved logits: what rounding costs, and files that
 * nobody vouches for. */
#include "bench/divergence.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/half.h"
#include "bench/logits_file.h"
#include "formats/chunk_hash.h"
#include "tests/unit/harness.h"
#include "tests/unit/temp_folder.h"

#define VOCAB 1000
#define ROWS 20

static uint64_t random_state = 1;
static double random_unit(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

static void fill(float *logits, double spread) {
    for (int i = 0; i < VOCAB; i++) logits[i] = (float)(spread * (random_unit() - 0.5));
}

/* ---------------------------------------------------------------- one row */

static void predictions(void) {
    float uniform[8] = {3, 3, 3, 3, 3, 3, 3, 3}, two[2] = {0, 0}, large[3] = {1000, 999, -1000};
    cvq_prediction p;
    CHECK(cvq_predict(&p, uniform, 8, 5, NULL) == CVQ_OK);
    CHECK(fabs(p.nll - log(8)) < 1e-14 && p.best == 0 && fabs(p.log_sum - (3 + log(8))) < 1e-14);
    two[1] = (float)log(3);
    CHECK(cvq_predict(&p, two, 2, 0, NULL) == CVQ_OK);
    CHECK(fabs(p.nll - log(4)) < 1e-7 && p.best == 1);
    CHECK(cvq_predict(&p, large, 3, 2, NULL) == CVQ_OK);
    CHECK(fabs(p.nll - (2000 + log1p(exp(-1)))) < 1e-9 && p.best == 0);
    large[1] = NAN;
    CHECK(cvq_predict(&p, large, 3, 0, NULL) == CVQ_INTERNAL);
    large[1] = INFINITY;
    CHECK(cvq_predict(&p, large, 3, 0, NULL) == CVQ_INTERNAL);
    large[1] = -INFINITY;
    CHECK(cvq_predict(&p, large, 3, 0, NULL) == CVQ_INTERNAL);
}

/* Sum of p log(p / q), straight from the definition. */
static double exact_divergence(const float *a, const float *b) {
    double za = 0, zb = 0, sum = 0;
    for (int i = 0; i < VOCAB; i++) za += exp((double)a[i]), zb += exp((double)b[i]);
    for (int i = 0; i < VOCAB; i++) {
        double p = exp((double)a[i]) / za;
        sum += p * ((double)a[i] - log(za) - (double)b[i] + log(zb));
    }
    return sum;
}

static void sums(void) {
    cvq_divergence d = {0};
    const double nll[] = {1, 2, 3, 6}, kld[] = {0.1, 0.3, 0.2, 0.4};
    cvq_saved_row reference = {.nll = 2.5, .best = 7};
    for (uint32_t i = 0; i < 4; i++) {
        cvq_prediction p = {.nll = nll[i], .best = 7 + (i == 2)};
        CHECK(cvq_divergence_add(&d, &p, &reference, kld[i], NULL) == CVQ_OK);
    }
    cvq_divergence_sum s = cvq_divergence_summarize(&d);
    CHECK(fabs(s.perplexity - exp(3)) < 1e-12);
    CHECK(fabs(s.perplexity_stderr - exp(3) * sqrt(14. / 3) / 2) < 1e-12);
    CHECK(fabs(s.kld_mean - 0.25) < 1e-15 && fabs(s.kld_p99 - 0.397) < 1e-12);
    CHECK(fabs(s.kld_stderr - sqrt(0.05 / 3) / 2) < 1e-15 && fabs(s.kld_median - 0.25) < 1e-15);
    CHECK(s.top1_agreement == 0.75 && fabs(s.perplexity_ratio - exp(0.5)) < 1e-12);
    /* The reference's loss is the same for all here, so that the ratio is no surer than the rest.
     */
    CHECK(fabs(s.perplexity_ratio_stderr - exp(0.5) * sqrt(14. / 3) / 2) < 1e-12);
    cvq_divergence_free(&d);
}

/* ---------------------------------------------------------------- files */

static cvq_logits_head head_of(uint64_t rows) {
    cvq_logits_head head = {.vocab = VOCAB, .context = 5, .rows = rows};
    memset(head.text, 7, sizeof head.text);
    memset(head.model, 'a', sizeof head.model);
    return head;
}

static void save(const char *name, float (*logits)[VOCAB], uint64_t rows) {
    cvq_logits_writer w;
    cvq_logits_head head = head_of(rows);
    int fd = open(temp_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(cvq_logits_writer_open(&w, fd, name, &head, NULL) == CVQ_OK);
    for (uint64_t r = 0; r < rows; r++) {
        cvq_prediction p;
        CHECK(cvq_predict(&p, logits[r], VOCAB, (uint32_t)r, NULL) == CVQ_OK);
        CHECK(cvq_logits_writer_add(&w, logits[r], &p, NULL) == CVQ_OK);
    }
    CHECK(cvq_logits_writer_finish(&w, NULL) == CVQ_OK);
    cvq_logits_writer_free(&w);
    close(fd);
}

static void rounding_costs_little(void) {
    static float a[ROWS][VOCAB], b[VOCAB];
    const double spreads[] = {0, 1, 10, 40, 190, 600};
    for (size_t k = 0; k < 6; k++) {
        for (int r = 0; r < ROWS; r++) fill(a[r], spreads[k]);
        save("saved", a, ROWS);
        cvq_logits_file f;
        cvq_logits_head head = head_of(ROWS);
        CHECK(cvq_logits_open(&f, temp_path("saved"), &head, NULL) == CVQ_OK);
        for (uint32_t r = 0; r < ROWS; r++) {
            cvq_saved_row row;
            cvq_prediction p, q;
            double self = 1, other = 1;
            for (int i = 0; i < VOCAB; i++) b[i] = a[r][i] + (float)(random_unit() - 0.5);
            CHECK(cvq_logits_row(&f, r, &row, NULL) == CVQ_OK);
            CHECK(cvq_predict(&p, a[r], VOCAB, r, NULL) == CVQ_OK);
            CHECK(cvq_predict(&q, b, VOCAB, r, NULL) == CVQ_OK);
            CHECK(row.best == p.best && fabs(row.nll - p.nll) <= 1e-7 * p.nll);
            CHECK(cvq_row_divergence(&self, &row, a[r], VOCAB, p.log_sum, NULL) == CVQ_OK);
            CHECK(cvq_row_divergence(&other, &row, b, VOCAB, q.log_sum, NULL) == CVQ_OK);
            double want = exact_divergence(a[r], b), step = (double)row.step;
            double bound = step * (want + sqrt(2 * want)) + step * step + 1e-6 * want + 1e-12;
            CHECK_SAY(self <= step * step / 2 + 1e-12, "spread %g: %g", spreads[k], self);
            CHECK_SAY(fabs(other - want) <= bound, "spread %g: %g, not %g", spreads[k], other,
                      want);
        }
        cvq_logits_close(&f);
    }
}

static uint8_t *bytes;
static size_t num_bytes;

/* The head's hash made right again. */
static void rehash(uint8_t *data) {
    CHECK(cvq_sha256(data, 128, data + 128, NULL) == CVQ_OK);
}

/* The status of opening what `change` makes of a good file, or of reading its row 1. */
static cvq_status after(void (*change)(uint8_t *data, size_t *size)) {
    size_t size = num_bytes;
    uint8_t *copy = malloc(num_bytes + 16);
    cvq_logits_file f;
    cvq_logits_head head = head_of(2);
    cvq_saved_row row;
    float logits[VOCAB] = {0};
    double kld;
    memset(copy, 0, num_bytes + 16);
    memcpy(copy, bytes, num_bytes);
    change(copy, &size);
    temp_write("changed", copy, size);
    free(copy);
    cvq_status status = cvq_logits_open(&f, temp_path("changed"), &head, NULL);
    if (status != CVQ_OK) return status;
    status = cvq_logits_row(&f, 1, &row, NULL);
    if (status == CVQ_OK) status = cvq_row_divergence(&kld, &row, logits, VOCAB, log(VOCAB), NULL);
    cvq_logits_close(&f);
    return status;
}

#define ROW1 (160 + 16 + 2 * VOCAB)
#define CHANGE(name, code)                                                                         \
    static void name(uint8_t *data, size_t *size) {                                                \
        (void)data;                                                                                \
        (void)size;                                                                                \
        code;                                                                                      \
    }
static void put_f32(uint8_t *at, float x) {
    cvq_store_le(at, cvq_f32_bits(x), 4);
}
CHANGE(nothing, (void)0)
CHANGE(empty, *size = 0)
CHANGE(part_of_head, *size = 159)
CHANGE(head_alone, *size = 160)
CHANGE(one_short, *size -= 1)
CHANGE(one_long, *size += 1)
CHANGE(magic, data[0] ^= 1)
CHANGE(bit_of_head, data[130] ^= 1)
CHANGE(reserved, data[20] = 1; rehash(data))
CHANGE(version, data[8] = 2; rehash(data))
CHANGE(many_rows, memset(data + 24, 0xff, 8); rehash(data))
CHANGE(rows_that_wrap, cvq_store_le(data + 24, (1ull << 63) + 2, 8); rehash(data))
CHANGE(no_vocab, memset(data + 12, 0, 4); rehash(data))
CHANGE(large_vocab, memset(data + 12, 0xff, 4); rehash(data))
CHANGE(other_context, data[16] ^= 1; rehash(data))
CHANGE(other_text, data[40] ^= 1; rehash(data))
CHANGE(top_nan, put_f32(data + ROW1, NAN))
CHANGE(top_positive, put_f32(data + ROW1, 1))
CHANGE(step_negative, put_f32(data + ROW1 + 4, -1e-4f))
CHANGE(step_infinite, put_f32(data + ROW1 + 4, INFINITY))
CHANGE(step_large, put_f32(data + ROW1 + 4, 1))
CHANGE(loss_nan, put_f32(data + ROW1 + 8, NAN))
CHANGE(loss_negative, put_f32(data + ROW1 + 8, -1))
CHANGE(best_outside, cvq_store_le(data + ROW1 + 12, VOCAB, 4))
CHANGE(sum_too_small, put_f32(data + ROW1, -30))
CHANGE(codes_zero, memset(data + ROW1 + 16, 0, 2 * VOCAB))

static void hostile_files(void) {
    static const struct {
        const char *name;
        void (*change)(uint8_t *, size_t *);
        cvq_status status;
    } cases[] = {
        {"nothing", nothing, CVQ_OK},
        {"empty", empty, CVQ_FORMAT},
        {"part of the head", part_of_head, CVQ_FORMAT},
        {"head alone", head_alone, CVQ_FORMAT},
        {"a byte short", one_short, CVQ_FORMAT},
        {"a byte long", one_long, CVQ_FORMAT},
        {"magic", magic, CVQ_FORMAT},
        {"a bit of the head's hash", bit_of_head, CVQ_FORMAT},
        {"reserved bytes", reserved, CVQ_FORMAT},
        {"version", version, CVQ_UNSUPPORTED},
        {"too many rows", many_rows, CVQ_FORMAT},
        {"rows that wrap around", rows_that_wrap, CVQ_FORMAT},
        {"no vocabulary", no_vocab, CVQ_FORMAT},
        {"a vast vocabulary", large_vocab, CVQ_FORMAT},
        {"another context", other_context, CVQ_MISMATCH},
        {"another text", other_text, CVQ_MISMATCH},
        {"top is no number", top_nan, CVQ_FORMAT},
        {"top above 0", top_positive, CVQ_FORMAT},
        {"a negative step", step_negative, CVQ_FORMAT},
        {"an infinite step", step_infinite, CVQ_FORMAT},
        {"a large step", step_large, CVQ_FORMAT},
        {"a loss that is no number", loss_nan, CVQ_FORMAT},
        {"a negative loss", loss_negative, CVQ_FORMAT},
        {"likeliest token outside", best_outside, CVQ_FORMAT},
        {"probabilities that vanish", sum_too_small, CVQ_FORMAT},
        {"probabilities of more than 1", codes_zero, CVQ_FORMAT},
    };
    static float logits[2][VOCAB];
    cvq_buffer file = {0};
    fill(logits[0], 10);
    fill(logits[1], 10);
    save("good", logits, 2);
    CHECK(cvq_read_file(&file, temp_path("good"), 1 << 20, NULL) == CVQ_OK);
    bytes = file.data;
    num_bytes = file.size;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cvq_status status = after(cases[i].change);
        CHECK_SAY(status == cases[i].status, "%s: %s", cases[i].name, cvq_status_name(status));
    }
    cvq_buffer_free(&file);
}

static void unfinished_files(void) {
    cvq_logits_writer w;
    cvq_logits_head head = head_of(2);
    cvq_logits_file f;
    int fd = open(temp_path("unfinished"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    float logits[VOCAB] = {0};
    cvq_prediction p;
    CHECK(cvq_logits_writer_open(&w, fd, "unfinished", &head, NULL) == CVQ_OK);
    CHECK(cvq_predict(&p, logits, VOCAB, 0, NULL) == CVQ_OK);
    CHECK(cvq_logits_writer_add(&w, logits, &p, NULL) == CVQ_OK);
    CHECK(cvq_logits_writer_finish(&w, NULL) == CVQ_INTERNAL);
    cvq_logits_writer_free(&w);
    close(fd);
    CHECK(cvq_logits_open(&f, temp_path("unfinished"), &head, NULL) == CVQ_FORMAT);
    CHECK(cvq_logits_open(&f, temp_path("missing"), &head, NULL) == CVQ_NOT_FOUND);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(predictions);
    RUN(sums);
    RUN(rounding_costs_little);
    RUN(hostile_files);
    RUN(unfinished_files);
    temp_close();
    return REPORT();
}
