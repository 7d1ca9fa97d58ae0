/* How an error is made and passed on. Every fallible function in cvq returns a cvq_status and takes
 * a cvq_error * last. */
#ifndef CVQ_BASE_STATUS_H
#define CVQ_BASE_STATUS_H

#include "cvq_status.h"

#if defined(__GNUC__)
#define CVQ_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define CVQ_PRINTF(fmt, args)
#endif

/* Store code, where (may be NULL or "") and the formatted message, unless err is NULL or already
 * holds an error; returns code. */
cvq_status cvq_fail(cvq_error *err, cvq_status code, const char *where, const char *format, ...)
    CVQ_PRINTF(4, 5);

/* The same for a failed system call: appends strerror(errno). code is CVQ_IO, or CVQ_OUT_OF_MEMORY
 * for ENOMEM. */
cvq_status cvq_fail_errno(cvq_error *err, const char *where, const char *format, ...)
    CVQ_PRINTF(3, 4);

/* What is wrong with a part of something (problem->where), said of the whole: where, and "PART:
 * message". */
cvq_status cvq_fail_within(cvq_error *err, const char *where, const cvq_error *problem);

/* The same, and where a file is at fault (CVQ_FORMAT, CVQ_UNSUPPORTED, CVQ_NOT_FOUND) what to do
 * about it behind the message: whoever opens a file knows where another one comes from. advice
 * begins with "; ". */
cvq_status cvq_fail_advising(cvq_error *err, const char *where, const cvq_error *problem,
                             const char *advice);

/* Pass a failure on. Only where nothing has to be released; otherwise one `goto done`. */
#define CVQ_TRY(expression)                                                                        \
    do {                                                                                           \
        cvq_status cvq_try_status = (expression);                                                  \
        if (cvq_try_status != CVQ_OK) return cvq_try_status;                                       \
    } while (0)

#endif
