/* Mapping, reading and writing files. */
#include "base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/checked.h"

static cvq_status open_regular(int *fd, uint64_t *size, const char *path, cvq_error *err) {
    /* O_NONBLOCK: opening a FIFO must not wait for a writer before it is refused. */
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return cvq_fail(err, CVQ_NOT_FOUND, path, "no such file");
        return cvq_fail_errno(err, path, "cannot open");
    }
    struct stat st;
    cvq_status status = CVQ_OK;
    if (fstat(f, &st) != 0)
        status = cvq_fail_errno(err, path, "cannot tell its size");
    else if (!S_ISREG(st.st_mode))
        status = cvq_fail(err, CVQ_IO, path, "not a regular file");
    if (status != CVQ_OK) {
        close(f);
        return status;
    }
    *fd = f;
    *size = (uint64_t)st.st_size;
    return CVQ_OK;
}

cvq_status cvq_file_map_open(cvq_file_map *map, const char *path, cvq_error *err) {
    int fd = -1;
    uint64_t size = 0;
    size_t n;
    CVQ_TRY(open_regular(&fd, &size, path, err));
    void *data = NULL;
    cvq_status status = CVQ_OK;
    if (!cvq_to_size(size, &n))
        status = cvq_fail(err, CVQ_OUT_OF_MEMORY, path, "larger than the address space");
    else if (n > 0 && (data = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        status = cvq_fail_errno(err, path, "cannot map %zu bytes", n);
    if (status != CVQ_OK) {
        close(fd);
        return status;
    }
    *map = (cvq_file_map){data, size, fd};
    return CVQ_OK;
}

void cvq_file_map_close(cvq_file_map *map) {
    if (!map) return;
    if (map->data) {
        munmap((void *)(uintptr_t)map->data, (size_t)map->size);
        close(map->fd);
    } else if (map->fd > 0) {
        close(map->fd); /* an empty file */
    }
    *map = (cvq_file_map){NULL, 0, -1};
}

/* A byte of each page, for systems without an advice for it. */
static void touch(const uint8_t *data, size_t size, size_t page) {
    for (size_t i = 0; i < size; i += page) (void)*(const volatile uint8_t *)(data + i);
}

static void populate(const uint8_t *data, size_t size, size_t page) {
#ifdef MADV_POPULATE_READ
    if (madvise((void *)(uintptr_t)data, size, MADV_POPULATE_READ) == 0 || errno != EINVAL) return;
#endif
    touch(data, size, page);
}

static void let_go(const cvq_file_map *map, size_t first, size_t size) {
    (void)madvise((void *)(uintptr_t)(map->data + first), size, MADV_DONTNEED);
#ifdef POSIX_FADV_DONTNEED
    (void)posix_fadvise(map->fd, (off_t)first, (off_t)size, POSIX_FADV_DONTNEED);
#endif
}

void cvq_file_map_advise(const cvq_file_map *map, uint64_t offset, uint64_t size,
                         cvq_advice advice) {
    static const int how[] = {[CVQ_ADVICE_WILLNEED] = MADV_WILLNEED,
                              [CVQ_ADVICE_DONTNEED] = MADV_DONTNEED,
                              [CVQ_ADVICE_SEQUENTIAL] = MADV_SEQUENTIAL};
    if (!map->data || offset >= map->size) return;
    if (size > map->size - offset) size = map->size - offset;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), first = (size_t)offset / page * page;
    size_t length = (size_t)(offset + size) - first;
    if (advice == CVQ_ADVICE_POPULATE)
        populate(map->data + first, length, page);
    else if (advice == CVQ_ADVICE_LET_GO)
        let_go(map, first, length);
    else
        (void)madvise((void *)(uintptr_t)(map->data + first), length, how[advice]);
}

static int lock_pages(const uint8_t *data, size_t size) {
#ifdef MLOCK_ONFAULT
    if (mlock2(data, size, MLOCK_ONFAULT) == 0) return 0;
    if (errno != ENOSYS && errno != EINVAL) return -1;
#endif
    return mlock(data, size);
}

cvq_status cvq_file_map_lock(const cvq_file_map *map, uint64_t offset, uint64_t size,
                             cvq_error *err) {
    struct rlimit limit;
    if (!cvq_range_within(offset, size, map->size))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_file_map_lock", "beyond the file's end");
    if (size == 0 || lock_pages(map->data + offset, (size_t)size) == 0) return CVQ_OK;
    int code = errno;
    double mb = (double)size / 1e6;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < size)
        return cvq_fail(err, CVQ_IO, "locked memory",
                        "this user may lock %.1f MB in memory, %.1f MB are needed; raise the limit "
                        "(ulimit -l, or memlock in /etc/security/limits.conf)",
                        (double)limit.rlim_cur / 1e6, mb);
    return cvq_fail(err, CVQ_IO, "locked memory", "cannot lock %.1f MB in memory: %s", mb,
                    strerror(code));
}

void cvq_file_advise(int fd, uint64_t offset, uint64_t size, cvq_advice advice) {
#if defined(POSIX_FADV_DONTNEED)
    int how = advice == CVQ_ADVICE_WILLNEED   ? POSIX_FADV_WILLNEED
              : advice == CVQ_ADVICE_DONTNEED ? POSIX_FADV_DONTNEED
                                              : POSIX_FADV_SEQUENTIAL;
    (void)posix_fadvise(fd, (off_t)offset, (off_t)size, how);
#else
    (void)fd, (void)offset, (void)size, (void)advice;
#endif
}

cvq_status cvq_read_all(int fd, uint64_t offset, void *data, size_t size, const char *where,
                        cvq_error *err) {
    uint8_t *p = data;
    while (size > 0) {
        ssize_t n = pread(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cvq_fail_errno(err, where, "cannot read at byte %" PRIu64, offset);
        if (n == 0)
            return cvq_fail(err, CVQ_IO, where,
                            "ends at byte %" PRIu64 ", which it did not when it was opened: get it "
                            "again and leave it alone meanwhile",
                            offset);
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return CVQ_OK;
}

static cvq_status too_large(const char *path, size_t cap, cvq_error *err) {
    return cvq_fail(err, CVQ_FORMAT, path,
                    "larger than the %zu bytes that such a file may have; is it the right one?",
                    cap);
}

/* To its end, in pieces: no more memory than it has bytes, whatever it said of its size. */
static cvq_status read_to_end(cvq_buffer *out, int fd, size_t cap, const char *path,
                              cvq_error *err) {
    cvq_buffer b = {0};
    cvq_status status = CVQ_OK;
    uint8_t piece[65536];
    while (status == CVQ_OK) {
        ssize_t n = pread(fd, piece, sizeof piece, (off_t)b.size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = cvq_fail_errno(err, path, "cannot read");
        if (n <= 0) break;
        if ((size_t)n > cap - b.size)
            status = too_large(path, cap, err);
        else
            status = cvq_buffer_append(&b, piece, (size_t)n, err);
    }
    if (status == CVQ_OK) status = cvq_buffer_append(&b, "", 1, err);
    if (status != CVQ_OK) {
        cvq_buffer_free(&b);
        return status;
    }
    b.size--; /* the NUL is not counted */
    cvq_buffer_free(out);
    *out = b;
    return CVQ_OK;
}

cvq_status cvq_read_file(cvq_buffer *out, const char *path, size_t cap, cvq_error *err) {
    int fd = -1;
    uint64_t size = 0;
    CVQ_TRY(open_regular(&fd, &size, path, err));
    const cvq_status status =
        size > cap ? too_large(path, cap, err) : read_to_end(out, fd, cap, path, err);
    close(fd);
    return status;
}

cvq_status cvq_file_map_read(cvq_buffer *out, const cvq_file_map *map, size_t cap, const char *path,
                             cvq_error *err) {
    return map->size > cap ? too_large(path, cap, err) : read_to_end(out, map->fd, cap, path, err);
}

cvq_status cvq_file_there(bool *there, const char *path, cvq_error *err) {
    struct stat st;
    *there = stat(path, &st) == 0;
    if (*there || errno == ENOENT || errno == ENOTDIR) return CVQ_OK;
    return cvq_fail_errno(err, path, "cannot tell whether it is there");
}

cvq_status cvq_path_join(char **out, const char *dir, const char *name, cvq_error *err) {
    size_t a = strlen(dir), b = strlen(name);
    void *path = NULL;
    CVQ_TRY(cvq_alloc(&path, (uint64_t)a + b + 2, 1, "path", err));
    memcpy(path, dir, a);
    ((char *)path)[a] = '/';
    memcpy((char *)path + a + 1, name, b);
    *out = path;
    return CVQ_OK;
}

cvq_status cvq_write_all(int fd, uint64_t offset, const void *data, size_t size, const char *where,
                         cvq_error *err) {
    const uint8_t *p = data;
    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cvq_fail_errno(err, where, "cannot write");
        if (n == 0) return cvq_fail(err, CVQ_IO, where, "cannot write: no progress");
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return CVQ_OK;
}

/* Bytes still to be had on the file's disk; unknown is plenty. */
static uint64_t free_bytes(int fd) {
    struct statvfs fs;
    if (fstatvfs(fd, &fs) != 0 || fs.f_frsize == 0) return UINT64_MAX;
    uint64_t bytes;
    return cvq_mul_u64(fs.f_bavail, fs.f_frsize, &bytes) ? bytes : UINT64_MAX;
}

cvq_status cvq_file_reserve(int fd, uint64_t size, const char *where, cvq_error *err) {
    struct stat st;
    if (size > INT64_MAX) return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "too large for a file");
    if (fstat(fd, &st) != 0) return cvq_fail_errno(err, where, "cannot tell its size");
    const uint64_t have = (uint64_t)st.st_blocks * 512, room = free_bytes(fd);
    if (size > have && size - have > room)
        return cvq_fail(err, CVQ_IO, where,
                        "No space left on its disk: %.1f MB more are needed, and %.1f MB are free; "
                        "make room, or write to another disk",
                        (double)(size - have) * 1e-6, (double)room * 1e-6);
#if defined(__linux__)
    if (fallocate(fd, 0, 0, (off_t)size) == 0) return CVQ_OK;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR)
        return cvq_fail_errno(err, where, "cannot set %" PRIu64 " bytes aside", size);
#endif
    if (ftruncate(fd, (off_t)size) != 0)
        return cvq_fail_errno(err, where, "cannot make it %" PRIu64 " bytes long", size);
    return CVQ_OK;
}
