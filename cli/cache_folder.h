/* The folder where commands keep what they need not compute again: $XDG_CACHE_HOME/cvq or
 * ~/.cache/cvq. Files appear by rename alone, so that any number of processes may share it without
 * a lock, and nobody else's file is believed. docs/cache.md. */
#ifndef CVQ_CLI_CACHE_FOLDER_H
#define CVQ_CLI_CACHE_FOLDER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* As the XDG base directory specification says: a path that is not absolute counts for nothing.
 * NULL: there is none. Release with free(). */
char *cvq_cache_home(void);
/* The folder and those above it, for nobody else to read. False, with errno. */
bool cvq_cache_make_folder(const char *folder);
/* "folder/name"; false: it is too long. */
bool cvq_cache_path(const char *folder, const char *name, char path[PATH_MAX]);
/* For reading: a regular file of this user's, not a link. -1: there is none. */
int cvq_cache_open_entry(const char *path);

#endif
