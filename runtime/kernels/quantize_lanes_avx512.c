/* Keys and values to int8 with AVX-512. */
#include <immintrin.h>

#define QUANTIZE quantize_lanes_16__avx512
#define V __m512
#define I __m512i
#define W 16
#define v_load _mm512_loadu_ps
#define v_store _mm512_storeu_ps
#define v_set _mm512_set1_ps
#define v_sub _mm512_sub_ps
#define v_mul _mm512_mul_ps
#define v_div _mm512_div_ps
#define v_bits _mm512_castps_si512
#define v_of_bits _mm512_castsi512_ps
#define v_nearest _mm512_cvtps_epi32
#define i_store _mm512_storeu_si512
#define i_set _mm512_set1_epi32
#define i_add _mm512_add_epi32
#define i_sub _mm512_sub_epi32
#define i_and _mm512_and_si512
#define i_or _mm512_or_si512
#define i_max _mm512_max_epi32
#define i_left _mm512_slli_epi32
#define i_above(a, b) _mm512_movm_epi32(_mm512_cmpgt_epi32_mask(a, b))

#include "runtime/kernels/quantize_lanes_template.h"
