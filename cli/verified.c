/* A record is named by what the file was; it is the bits, and their SHA-256. */
#include "cli/verified.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/file_map.h"
#include "base/file_time.h"
#include "cli/cache_folder.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "formats/chunk_hash.h"

#define MAX_BITS (1u << 20) /* bytes: a file of 8 TiB */
#define SUFFIX ".verified"
#define OLD_SECONDS (180 * 86400)
#define TEMP ".verified-XXXXXX"

/* The SHA-256 of all that tells this very file: its name in the folder. */
static bool name_of(const cvq_model *model, const char *path, char name[128]) {
    struct stat st;
    uint8_t what[56 + 64], hash[CVQ_HASH_BYTES];
    if (stat(path, &st) != 0) return false;
    const struct timespec changed = cvq_file_changed(&st), modified = cvq_file_modified(&st);
    const uint64_t values[7] = {(uint64_t)st.st_dev,        (uint64_t)st.st_ino,
                                (uint64_t)st.st_size,       (uint64_t)modified.tv_sec,
                                (uint64_t)modified.tv_nsec, (uint64_t)changed.tv_sec,
                                (uint64_t)changed.tv_nsec};
    for (size_t i = 0; i < 7; i++) cvq_store_le(what + 8 * i, values[i], 8);
    memcpy(what + 56, cvq_model_describe(model)->id, 64);
    if (cvq_sha256(what, sizeof what, hash, NULL) != CVQ_OK) return false;
    cvq_hash_hex(hash, name);
    memcpy(name + 64, SUFFIX, sizeof SUFFIX);
    return true;
}

/* The bits of a record that is whole. */
static bool read_record(const char *path, uint8_t *bits, size_t size) {
    cvq_buffer b = {0};
    uint8_t hash[CVQ_HASH_BYTES];
    int fd = cvq_cache_open_entry(path); /* whose it is, before it is read by its name */
    if (fd < 0) return false;
    close(fd);
    bool good = cvq_read_file(&b, path, MAX_BITS + CVQ_HASH_BYTES, NULL) == CVQ_OK &&
                b.size == size + CVQ_HASH_BYTES && cvq_sha256(b.data, size, hash, NULL) == CVQ_OK &&
                memcmp(hash, b.data + size, sizeof hash) == 0;
    if (good) memcpy(bits, b.data, size);
    cvq_buffer_free(&b);
    return good;
}

void cvq_verified_load(cvq_verified *v, const cvq_common *common, cvq_model *model,
                       const char *path) {
    char name[128], full[PATH_MAX];
    char *folder = cvq_cache_home();
    *v = (cvq_verified){.common = common};
    (void)cvq_model_verified(model, NULL, 0, &v->size, NULL);
    if (v->size == 0 || v->size > MAX_BITS || !folder || !name_of(model, path, name) ||
        !cvq_cache_path(folder, name, full))
        goto done;
    v->bits = calloc(1, v->size);
    v->path = v->bits ? strdup(full) : NULL;
    if (v->path && read_record(full, v->bits, v->size)) {
        (void)cvq_model_trust(model, v->bits, v->size, NULL);
        cvq_say_more(common, "weights that were verified before are not hashed again: %s", full);
    }
done:
    free(folder);
}

/* Records of files that have been gone for long. */
static void remove_old(const char *folder) {
    DIR *d = opendir(folder);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        const size_t n = strlen(e->d_name), suffix = sizeof SUFFIX - 1;
        if (n <= suffix || strcmp(e->d_name + n - suffix, SUFFIX) != 0) continue;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            time(NULL) - st.st_mtime > OLD_SECONDS)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

static bool write_record(const char *path, const uint8_t *bits, size_t size) {
    char temp[PATH_MAX], folder[PATH_MAX];
    uint8_t hash[CVQ_HASH_BYTES];
    int slot;
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (!cvq_cache_make_folder(folder) || !cvq_cache_path(folder, TEMP, temp)) return false;
    if (cvq_sha256(bits, size, hash, NULL) != CVQ_OK) return false;
    int fd = cvq_temp_create(temp, &slot);
    if (fd < 0) return false;
    bool good = cvq_write_all(fd, 0, bits, size, temp, NULL) == CVQ_OK &&
                cvq_write_all(fd, size, hash, sizeof hash, temp, NULL) == CVQ_OK;
    good = close(fd) == 0 && good;
    good = good && rename(temp, path) == 0;
    if (!good) unlink(temp);
    cvq_temp_forget(slot);
    if (good) remove_old(folder);
    return good;
}

void cvq_verified_keep(cvq_verified *v, const cvq_model *model) {
    uint8_t *bits = v->path ? calloc(1, v->size) : NULL;
    size_t size;
    if (bits && cvq_model_verified(model, bits, v->size, &size, NULL) == CVQ_OK &&
        memcmp(bits, v->bits, v->size) != 0 && !write_record(v->path, bits, v->size))
        cvq_say_more(v->common, "%s: what was verified is not remembered", v->path);
    free(bits);
    free(v->bits);
    free(v->path);
    *v = (cvq_verified){0};
}
