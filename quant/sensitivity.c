/* The file of measured sensitivities, and rates made of them. */
#include "quant/sensitivity.h"

#include <stdio.h>
#include <string.h>

#include "base/file_map.h"
#include "quant/type_errors.h"

#define MAX_FILE (16u << 20)
#define MAGIC "# cvq-sensitivity 1"
#define HEADINGS "tensor\ttype\terror\tkld_text\tkld_answers"
#define MODEL "# model "
/* Far beyond what is ever measured; sums and quotients of what lies between stay finite. */
#define LEAST_ERROR 1e-30
#define MOST_NUMBER 1e30

/* ---------------------------------------------------------------- writing */

cvq_status cvq_sensitivity_print_head(cvq_buffer *out, const char *model_id, cvq_error *err) {
    static const char magic[] = MAGIC "\n" MODEL, headings[] = "\n" HEADINGS "\n";
    CVQ_TRY(cvq_buffer_append(out, magic, sizeof magic - 1, err));
    CVQ_TRY(cvq_buffer_append(out, model_id, strlen(model_id), err));
    return cvq_buffer_append(out, headings, sizeof headings - 1, err);
}

cvq_status cvq_sensitivity_print(cvq_buffer *out, const char *tensor, const char *type,
                                 const cvq_sensitivity *s, cvq_error *err) {
    char line[CVQ_MAX_TENSOR_NAME + 128], kld[2][32];
    for (int k = 0; k < 2; k++)
        snprintf(kld[k], sizeof kld[k], s->kld[k] < 0 ? "-" : "%.6g", s->kld[k]);
    const int n = snprintf(line, sizeof line, "%s\t%s\t%.6g\t%s\t%s\n", tensor, type, s->error,
                           kld[0], kld[1]);
    return cvq_buffer_append(out, line, (size_t)n, err);
}

/* ---------------------------------------------------------------- reading */

static cvq_status bad_line(const char *path, size_t number, const char *what, cvq_error *err) {
    return cvq_fail(err, CVQ_FORMAT, path, "line %zu: %s; take a file that cvq-sensitivity wrote",
                    number, what);
}

/* A number that is not negative. The text ends with a NUL; what follows the number is in *end. */
static bool read_number(const char **text, double *out) {
    char *end;
    *out = strtod(*text, &end);
    const bool good = end != *text && *out >= 0 && *out <= MOST_NUMBER && **text != ' ';
    *text = end;
    return good;
}

static bool find_tensor(const cvq_model_config *config, const char *name, size_t length,
                        size_t *index) {
    cvq_tensor_spec spec;
    for (size_t i = 0; i < cvq_model_tensor_count(config); i++) {
        cvq_model_tensor_spec(config, i, &spec);
        if (strlen(spec.name) != length || memcmp(spec.name, name, length) != 0) continue;
        *index = i;
        return cvq_has_choice(&spec);
    }
    return false;
}

/* One line without its newline, ended by a NUL. */
static cvq_status read_line(cvq_sensitivity *out, const cvq_model_config *config, const char *line,
                            const char *path, size_t number, cvq_error *err) {
    cvq_sensitivity s = {.known = true};
    const char *tab = strchr(line, '\t'), *at = tab ? strchr(tab + 1, '\t') : NULL;
    size_t index;
    if (!at) return bad_line(path, number, "not five columns", err);
    if (!find_tensor(config, line, (size_t)(tab - line), &index))
        return bad_line(path, number, "not a matrix of this model", err);
    at++;
    bool good = read_number(&at, &s.error) && s.error >= LEAST_ERROR;
    for (int k = 0; good && k < 2; k++) {
        good = *at++ == '\t';
        if (good && *at == '-') {
            at++;
            s.kld[k] = -1;
        } else if (good) {
            good = read_number(&at, &s.kld[k]);
        }
    }
    if (!good || *at != '\0') return bad_line(path, number, "not three numbers", err);
    if (out[index].known) return bad_line(path, number, "a tensor for the second time", err);
    out[index] = s;
    return CVQ_OK;
}

/* The three lines before the tensors'. */
static cvq_status read_head(const char *line, const char *path, size_t number, const char *model_id,
                            cvq_error *err) {
    const bool good = number == 1   ? strcmp(line, MAGIC) == 0
                      : number == 2 ? strncmp(line, MODEL, strlen(MODEL)) == 0
                                    : strcmp(line, HEADINGS) == 0;
    if (!good) return bad_line(path, number, "not the head of such a file", err);
    if (number == 2 && model_id && strcmp(line + strlen(MODEL), model_id) != 0)
        return cvq_fail(err, CVQ_MISMATCH, path,
                        "was measured on another model; give another name or use --force");
    return CVQ_OK;
}

cvq_status cvq_sensitivity_read(cvq_sensitivity *out, const cvq_model_config *config,
                                const char *path, const char *model_id, size_t *whole,
                                cvq_error *err) {
    cvq_buffer file = {0};
    size_t number = 0;
    CVQ_TRY(cvq_read_file(&file, path, MAX_FILE, err));
    char *at = (char *)file.data, *end = at + file.size;
    cvq_status status = CVQ_OK;
    if (memchr(at, '\0', file.size)) status = bad_line(path, 1, "not a text", err);
    while (status == CVQ_OK && at < end) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline) {
            if (!whole) status = bad_line(path, number + 1, "cut short", err);
            break;
        }
        *newline = '\0';
        number++;
        status = number <= 3 ? read_head(at, path, number, model_id, err)
                             : read_line(out, config, at, path, number, err);
        at = newline + 1;
    }
    if (status == CVQ_OK && !whole && number < 3) status = bad_line(path, number, "cut short", err);
    /* A head that is not whole begins anew. */
    if (whole) *whole = number < 3 ? 0 : (size_t)(at - (char *)file.data);
    cvq_buffer_free(&file);
    return status;
}

/* ---------------------------------------------------------------- rates */

/* What errors cost on the small checkpoint: the divergences of tests/data/sensitivity.tsv. What has
 * no choice has no rate. */
typedef struct kind_rate {
    double all; /* layers of the kind: hundredths of the whole for texts, plus such for answers, at
                   q4h's error */
    double first; /* layer's rate over the others'; 0: alike */
} kind_rate;
static const kind_rate rates_of_kinds[CVQ_TENSOR_KINDS] = {[CVQ_T_LANGUAGE_QKV] = {38, 5.8},
                                                           [CVQ_T_LANGUAGE_DENSE] = {16.7, 7},
                                                           [CVQ_T_LANGUAGE_GATE] = {13, 2},
                                                           [CVQ_T_LANGUAGE_UP] = {10.3, 2},
                                                           [CVQ_T_LANGUAGE_DOWN] = {15.2, 2.8},
                                                           [CVQ_T_LM_HEAD] = {16, 0},
                                                           [CVQ_T_EMBED_TOKENS] = {20.3, 0},
                                                           [CVQ_T_VISION_QKV] = {9.3, 4},
                                                           [CVQ_T_VISION_DENSE] = {0.81, 26},
                                                           [CVQ_T_VISION_GATE] = {0.52, 18},
                                                           [CVQ_T_VISION_UP] = {0.54, 38},
                                                           [CVQ_T_VISION_DOWN] = {0.26, 13},
                                                           [CVQ_T_CONV] = {2.35, 0},
                                                           [CVQ_T_ADAPTER_PROJ] = {7.5, 0},
                                                           [CVQ_T_ADAPTER_GATE] = {3.6, 0},
                                                           [CVQ_T_ADAPTER_UP] = {3.9, 0},
                                                           [CVQ_T_ADAPTER_DOWN] = {4.3, 0},
                                                           [CVQ_T_VIT_QKV] = {2, 0},
                                                           [CVQ_T_VIT_DENSE] = {1.45, 0},
                                                           [CVQ_T_VIT_FC1] = {31, 0},
                                                           [CVQ_T_VIT_FC2] = {3.3, 0}};

/* The decoder's first layer apart, layers share alike: how they differ is not known without a
 * measurement. */
static double built_in_rate(const cvq_model_config *config, const cvq_tensor_spec *spec) {
    const kind_rate *rate = &rates_of_kinds[spec->kind];
    const bool decoder = spec->part == CVQ_PART_LANGUAGE || spec->part == CVQ_PART_VISION;
    const uint32_t layers = decoder                      ? config->num_layers
                            : spec->part == CVQ_PART_VIT ? config->vit_num_layers
                                                         : 1;
    const double first = rate->first > 0 ? rate->first : 1;
    return rate->all * (spec->layer == 0 ? first : 1) / (first + layers - 1);
}

cvq_status cvq_loss_rates(double *rates, const cvq_model_config *config, const cvq_sensitivity *s,
                          cvq_error *err) {
    const size_t n = cvq_model_tensor_count(config);
    double sum[2] = {0, 0};
    for (size_t i = 0; s && i < n; i++)
        for (int k = 0; k < 2; k++)
            if (s[i].known && s[i].kld[k] > 0) sum[k] += s[i].kld[k];
    for (size_t i = 0; i < n; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        rates[i] = 0;
        if (!cvq_has_choice(&spec)) continue;
        if (s && !s[i].known)
            return cvq_fail(err, CVQ_NOT_FOUND, spec.name,
                            "its sensitivity was not measured; let cvq-sensitivity go on");
        if (!s) rates[i] = built_in_rate(config, &spec);
        for (int k = 0; s && k < 2; k++)
            if (s[i].kld[k] > 0) rates[i] += s[i].kld[k] / sum[k] / s[i].error;
    }
    return CVQ_OK;
}
