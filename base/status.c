/* Error records: one place fills them, the first cause wins. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [CVQ_OK] = "CVQ_OK",
    [CVQ_INVALID_ARGUMENT] = "CVQ_INVALID_ARGUMENT",
    [CVQ_OUT_OF_MEMORY] = "CVQ_OUT_OF_MEMORY",
    [CVQ_IO] = "CVQ_IO",
    [CVQ_FORMAT] = "CVQ_FORMAT",
    [CVQ_UNSUPPORTED] = "CVQ_UNSUPPORTED",
    [CVQ_MISMATCH] = "CVQ_MISMATCH",
    [CVQ_TOO_SMALL] = "CVQ_TOO_SMALL",
    [CVQ_CONTEXT_FULL] = "CVQ_CONTEXT_FULL",
    [CVQ_CANCELLED] = "CVQ_CANCELLED",
    [CVQ_NOT_FOUND] = "CVQ_NOT_FOUND",
    [CVQ_EXISTS] = "CVQ_EXISTS",
    [CVQ_INTERNAL] = "CVQ_INTERNAL",
};

const char *cvq_status_name(cvq_status status) {
    size_t i = (size_t)status;
    return i < sizeof names / sizeof *names ? names[i] : "CVQ_UNKNOWN";
}

static void fill(cvq_error *err, cvq_status code, const char *where, const char *format,
                 va_list args, int system_error) {
    err->code = code;
    snprintf(err->where, sizeof err->where, "%s", where ? where : "");
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    if (system_error && n >= 0 && (size_t)n < sizeof err->message)
        snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", strerror(system_error));
}

cvq_status(cvq_fail)(cvq_error *err, cvq_status code, const char *where, const char *format, ...) {
    if (err && err->code == CVQ_OK) {
        va_list args;
        va_start(args, format);
        fill(err, code, where, format, args, 0);
        va_end(args);
    }
    return code;
}

cvq_status(cvq_fail_errno)(cvq_error *err, const char *where, const char *format, ...) {
    int system_error = errno;
    cvq_status code = system_error == ENOMEM ? CVQ_OUT_OF_MEMORY : CVQ_IO;
    if (err && err->code == CVQ_OK) {
        va_list args;
        va_start(args, format);
        fill(err, code, where, format, args, system_error);
        va_end(args);
    }
    return code;
}

cvq_status(cvq_fail_within)(cvq_error *err, const char *where, const cvq_error *problem) {
    return cvq_fail_advising(err, where, problem, "");
}

cvq_status(cvq_fail_advising)(cvq_error *err, const char *where, const cvq_error *problem,
                              const char *advice) {
    const cvq_status code = problem->code;
    if (code != CVQ_FORMAT && code != CVQ_UNSUPPORTED && code != CVQ_NOT_FOUND) advice = "";
    if (!problem->where[0] || strcmp(problem->where, where) == 0)
        return cvq_fail(err, problem->code, where, "%s%s", problem->message, advice);
    return cvq_fail(err, problem->code, where, "%s: %s%s", problem->where, problem->message,
                    advice);
}
