/* How well a model predicts text, and how far its predictions are from a reference's: perplexity,
 * KL divergence, agreement of the likeliest token. All in natural logarithms. */
#ifndef CVQ_BENCH_DIVERGENCE_H
#define CVQ_BENCH_DIVERGENCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* What a row of logits says about the token that came. */
typedef struct cvq_prediction {
    double nll;     /* -log of the token's probability */
    double log_sum; /* log of the sum of exp(logits): a logit less this is a log-probability */
    uint32_t best;  /* the likeliest token; of equals the first */
} cvq_prediction;

/* CVQ_INTERNAL where a logit is not finite. token < vocab. */
cvq_status cvq_predict(cvq_prediction *out, const float *logits, uint32_t vocab, uint32_t token,
                       cvq_error *err);

/* A reference's row as it is saved: the log-probability of token i is top - step * code[i], less
 * the logarithm of what all of them add up to. */
typedef struct cvq_saved_row {
    float top, step;
    const uint8_t *codes; /* [vocab] u16, little-endian */
    double nll;
    uint32_t best;
} cvq_saved_row;

/* KL divergence of the reference from the model, sum of p log(p / q): never below 0. CVQ_FORMAT
 * where the saved row's probabilities do not add up to 1 within 1%. */
cvq_status cvq_row_divergence(double *kld, const cvq_saved_row *reference, const float *logits,
                              uint32_t vocab, double log_sum, cvq_error *err);

/* The same of two rows of logits; log_sum as cvq_predict gives them. */
double cvq_logits_divergence(const float *reference, double reference_log_sum, const float *logits,
                             double log_sum, uint32_t vocab);

/* All tokens of a text. Start with {0}. */
typedef struct cvq_divergence {
    double *nll;          /* [count] */
    double *kld, *excess; /* [count], with a reference: nll less the reference's */
    size_t count, capacity, agreed;
} cvq_divergence;

/* reference: NULL for none, for all tokens alike. */
cvq_status cvq_divergence_add(cvq_divergence *d, const cvq_prediction *p,
                              const cvq_saved_row *reference, double kld, cvq_error *err);

/* The standard errors take tokens for independent: sd / sqrt(n). The ratio's is that of the tokens'
 * differences, far below those of the two perplexities, which have the text's own difficulty. */
typedef struct cvq_divergence_sum {
    double perplexity, perplexity_stderr; /* exp of the mean nll */
    /* With a reference: */
    double kld_mean, kld_stderr, kld_median, kld_p99, top1_agreement;
    double perplexity_ratio, perplexity_ratio_stderr;
} cvq_divergence_sum;

/* count > 0; sorts kld. */
cvq_divergence_sum cvq_divergence_summarize(cvq_divergence *d);
void cvq_divergence_free(cvq_divergence *d);

#endif
