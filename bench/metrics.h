/* Scores of answers, by the rules that the tasks' authors published; each rule stands, with its
 * source, above its function. */
#ifndef CVQ_BENCH_METRICS_H
#define CVQ_BENCH_METRICS_H

#include <stddef.h>

#include "base/status.h"

typedef enum cvq_metric {
    CVQ_METRIC_EXACT,
    CVQ_METRIC_VQA,
    CVQ_METRIC_ANLS,
    CVQ_METRIC_RELAXED,
    CVQ_METRIC_OCRBENCH,
    CVQ_METRIC_MMMU,
    CVQ_METRIC_CHOICE,
    CVQ_METRICS
} cvq_metric;

/* "exact", ..., in the order of the enumeration; NULL at the end. */
extern const char *const cvq_metric_names[CVQ_METRICS + 1];

#define CVQ_MAX_CHOICES 26

/* What is right. All texts are valid UTF-8. */
typedef struct cvq_answer_key {
    const char *const *answers; /* at least 1 */
    size_t num_answers;
    const char *const *choices; /* what the letters A, B, ... stand for; at most CVQ_MAX_CHOICES */
    size_t num_choices;         /* 0: not given */
    const char *dataset;        /* of OCRBench's: "HME100k" is scored in its own way; may be NULL */
} cvq_answer_key;

/* 0 to 1. Fails only for lack of memory, or where the key has no answers. */
cvq_status cvq_metric_score(cvq_metric metric, const char *answer, const cvq_answer_key *key,
                            double *score, cvq_error *err);

#endif
