/* Output files: checks before anything is written, then temporary name, sync and rename. The
 * temporary file is locked (flock) for as long as it is written; the system drops the lock of a
 * process that dies, so a file without a lock is a leftover. */
#include "cli/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "cli/interrupt.h"

#define PARTIAL_SUFFIX ".partial"
#define JOURNAL_SUFFIX ".journal"
#define MAX_NAME_IN_TEMP 200 /* of the final name: with what is added it fits in NAME_MAX */

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether a file directly in this folder is the one of `st`. */
static cvq_status folder_holds(bool *found, const char *folder, const struct stat *st,
                               cvq_error *err) {
    cvq_status status = CVQ_OK;
    DIR *d = opendir(folder);
    if (!d) return cvq_fail_errno(err, folder, "cannot list this folder");
    for (*found = false; !*found;) {
        struct stat other;
        errno = 0;
        const struct dirent *e = readdir(d);
        if (!e && errno) status = cvq_fail_errno(err, folder, "cannot list this folder");
        if (!e) break;
        if (fstatat(dirfd(d), e->d_name, &other, 0) == 0)
            *found = S_ISREG(other.st_mode) && same_file(st, &other);
        else if (errno != ENOENT && errno != ELOOP && errno != EACCES) /* links to nowhere */
            status = cvq_fail_errno(err, folder, "cannot look at %s in this folder", e->d_name);
        if (status != CVQ_OK) break;
    }
    closedir(d);
    return status;
}

/* name: the output's own, or one under which it is written first. */
static cvq_status check_name(const char *name, const char *path, const char *const *inputs,
                             size_t num_inputs, cvq_error *err) {
    struct stat st, other;
    if (stat(name, &st) != 0) return CVQ_OK; /* not there yet */
    for (size_t i = 0; i < num_inputs; i++) {
        if (!inputs[i]) continue;
        if (stat(inputs[i], &other) != 0) {
            if (errno == ENOENT) continue;
            return cvq_fail_errno(err, inputs[i], "cannot look at it");
        }
        bool same = same_file(&st, &other);
        if (!same && S_ISDIR(other.st_mode)) CVQ_TRY(folder_holds(&same, inputs[i], &st, err));
        if (same && name != path)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, name,
                            "is read as input, and %s would first be written under this name; give "
                            "the output another one",
                            path);
        if (same)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, path,
                            "is read as input, so it cannot be the output; give another name");
    }
    return CVQ_OK;
}

/* FOLDER/NAME.partial for FOLDER/NAME, whose end is cut off where it would grow too long; suffix is
 * what else comes behind. */
static char *temp_name(const char *path, const char *suffix) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t size = strlen(path) + 64;
    char *temp = malloc(size);
    if (!temp) return NULL;
    snprintf(temp, size, "%.*s%.*s" PARTIAL_SUFFIX "%s", (int)(name - path), path, MAX_NAME_IN_TEMP,
             name, suffix);
    return temp;
}

cvq_status cvq_output_check_inputs(const char *path, const char *const *inputs, size_t num_inputs,
                                   cvq_error *err) {
    static const char *const suffixes[] = {"", JOURNAL_SUFFIX};
    CVQ_TRY(check_name(path, path, inputs, num_inputs, err));
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char *temp = temp_name(path, suffixes[i]);
        if (!temp) return cvq_fail(err, CVQ_OUT_OF_MEMORY, path, "no memory for the output's name");
        const cvq_status status = check_name(temp, path, inputs, num_inputs, err);
        free(temp);
        CVQ_TRY(status);
    }
    return CVQ_OK;
}

/* What stands under the final name now. */
static cvq_status check_existing(const char *path, bool force, cvq_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) {
        if (errno == ENOENT) return CVQ_OK;
        return cvq_fail_errno(err, path, "cannot look at the output");
    }
    if (S_ISDIR(st.st_mode))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, path,
                        "is a folder; give the name of a file in it");
    if (S_ISLNK(st.st_mode))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, path,
                        "is a link; give the name of the file itself");
    if (!S_ISREG(st.st_mode))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, path,
                        "is not a regular file; give the name of one");
    if (!force)
        return cvq_fail(err, CVQ_EXISTS, path,
                        "exists already; remove it, give another name or use --force");
    return CVQ_OK;
}

/* A finished output has the usual rights. */
static void usual_rights(int fd) {
    mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(fd, 0666 & ~mask);
}

/* Nobody else's file may become the output, or be written over. */
static cvq_status check_own(int fd, const char *path, struct stat *st, cvq_error *err) {
    if (fstat(fd, st) != 0) return cvq_fail_errno(err, path, "cannot look at it");
    if (S_ISREG(st->st_mode) && st->st_uid == geteuid() && st->st_nlink <= 1) return CVQ_OK;
    return cvq_fail(err, CVQ_EXISTS, path,
                    "is in the way: the output is first written under this name; remove it");
}

/* Opens and locks it. *fd is -1 where it was another process's just now, and has gone since. */
static cvq_status try_partial(int *fd, const char *path, const char *output, cvq_error *err) {
    struct stat st, now;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (*fd < 0) return cvq_fail_errno(err, output, "cannot create a file in the output's folder");
    cvq_status status = check_own(*fd, path, &st, err);
    if (status == CVQ_OK && flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        status = cvq_fail(err, CVQ_EXISTS, path,
                          "is being written by another process: wait for it, or give the output "
                          "another name");
    if (status == CVQ_OK && lstat(path, &now) == 0 && same_file(&st, &now)) return CVQ_OK;
    close(*fd);
    *fd = -1;
    return status;
}

static cvq_status open_partial(int *fd, const char *path, const char *output, cvq_error *err) {
    for (int i = 0; i < 100; i++) {
        CVQ_TRY(try_partial(fd, path, output, err));
        if (*fd >= 0) return CVQ_OK;
    }
    return cvq_fail(err, CVQ_IO, path, "other processes keep on creating and removing it");
}

static cvq_status open_journal(cvq_output *o, bool resume, cvq_error *err) {
    struct stat st;
    o->journal_path = temp_name(o->path, JOURNAL_SUFFIX);
    if (!o->journal_path)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, o->path, "no memory for the output's name");
    o->journal =
        open(o->journal_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (o->journal < 0)
        return cvq_fail_errno(err, o->path, "cannot create a file in the output's folder");
    CVQ_TRY(check_own(o->journal, o->journal_path, &st, err));
    o->leftover = st.st_size > 0;
    if (!resume && ftruncate(o->journal, 0) != 0)
        return cvq_fail_errno(err, o->journal_path, "cannot empty it");
    return CVQ_OK;
}

/* Closes without removing anything. */
static void close_all(cvq_output *o) {
    if (o->fd >= 0) close(o->fd);
    if (o->journal >= 0) close(o->journal);
    cvq_temp_forget(o->slot);
    free(o->path);
    free(o->temp);
    free(o->journal_path);
    *o = (cvq_output)CVQ_OUTPUT_NONE;
}

static cvq_status open_output(cvq_output *out, const char *path, bool force, bool resumable,
                              bool resume, cvq_error *err) {
    cvq_output o = CVQ_OUTPUT_NONE;
    cvq_status status = CVQ_OK;
    o.force = force;
    o.path = strdup(path);
    o.temp = temp_name(path, "");
    if (!o.path || !o.temp)
        status = cvq_fail(err, CVQ_OUT_OF_MEMORY, path, "no memory for the output's name");
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): close_all frees it */
    if (status == CVQ_OK) status = open_partial(&o.fd, o.temp, path, err);
    if (status == CVQ_OK && resumable) status = open_journal(&o, resume, err);
    if (status == CVQ_OK && !resume && ftruncate(o.fd, 0) != 0)
        status = cvq_fail_errno(err, o.temp, "cannot empty it");
    /* What can be resumed is left to a second signal, too. */
    if (status == CVQ_OK && !resumable && !cvq_temp_note(o.temp, &o.slot))
        status = cvq_fail(err, CVQ_INTERNAL, path, "too many outputs at once");
    if (status != CVQ_OK) {
        struct stat st;
        if (o.fd >= 0 && fstat(o.fd, &st) == 0 && st.st_size == 0) unlink(o.temp);
        close_all(&o);
        return status;
    }
    usual_rights(o.fd);
    *out = o;
    return CVQ_OK;
}

cvq_status cvq_output_open(cvq_output *out, const char *path, bool force, const char *const *inputs,
                           size_t num_inputs, cvq_error *err) {
    CVQ_TRY(cvq_output_check_inputs(path, inputs, num_inputs, err));
    CVQ_TRY(check_existing(path, force, err));
    return open_output(out, path, force, false, false, err);
}

cvq_status cvq_output_open_resumable(cvq_output *out, const char *path, bool force, bool resume,
                                     const char *const *inputs, size_t num_inputs, cvq_error *err) {
    CVQ_TRY(cvq_output_check_inputs(path, inputs, num_inputs, err));
    CVQ_TRY(check_existing(path, force, err));
    return open_output(out, path, force, true, resume, err);
}

cvq_status cvq_output_scratch(const cvq_output *o, int *fd, cvq_error *err) {
    char *name = temp_name(o->path, ".XXXXXX");
    if (!name) return cvq_fail(err, CVQ_OUT_OF_MEMORY, o->path, "no memory for the output's name");
    cvq_status status = CVQ_OK;
    int slot;
    int opened = cvq_temp_create(name, &slot);
    if (opened < 0) {
        status = cvq_fail_errno(err, o->path, "cannot create a file in the output's folder");
    } else {
        unlink(name);
        cvq_temp_forget(slot);
        *fd = opened;
    }
    free(name);
    return status;
}

/* So that the rename itself survives a power cut. Not every file system can; that is no error. */
static void sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX] = ".";
    if (slash) {
        size_t n = slash == path ? 1 : (size_t)(slash - path);
        if (n >= sizeof folder) return;
        memcpy(folder, path, n);
        folder[n] = '\0';
    }
    int fd = open(folder, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd);
    close(fd);
}

cvq_status cvq_output_commit(cvq_output *o, cvq_error *err) {
    cvq_status status = CVQ_OK;
    if (fsync(o->fd) != 0) {
        status = cvq_fail_errno(err, o->path, "cannot write the output to its disk");
        goto done;
    }
    status = check_existing(o->path, o->force, err); /* it may have come up meanwhile */
    if (status != CVQ_OK) goto done;
    if (o->journal_path) unlink(o->journal_path);
    if (rename(o->temp, o->path) != 0) { /* still locked: nobody else takes it for a leftover */
        status = cvq_fail_errno(err, o->path, "cannot give the finished output its name");
        goto done;
    }
    sync_folder(o->path);
    close_all(o);
done:
    if (status != CVQ_OK) cvq_output_discard(o);
    return status;
}

void cvq_output_keep(cvq_output *o) {
    if (o && o->temp) close_all(o);
}

void cvq_output_discard(cvq_output *o) {
    if (!o || !o->temp) return;
    if (o->journal_path) unlink(o->journal_path);
    unlink(o->temp);
    close_all(o);
}

cvq_status cvq_output_open_growing(int *fd, const char *path, cvq_error *err) {
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, path,
                        "is not a regular file; what it holds is read back to go on, so give the "
                        "name of one");
    const int opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (opened < 0) return cvq_fail_errno(err, path, "cannot open");
    if (flock(opened, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(opened);
        return cvq_fail(err, CVQ_EXISTS, path,
                        "is being written by another command; wait for it or give another name");
    }
    *fd = opened;
    return CVQ_OK;
}
