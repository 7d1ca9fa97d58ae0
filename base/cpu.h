/* What the processor can do, and which level of kernels is chosen from that. */
#ifndef CVQ_BASE_CPU_H
#define CVQ_BASE_CPU_H

#include <stdbool.h>

#include "base/status.h"

/* Levels are feature sets, not a line: Zen 4 has AVX-512 VNNI without AVX-VNNI, Alder Lake the
 * reverse. */
typedef enum cvq_cpu_level {
    CVQ_CPU_SCALAR,
    CVQ_CPU_AVX2,       /* AVX2, FMA, F16C */
    CVQ_CPU_AVXVNNI,    /* AVX2 and AVX-VNNI */
    CVQ_CPU_AVX512,     /* AVX-512 F, BW, VL, DQ, VNNI */
    CVQ_CPU_AVX512BF16, /* and BF16 */
    CVQ_CPU_NEON,       /* aarch64 */
    CVQ_CPU_DOTPROD,
    CVQ_CPU_I8MM,
    CVQ_CPU_LEVELS
} cvq_cpu_level;

/* "avx2"; static. */
const char *cvq_cpu_level_name(cvq_cpu_level level);
/* Whether this machine (processor and operating system: cpuid and xgetbv, or the auxiliary vector)
 * can run it. */
bool cvq_cpu_has(cvq_cpu_level level);
/* The best level of this machine. */
cvq_cpu_level cvq_cpu_best(void);
/* By name; NULL gives the best. CVQ_UNSUPPORTED where the machine lacks it, naming those it has;
 * CVQ_INVALID_ARGUMENT for an unknown name. */
cvq_status cvq_cpu_level_find(cvq_cpu_level *level, const char *name, cvq_error *err);
/* The processor's own name, such as "AMD EPYC 9B14"; static, "unknown" where it cannot be told. */
const char *cvq_cpu_model(void);

#endif
