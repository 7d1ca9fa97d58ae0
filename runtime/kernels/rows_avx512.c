/* Row kernels with AVX-512. */
#include <immintrin.h>

#include "runtime/kernels/kernels_internal.h"

#define KERNEL_NAME(operation) operation##__avx512
#define V __m512
#define W 16
#define EXP_LOWEST -110.0f /* below half of the smallest subnormal number */
#define v_load _mm512_loadu_ps
#define v_store _mm512_storeu_ps
#define v_set _mm512_set1_ps
#define v_add _mm512_add_ps
#define v_sub _mm512_sub_ps
#define v_mul _mm512_mul_ps
#define v_div _mm512_div_ps
#define v_fma _mm512_fmadd_ps
#define v_max _mm512_max_ps
#define v_min _mm512_min_ps
#define v_abs _mm512_abs_ps
#define v_mul_pow2 _mm512_scalef_ps
#define v_sum _mm512_reduce_add_ps
#define v_largest _mm512_reduce_max_ps
#define v_first _mm512_cvtss_f32

static inline V v_load_some(const float *x, size_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x);
}
static inline void v_store_some(float *x, V v, size_t n) {
    _mm512_mask_storeu_ps(x, (__mmask16)((1u << n) - 1), v);
}
static inline V v_round(V v) {
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

#include "runtime/kernels/rows_template.h"

void f32_to_f16__avx512(const float *x, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i += W) {
        __mmask16 mask = (__mmask16)(n - i >= W ? 0xffffu : (1u << (n - i)) - 1);
        _mm256_mask_storeu_epi16(
            out + i, mask, _mm512_cvtps_ph(v_load_at(x + i, n - i), _MM_FROUND_TO_NEAREST_INT));
    }
}

void f16_to_f32__avx512(const uint16_t *x, size_t n, float *out) {
    for (size_t i = 0; i < n; i += W) {
        __mmask16 mask = (__mmask16)(n - i >= W ? 0xffffu : (1u << (n - i)) - 1);
        v_store_at(out + i, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x + i)), n - i);
    }
}
