/* A file's times, to the nanosecond, by the names that Linux and macOS have for them. */
#ifndef CVQ_BASE_FILE_TIME_H
#define CVQ_BASE_FILE_TIME_H

#include <sys/stat.h>
#include <time.h>

/* When its bytes were last written. */
static inline struct timespec cvq_file_modified(const struct stat *st) {
#ifdef __APPLE__
    return st->st_mtimespec;
#else
    return st->st_mtim;
#endif
}

/* When its bytes, name, owner or rights last changed. */
static inline struct timespec cvq_file_changed(const struct stat *st) {
#ifdef __APPLE__
    return st->st_ctimespec;
#else
    return st->st_ctim;
#endif
}

#endif
