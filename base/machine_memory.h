/* How much memory there is for this process: the machine's, or less where a control group limits
 * it. */
#ifndef CVQ_BASE_MACHINE_MEMORY_H
#define CVQ_BASE_MACHINE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes. Pages of files that could be dropped at once count as available. */
typedef struct cvq_machine_memory {
    uint64_t total, available;
    bool limited; /* by a control group; total is its limit */
} cvq_machine_memory;

cvq_machine_memory cvq_machine_memory_now(void);
/* Narrows *m to what the control group in this folder leaves, if that is less. */
void cvq_machine_memory_limit(cvq_machine_memory *m, const char *folder);

#endif
