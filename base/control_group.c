/* /proc/self/cgroup, and the files of one group. */
#include "base/control_group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cvq_system_line(const char *folder, const char *name, char *line, size_t size) {
    char path[512];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
    if (!f) return false;
    bool ok = fgets(line, (int)size, f) != NULL;
    if (ok) line[strcspn(line, "\n")] = 0;
    fclose(f);
    return ok;
}

bool cvq_system_number(const char *folder, const char *name, uint64_t *number) {
    char line[64], *end;
    if (!cvq_system_line(folder, name, line, sizeof line) || *line < '0' || *line > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(line, &end, 10);
    if (*end || errno) return false;
    *number = value;
    return true;
}

#if defined(__linux__)

/* "cpu" in "cpu,cpuacct". */
static bool lists(const char *controllers, const char *controller) {
    size_t n = strlen(controller);
    for (const char *p = controllers; (p = strstr(p, controller)) != NULL; p += n)
        if ((p == controllers || p[-1] == ',') && (p[n] == ',' || p[n] == 0)) return true;
    return false;
}

/* Version 2 ("0::/path") and version 1 ("4:cpu,cpuacct:/path"). */
void cvq_control_groups(const char *controller, cvq_group_fn fn, void *context) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[384], root[64], folder[480];
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        controllers++;
        if (*controllers != 0 && !lists(controllers, controller)) continue;
        snprintf(root, sizeof root, "/sys/fs/cgroup%s%s", *controllers ? "/" : "",
                 *controllers ? controller : "");
        snprintf(folder, sizeof folder, "%s%s", root, strcmp(group, "/") == 0 ? "" : group);
        for (;;) {
            fn(context, folder);
            char *slash = strrchr(folder, '/');
            if (!slash || (size_t)(slash - folder) < strlen(root)) break;
            *slash = 0;
        }
    }
    fclose(f);
}

#else

void cvq_control_groups(const char *controller, cvq_group_fn fn, void *context) {
    (void)controller, (void)fn, (void)context;
}

#endif
