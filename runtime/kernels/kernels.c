/* The ladder: a table of kernels per level, filled once. A level takes the kernels of the sets that
 * it contains, scalar first, later lines of the list overriding earlier ones. */
#include "runtime/kernels/kernels.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "runtime/kernels/kernels_internal.h"

#define SET(level) (1u << CVQ_CPU_##level)

/* The sets that each level contains. */
static const unsigned sets_of[CVQ_CPU_LEVELS] = {
    [CVQ_CPU_SCALAR] = SET(SCALAR),
    [CVQ_CPU_AVX2] = SET(SCALAR) | SET(AVX2),
    [CVQ_CPU_AVXVNNI] = SET(SCALAR) | SET(AVX2) | SET(AVXVNNI),
    [CVQ_CPU_AVX512] = SET(SCALAR) | SET(AVX2) | SET(AVX512),
    [CVQ_CPU_AVX512BF16] = SET(SCALAR) | SET(AVX2) | SET(AVX512) | SET(AVX512BF16),
    [CVQ_CPU_NEON] = SET(SCALAR) | SET(NEON),
    [CVQ_CPU_DOTPROD] = SET(SCALAR) | SET(NEON) | SET(DOTPROD),
    [CVQ_CPU_I8MM] = SET(SCALAR) | SET(NEON) | SET(DOTPROD) | SET(I8MM),
};

static cvq_kernels tables[CVQ_CPU_LEVELS];
static pthread_once_t filled = PTHREAD_ONCE_INIT;

/* Everything behind `level` is function pointers; these stay empty: unpack_f32, gemm_int8 and
 * gemv_int8 of f32, gemm_int8 and gemv_int8 of bf16. */
#define EMPTY_ENTRIES 5

static size_t empty_entries(const cvq_kernels *table) {
    typedef void any_fn(void);
    any_fn *entries[(sizeof *table - offsetof(cvq_kernels, unpack_f32)) / sizeof(any_fn *)];
    memcpy(entries, (const char *)table + offsetof(cvq_kernels, unpack_f32), sizeof entries);
    size_t empty = 0;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) empty += entries[i] == NULL;
    return empty;
}

static void fill_tables(void) {
    for (int level = 0; level < CVQ_CPU_LEVELS; level++) {
        cvq_kernels *table = &tables[level];
        table->level = (cvq_cpu_level)level;
#define KERNEL(set, type, entry, function)                                                         \
    if (sets_of[level] & SET(set)) table->entry = function;
#include "runtime/kernels/kernels_list.inc"
#undef KERNEL
        assert(empty_entries(table) == EMPTY_ENTRIES);
    }
}

const cvq_kernels *cvq_kernels_for(cvq_cpu_level level) {
    assert(level < CVQ_CPU_LEVELS && cvq_cpu_has(level));
    pthread_once(&filled, fill_tables);
    return &tables[level];
}
