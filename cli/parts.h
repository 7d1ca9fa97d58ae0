/* A stream of bytes as one file, or as numbered parts of a given size that `cat` joins again:
 * NAME.001, NAME.002, ... Outputs get their names together, when the last byte is written. */
#ifndef CVQ_CLI_PARTS_H
#define CVQ_CLI_PARTS_H

#include <stdint.h>

#include "cli/interrupt.h"
#include "cli/output.h"

#define CVQ_MAX_PARTS CVQ_MAX_TEMP_FILES
#define CVQ_LAST_PART 999 /* three digits */

typedef struct cvq_parts_writer {
    const char *path;
    uint64_t part_bytes; /* 0: one file, named as it is */
    bool force;
    const char *const *inputs;
    size_t num_inputs;
    cvq_output outputs[CVQ_MAX_PARTS];
    size_t count;
    uint64_t in_part; /* bytes of the last one so far */
} cvq_parts_writer;

/* inputs: as for cvq_output_open, borrowed like path. Nothing is created yet. */
void cvq_parts_begin(cvq_parts_writer *w, const char *path, uint64_t part_bytes, bool force,
                     const char *const *inputs, size_t num_inputs);
/* A cvq_pack_write_fn: context is the writer. */
cvq_status cvq_parts_write(void *writer, const void *data, size_t size, cvq_error *err);
/* All names at once; on failure none of those that are left is kept. */
cvq_status cvq_parts_commit(cvq_parts_writer *w, cvq_error *err);
void cvq_parts_discard(cvq_parts_writer *w);

/* The bytes of "-" (standard input), of a file, or, where its name ends in .001, of that part and
 * all that follow it. */
typedef struct cvq_parts_reader {
    char *path; /* of the part that is open; "-" */
    int fd;
    size_t suffix; /* where the number begins in path; 0: no parts */
    unsigned part; /* its number */
    bool ended;
    uint64_t done;                    /* bytes read of all parts */
    uint64_t ends[CVQ_LAST_PART + 1]; /* of part i: where it ends in all of them joined */
} cvq_parts_reader;

cvq_status cvq_parts_open(cvq_parts_reader *r, const char *path, cvq_error *err);
/* A cvq_pack_read_fn: context is the reader. */
cvq_status cvq_parts_read(void *reader, void *data, size_t size, size_t *got, cvq_error *err);
/* The file that holds this byte of what was read: the part's name, or the only file's. Valid until
 * the next call. */
const char *cvq_parts_name_at(cvq_parts_reader *r, uint64_t offset);
/* Refuse an output that is one of the parts, as cvq_output_check_inputs does. */
cvq_status cvq_parts_check_output(const cvq_parts_reader *r, const char *output, cvq_error *err);
void cvq_parts_close(cvq_parts_reader *r);

#endif
