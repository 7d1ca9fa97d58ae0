/* Activations to int8 with AVX2: 128 columns at a time, from a zero-padded copy at the row's end.
 */
#include <immintrin.h>
#include <string.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

/* The largest bit pattern of |x|: a number's order is that of its bits, above all are infinity and
 * then NaNs. */
static uint32_t largest_bits(const float *x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    for (int k = 0; k < CVQ_ACT_BLOCK; k += 8) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(x + k));
        m = _mm256_max_epi32(m, _mm256_and_si256(bits, magnitude));
    }
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(h);
}

static float quantize_block(const float *x, int8_t *q, int32_t *sums) {
    uint32_t largest = largest_bits(x);
    float max = cvq_bits_f32(largest);
    if (largest >= 0x7f800000u || max < CVQ_ACT_TINY) {
        memset(q, 0, CVQ_ACT_BLOCK);
        memset(sums, 0, CVQ_ACT_BLOCK / CVQ_ACT_SUM * sizeof *sums);
        return largest >= 0x7f800000u ? cvq_bits_f32(0x7fc00000u) : 0;
    }
    const __m256 inverse = _mm256_set1_ps(127.0f / max);
    __m256i sum[4];
    for (int g = 0; g < 4; g++) {
        __m256i v[4];
        for (int j = 0; j < 4; j++)
            v[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 32 * g + 8 * j), inverse));
        sum[g] = _mm256_add_epi32(_mm256_add_epi32(v[0], v[1]), _mm256_add_epi32(v[2], v[3]));
        __m256i bytes =
            _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)(q + 32 * g), bytes);
    }
    __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), //
                                  _mm256_hadd_epi32(sum[2], sum[3]));
    _mm_storeu_si128((__m128i *)(void *)sums,
                     _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
    return max / 127.0f;
}

void quantize_rows_128__avx2(const float *x, size_t ldx, size_t rows, size_t k,
                             const cvq_act8 *out) {
    for (size_t i = 0; i < rows; i++)
        for (size_t k0 = 0; k0 < out->stride; k0 += CVQ_ACT_BLOCK) {
            float padded[CVQ_ACT_BLOCK];
            const float *block = x + i * ldx + k0;
            if (k0 + CVQ_ACT_BLOCK > k) {
                memset(padded, 0, sizeof padded);
                if (k0 < k) memcpy(padded, block, (k - k0) * sizeof *block);
                block = padded;
            }
            size_t at = i * out->stride + k0;
            out->scale[at / CVQ_ACT_BLOCK] =
                quantize_block(block, out->q + at, out->sum + at / CVQ_ACT_SUM);
        }
}
