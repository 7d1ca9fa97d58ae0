/* Status codes and the error record of every fallible call in cvq. */
#ifndef CVQ_STATUS_H
#define CVQ_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers are pinned: a code keeps its number for ever, new ones are added at the end. */
typedef enum cvq_status {
    CVQ_OK = 0,
    CVQ_INVALID_ARGUMENT = 1, /* the caller broke the contract of a call */
    CVQ_OUT_OF_MEMORY = 2,
    CVQ_IO = 3,          /* the operating system refused: open, read, write, map, no space */
    CVQ_FORMAT = 4,      /* bytes that break their format: truncated, overlapping, out of range */
    CVQ_UNSUPPORTED = 5, /* well formed, but not something that this version does */
    CVQ_MISMATCH =
        6, /* two things that do not belong together: another model's encoding, a wrong hash */
    CVQ_TOO_SMALL = 7,    /* the caller's buffer; the needed size was stored */
    CVQ_CONTEXT_FULL = 8, /* the prompt or the answer needs more slots than the context has */
    CVQ_CANCELLED = 9,
    CVQ_NOT_FOUND = 10,
    CVQ_EXISTS = 11,
    CVQ_INTERNAL = 12 /* a defect in cvq itself */
} cvq_status;

/* Owned by the caller; start with {0}. The first cause wins: a call that fails with an error
 * already stored leaves it. `where` names the file, tensor, field or byte; `message` says what is
 * wrong and what to do. Both are UTF-8, NUL-terminated. */
typedef struct cvq_error {
    cvq_status code;
    char where[512];
    char message[512];
} cvq_error;

/* The name of a code, such as "CVQ_FORMAT". Static, never NULL, also for numbers that are no code.
 */
const char *cvq_status_name(cvq_status status);

#ifdef __cplusplus
}
#endif
#endif
