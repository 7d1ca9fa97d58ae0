/* What fuzz targets share: files, in a folder that is removed at exit, and the count of what was
 * let in. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"

#define MOST_NAMES 4

size_t fuzz_num_accepted;

void fuzz_accepted(void) {
    fuzz_num_accepted++;
}

size_t fuzz_take(void *cursor, void *data, size_t size) {
    cvq_cursor *c = cursor;
    const size_t n = size < c->left ? size : c->left;
    memcpy(data, cvq_cursor_bytes(c, n), n);
    return n;
}

static char folder[256], path[512];
static char names[MOST_NAMES][128]; /* of the files of fuzz_folder */

static void remove_all(void) {
    char name[1024];
    for (size_t i = 0; i < MOST_NAMES && names[i][0]; i++) {
        snprintf(name, sizeof name, "%s/%s", folder, names[i]);
        unlink(name);
    }
    unlink(path);
    rmdir(folder);
}

static void note_name(const char *name) {
    size_t i = 0;
    while (i < MOST_NAMES && names[i][0] && strcmp(names[i], name) != 0) i++;
    if (i == MOST_NAMES) abort();
    snprintf(names[i], sizeof names[i], "%s", name);
}

static void make_folder(void) {
    if (folder[0]) return;
    const char *base = getenv("TMPDIR");
    if (!base || !*base || strlen(base) > 200) base = "/tmp";
    snprintf(folder, sizeof folder, "%s/cvq-fuzz-XXXXXX", base);
    if (!mkdtemp(folder)) abort();
    snprintf(path, sizeof path, "%s/file", folder);
    atexit(remove_all);
}

static void write_file(const char *name, const uint8_t *data, size_t size, uint64_t length) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) abort();
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, data + done, size - done);
        if (n <= 0) abort();
        done += (size_t)n;
    }
    if (length > size && ftruncate(fd, (off_t)length) != 0) abort();
    close(fd);
}

const char *fuzz_file(const uint8_t *data, size_t size, uint64_t length) {
    make_folder();
    write_file(path, data, size, length);
    return path;
}

const char *fuzz_folder(const char *name, const uint8_t *data, size_t size) {
    char full[1024];
    make_folder();
    note_name(name);
    snprintf(full, sizeof full, "%s/%s", folder, name);
    write_file(full, data, size, size);
    return folder;
}
