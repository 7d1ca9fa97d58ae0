/* A folder of a test's own, made in $TMPDIR or /tmp and removed with all that is in it. */
#ifndef CVQ_TESTS_TEMP_FOLDER_H
#define CVQ_TESTS_TEMP_FOLDER_H

#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char temp_folder[256];

static inline bool temp_open(void) {
    const char *base = getenv("TMPDIR");
    if (!base || !*base || strlen(base) > 200) base = "/tmp";
    snprintf(temp_folder, sizeof temp_folder, "%s/cvq-test-XXXXXX", base);
    if (mkdtemp(temp_folder)) return true;
    printf("cannot make a folder in %s\n", base);
    return false;
}

/* Good for the next seven calls. */
static inline const char *temp_path(const char *name) {
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", temp_folder, name);
    return path;
}

static inline void temp_write(const char *name, const void *data, size_t size) {
    FILE *f = fopen(temp_path(name), "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        printf("cannot write %s\n", name);
        exit(1);
    }
}

static inline void temp_write_text(const char *name, const char *text) {
    temp_write(name, text, strlen(text));
}

static inline int temp_remove_one(const char *path, const struct stat *st, int kind,
                                  struct FTW *ftw) {
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline void temp_close(void) {
    nftw(temp_folder, temp_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
