/* The choice among the metrics, and the short ones: exact, anls, relaxed, ocrbench. */
#include "bench/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bench/answer_text.h"
#include "bench/metrics_internal.h"

const char *const cvq_metric_names[CVQ_METRICS + 1] = {"exact",    "vqa",  "anls",   "relaxed",
                                                       "ocrbench", "mmmu", "choice", NULL};

/* ---------------------------------------------------------------- exact */

/* Equal to one of the answers, both without the white space around them. Capitals and small
 * letters are different. */
static cvq_status score_exact(const char *answer, const cvq_answer_key *key, double *score,
                              cvq_error *err) {
    char *given = NULL, *right = NULL;
    cvq_status status = cvq_text_trimmed(&given, answer, err);
    for (size_t i = 0; status == CVQ_OK && i < key->num_answers; i++) {
        status = cvq_text_trimmed(&right, key->answers[i], err);
        if (status == CVQ_OK && strcmp(given, right) == 0) *score = 1;
        free(right);
        right = NULL;
    }
    free(given);
    return status;
}

/* ---------------------------------------------------------------- anls */

static cvq_status code_points(uint32_t **out, size_t *n, const char *text, cvq_error *err) {
    void *points;
    *n = cvq_text_length(text);
    CVQ_TRY(cvq_alloc(&points, *n, sizeof(uint32_t), "an answer", err));
    *out = points;
    for (size_t i = 0; i < *n; i++) (*out)[i] = cvq_text_next(&text);
    return CVQ_OK;
}

/* Levenshtein's distance; row: at least nb + 1. */
static size_t edit_distance(const uint32_t *a, size_t na, const uint32_t *b, size_t nb,
                            size_t *row) {
    for (size_t j = 0; j <= nb; j++) row[j] = j;
    for (size_t i = 0; i < na; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < nb; j++) {
            size_t best = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            if (diagonal + 1 < best) best = diagonal + 1;
            if (row[j] + 1 < best) best = row[j] + 1;
            row[j + 1] = best;
        }
    }
    return row[nb];
}

/* The share of characters to be changed. Case and the number of spaces do not count in the
 * distance; the length is that of the texts as they are. */
static cvq_status normalized_distance(const char *a, const char *b, double *out, cvq_error *err) {
    size_t la = cvq_text_length(a), lb = cvq_text_length(b), na = 0, nb = 0;
    char *x = NULL, *y = NULL;
    uint32_t *px = NULL, *py = NULL;
    void *row = NULL;
    cvq_status status = cvq_text_trimmed(&x, a, err);
    if (status == CVQ_OK) status = cvq_text_trimmed(&y, b, err);
    if (status != CVQ_OK) goto done;
    cvq_text_lower(x);
    cvq_text_lower(y);
    cvq_text_join_words(x);
    cvq_text_join_words(y);
    status = code_points(&px, &na, x, err);
    if (status == CVQ_OK) status = code_points(&py, &nb, y, err);
    if (status == CVQ_OK) status = cvq_alloc(&row, (uint64_t)nb + 1, sizeof(size_t), "row", err);
    if (status != CVQ_OK) goto done;
    size_t length = la > lb ? la : lb;
    *out = length == 0 ? 0 : (double)edit_distance(px, na, py, nb, row) / (double)length;
done:
    free(row);
    free(px);
    free(py);
    free(x);
    free(y);
    return status;
}

/* Average normalised Levenshtein similarity: Biten and others, "Scene text visual question
 * answering" (arXiv 1905.13648), in the form of the Robust Reading Competition's script for
 * document and infographic questions (rrc.cvc.uab.es, challenge 17): 1 - distance / longer length,
 * the best over the answers, and 0 where that is below 0.5. */
static cvq_status score_anls(const char *answer, const cvq_answer_key *key, double *score,
                             cvq_error *err) {
    double least = 1;
    for (size_t i = 0; i < key->num_answers; i++) {
        double distance;
        CVQ_TRY(normalized_distance(key->answers[i], answer, &distance, err));
        if (distance < least) least = distance;
    }
    *score = 1 - least < 0.5 ? 0 : 1 - least;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- relaxed */

/* "12.5%" is 0.125. */
static bool relaxed_number(const char *text, double *out) {
    char copy[256];
    size_t length = strlen(text);
    if (length == 0 || text[length - 1] != '%') return cvq_text_to_number(text, out);
    while (length > 0 && text[length - 1] == '%') length--;
    if (length >= sizeof copy) return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (!cvq_text_to_number(copy, out)) return false;
    *out /= 100;
    return true;
}

static bool relaxed_equal(char *given, char *right) {
    double a, b;
    if (relaxed_number(given, &a) && relaxed_number(right, &b) && b != 0)
        return fabs(a - b) / fabs(b) <= 0.05;
    cvq_text_lower(given);
    cvq_text_lower(right);
    return strcmp(given, right) == 0;
}

/* Relaxed accuracy: Masry and others, "ChartQA" (arXiv 2203.10244), section 5.1, after Methani and
 * others, "PlotQA" (2020): a number may be 5% off the right one, other answers must be equal. As
 * google-research/pix2struct, metrics.py, computes it: a percentage is a hundredth, a right answer
 * of 0 is compared as text, case does not count, the best over the answers. White space around
 * the texts is dropped. */
static cvq_status score_relaxed(const char *answer, const cvq_answer_key *key, double *score,
                                cvq_error *err) {
    for (size_t i = 0; i < key->num_answers; i++) {
        char *given = NULL, *right = NULL;
        cvq_status status = cvq_text_trimmed(&given, answer, err);
        if (status == CVQ_OK) status = cvq_text_trimmed(&right, key->answers[i], err);
        if (status == CVQ_OK && relaxed_equal(given, right)) *score = 1;
        free(given);
        free(right);
        CVQ_TRY(status);
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- ocrbench */

/* What OCRBench compares: newlines are spaces; formulas (HME100k) keep their case and lose all
 * spaces, everything else is made small. */
static cvq_status ocrbench_form(char **out, const char *text, bool formula, cvq_error *err) {
    CVQ_TRY(cvq_text_trimmed(out, text, err));
    cvq_text_replace(*out, '\n', ' ');
    if (formula)
        cvq_text_replace(*out, ' ', '\0');
    else
        cvq_text_lower(*out);
    return CVQ_OK;
}

/* Liu and others, "OCRBench" (arXiv 2305.07895), OCRBench/example.py in Yuliang-Liu/MultimodalOCR:
 * one of the answers is contained in what the model said. */
static cvq_status score_ocrbench(const char *answer, const cvq_answer_key *key, double *score,
                                 cvq_error *err) {
    bool formula = key->dataset && strcmp(key->dataset, "HME100k") == 0;
    char *given = NULL, *right = NULL;
    cvq_status status = ocrbench_form(&given, answer, formula, err);
    for (size_t i = 0; status == CVQ_OK && i < key->num_answers; i++) {
        status = ocrbench_form(&right, key->answers[i], formula, err);
        if (status == CVQ_OK && strstr(given, right)) *score = 1;
        free(right);
        right = NULL;
    }
    free(given);
    return status;
}

/* ---------------------------------------------------------------- all of them */

cvq_status cvq_metric_score(cvq_metric metric, const char *answer, const cvq_answer_key *key,
                            double *score, cvq_error *err) {
    static cvq_status (*const functions[CVQ_METRICS])(const char *, const cvq_answer_key *,
                                                      double *, cvq_error *) = {
        [CVQ_METRIC_EXACT] = score_exact,       [CVQ_METRIC_VQA] = cvq_score_vqa,
        [CVQ_METRIC_ANLS] = score_anls,         [CVQ_METRIC_RELAXED] = score_relaxed,
        [CVQ_METRIC_OCRBENCH] = score_ocrbench, [CVQ_METRIC_MMMU] = cvq_score_mmmu,
        [CVQ_METRIC_CHOICE] = cvq_score_choice,
    };
    double s = 0;
    if (key->num_answers == 0 || key->num_choices > CVQ_MAX_CHOICES)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_metric_score",
                        "no right answer, or more than %d choices", CVQ_MAX_CHOICES);
    CVQ_TRY(functions[metric](answer, key, &s, err));
    *score = s;
    return CVQ_OK;
}
