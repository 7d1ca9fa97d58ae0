/* What the int8 attention kernels of all levels share: the numbers of their exponential, the shape
 * of their tiles and the states of rows. Read only inside this folder. */
#ifndef CVQ_RUNTIME_KERNELS_ATTENTION_KERNEL_H
#define CVQ_RUNTIME_KERNELS_ATTENTION_KERNEL_H

#include "runtime/kernels/kernels_internal.h"

#define ATTENTION_QUAD 64 /* keys: 4 panels, and one line of weights */
#define ATTENTION_QUADS (CVQ_ATTENTION_KEYS / ATTENTION_QUAD)

/* 2^x = 2^n (1 + f (...)) with n = floor(x), f = x - n. Degree 3 is within 8.6e-5 of the value,
 * which is 0.02 of the 255 steps of a weight; degree 5, for what is multiplied block after block,
 * within 8.3e-8. Both are 1 at f = 0 exactly: a block that a row does not see leaves the row as it
 * was. Weights are computed from x + 2, at least 1, so that x - n is exact; a quarter of the
 * polynomial makes up for that. */
#define EXP2_3A (0.25f * 0.69511679f)
#define EXP2_3B (0.25f * 0.22764498f)
#define EXP2_3C (0.25f * 0.07706706f)
#define EXP2_3D 0.25f
#define EXP2_5A 0.69315131f
#define EXP2_5B 0.24016445f
#define EXP2_5C 0.05579991f
#define EXP2_5D 0.00901703f
#define EXP2_5E 0.00186713f
#define EXP2_LOWEST (-126.0f)

#define WEIGHT_TOP 9.99435344f /* 2 + log2 255, rounded down */
#define WEIGHT_LOWEST 1.0f     /* 2^-1 rounds to 0 */

/* A tile's rows while a block is added to them. */
typedef struct attention_tile {
    _Alignas(64) float scores[CVQ_ATTENTION_ROWS][CVQ_ATTENTION_KEYS];
    _Alignas(64) uint8_t weights[CVQ_ATTENTION_ROWS][CVQ_ATTENTION_KEYS];
    _Alignas(64) float block_max[16], offset[16], before[16], now[16]; /* by row */
    int32_t total[CVQ_ATTENTION_ROWS];                                 /* of weights */
    size_t quads;                                                      /* that some row sees */
} attention_tile;

/* A tile's codes as they lie in memory, for levels that need no other form. */
typedef struct attention_codes {
    const uint8_t *first;
    size_t ld; /* from row to row */
} attention_codes;

static inline void attention_codes_load(size_t steps, const uint8_t *codes, size_t ld,
                                        attention_codes *out) {
    (void)steps;
    *out = (attention_codes){codes, ld};
}

/* Where a block's lines lie: bytes from a panel to the next, and from a step to the next. */
typedef struct attention_lines {
    const int8_t *keys, *values;
    size_t key_panel, key_step, value_panel, value_step;
} attention_lines;

static inline attention_lines attention_lines_of(const cvq_attention_block *kv) {
    return (attention_lines){.keys = kv->keys,
                             .values = kv->values,
                             .key_panel = kv->steps * 64,
                             .key_step = 64,
                             .value_panel = 64,
                             .value_step = kv->panels * 64};
}

/* Of heads of up to 128, the released model's, levels may bring lines into a form of their own. */
#define ATTENTION_PREPARED_STEPS 32
#define ATTENTION_PREPARED_PANELS 8

static inline size_t attention_quads(const size_t *seen) {
    size_t most = 0;
    for (size_t i = 0; i < CVQ_ATTENTION_ROWS; i++)
        if (seen[i] > most) most = seen[i];
    return (most + ATTENTION_QUAD - 1) / ATTENTION_QUAD;
}

#endif
