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
    d->capacity = more;
    return CVQ_OK;
}

cvq_status cvq_divergence_add(cvq_divergence *d, const cvq_prediction *p,
                              const cvq_saved_row *reference, double kld, cvq_error *err) {
    if (d->count == d->capacity) CVQ_TRY(grow(d, err));
    d->nll[d->count] = p->nll;
    d->kld[d->count++] = kld;
    if (reference) {
        d->agreed += reference->best == p->best;
        d->reference_nll += reference->nll;
    }
    return CVQ_OK;
}

cvq_divergence_sum cvq_divergence_summarize(cvq_divergence *d) {
    double n = (double)d->count, mean = cvq_mean(d->nll, d->count);
    cvq_divergence_sum s = {.perplexity = exp(mean)};
    s.deviation = s.perplexity * cvq_deviation(d->nll, d->count) / sqrt(n);
    s.kld_mean = cvq_mean(d->kld, d->count);
    s.kld_p99 = cvq_quantile(d->kld, d->count, 0.99);
    s.top1_agreement = (double)d->agreed / n;
    s.perplexity_ratio = exp(mean - d->reference_nll / n);
    return s;
}

void cvq_divergence_free(cvq_divergence *d) {
    free(d->nll);
    free(d->kld);
    *d = (cvq_divergence){0};
}
