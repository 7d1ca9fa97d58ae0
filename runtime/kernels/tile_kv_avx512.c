/* Few rows by the panels of a KV cache with AVX-512: a panel is a vector, and two are taken side by
 * side, so that eight sums hide what a product takes. */
#include <immintrin.h>

#define TILE_F16 tile_kv_f16__avx512
#define TILE_INT8 tile_kv_int8__avx512
#define V __m512
#define W 16
#define VECTORS 2
#define v_load _mm512_loadu_ps
#define v_store _mm512_storeu_ps
#define v_set _mm512_set1_ps
#define v_add _mm512_add_ps
#define v_fma _mm512_fmadd_ps
#define v_of_f16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define v_of_int8(p)                                                                               \
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))))

#include "runtime/kernels/tile_kv_template.h"
