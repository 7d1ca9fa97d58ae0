/* The control groups that this process is in (Linux, versions 1 and 2): folders with the limits
 * that hold beside those of the machine. */
#ifndef CVQ_BASE_CONTROL_GROUP_H
#define CVQ_BASE_CONTROL_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void (*cvq_group_fn)(void *context, const char *folder);
/* Calls fn with the folder of each group that limits this process through `controller` ("cpu",
 * "memory"): its own, then what that one lies in, up to the root. Folders that are not visible from
 * here are named too; reading in them fails. */
void cvq_control_groups(const char *controller, cvq_group_fn fn, void *context);

/* The first line of the small file folder/name, without its end. False: no such file. */
bool cvq_system_line(const char *folder, const char *name, char *line, size_t size);
/* Its number; false also for "max". */
bool cvq_system_number(const char *folder, const char *name, uint64_t *number);

#endif
