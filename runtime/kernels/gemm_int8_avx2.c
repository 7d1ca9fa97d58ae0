/* int8 matrix kernels with plain AVX2. vpmaddubsw multiplies unsigned codes by signed activations
 * and adds pairs into 16 bits, where
 *   q4   a whole block fits: 8 lines x 2 x 15 x 127 = 30,480,
 *   q6   two lines fit: 2 x 2 x 63 x 127 = 32,004,
 *   q4t  one line fits: 2 x 127 x 127 = 32,258 (the offset goes into the zero point of the row),
 *   q8   nothing fits: codes and activations are split into even and odd columns of 16 bits, codes
 *        while unpacking, activations once for each tile.
 * vpmaddwd then makes 32-bit sums. A tile is one panel (two halves) x 4 rows; floats stay in c. */
#include "runtime/kernels/gemm_int8_ymm.h"

#define EVEN_BYTES _mm256_set1_epi16(0xff)

/* A line becomes 4 halves: even columns of both halves, then odd ones. */
static void unpack_q8_split(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    unpack_scales(data, out->scale);
    for (int l = 0; l < GEMM_LINES; l++)
        for (int h = 0; h < 2; h++) {
            __m256i x = load_half(data + 64 + 64 * l + 32 * h);
            store_half(out->storage + 128 * l + 32 * h, _mm256_and_si256(x, EVEN_BYTES));
            store_half(out->storage + 128 * l + 64 + 32 * h, _mm256_srli_epi16(x, 8));
        }
    out->lines = out->storage;
    out->zero = 128;
}
static void unpack_q6_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q6(w, data, out);
}
static void unpack_q4t_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4t(w, data, out, false);
    out->zero = 1; /* the tile multiplies by zeros[] */
}
static void unpack_q4_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4(w, data, out);
}

/* depth: lines that are added in 16 bits; own_zeros: each row of weights has its own zero point. */
GEMM_INLINE void tile(const int rows, const int depth, const bool own_zeros, const gemm_chunk *w,
                      const gemm_rows *a, float *c, size_t ldc, bool first) {
    const __m256i ones = _mm256_set1_epi16(1);
    int32_t start[GEMM_MAX_ROWS][GEMM_CHUNK_BLOCKS];
    GEMM_UNROLL for (int i = 0; i < rows; i++)
        start_values(32, a->sum + (size_t)i * (a->stride / CVQ_ACT_SUM), w->zero, start[i]);
    const int8_t *q = a->q;
    for (size_t b = 0; b < w->columns / 32; b++, q += 32) {
        __m256i dot[GEMM_MAX_ROWS][2];
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            GEMM_UNROLL for (int h = 0; h < 2; h++) {
                dot[i][h] = _mm256_set1_epi32(start[i][b]);
                /* 16-bit zero points and sums: the high halves of the zeros' lanes may be -1, so
                 * they are cleared. */
                if (own_zeros)
                    dot[i][h] = _mm256_madd_epi16(
                        dot[i][h],
                        _mm256_and_si256(load_half((const uint8_t *)(w->zeros[b] + 8 * h)),
                                         _mm256_set1_epi32(0xffff)));
            }
        }
        const uint8_t *line = w->lines + b * 512;
        for (int l = 0; l < 8; l += depth, line += 64 * depth) {
            __m256i pairs[GEMM_MAX_ROWS][2];
            GEMM_UNROLL for (int d = 0; d < depth; d++) {
                __m256i top = load_half(line + 64 * d), bottom = load_half(line + 64 * d + 32);
                GEMM_UNROLL for (int i = 0; i < rows; i++) {
                    __m256i four = broadcast4(q + (size_t)i * a->stride + 4 * (l + d));
                    __m256i x = _mm256_maddubs_epi16(top, four);
                    __m256i y = _mm256_maddubs_epi16(bottom, four);
                    pairs[i][0] = d ? _mm256_add_epi16(pairs[i][0], x) : x;
                    pairs[i][1] = d ? _mm256_add_epi16(pairs[i][1], y) : y;
                    GEMM_KEEP(pairs[i][0]);
                    GEMM_KEEP(pairs[i][1]);
                }
            }
            GEMM_UNROLL for (int i = 0; i < rows; i++) {
                GEMM_UNROLL for (int h = 0; h < 2; h++) dot[i][h] =
                    _mm256_add_epi32(dot[i][h], _mm256_madd_epi16(pairs[i][h], ones));
            }
        }
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            __m256 s = _mm256_set1_ps(a->scale[(size_t)i * (a->stride / CVQ_ACT_BLOCK) + b / 4]);
            GEMM_UNROLL for (int h = 0; h < 2; h++)
                add_block(dot[i][h], _mm256_loadu_ps(w->scale[b] + 8 * h), s,
                          c + (size_t)i * ldc + 8 * h, first && b == 0);
        }
    }
}

/* 256 activations to 16 bits: even columns, then odd ones. */
GEMM_INLINE void split_row(const int8_t *q, int16_t *out) {
    for (int k = 0; k < GEMM_CHUNK; k += 32) {
        __m256i x = load_half((const uint8_t *)q + k);
        store_half((uint8_t *)(out + k / 2), _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
        store_half((uint8_t *)(out + GEMM_CHUNK / 2 + k / 2), _mm256_srai_epi16(x, 8));
    }
}

GEMM_INLINE void tile_q8(const int rows, const gemm_chunk *w, const gemm_rows *a, float *c,
                         size_t ldc, bool first) {
    int32_t start[GEMM_MAX_ROWS][GEMM_CHUNK_BLOCKS];
    _Alignas(32) int16_t split[GEMM_MAX_ROWS][GEMM_CHUNK];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        start_values(128, a->sum + (size_t)i * (a->stride / CVQ_ACT_SUM), w->zero, start[i]);
        split_row(a->q + (size_t)i * a->stride, split[i]);
    }
    for (int b = 0; b < 2; b++) {
        __m256i dot[GEMM_MAX_ROWS][2];
        GEMM_UNROLL for (int i = 0; i < rows; i++) dot[i][0] = dot[i][1] =
            _mm256_set1_epi32(start[i][b]);
        for (int l = 32 * b; l < 32 * b + 32; l++) {
            GEMM_UNROLL for (int odd = 0; odd < 2; odd++) {
                const uint8_t *line = w->lines + 128 * l + 64 * odd;
                __m256i top = load_half(line), bottom = load_half(line + 32);
                GEMM_UNROLL for (int i = 0; i < rows; i++) {
                    __m256i two = broadcast4(&split[i][GEMM_CHUNK / 2 * odd + 2 * l]);
                    dot[i][0] = _mm256_add_epi32(dot[i][0], _mm256_madd_epi16(top, two));
                    dot[i][1] = _mm256_add_epi32(dot[i][1], _mm256_madd_epi16(bottom, two));
                    GEMM_KEEP(dot[i][0]);
                    GEMM_KEEP(dot[i][1]);
                }
            }
        }
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            __m256 s =
                _mm256_set1_ps(a->scale[(size_t)i * (a->stride / CVQ_ACT_BLOCK) + (size_t)b]);
            GEMM_UNROLL for (int h = 0; h < 2; h++)
                add_block(dot[i][h], _mm256_loadu_ps(w->scale[b] + 8 * h), s,
                          c + (size_t)i * ldc + 8 * h, first && b == 0);
        }
    }
}

#define TILE(type, rows, ...)                                                                      \
    static void tile_##type##_##rows(const gemm_chunk *w, const gemm_rows *a, float *c,            \
                                     size_t ldc, bool first) {                                     \
        __VA_ARGS__;                                                                               \
    }
#define TILES(type, depth, own_zeros)                                                              \
    TILE(type, 1, tile(1, depth, own_zeros, w, a, c, ldc, first))                                  \
    TILE(type, 2, tile(2, depth, own_zeros, w, a, c, ldc, first))                                  \
    TILE(type, 3, tile(3, depth, own_zeros, w, a, c, ldc, first))                                  \
    TILE(type, 4, tile(4, depth, own_zeros, w, a, c, ldc, first))
TILES(q6, 2, false)
TILES(q4t, 1, true)
TILES(q4, 8, false)
TILE(q8, 1, tile_q8(1, w, a, c, ldc, first))
TILE(q8, 2, tile_q8(2, w, a, c, ldc, first))
TILE(q8, 3, tile_q8(3, w, a, c, ldc, first))
TILE(q8, 4, tile_q8(4, w, a, c, ldc, first))

#define KERNEL_OF(type, unpack)                                                                    \
    void gemm_u8##type##_16x4__avx2(const cvq_panels *w, size_t panel0, size_t num_panels,         \
                                    const cvq_act8 *a, size_t row0, size_t m, float *c,            \
                                    size_t ldc) {                                                  \
        static const gemm_plan plan = {                                                            \
            unpack, 4, 1, {{tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4}}}; \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, unpack_q8_split)
KERNEL_OF(q6, unpack_q6_lines)
KERNEL_OF(q4t, unpack_q4t_lines)
KERNEL_OF(q4, unpack_q4_lines)
