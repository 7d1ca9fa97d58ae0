/* Attention in int8 with AVX2. Sums of two products of unsigned and signed bytes do not fit 16
 * bits, so even and odd bytes are multiplied as 16-bit numbers: those of the codes are taken apart
 * once for a tile, those of the lines in registers, even ones first, for want of registers. */
#include "runtime/kernels/attention_ymm.h"

#define ATTEND attend_int8_6x16__avx2
#define load_codes split_codes
#define key_dots dots
#define value_dots dots

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

/* sum[i] += one half of a step: 2 of 4 codes of each row by those of a line. */
GEMM_INLINE void add_products(const uint32_t (*codes)[CVQ_ATTENTION_STEPS], size_t step,
                              __m256i top, __m256i bottom, __m256i (*sum)[2]) {
    GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++) {
        __m256i two = _mm256_set1_epi32((int)codes[i][step]);
        sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(two, top));
        GEMM_KEEP(sum[i][0]);
        sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(two, bottom));
        GEMM_KEEP(sum[i][1]);
    }
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

#include "runtime/kernels/attention_template.h"
