/* Output files: written under a temporary name in the same folder, NAME.partial, and given their
 * own name only when complete and synced. An existing file is refused unless the user said --force,
 * and a file that is also an input always. Only one process at a time writes an output, and what a
 * killed one left is replaced by the next, or continued. */
#ifndef CVQ_CLI_OUTPUT_H
#define CVQ_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct cvq_output {
    int fd;     /* read and write; -1 when not open */
    char *path; /* the final name */
    char *temp;
    bool force;
    int slot; /* in the list of files that a signal removes */
    /* only of an output that can be resumed */
    int journal; /* read and write; else -1 */
    char *journal_path;
    bool leftover; /* an interrupted run had left something */
} cvq_output;

#define CVQ_OUTPUT_NONE                                                                            \
    { .fd = -1, .slot = -1, .journal = -1 }

/* CVQ_EXISTS, CVQ_INVALID_ARGUMENT (same file as an input, not a regular file) or CVQ_IO; nothing
 * is left behind then. The file is empty. inputs: files, or folders that stand for every file
 * directly in them. */
cvq_status cvq_output_open(cvq_output *out, const char *path, bool force, const char *const *inputs,
                           size_t num_inputs, cvq_error *err);
/* The same with a journal beside it, NAME.partial.journal. With `resume` both are as an interrupted
 * run left them (empty if none did), else both are empty. */
cvq_status cvq_output_open_resumable(cvq_output *out, const char *path, bool force, bool resume,
                                     const char *const *inputs, size_t num_inputs, cvq_error *err);
/* A nameless file in the same folder, for what has to wait; close it when done. */
cvq_status cvq_output_scratch(const cvq_output *out, int *fd, cvq_error *err);
/* Leaves file and journal behind for a run to come. */
void cvq_output_keep(cvq_output *out);
/* Sync, rename, sync the folder. On failure the temporary file is gone. */
cvq_status cvq_output_commit(cvq_output *out, cvq_error *err);
/* Remove the temporary file; does nothing after a commit or where nothing was opened. */
void cvq_output_discard(cvq_output *out);

/* A file under its own name that grows line by line, and that a later run goes on with: read and
 * write, locked against other commands until it is closed, made where it is not there, and
 * otherwise as it is. CVQ_EXISTS (another command has it), CVQ_INVALID_ARGUMENT, CVQ_IO. */
cvq_status cvq_output_open_growing(int *fd, const char *path, cvq_error *err);

/* Refuse (CVQ_INVALID_ARGUMENT) a path that is the same file as one of the inputs, or whose
 * temporary names are: cvq_output_open does, and for inputs that it is not given others do. */
cvq_status cvq_output_check_inputs(const char *path, const char *const *inputs, size_t num_inputs,
                                   cvq_error *err);

#endif
