/* Sums over the vocabulary, in double. */
#include "bench/divergence.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/memory.h"
#include "bench/statistics.h"

cvq_status cvq_predict(cvq_prediction *out, const float *logits, uint32_t vocab, uint32_t token,
                       cvq_error *err) {
    uint32_t best = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        if (!isfinite(logits[i]))
            return cvq_fail(err, CVQ_INTERNAL, "logits", "that of token %u is not finite", i);
        if (logits[i] > logits[best]) best = i;
    }
    double top = logits[best], sum = 0;
    for (uint32_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - top);
    out->log_sum = top + log(sum);
    double nll = out->log_sum - (double)logits[token];
    out->nll = nll > 0 ? nll : 0; /* rounding */
    out->best = best;
    return CVQ_OK;
}

/* With a = top - step * code, w = exp(a), log p = a - log(sum w), log q = logit - log_sum:
 * sum p (log p - log q) = sum w (a - logit) / sum w - log(sum w) + log_sum. */
cvq_status cvq_row_divergence(double *kld, const cvq_saved_row *reference, const float *logits,
                              uint32_t vocab, double log_sum, cvq_error *err) {
    double weights = 0, products = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        double a = (double)reference->top -
                   (double)reference->step * (double)cvq_load_le(reference->codes + 2 * i, 2);
        double w = exp(a);
        weights += w;
        products += w * (a - (double)logits[i]);
    }
    if (!(fabs(weights - 1) < 0.01))
        return cvq_fail(err, CVQ_FORMAT, "saved logits", "a row's probabilities add up to %g",
                        weights);
    double d = products / weights - log(weights) + log_sum;
    *kld = d > 0 ? d : 0;
    return CVQ_OK;
}

double cvq_logits_divergence(const float *reference, double reference_log_sum, const float *logits,
                             double log_sum, uint32_t vocab) {
    double d = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        const double p = (double)reference[i] - reference_log_sum;
        d += exp(p) * (p - ((double)logits[i] - log_sum));
    }
    return d > 0 ? d : 0; /* rounding */
}

static cvq_status grow(cvq_divergence *d, cvq_error *err) {
    size_t more = d->capacity ? 2 * d->capacity : 1024;
    double *nll = realloc(d->nll, more * sizeof *nll);
    if (nll) d->nll = nll;
    double *kld = nll ? realloc(d->kld, more * sizeof *kld) : NULL;
    if (!kld) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "perplexity", "no memory for the tokens");
    d->kld = kld;
    double *excess = realloc(d->excess, more * sizeof *excess);
    if (!excess) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "perplexity", "no memory for the tokens");
    d->excess = excess;
    d->capacity = more;
    return CVQ_OK;
}

cvq_status cvq_divergence_add(cvq_divergence *d, const cvq_prediction *p,
                              const cvq_saved_row *reference, double kld, cvq_error *err) {
    if (d->count == d->capacity) CVQ_TRY(grow(d, err));
    d->nll[d->count] = p->nll;
    d->kld[d->count] = kld;
    d->excess[d->count++] = reference ? p->nll - reference->nll : 0;
    d->agreed += reference && reference->best == p->best;
    return CVQ_OK;
}

cvq_divergence_sum cvq_divergence_summarize(cvq_divergence *d) {
    const size_t n = d->count;
    const double root = sqrt((double)n);
    cvq_divergence_sum s = {.perplexity = exp(cvq_mean(d->nll, n))};
    s.perplexity_stderr = s.perplexity * cvq_deviation(d->nll, n) / root;
    s.kld_mean = cvq_mean(d->kld, n);
    s.kld_stderr = cvq_deviation(d->kld, n) / root;
    s.kld_median = cvq_quantile(d->kld, n, 0.5);
    s.kld_p99 = cvq_quantile(d->kld, n, 0.99);
    s.top1_agreement = (double)d->agreed / (double)n;
    s.perplexity_ratio = exp(cvq_mean(d->excess, n));
    s.perplexity_ratio_stderr = s.perplexity_ratio * cvq_deviation(d->excess, n) / root;
    return s;
}

void cvq_divergence_free(cvq_divergence *d) {
    free(d->nll);
    free(d->kld);
    free(d->excess);
    *d = (cvq_divergence){0};
}
