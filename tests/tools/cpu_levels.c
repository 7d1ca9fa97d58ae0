/* Prints the levels of kernels that this machine can run, one a line, for the test runner. */
#include <stdio.h>

#include "base/cpu.h"

int main(void) {
    for (int level = 0; level < CVQ_CPU_LEVELS; level++)
        if (cvq_cpu_has((cvq_cpu_level)level)) puts(cvq_cpu_level_name((cvq_cpu_level)level));
    return 0;
}
