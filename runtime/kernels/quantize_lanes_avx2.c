/* Keys and values to int8 with AVX2. */
#include <immintrin.h>

#define QUANTIZE quantize_lanes_16__avx2
#define V __m256
#define I __m256i
#define W 8
#define v_load _mm256_loadu_ps
#define v_store _mm256_storeu_ps
#define v_set _mm256_set1_ps
#define v_sub _mm256_sub_ps
#define v_mul _mm256_mul_ps
#define v_div _mm256_div_ps
#define v_bits _mm256_castps_si256
#define v_of_bits _mm256_castsi256_ps
#define v_nearest _mm256_cvtps_epi32
#define i_store(p, x) _mm256_storeu_si256((__m256i *)(void *)(p), x)
#define i_set _mm256_set1_epi32
#define i_add _mm256_add_epi32
#define i_sub _mm256_sub_epi32
#define i_and _mm256_and_si256
#define i_or _mm256_or_si256
#define i_max _mm256_max_epi32
#define i_left _mm256_slli_epi32
#define i_above _mm256_cmpgt_epi32

#include "runtime/kernels/quantize_lanes_template.h"
