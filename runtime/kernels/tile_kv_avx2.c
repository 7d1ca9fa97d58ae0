/* Few rows by the panels of a KV cache with AVX2: a panel is two vectors. */
#include <immintrin.h>

#define TILE_F16 tile_kv_f16__avx2
#define TILE_INT8 tile_kv_int8__avx2
#define V __m256
#define W 8
#define VECTORS 2
#define v_load _mm256_loadu_ps
#define v_store _mm256_storeu_ps
#define v_set _mm256_set1_ps
#define v_add _mm256_add_ps
#define v_fma _mm256_fmadd_ps
#define v_of_f16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_of_int8(p)                                                                               \
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p))))

#include "runtime/kernels/tile_kv_template.h"
