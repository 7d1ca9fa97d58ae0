/* Files for fuzz targets, in a folder that is removed at exit. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

static char folder[256], path[512], last[128];

static void remove_all(void) {
    char name[512];
    snprintf(name, sizeof name, "%s/%s", folder, last);
    if (last[0]) unlink(name);
    unlink(path);
    rmdir(folder);
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
    char full[512];
    make_folder();
    snprintf(last, sizeof last, "%s", name);
    snprintf(full, sizeof full, "%s/%s", folder, name);
    write_file(full, data, size, size);
    return folder;
}
