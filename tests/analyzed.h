/* Put in front of every file by `make analyze`: what analyzers cannot find out, that a failure is
 * never CVQ_OK. Without it they follow ways on which one is taken for success. */
#ifndef CVQ_TESTS_ANALYZED_H
#define CVQ_TESTS_ANALYZED_H

#include "base/status.h"

static inline cvq_status analyzed_failure(cvq_status status) {
    return status == CVQ_OK ? CVQ_INTERNAL : status;
}
#define cvq_fail(...) analyzed_failure(cvq_fail(__VA_ARGS__))
#define cvq_fail_errno(...) analyzed_failure(cvq_fail_errno(__VA_ARGS__))
#define cvq_fail_within(...) analyzed_failure(cvq_fail_within(__VA_ARGS__))
#define cvq_fail_advising(...) analyzed_failure(cvq_fail_advising(__VA_ARGS__))

#endif
