/* The metrics that have a file of their own. */
#ifndef CVQ_BENCH_METRICS_INTERNAL_H
#define CVQ_BENCH_METRICS_INTERNAL_H

#include "bench/metrics.h"

cvq_status cvq_score_vqa(const char *answer, const cvq_answer_key *key, double *score,
                         cvq_error *err);
cvq_status cvq_score_mmmu(const char *answer, const cvq_answer_key *key, double *score,
                          cvq_error *err);
cvq_status cvq_score_choice(const char *answer, const cvq_answer_key *key, double *score,
                            cvq_error *err);
/* The number that text says, commas left out, to two decimals: MMMU's normal form. */
int cvq_mmmu_number(const char *text, double *out);

#endif
