/* /proc/meminfo, and the limits of memory control groups of both versions. */
#include "base/machine_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/control_group.h"

/* The number behind `key` at the start of a line, times unit; 0 where there is none. */
static uint64_t value_of(const char *path, const char *key, uint64_t unit) {
    FILE *f = fopen(path, "re");
    char line[128];
    size_t n = strlen(key);
    uint64_t value = 0;
    if (!f) return 0;
    while (value == 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':'))
            value = strtoull(line + n + 1, NULL, 10) * unit;
    fclose(f);
    return value;
}

/* Version 2 has memory.max (and memory.high, above which everything is slowed down), version 1
 * memory.limit_in_bytes, which is some huge number where nobody has set it. */
void cvq_machine_memory_limit(cvq_machine_memory *m, const char *folder) {
    uint64_t limit = UINT64_MAX, high, used = 0;
    char stat[512];
    bool v2 = cvq_system_number(folder, "memory.current", &used);
    if (!v2 && !cvq_system_number(folder, "memory.usage_in_bytes", &used)) return;
    if (!cvq_system_number(folder, v2 ? "memory.max" : "memory.limit_in_bytes", &limit) && !v2)
        return;
    if (v2 && cvq_system_number(folder, "memory.high", &high) && high < limit) limit = high;
    if (limit >= m->total) return;
    snprintf(stat, sizeof stat, "%.480s/memory.stat", folder);
    uint64_t files = value_of(stat, v2 ? "inactive_file" : "total_inactive_file", 1) +
                     value_of(stat, v2 ? "active_file" : "total_active_file", 1);
    uint64_t held = used > files ? used - files : 0, available = limit > held ? limit - held : 0;
    m->total = limit;
    m->limited = true;
    if (available < m->available) m->available = available;
}

static void limit_by_group(void *memory, const char *folder) {
    cvq_machine_memory_limit(memory, folder);
}

cvq_machine_memory cvq_machine_memory_now(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    cvq_machine_memory m = {0};
    if (pages > 0 && page > 0) m.total = (uint64_t)pages * (uint64_t)page;
    m.available = value_of("/proc/meminfo", "MemAvailable", 1024);
    if (m.available == 0) m.available = m.total; /* a system that does not tell */
    cvq_control_groups("memory", limit_by_group, &m);
    return m;
}
