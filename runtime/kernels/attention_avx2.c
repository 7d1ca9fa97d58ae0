/* Attention in int8 with AVX2. Sums of two products of unsigned and signed bytes do not fit 16
 * bits, so even and odd bytes are multiplied as 16-bit numbers: those of the codes are taken apart
 * once for a panel, those of the lines in registers, half a line at a time. */
#include "runtime/kernels/attention_ymm.h"

#define ATTEND attend_int8_6x16__avx2
#define key_dots dots
#define value_dots dots

#define SPLIT_STEPS 64 /* taken apart at a time */

typedef struct split_codes {
    uint32_t pair[CVQ_ATTENTION_ROWS][SPLIT_STEPS][2]; /* even bytes, odd bytes */
} split_codes;

GEMM_INLINE void split(size_t steps, const uint8_t *codes, size_t ld, split_codes *out) {
    for (size_t i = 0; i < CVQ_ATTENTION_ROWS; i++)
        for (size_t s = 0; s < steps; s++) {
            uint32_t four;
            memcpy(&four, codes + i * ld + 4 * s, 4);
            out->pair[i][s][0] = four & 0x00ff00ffu;
            out->pair[i][s][1] = four >> 8 & 0x00ff00ffu;
        }
}

GEMM_INLINE void half_dots(size_t steps, const split_codes *codes, const int8_t *lines,
                           size_t step_bytes, int half, __m256i dot[CVQ_ATTENTION_ROWS][2]) {
    __m256i sum[CVQ_ATTENTION_ROWS];
    GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++) sum[i] = dot[i][half];
    for (size_t s = 0; s < steps; s++) {
        __m256i line = i_load(lines + s * step_bytes + 32 * half);
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(line, 8), 8);
        __m256i odd = _mm256_srai_epi16(line, 8);
        GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++) {
            __m256i a = _mm256_set1_epi32((int)codes->pair[i][s][0]);
            __m256i b = _mm256_set1_epi32((int)codes->pair[i][s][1]);
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(a, even));
            GEMM_KEEP(sum[i]);
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(b, odd));
            GEMM_KEEP(sum[i]);
        }
    }
    GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++) dot[i][half] = sum[i];
}

GEMM_INLINE void dots(size_t steps, const uint8_t *codes, size_t ld, const int8_t *lines,
                      size_t step_bytes, __m256i dot[CVQ_ATTENTION_ROWS][2]) {
    split_codes pairs;
    for (size_t s = 0; s < steps; s += SPLIT_STEPS) {
        size_t n = steps - s < SPLIT_STEPS ? steps - s : SPLIT_STEPS;
        split(n, codes + 4 * s, ld, &pairs);
        half_dots(n, &pairs, lines + s * step_bytes, step_bytes, 0, dot);
        half_dots(n, &pairs, lines + s * step_bytes, step_bytes, 1, dot);
    }
}

#include "runtime/kernels/attention_template.h"
