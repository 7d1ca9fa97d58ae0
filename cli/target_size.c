/* Errors of all types, times what an error of each matrix costs, into an allocation; and its plan,
 * which says the file's exact size. */
#include "cli/target_size.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cli/messages.h"
#include "cli/progress.h"
#include "quant/allocate.h"
#include "quant/sensitivity.h"
#include "quant/type_errors.h"

#define RECIPE_NAME "sized"

typedef struct sizing {
    const cvq_reader *in;
    const cvq_convert_options *options; /* of the conversion to come */
    const cvq_model_config *config;
    size_t count; /* of tensors */
    cvq_type_errors *errors;
    cvq_sensitivity *known;
    double *rates;
    cvq_sizes *things; /* [count], of those without a choice one size of no bytes */
    cvq_type *types;
} sizing;

/* ---------------------------------------------------------------- the size asked for */

static cvq_status parse_size(const sizing *s, const char *text, uint64_t *bytes, cvq_error *err) {
    char *end;
    const double number = strtod(text, &end);
    double weights = 0, unit = 0;
    for (size_t i = 0; i < s->count; i++) {
        const cvq_tensor *t = cvq_reader_tensor(s->in, i);
        weights += (double)t->spec.rows * (double)t->spec.cols;
    }
    if (strcmp(end, "G") == 0 || strcmp(end, "GB") == 0) unit = 1e9;
    if (strcmp(end, "M") == 0 || strcmp(end, "MB") == 0) unit = 1e6;
    if (strcmp(end, "bpw") == 0) unit = weights / 8;
    if (*end == '\0') unit = 1;
    const double size = number * unit;
    if (end == text || !(size >= 1 && size < 0x1p53))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, text,
                        "is no size; write 12.5G, 900M, bytes, or bits per weight as in 4.5bpw");
    *bytes = (uint64_t)size;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- what can be chosen */

static cvq_status add_sizes(cvq_sizes *t, const cvq_tensor_spec *spec,
                            const cvq_type_errors *errors, double rate, cvq_error *err) {
    for (int c = 0; c < CVQ_CHOICES; c++) {
        uint64_t bytes;
        if (!cvq_tensor_bytes(cvq_choice_types[c], cvq_panel_rows_for(spec->role), spec->rows,
                              spec->cols, &bytes) ||
            !cvq_round_up_u64(bytes, CVQ_ALIGNMENT, &bytes))
            return cvq_fail(err, CVQ_FORMAT, spec->name, "too large");
        t->bytes[c] = bytes;
        t->loss[c] = rate * errors->error[c];
    }
    t->count = CVQ_CHOICES;
    return CVQ_OK;
}

static cvq_status measure(sizing *s, const cvq_target *target, const cvq_common *common,
                          const cvq_importance *importance, cvq_error *err) {
    cvq_progress progress;
    cvq_progress_init(&progress, common);
    cvq_progress_begin(&progress, "trying types", "tensor");
    cvq_reader_rows *rows = NULL;
    const cvq_quantize_options options = {.threads = common->threads,
                                          .importance = importance,
                                          .progress = cvq_progress_bytes,
                                          .progress_context = &progress};
    if (target->sensitivity)
        CVQ_TRY(cvq_sensitivity_read(s->known, s->config, target->sensitivity, NULL, NULL, err));
    CVQ_TRY(cvq_loss_rates(s->rates, s->config, target->sensitivity ? s->known : NULL, err));
    CVQ_TRY(cvq_reader_rows_open(&rows, s->in, err));
    const cvq_row_source source = cvq_reader_rows_source(rows);
    cvq_status status = cvq_type_errors_measure(s->errors, s->config, &source, &options, err);
    cvq_reader_rows_close(rows);
    cvq_progress_erase();
    for (size_t i = 0; status == CVQ_OK && i < s->count; i++) {
        const cvq_tensor *t = cvq_reader_tensor(s->in, i);
        s->types[i] = t->type;
        s->things[i].count = 1;
        if (cvq_has_choice(&t->spec))
            status = add_sizes(&s->things[i], &t->spec, &s->errors[i], s->rates[i], err);
    }
    return status;
}

/* ---------------------------------------------------------------- fitting */

static cvq_status make_recipe(sizing *s, cvq_recipe **recipe, uint64_t *bytes, cvq_error *err) {
    for (size_t i = 0; i < s->count; i++)
        if (s->things[i].count > 1) s->types[i] = cvq_choice_types[s->things[i].chosen];
    CVQ_TRY(cvq_recipe_of_types(recipe, RECIPE_NAME, s->config, s->types, err));
    cvq_status status = cvq_requantized_size(s->in, *recipe, s->options, bytes, err);
    if (status == CVQ_OK) return CVQ_OK;
    cvq_recipe_free(*recipe);
    *recipe = NULL;
    return status;
}

/* All of the smallest or the largest types: the file's size. */
static cvq_status size_of_all(sizing *s, bool largest, uint64_t *bytes, cvq_error *err) {
    cvq_recipe *recipe = NULL;
    for (size_t i = 0; i < s->count; i++)
        s->things[i].chosen = largest ? s->things[i].count - 1 : 0;
    CVQ_TRY(make_recipe(s, &recipe, bytes, err));
    cvq_recipe_free(recipe);
    return CVQ_OK;
}

/* The head's size depends on the list of types, a little: what it is too large by comes off the
 * next budget. */
static cvq_status fit(sizing *s, cvq_recipe **out, const char *text, uint64_t target,
                      uint64_t *bytes, cvq_error *err) {
    uint64_t least, most, used;
    char low[32], high[32];
    CVQ_TRY(size_of_all(s, false, &least, err));
    CVQ_TRY(size_of_all(s, true, &most, err));
    if (target < least)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, text,
                        "cannot be reached: files of this model can be from %s (%llu bytes) to %s",
                        cvq_human_bytes(least, low), (unsigned long long)least,
                        cvq_human_bytes(most, high));
    uint64_t smallest = 0;
    for (size_t i = 0; i < s->count; i++) smallest += s->things[i].bytes[0];
    for (uint64_t budget = target - (least - smallest);;) {
        CVQ_TRY(cvq_allocate(s->things, s->count, budget, &used, err));
        CVQ_TRY(make_recipe(s, out, bytes, err));
        if (*bytes <= target) return CVQ_OK;
        cvq_recipe_free(*out);
        *out = NULL;
        budget = used - (*bytes - target) > smallest ? used - (*bytes - target) : smallest;
    }
}

cvq_status cvq_target_recipe(cvq_recipe **out, const cvq_target *target, const cvq_common *common,
                             const cvq_reader *in, const cvq_convert_options *options,
                             uint64_t *bytes, cvq_error *err) {
    sizing s = {.in = in,
                .options = options,
                .config = cvq_reader_config(in),
                .count = cvq_reader_tensor_count(in)};
    uint64_t size;
    CVQ_TRY(parse_size(&s, target->size, &size, err));
    cvq_status status =
        cvq_alloc((void **)&s.errors, s.count, sizeof *s.errors, "errors of types", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&s.known, s.count, sizeof *s.known, "sensitivities", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&s.rates, s.count, sizeof(double), "rates", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&s.things, s.count, sizeof *s.things, "sizes", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&s.types, s.count, sizeof *s.types, "types", err);
    if (status == CVQ_OK) status = measure(&s, target, common, options->quantize.importance, err);
    if (status == CVQ_OK) status = fit(&s, out, target->size, size, bytes, err);
    free(s.errors);
    free(s.known);
    free(s.rates);
    free(s.things);
    free(s.types);
    return status;
}
