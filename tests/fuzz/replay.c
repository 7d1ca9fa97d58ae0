/* Runs a fuzz target on files and folders of files, where there is no fuzzer: replay PATH... */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "tests/fuzz/fuzz.h"

static size_t runs;

static int run_file(const char *path) {
    cvq_buffer bytes = {0};
    cvq_error err = {0};
    if (cvq_read_file(&bytes, path, (size_t)1 << 28, &err) != CVQ_OK) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        return 1;
    }
    /* A copy of exactly this size, so that a sanitizer sees a read past its end. */
    uint8_t *copy = malloc(bytes.size ? bytes.size : 1);
    if (!copy) abort();
    if (bytes.size) memcpy(copy, bytes.data, bytes.size);
    LLVMFuzzerTestOneInput(copy, bytes.size);
    free(copy);
    cvq_buffer_free(&bytes);
    runs++;
    return 0;
}

static int run_folder(DIR *d, const char *path) {
    int failed = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char name[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        failed |= run_file(name);
    }
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        failed |= d ? run_folder(d, argv[i]) : run_file(argv[i]);
        if (d) closedir(d);
    }
    printf("%zu inputs, %zu accepted\n", runs, fuzz_num_accepted);
    return failed;
}
