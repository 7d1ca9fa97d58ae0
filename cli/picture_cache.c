/* A folder of files named by cvq_image_key. A file's time of change is when it was last used. Files
 * appear by rename alone, so that any number of processes may share the folder without a lock: what
 * two of them write at once is the same, and what one removes another may still read. */
#include "cli/picture_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file_time.h"
#include "cli/cache_folder.h"
#include "cli/interrupt.h"
#include "cli/messages.h"

#define SUFFIX ".picture"
#define TEMP_PREFIX ".picture-"
#define HEX_DIGITS (2 * CVQ_IMAGE_KEY_BYTES)
#define NAME_BYTES (HEX_DIGITS + sizeof SUFFIX)
/* A temporary file that nobody has written to for so long belongs to a process that was killed. */
#define STALE_SECONDS 3600
#define READ_BYTES ((size_t)8 << 20) /* at once */

/* ---------------------------------------------------------------- where */

void cvq_picture_cache_open(cvq_picture_cache *c, const cvq_common *common, uint64_t capacity) {
    *c = (cvq_picture_cache){.common = common, .folder = cvq_cache_home(), .capacity = capacity};
    if (!c->folder)
        cvq_say_more(common, "no cache of pictures: neither XDG_CACHE_HOME nor HOME names a "
                             "folder");
}

void cvq_picture_cache_close(cvq_picture_cache *c) {
    free(c->folder);
    *c = (cvq_picture_cache){0};
}

static bool name_of(const cvq_image *image, const cvq_session *session, char name[NAME_BYTES]) {
    uint8_t key[CVQ_IMAGE_KEY_BYTES];
    if (cvq_image_key(image, session, key, NULL) != CVQ_OK) return false;
    cvq_hex_id(key, name);
    memcpy(name + HEX_DIGITS, SUFFIX, sizeof SUFFIX);
    return true;
}

/* ---------------------------------------------------------------- finding */

/* Ctrl-C ends it: a picture of the real model's is hundreds of MB, on a disk that may be slow. */
static size_t read_file(void *context, void *data, size_t size) {
    int fd = *(int *)context;
    size_t done = 0;
    while (done < size && !cvq_interrupted()) {
        const size_t left = size - done;
        ssize_t n = read(fd, (char *)data + done, left < READ_BYTES ? left : READ_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += (size_t)n;
    }
    return done;
}

/* What is loaded must be what the file's name says. */
static cvq_status load_entry(cvq_image **out, int fd, const cvq_model *model,
                             const cvq_session *session, const char *expected, cvq_error *err) {
    char name[NAME_BYTES];
    cvq_image *image;
    cvq_status status = cvq_image_load(&image, model, read_file, &fd, err);
    if (status != CVQ_OK) return status;
    if (!name_of(image, session, name) || strcmp(name, expected) != 0 ||
        !cvq_image_ready(image, session)) {
        cvq_image_free(image);
        return cvq_fail(err, CVQ_MISMATCH, "saved picture", "is not what its name says");
    }
    *out = image;
    return CVQ_OK;
}

void cvq_picture_cache_find(const cvq_picture_cache *c, const cvq_model *model,
                            const cvq_session *session, cvq_image **image) {
    char name[NAME_BYTES], path[PATH_MAX];
    cvq_error err = {0};
    cvq_image *found;
    if (!c->folder || !name_of(*image, session, name) || !cvq_cache_path(c->folder, name, path))
        return;
    int fd = cvq_cache_open_entry(path);
    if (fd < 0) return;
    cvq_status status = load_entry(&found, fd, model, session, name, &err);
    if (status == CVQ_OK) {
        (void)futimens(fd, NULL); /* used just now; without the right to say so it stays older */
        cvq_image_free(*image);
        *image = found;
        cvq_say_more(c->common, "the picture is in the cache: %s", path);
    } else if (status != CVQ_OUT_OF_MEMORY && !cvq_interrupted()) {
        cvq_say_more(c->common, "%s: %s %s; it is made anew", path, err.where, err.message);
        (void)unlink(path);
    }
    close(fd);
}

/* ---------------------------------------------------------------- room */

typedef struct entry {
    char name[NAME_BYTES];
    uint64_t bytes;
    struct timespec used;
} entry;

/* What the folder holds, least recently used first. */
typedef struct listing {
    entry *entries;
    size_t count, room, next; /* next: those before it are removed */
    uint64_t bytes;           /* of what is left, temporary files included */
} listing;

static bool is_entry(const char *name) {
    return strspn(name, "0123456789abcdef") == HEX_DIGITS && strcmp(name + HEX_DIGITS, SUFFIX) == 0;
}

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const entry *)a)->used, *y = &((const entry *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

static void add_entry(listing *l, const char *name, const struct stat *st) {
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        entry *more = realloc(l->entries, room * sizeof *more);
        if (!more) return; /* it is not among those that may be removed */
        l->entries = more;
        l->room = room;
    }
    entry *e = &l->entries[l->count++];
    memcpy(e->name, name, NAME_BYTES);
    e->bytes = (uint64_t)st->st_size;
    e->used = cvq_file_modified(st);
}

static void list_folder(listing *l, const char *folder) {
    *l = (listing){0};
    DIR *d = opendir(folder);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        bool temporary = strncmp(e->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0;
        if (!temporary && !is_entry(e->d_name)) continue;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (temporary && time(NULL) - st.st_mtime > STALE_SECONDS) {
            unlinkat(dirfd(d), e->d_name, 0);
            continue;
        }
        l->bytes += (uint64_t)st.st_size;
        if (!temporary) add_entry(l, e->d_name, &st);
    }
    closedir(d);
    if (l->count) qsort(l->entries, l->count, sizeof *l->entries, by_use);
}

/* ---------------------------------------------------------------- keeping */

typedef struct writer {
    const cvq_picture_cache *cache;
    int fd;
    uint64_t written;
    listing others;
    const char *problem;
} writer;

/* Removes files until what is written, and `more`, fits beside the others. */
static bool make_room(writer *w, uint64_t more) {
    char path[PATH_MAX];
    listing *l = &w->others;
    uint64_t need = w->written + more, capacity = w->cache->capacity;
    while (need > capacity || l->bytes > capacity - need) {
        if (l->next == l->count) return false;
        const entry *oldest = &l->entries[l->next++];
        if (!cvq_cache_path(w->cache->folder, oldest->name, path)) return false;
        if (unlink(path) != 0 && errno != ENOENT) return false;
        l->bytes -= oldest->bytes;
    }
    return true;
}

static int write_piece(void *context, const void *data, size_t size) {
    writer *w = context;
    if (!make_room(w, size)) {
        w->problem = "--cache-size leaves no room for it";
        return 1;
    }
    for (size_t done = 0; done < size;) {
        ssize_t n = write(w->fd, (const char *)data + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            w->problem = n < 0 ? strerror(errno) : "nothing could be written";
            return 1;
        }
        done += (size_t)n;
    }
    w->written += size;
    return 0;
}

/* NULL, or what went wrong. */
static const char *write_entry(const cvq_picture_cache *c, const cvq_image *image,
                               const char *path) {
    char temp[PATH_MAX];
    int slot;
    writer w = {.cache = c};
    cvq_error err = {0};
    if (!cvq_cache_make_folder(c->folder)) return strerror(errno);
    if (!cvq_cache_path(c->folder, TEMP_PREFIX "XXXXXX", temp)) return strerror(ENAMETOOLONG);
    list_folder(&w.others, c->folder);
    w.fd = cvq_temp_create(temp, &slot);
    if (w.fd < 0) {
        w.problem = strerror(errno);
    } else {
        bool good = cvq_image_save(image, write_piece, &w, &err) == CVQ_OK;
        if (!good && !w.problem) w.problem = "there is no memory for writing it";
        if (close(w.fd) != 0 && good) w.problem = strerror(errno);
        if (!w.problem && rename(temp, path) != 0) w.problem = strerror(errno);
        if (w.problem) unlink(temp);
        cvq_temp_forget(slot);
    }
    free(w.others.entries);
    return w.problem;
}

void cvq_picture_cache_keep(cvq_picture_cache *c, const cvq_session *session,
                            const cvq_image *image) {
    char name[NAME_BYTES], path[PATH_MAX];
    struct stat st;
    if (!c->folder || c->failed || !cvq_image_ready(image, session)) return;
    if (!name_of(image, session, name) || !cvq_cache_path(c->folder, name, path)) return;
    if (lstat(path, &st) == 0) return;
    const char *problem = write_entry(c, image, path);
    c->failed = problem != NULL;
    if (problem)
        cvq_say_more(c->common, "%s: the picture is not kept in the cache: %s", c->folder, problem);
    else
        cvq_say_more(c->common, "the picture is kept in the cache: %s", path);
}
