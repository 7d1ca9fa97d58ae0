/* The only OpenMP in cvq, and how many threads a process should use. */
#include "base/parallel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

void cvq_parallel_for(int threads, size_t n, cvq_parallel_fn fn, void *context) {
    if (threads > CVQ_MAX_THREADS) threads = CVQ_MAX_THREADS;
    if (threads <= 1 || n <= 1) {
        for (size_t i = 0; i < n; i++) fn(context, i, 0);
        return;
    }
#if defined(_OPENMP)
    if ((size_t)threads > n) threads = (int)n;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (size_t i = 0; i < n; i++) fn(context, i, omp_get_thread_num());
#else
    for (size_t i = 0; i < n; i++) fn(context, i, 0);
#endif
}

#if defined(__linux__)

static int read_line(const char *path, char *line, int size) {
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    int ok = fgets(line, size, f) != NULL;
    fclose(f);
    return ok;
}

/* Hyper-threads of one core count once: a processor counts if it is the lowest of its siblings that
 * may be used. */
static int usable_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int cores = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        char path[96], line[256];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list",
                 cpu);
        int counted = 0;
        if (read_line(path, line, sizeof line)) {
            for (char *p = line; *p && !counted;) { /* "0,64" or "0-1" */
                char *end;
                long first = strtol(p, &end, 10), last = first;
                if (end == p) break;
                if (*end == '-') last = strtol(end + 1, &end, 10);
                for (long s = first; s <= last && s < (long)cpu; s++)
                    if (s >= 0 && CPU_ISSET((size_t)s, &set)) counted = 1;
                p = *end == ',' ? end + 1 : end + strlen(end);
            }
        }
        if (!counted) cores++;
    }
    return cores > 0 ? cores : 1;
}

/* The quota of one control group in cores, or 0 where it has none. */
static double quota_of(const char *folder) {
    char path[512], line[128];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (read_line(path, line, sizeof line))
        return sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0 ? quota / period : 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lf", &quota) != 1 || quota <= 0)
        return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lf", &period) != 1 || period <= 0)
        return 0;
    return quota / period;
}

/* Version 2 ("0::/path") and version 1 ("4:cpu,cpuacct:/path"), each with its ancestors: the
 * smallest quota counts. */
static double cgroup_quota(void) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return 0;
    char line[384];
    double least = 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'),
             *group = controllers ? strchr(controllers + 1, ':') : 0;
        if (!group) continue;
        *group++ = 0;
        controllers++;
        int v2 = *controllers == 0;
        if (!v2 && !strstr(controllers, "cpu")) continue;
        char folder[448];
        snprintf(folder, sizeof folder, "/sys/fs/cgroup%s%s", v2 ? "" : "/cpu", group);
        for (size_t root = strlen(v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu");;) {
            double quota = quota_of(folder);
            if (quota > 0 && (least == 0 || quota < least)) least = quota;
            char *slash = strrchr(folder, '/');
            if (!slash || (size_t)(slash - folder) < root) break;
            *slash = 0;
        }
    }
    fclose(f);
    return least;
}

int cvq_default_threads(void) {
    int cores = usable_cores();
    double quota = cgroup_quota();
    if (quota > 0 && ceil(quota) < cores) cores = (int)ceil(quota);
    if (cores > CVQ_MAX_THREADS) cores = CVQ_MAX_THREADS;
    return cores > 0 ? cores : 1;
}

#else

int cvq_default_threads(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > CVQ_MAX_THREADS ? CVQ_MAX_THREADS : (int)n;
}

#endif
