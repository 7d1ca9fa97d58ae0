/* A progress line on stderr: share done, rate and time left. On a terminal it rewrites itself and
 * is erased before anything else is printed; with --progress and no terminal it is a line now and
 * then. */
#ifndef CVQ_CLI_PROGRESS_H
#define CVQ_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"

typedef struct cvq_progress {
    bool on, terminal;
    const char *label, *unit;
    double started, last;
    uint64_t first_done;
} cvq_progress;

void cvq_progress_init(cvq_progress *p, const cvq_common *common);
/* A new piece of work. unit: "bytes" (rate in MB/s) or the name of what is counted ("question"). */
void cvq_progress_begin(cvq_progress *p, const char *label, const char *unit);
void cvq_progress_update(cvq_progress *p, uint64_t done, uint64_t total);
/* The same with an estimate of the caller's; negative = unknown. */
void cvq_progress_update_left(cvq_progress *p, uint64_t done, uint64_t total, double seconds_left);
/* Erase the line, if one stands on the terminal; messages do this by themselves. */
void cvq_progress_erase(void);
/* For cvq_quantize_options and cvq_reader_verify: context is a cvq_progress; nonzero once the user
 * has asked to stop. */
int cvq_progress_bytes(void *progress, uint64_t done, uint64_t total);

/* "1 h 02 m", "3 m 10 s", "12 s". */
void cvq_format_duration(double seconds, char *out, size_t size);
/* "question 3 of 40, 2 m 10 s left, ", to stand in front of a label: `done` of `total` since
 * `started`. */
void cvq_format_step(const char *what, size_t done, size_t total, double started, char *out,
                     size_t size);
/* Seconds on a clock that never jumps. */
double cvq_progress_clock(void);

#endif
