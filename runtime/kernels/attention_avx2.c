/* Attention in int8 with AVX2. Sums of two products of unsigned and signed bytes do not fit 16
 * bits, so even and odd bytes are multiplied as 16-bit numbers: those of the codes are taken apart
 * once for a tile, those of the lines once for a block where rows are many; else in registers, even
 * ones first, for want of registers. */
#include "runtime/kernels/attention_ymm.h"
#include "runtime/kernels/madd_ymm.h"

#define ATTEND attend_int8_6x16__avx2
#define load_codes split_codes
#define key_dots dots
#define value_dots dots
#define PREPARED_ROWS 24 /* fewer do not make up for it */

/* Words of two 16-bit numbers: a step's bytes 0 and 2, and 1 and 3. */
typedef struct tile_codes {
    _Alignas(32) uint32_t even[CVQ_ATTENTION_ROWS][CVQ_ATTENTION_STEPS];
    _Alignas(32) uint32_t odd[CVQ_ATTENTION_ROWS][CVQ_ATTENTION_STEPS];
} tile_codes;

GEMM_INLINE void split_codes(size_t steps, const uint8_t *codes, size_t ld, tile_codes *out) {
    for (size_t i = 0; i < CVQ_ATTENTION_ROWS; i++)
        for (size_t s = 0; s < steps; s++) {
            uint32_t four;
            memcpy(&four, codes + i * ld + 4 * s, 4);
            out->even[i][s] = four & 0x00ff00ffu;
            out->odd[i][s] = four >> 8 & 0x00ff00ffu;
        }
}

/* One half of a step: 2 of 4 codes of each row by those of a line. */
GEMM_INLINE void add_products(const uint32_t (*codes)[CVQ_ATTENTION_STEPS], size_t step,
                              __m256i top, __m256i bottom, __m256i (*sum)[2]) {
    GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++)
        multiply_wide(sum[i], top, bottom, &codes[i][step]);
}

GEMM_INLINE __m256i even_bytes(__m256i x) {
    return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
}
GEMM_INLINE __m256i odd_bytes(__m256i x) {
    return _mm256_srai_epi16(x, 8);
}

GEMM_INLINE void dots(size_t steps, const tile_codes *codes, const int8_t *lines, size_t step_bytes,
                      __m256i dot[CVQ_ATTENTION_ROWS][2]) {
    for (size_t s = 0; s < steps; s++, lines += step_bytes) {
        add_products(codes->even, s, even_bytes(i_load(lines)), even_bytes(i_load(lines + 32)),
                     dot);
        const int8_t *again = lines;
        __asm__("" : "+r"(again)); /* loaded again rather than kept in a register */
        add_products(codes->odd, s, odd_bytes(i_load(again)), odd_bytes(i_load(again + 32)), dot);
    }
}

/* A line's even bytes as 16-bit numbers, then its odd ones: 128 bytes. Panels follow one another,
 * of values too. */
typedef struct attention_memory {
    _Alignas(64) int8_t keys[CVQ_ATTENTION_KEYS / CVQ_PANEL_ROWS * ATTENTION_PREPARED_STEPS * 128];
    _Alignas(64) int8_t values[ATTENTION_PREPARED_PANELS * CVQ_ATTENTION_KEYS / 4 * 128];
} attention_memory;

static void split_lines(const int8_t *lines, size_t step_bytes, size_t steps, int8_t *out) {
    for (size_t s = 0; s < steps; s++, lines += step_bytes, out += 128) {
        __m256i top = i_load(lines), bottom = i_load(lines + 32);
        i_store(out, even_bytes(top));
        i_store(out + 32, even_bytes(bottom));
        i_store(out + 64, odd_bytes(top));
        i_store(out + 96, odd_bytes(bottom));
    }
}

static attention_lines prepare_lines(const cvq_attention_block *kv, attention_memory *m) {
    const size_t panels = CVQ_ATTENTION_KEYS / CVQ_PANEL_ROWS, quads = CVQ_ATTENTION_KEYS / 4;
    split_lines(kv->keys, 64, panels * kv->steps, m->keys);
    for (size_t p = 0; p < kv->panels; p++)
        split_lines(kv->values + 64 * p, 64 * kv->panels, quads, m->values + p * quads * 128);
    return (attention_lines){.keys = m->keys,
                             .values = m->values,
                             .key_panel = kv->steps * 128,
                             .key_step = 128,
                             .value_panel = quads * 128,
                             .value_step = 128};
}

GEMM_INLINE void prepared_dots(size_t steps, const tile_codes *codes, const int8_t *lines,
                               size_t step_bytes, __m256i dot[CVQ_ATTENTION_ROWS][2]) {
    for (size_t s = 0; s < steps; s++, lines += step_bytes) {
        add_products(codes->even, s, i_load(lines), i_load(lines + 32), dot);
        add_products(codes->odd, s, i_load(lines + 64), i_load(lines + 96), dot);
    }
}

#include "runtime/kernels/attention_template.h"
