/* Files mapped read-only or read, whole or in parts; and writing parts of one. */
#ifndef CVQ_BASE_FILE_MAP_H
#define CVQ_BASE_FILE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

typedef struct cvq_file_map {
    const uint8_t *data; /* NULL where size is 0 */
    uint64_t size;
    int fd; /* kept open for advice and fstat; -1 when closed */
} cvq_file_map;

/* A regular file only. *map is untouched on failure. */
cvq_status cvq_file_map_open(cvq_file_map *map, const char *path, cvq_error *err);
/* Takes NULL and an already closed map ({.fd = -1} or {0} with data NULL). */
void cvq_file_map_close(cvq_file_map *map);

typedef enum cvq_advice {
    CVQ_ADVICE_WILLNEED,
    CVQ_ADVICE_DONTNEED, /* by this process; it stays in the system's cache while there is room */
    CVQ_ADVICE_SEQUENTIAL,
    CVQ_ADVICE_POPULATE, /* read it and make its pages this process's own; waits for that */
    CVQ_ADVICE_LET_GO    /* out of the system's cache too, where nobody else has it mapped */
} cvq_advice;
/* A hint: the range is clipped to the file and widened to pages; failures are ignored. */
void cvq_file_map_advise(const cvq_file_map *map, uint64_t offset, uint64_t size,
                         cvq_advice advice);

/* The range stays in memory, page by page as it gets there, until the file is closed. The message
 * of a refusal names the limit. */
cvq_status cvq_file_map_lock(const cvq_file_map *map, uint64_t offset, uint64_t size,
                             cvq_error *err);

/* The same for a file that is read, not mapped: its pages in the system's cache are brought in, or
 * given up (which frees none that are mapped). */
void cvq_file_advise(int fd, uint64_t offset, uint64_t size, cvq_advice advice);
/* Exactly these bytes; a file that ends before them is CVQ_IO. */
cvq_status cvq_read_all(int fd, uint64_t offset, void *data, size_t size, const char *where,
                        cvq_error *err);

/* Read a whole regular file of at most `cap` bytes, with one NUL appended that *size does not
 * count. A larger one is CVQ_FORMAT. */
cvq_status cvq_read_file(cvq_buffer *out, const char *path, size_t cap, cvq_error *err);
/* The same of a file that is open, and was mapped to look at its beginning. */
cvq_status cvq_file_map_read(cvq_buffer *out, const cvq_file_map *map, size_t cap, const char *path,
                             cvq_error *err);

/* Whether anything has this name; fails where that cannot be told. */
cvq_status cvq_file_there(bool *there, const char *path, cvq_error *err);

/* "dir/name"; release with free(). */
cvq_status cvq_path_join(char **out, const char *dir, const char *name, cvq_error *err);

/* All of data at offset, whatever the number of write calls it takes. `where` names the file in
 * errors. */
cvq_status cvq_write_all(int fd, uint64_t offset, const void *data, size_t size, const char *where,
                         cvq_error *err);
/* Gives a file its final size, with room on the disk for all of it where the file system can
 * promise that, so that a disk too small is found before the work. Bytes not written read as 0. */
cvq_status cvq_file_reserve(int fd, uint64_t size, const char *where, cvq_error *err);

#endif
