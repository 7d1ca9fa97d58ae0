/* Ctrl-C and its relatives (SIGINT, SIGTERM, SIGHUP), a closed pipe, and the temporary files that
 * must not outlive the process. The first signal only sets a flag, which long work polls, and
 * cancels the running session; a second one removes the temporary files and leaves at once. A
 * mapped file that was cut off meanwhile (SIGBUS) ends the program with a message that names the
 * file. */
#ifndef CVQ_CLI_INTERRUPT_H
#define CVQ_CLI_INTERRUPT_H

#include <stdbool.h>
#include <stddef.h>

#include "cvq.h"

#define CVQ_MAX_TEMP_FILES 64 /* cvq-pack writes up to so many parts */

/* program: its name, for messages. */
void cvq_interrupt_install(const char *program);
bool cvq_interrupted(void);
/* Whether it was Ctrl-C, and not a request to end. */
bool cvq_interrupted_by_key(void);
/* Forget a signal that was dealt with: an answer of a conversation was stopped. */
void cvq_interrupt_clear(void);
/* The session that a signal is to cancel; NULL for none. */
void cvq_interrupt_session(cvq_session *session);

/* Create a file by mkostemp from `path` (ends in XXXXXX), known to the signal handler from its
 * first moment. -1 and errno on failure; *slot is for cvq_temp_forget. */
int cvq_temp_create(char *path, int *slot);
/* The same of a file that is there. False: too many, or its name is too long. */
bool cvq_temp_note(const char *path, int *slot);
/* The file was renamed or removed. */
void cvq_temp_forget(int slot);

#endif
