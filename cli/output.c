/* Output files: checks before anything is written, then temporary name, sync and rename. */
#include "cli/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "cli/interrupt.h"

#define TEMP_SUFFIX ".tmp"
#define MAX_NAME_IN_TEMP 200 /* of the final name: with what is added it fits in NAME_MAX */

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether a file directly in this folder is the one of `st`. */
static bool folder_holds(const char *folder, const struct stat *st) {
    DIR *d = opendir(folder);
    if (!d) return false;
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        struct stat other;
        found = fstatat(dirfd(d), e->d_name, &other, 0) == 0 && S_ISREG(other.st_mode) &&
                same_file(st, &other);
    }
    closedir(d);
    return found;
}

cvq_status cvq_output_check_inputs(const char *path, const char *const *inputs, size_t num_inputs,
                                   cvq_error *err) {
    struct stat st, other;
    if (stat(path, &st) != 0) return CVQ_OK; /* not there yet */
    for (size_t i = 0; i < num_inputs; i++) {
        if (!inputs[i] || stat(inputs[i], &other) != 0) continue;
        if (same_file(&st, &other) || (S_ISDIR(other.st_mode) && folder_holds(inputs[i], &st)))
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, path,
                            "is read as input, so it cannot be the output; give another name");
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

/* FOLDER/.NAME.cvq-XXXXXX.tmp for FOLDER/NAME. */
static char *temp_name(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t size = strlen(path) + 32;
    char *temp = malloc(size);
    if (!temp) return NULL;
    snprintf(temp, size, "%.*s.%.*s.cvq-XXXXXX" TEMP_SUFFIX, (int)(name - path), path,
             MAX_NAME_IN_TEMP, name);
    return temp;
}

/* mkostemps makes a file for its owner only; a finished output has the usual rights. */
static void usual_rights(int fd) {
    mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(fd, 0666 & ~mask);
}

cvq_status cvq_output_open(cvq_output *out, const char *path, bool force, const char *const *inputs,
                           size_t num_inputs, cvq_error *err) {
    cvq_output o = CVQ_OUTPUT_NONE;
    o.force = force;
    CVQ_TRY(cvq_output_check_inputs(path, inputs, num_inputs, err));
    CVQ_TRY(check_existing(path, force, err));
    cvq_status status = CVQ_OK;
    o.path = strdup(path);
    o.temp = temp_name(path);
    if (!o.path || !o.temp) {
        status = cvq_fail(err, CVQ_OUT_OF_MEMORY, path, "no memory for the output's name");
        goto done;
    }
    o.fd = cvq_temp_create(o.temp, (int)strlen(TEMP_SUFFIX), &o.slot);
    if (o.fd < 0) {
        status = cvq_fail_errno(err, path, "cannot create a file in the output's folder");
        goto done;
    }
    usual_rights(o.fd);
    *out = o;
    return CVQ_OK;
done:
    free(o.path);
    free(o.temp);
    return status;
}

cvq_status cvq_output_scratch(const cvq_output *o, int *fd, cvq_error *err) {
    int slot;
    char *name = temp_name(o->path);
    if (!name) return cvq_fail(err, CVQ_OUT_OF_MEMORY, o->path, "no memory for the output's name");
    cvq_status status = CVQ_OK;
    int opened = cvq_temp_create(name, (int)strlen(TEMP_SUFFIX), &slot);
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
    int closed = close(o->fd);
    o->fd = -1;
    if (closed != 0) {
        status = cvq_fail_errno(err, o->path, "cannot close the output");
        goto done;
    }
    status = check_existing(o->path, o->force, err); /* it may have come up meanwhile */
    if (status != CVQ_OK) goto done;
    if (rename(o->temp, o->path) != 0) {
        status = cvq_fail_errno(err, o->path, "cannot give the finished output its name");
        goto done;
    }
    cvq_temp_forget(o->slot);
    sync_folder(o->path);
    free(o->path);
    free(o->temp);
    *o = (cvq_output)CVQ_OUTPUT_NONE;
done:
    if (status != CVQ_OK) cvq_output_discard(o);
    return status;
}

void cvq_output_discard(cvq_output *o) {
    if (!o || !o->temp) return;
    if (o->fd >= 0) close(o->fd);
    unlink(o->temp);
    cvq_temp_forget(o->slot);
    free(o->path);
    free(o->temp);
    *o = (cvq_output)CVQ_OUTPUT_NONE;
}
