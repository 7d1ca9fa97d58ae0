/* Row kernels with AVX2, FMA and F16C. */
#include <immintrin.h>
#include <string.h>

#include "base/half.h"
#include "runtime/kernels/kernels_internal.h"

#define KERNEL_NAME(operation) operation##__avx2
#define V __m256
#define W 8
#define EXP_LOWEST -88.0f /* 2^-127 is 0 in v_mul_pow2 */
#define v_load _mm256_loadu_ps
#define v_store _mm256_storeu_ps
#define v_set _mm256_set1_ps
#define v_add _mm256_add_ps
#define v_sub _mm256_sub_ps
#define v_mul _mm256_mul_ps
#define v_div _mm256_div_ps
#define v_fma _mm256_fmadd_ps
#define v_max _mm256_max_ps
#define v_min _mm256_min_ps
#define v_first _mm256_cvtss_f32

static inline __m256i first_lanes(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline V v_load_some(const float *x, size_t n) {
    return _mm256_maskload_ps(x, first_lanes(n));
}
static inline void v_store_some(float *x, V v, size_t n) {
    _mm256_maskstore_ps(x, first_lanes(n), v);
}
static inline V v_abs(V v) {
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
}
static inline V v_round(V v) {
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline V v_mul_pow2(V x, V n) {
    __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(power, 23)));
}
static inline float v_sum(V v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline float v_largest(V v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

#include "runtime/kernels/rows_template.h"

/* 8 rows x 8 columns, the usual three steps of unpack, shuffle and permute. */
static void transpose8(__m256 r[8]) {
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
            u[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

void transpose16__avx2(const float *x, size_t ld, size_t n, size_t d, float *out) {
    for (size_t k = 0; k < d; k += 8)
        for (size_t r0 = 0; r0 < CVQ_PANEL_ROWS; r0 += 8) {
            __m256 block[8];
            for (size_t r = 0; r < 8; r++)
                block[r] =
                    r0 + r < n ? v_load_at(x + (r0 + r) * ld + k, d - k) : _mm256_setzero_ps();
            transpose8(block);
            for (size_t j = 0; j < 8 && k + j < d; j++)
                _mm256_storeu_ps(out + (k + j) * CVQ_PANEL_ROWS + r0, block[j]);
        }
}

void f32_to_f16__avx2(const float *x, size_t n, uint16_t *out) {
    size_t i = 0;
    for (; i + W <= n; i += W)
        _mm_storeu_si128((__m128i *)(void *)(out + i),
                         _mm256_cvtps_ph(v_load(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) out[i] = cvq_f32_to_f16(x[i]);
}

void f16_to_f32__avx2(const uint16_t *x, size_t n, float *out) {
    size_t i = 0;
    for (; i + W <= n; i += W)
        v_store(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(x + i))));
    for (; i < n; i++) out[i] = cvq_f16_to_f32(x[i]);
}
