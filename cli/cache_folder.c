/* Where caches are, and whose files are believed. */
#include "cli/cache_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *cvq_cache_home(void) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool by_xdg = xdg && xdg[0] == '/';
    if (!by_xdg && (!home || home[0] != '/')) return NULL;
    size_t size = strlen(by_xdg ? xdg : home) + 32;
    char *path = malloc(size);
    if (path) snprintf(path, size, "%s%s/cvq", by_xdg ? xdg : home, by_xdg ? "" : "/.cache");
    return path;
}

bool cvq_cache_make_folder(const char *folder) {
    char path[PATH_MAX];
    size_t n = strlen(folder);
    if (n >= sizeof path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(path, folder, n + 1);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            return false;
        *slash = '/';
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

bool cvq_cache_path(const char *folder, const char *name, char path[PATH_MAX]) {
    int n = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return n > 0 && n < PATH_MAX;
}

/* Another's file could hold any answer. */
int cvq_cache_open_entry(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return -1;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid()) return fd;
    close(fd);
    return -1;
}
