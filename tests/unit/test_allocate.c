/* Allocation against trying everything; sensitivities read back, and files that are none; errors of
 * types; recipes that give back the types they were made from. */
#include "quant/allocate.h"

#include <math.h>
#include <stdlib.h>

#include "convert/checkpoint_config.h"
#include "quant/recipe.h"
#include "quant/sensitivity.h"
#include "quant/type_errors.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"
#include "tests/unit/temp_folder.h"

/* ---------------------------------------------------------------- allocation */

enum { THINGS = 6, SIZES = 4 };

static void random_things(cvq_sizes *things, uint64_t *state) {
    for (int i = 0; i < THINGS; i++) {
        cvq_sizes *t = &things[i];
        *t = (cvq_sizes){.count = SIZES};
        uint64_t bytes = 0;
        for (int c = 0; c < SIZES; c++) {
            bytes += small_random(state) % 50; /* some are equal */
            t->bytes[c] = bytes;
            /* Mostly falling, not always convex, sometimes rising. */
            t->loss[c] = (double)(small_random(state) % 1000) / (1 + c * c);
        }
    }
}

/* The least loss within the budget. */
static double try_everything(const cvq_sizes *things, uint64_t budget) {
    double best = INFINITY;
    for (int n = 0; n < 1 << (2 * THINGS); n++) {
        uint64_t bytes = 0;
        double loss = 0;
        for (int i = 0; i < THINGS; i++) {
            bytes += things[i].bytes[n >> 2 * i & 3];
            loss += things[i].loss[n >> 2 * i & 3];
        }
        if (bytes <= budget && loss < best) best = loss;
    }
    return best;
}

/* What is chosen with that much to spare, checked for its bytes. */
static double allocate(cvq_sizes *things, uint64_t spare, uint64_t *budget) {
    uint64_t used, bytes = 0;
    double loss = 0;
    *budget = spare;
    for (int i = 0; i < THINGS; i++) *budget += things[i].bytes[0];
    CHECK(cvq_allocate(things, THINGS, *budget, &used, NULL) == CVQ_OK);
    for (int i = 0; i < THINGS; i++) {
        bytes += things[i].bytes[things[i].chosen];
        loss += things[i].loss[things[i].chosen];
    }
    CHECK_SAY(bytes == used && used <= *budget, "%llu", (unsigned long long)used);
    return loss;
}

static void against_everything(void) {
    uint64_t state = 11, budget;
    for (int round = 0; round < 60; round++) {
        cvq_sizes things[THINGS];
        random_things(things, &state);
        const double loss = allocate(things, small_random(&state) % 500, &budget);
        const double best = try_everything(things, budget);
        CHECK_SAY(fabs(loss - best) < 1e-9, "%g, best %g", loss, best);
    }
}

/* Sizes with no common divisor and far more to spare than there are units. */
static void many_bytes(void) {
    uint64_t state = 12, budget;
    for (int round = 0; round < 20; round++) {
        cvq_sizes things[THINGS];
        random_things(things, &state);
        for (int i = 0; i < THINGS; i++)
            for (int c = 0; c < SIZES; c++)
                things[i].bytes[c] = (things[i].bytes[c] << 30) + 7919 * (uint64_t)(i + c);
        const double loss = allocate(things, (uint64_t)(small_random(&state) % 500) << 30, &budget);
        const double best = try_everything(things, budget);
        const double with_less = try_everything(things, budget - (uint64_t)THINGS * (500 << 14));
        CHECK_SAY(loss >= best - 1e-9 && loss <= with_less + 1e-9, "%g, best %g, with less %g",
                  loss, best, with_less);
    }
}

static void limits(void) {
    cvq_sizes things[2] = {{.count = 2, .bytes = {10, 20}, .loss = {5, 1}},
                           {.count = 3, .bytes = {10, 10, 30}, .loss = {4, 3, 0}}};
    uint64_t used;
    CHECK(cvq_allocate(things, 2, 19, &used, NULL) == CVQ_INVALID_ARGUMENT && used == 20);
    CHECK(cvq_allocate(things, 2, 20, &used, NULL) == CVQ_OK && used == 20);
    CHECK(things[0].chosen == 0 && things[1].chosen == 1); /* better at no cost */
    CHECK(cvq_allocate(things, 2, 30, &used, NULL) == CVQ_OK && used == 30 &&
          things[0].chosen == 1);
    CHECK(cvq_allocate(things, 2, UINT64_MAX, &used, NULL) == CVQ_OK && used == 50);
    CHECK(cvq_allocate(things, 0, 0, &used, NULL) == CVQ_OK && used == 0);
}

/* ---------------------------------------------------------------- sensitivities */

static bool write_text(const char *text) {
    FILE *f = fopen(temp_path("s.tsv"), "wb");
    return f && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0;
}

#define HEAD "# cvq-sensitivity 1\n# model abc\ntensor\ttype\terror\tkld_text\tkld_answers\n"
#define CONV "model.vision.conv.weight"

static void sensitivities_come_back(void) {
    const cvq_model_config c = small_config();
    const size_t n = cvq_model_tensor_count(&c), conv = cvq_model_tensor_index(&c, CVQ_T_CONV, 0);
    cvq_sensitivity *s = calloc(n, sizeof *s);
    const cvq_sensitivity one = {0.004, {0.25, -1}, true};
    cvq_buffer text = {0};
    size_t whole = 0;
    CHECK(cvq_sensitivity_print_head(&text, "abc", NULL) == CVQ_OK);
    CHECK(cvq_sensitivity_print(&text, CONV, "q4t", &one, NULL) == CVQ_OK);
    CHECK(cvq_buffer_append(&text, "", 1, NULL) == CVQ_OK);
    CHECK(strcmp((char *)text.data, HEAD CONV "\tq4t\t0.004\t0.25\t-\n") == 0);
    CHECK(write_text((char *)text.data));
    CHECK(cvq_sensitivity_read(s, &c, temp_path("s.tsv"), "abc", NULL, NULL) == CVQ_OK);
    CHECK(s[conv].known && s[conv].error == 0.004 && s[conv].kld[0] == 0.25 && s[conv].kld[1] < 0);
    /* An unfinished line is left out where going on is meant, and refused otherwise. */
    memset(s, 0, n * sizeof *s);
    CHECK(write_text(HEAD CONV "\tq4t\t0.004\t0.25\t1e-5\nmodel.vi"));
    CHECK(cvq_sensitivity_read(s, &c, temp_path("s.tsv"), "abc", &whole, NULL) == CVQ_OK);
    CHECK(whole == strlen(HEAD CONV "\tq4t\t0.004\t0.25\t1e-5\n") && s[conv].kld[1] == 1e-5);
    memset(s, 0, n * sizeof *s);
    CHECK(cvq_sensitivity_read(s, &c, temp_path("s.tsv"), NULL, NULL, NULL) == CVQ_FORMAT);
    CHECK(cvq_sensitivity_read(s, &c, temp_path("s.tsv"), "abd", &whole, NULL) == CVQ_MISMATCH);
    CHECK(write_text("# cvq-sens"));
    CHECK(cvq_sensitivity_read(s, &c, temp_path("s.tsv"), "abc", &whole, NULL) == CVQ_OK);
    CHECK(whole == 0);
    cvq_buffer_free(&text);
    free(s);
}

static void hostile_sensitivities(void) {
    static const char *const bad[] = {"",
                                      "x\n",
                                      "# cvq-sensitivity 2\n# model abc\n",
                                      HEAD "x\n",
                                      HEAD "model.norm.weight\tq4t\t1\t1\t1\n",
                                      HEAD "nothing\tq4t\t1\t1\t1\n",
                                      HEAD CONV "\tq4t\t0\t1\t1\n",
                                      HEAD CONV "\tq4t\t-1\t1\t1\n",
                                      HEAD CONV "\tq4t\tnan\t1\t1\n",
                                      HEAD CONV "\tq4t\tinf\t1\t1\n",
                                      HEAD CONV "\tq4t\t1\t-2\t1\n",
                                      HEAD CONV "\tq4t\t1\t1\n",
                                      HEAD CONV "\tq4t\t1\t1\t1\t1\n",
                                      HEAD CONV "\tq4t\t1\t1\t\n",
                                      HEAD CONV "\tq4t\t 1\t1\t1\n",
                                      HEAD CONV "\tq4t\t1\t1\t1\n" CONV "\tq4t\t1\t1\t1\n",
                                      HEAD CONV "\n",
                                      HEAD "\n"};
    const cvq_model_config c = small_config();
    cvq_sensitivity *s = calloc(cvq_model_tensor_count(&c), sizeof *s);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cvq_error err = {0};
        memset(s, 0, cvq_model_tensor_count(&c) * sizeof *s);
        CHECK(write_text(bad[i]));
        CHECK_SAY(cvq_sensitivity_read(s, &c, temp_path("s.tsv"), NULL, NULL, &err) == CVQ_FORMAT,
                  "case %zu: %s", i, err.message);
    }
    free(s);
}

static void rates(void) {
    const cvq_model_config c = small_config();
    const size_t n = cvq_model_tensor_count(&c), conv = cvq_model_tensor_index(&c, CVQ_T_CONV, 0);
    const size_t head = cvq_model_tensor_index(&c, CVQ_T_LM_HEAD, 0);
    cvq_sensitivity *s = calloc(n, sizeof *s);
    double *r = calloc(n, sizeof *r);
    cvq_tensor_spec spec;
    CHECK(cvq_loss_rates(r, &c, NULL, NULL) == CVQ_OK);
    for (size_t i = 0; i < n; i++) {
        cvq_model_tensor_spec(&c, i, &spec);
        CHECK_SAY((r[i] > 0) == cvq_has_choice(&spec), "%s", spec.name);
        s[i] = (cvq_sensitivity){.error = 1, .known = cvq_has_choice(&spec)};
    }
    s[conv] = (cvq_sensitivity){0.5, {0, 3}, true};
    s[head] = (cvq_sensitivity){0.1, {2, 1}, true};
    CHECK(cvq_loss_rates(r, &c, s, NULL) == CVQ_OK);
    CHECK_SAY(fabs(r[conv] - 0.75 / 0.5) < 1e-12, "%g", r[conv]);
    CHECK_SAY(fabs(r[head] - (1 + 0.25) / 0.1) < 1e-12, "%g", r[head]);
    s[conv].known = false;
    cvq_error err = {0};
    CHECK(cvq_loss_rates(r, &c, s, &err) == CVQ_NOT_FOUND && strcmp(err.where, CONV) == 0);
    free(s);
    free(r);
}

/* The built-in rates are those of tests/data/sensitivity.tsv, which docs/quantization.md says how
 * to measure, added up over layers; the decoder's first layer stands for itself. */
static void built_in_rates(void) {
    cvq_model_config c;
    cvq_error err = {0};
    CHECK(cvq_checkpoint_config_read(&c, "models/cogvlm2-tiny", &err) == CVQ_OK);
    const size_t n = cvq_model_tensor_count(&c);
    cvq_sensitivity *s = calloc(n, sizeof *s);
    double *built_in = calloc(n, sizeof(double)), *measured = calloc(n, sizeof(double));
    double kinds[CVQ_TENSOR_KINDS][2][2] = {{{0}}}, sums[2] = {0}; /* kind, later layers */
    CHECK_SAY(cvq_sensitivity_read(s, &c, "tests/data/sensitivity.tsv", NULL, NULL, &err) == CVQ_OK,
              "%s", err.message);
    CHECK(cvq_loss_rates(built_in, &c, NULL, NULL) == CVQ_OK);
    CHECK(cvq_loss_rates(measured, &c, s, &err) == CVQ_OK);
    for (size_t i = 0; i < n; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&c, i, &spec);
        const bool decoder = spec.part == CVQ_PART_LANGUAGE || spec.part == CVQ_PART_VISION;
        double *kind = kinds[spec.kind][decoder && spec.layer > 0];
        kind[0] += built_in[i], kind[1] += measured[i];
        sums[0] += built_in[i], sums[1] += measured[i];
    }
    for (int k = 0; k < 2 * CVQ_TENSOR_KINDS; k++) {
        const double *kind = kinds[k / 2][k % 2];
        const double have = kind[0] / sums[0], want = kind[1] / sums[1];
        CHECK_SAY(fabs(have - want) <= 0.03 * want, "kind %d, %d: %.4f, measured %.4f", k / 2,
                  k % 2, have, want);
    }
    free(s);
    free(built_in);
    free(measured);
}

/* ---------------------------------------------------------------- types */

static size_t gauss_size(void *context, size_t tensor, uint64_t count) {
    cvq_tensor_spec spec;
    cvq_model_tensor_spec(context, tensor, &spec);
    return (size_t)(count * spec.cols) * sizeof(float);
}

static cvq_status gauss_rows(void *context, size_t tensor, uint64_t first, uint64_t count,
                             uint8_t *raw, cvq_error *err) {
    float *out = (float *)(void *)raw;
    cvq_tensor_spec spec;
    (void)err;
    cvq_model_tensor_spec(context, tensor, &spec);
    for (uint64_t i = 0; i < count * spec.cols; i++) {
        uint64_t state = (tensor << 40) + first * spec.cols + i + 1;
        double sum = -6;
        for (int k = 0; k < 14; k++) {
            const double u = (double)small_random(&state) / 4294967296.0;
            if (k >= 2) sum += u; /* the first are like the seed */
        }
        out[i] = (float)sum;
    }
    return CVQ_OK;
}

static cvq_status gauss_decode(void *context, size_t tensor, uint64_t count, const uint8_t *raw,
                               float *out, cvq_error *err) {
    (void)err;
    memcpy(out, raw, gauss_size(context, tensor, count));
    return CVQ_OK;
}

static void errors_of_types(void) {
    cvq_model_config c = small_config();
    const size_t n = cvq_model_tensor_count(&c);
    const cvq_row_source source = {
        .context = &c, .size = gauss_size, .read = gauss_rows, .decode = gauss_decode};
    cvq_type_errors *one = calloc(n, sizeof *one), *three = calloc(n, sizeof *three);
    cvq_quantize_options options = {.threads = 1};
    CHECK(cvq_type_errors_measure(one, &c, &source, &options, NULL) == CVQ_OK);
    options.threads = 3;
    CHECK(cvq_type_errors_measure(three, &c, &source, &options, NULL) == CVQ_OK);
    CHECK(memcmp(one, three, n * sizeof *one) == 0);
    /* As docs/quantization.md has them for normally distributed weights; padding costs nothing. */
    static const double most[CVQ_CHOICES] = {0.0068, 0.0048, 0.00047, 0.000045, 0};
    for (size_t i = 0; i < n; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&c, i, &spec);
        for (int t = 0; t < CVQ_CHOICES; t++) {
            const double e = one[i].error[t];
            CHECK_SAY(cvq_has_choice(&spec) ? e <= most[t] && e >= most[t] / 3 : e == 0,
                      "%s, choice %d: %g", spec.name, t, e);
        }
    }
    free(one);
    free(three);
}

static void recipes_of_types(void) {
    cvq_model_config c = small_config();
    c.num_layers = 12;
    const size_t n = cvq_model_tensor_count(&c);
    cvq_type *types = calloc(n, sizeof *types), *again = calloc(n, sizeof *again);
    uint64_t state = 5;
    for (int round = 0; round < 4; round++) {
        cvq_recipe *r = NULL;
        size_t rules;
        for (size_t i = 0; i < n; i++) {
            cvq_tensor_spec spec;
            cvq_model_tensor_spec(&c, i, &spec);
            const uint32_t choice = small_random(&state) % ((uint32_t)round + 1) % CVQ_CHOICES;
            types[i] = spec.role == CVQ_ROLE_VECTOR     ? CVQ_TYPE_F32
                       : spec.role == CVQ_ROLE_INV_FREQ ? CVQ_TYPE_BF16
                                                        : cvq_choice_types[choice];
        }
        CHECK(cvq_recipe_of_types(&r, "sized", &c, types, NULL) == CVQ_OK);
        CHECK(r && strcmp(cvq_recipe_name(r), "sized") == 0);
        CHECK(cvq_recipe_types(r, &c, CVQ_TYPE_BF16, again, NULL) == CVQ_OK);
        CHECK(memcmp(types, again, n * sizeof *types) == 0);
        cvq_recipe_rules(r, &rules);
        if (round == 0) CHECK_SAY(rules < 30, "%zu rules where all kinds are alike", rules);
        cvq_recipe_free(r);
    }
    free(types);
    free(again);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(against_everything);
    RUN(many_bytes);
    RUN(limits);
    RUN(sensitivities_come_back);
    RUN(hostile_sensitivities);
    RUN(rates);
    RUN(built_in_rates);
    RUN(errors_of_types);
    RUN(recipes_of_types);
    temp_close();
    return REPORT();
}
