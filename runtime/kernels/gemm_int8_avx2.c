/* int8 matrix kernels with plain AVX2. vpmaddubsw multiplies unsigned codes by signed activations
 * and adds pairs into 16 bits, where
 *   q4   a whole block fits: 8 lines x 2 x 15 x 127 = 30,480,
 *   q6   two lines fit: 2 x 2 x 63 x 127 = 32,004,
 *   q4t  and q4s: one line fits: 2 x 127 x 127 = 32,258 (the offset goes into the zero point of the
 *        row),
 *   q4h  one line fits, offsets included,
 *   q8   nothing fits: codes and activations are split into even and odd columns of 16 bits, codes
 *        while unpacking, activations while packing.
 * vpmaddwd then makes 32-bit sums. A tile is one panel (two halves) x 4 or 6 rows, as many as leave
 * registers for the sums; floats stay in c. The products are in assembly: gcc 12 reorders the
 * intrinsics so that sums are spilled. */
#include "runtime/kernels/gemm_int8_ymm.h"
#include "runtime/kernels/madd_ymm.h"

#define EVEN_BYTES _mm256_set1_epi16(0xff)

/* A line becomes 4 halves: even columns of both halves, then odd ones. */
static void unpack_q8_split(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    unpack_scales(data, out->scale);
    for (int l = 0; l < GEMM_CHUNK_Q8 / 4; l++)
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
static void unpack_q4_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4(w, data, out);
}
static void unpack_q4t_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4t(w, data, out, false);
    out->zero = 1; /* the tile multiplies by zeros[] */
}
static void unpack_q4s_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4s(w, data, out, false);
    out->zero = 1;
}

static void unpack_q4h_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4h(w, data, out);
}

/* 256 activations to 16 bits: even columns, then odd ones. */
static void pack_split(const int8_t *q, int8_t *out) {
    for (int k = 0; k < GEMM_CHUNK_Q8; k += 32) {
        __m256i x = load_half((const uint8_t *)q + k);
        store_half((uint8_t *)(out + k), _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
        store_half((uint8_t *)(out + GEMM_CHUNK_Q8 + k), _mm256_srai_epi16(x, 8));
    }
}

/* q4: a line into 16-bit sums. */
GEMM_INLINE void multiply_narrow(__m256i sum[2], __m256i top, __m256i bottom, const int8_t *q) {
    __m256i x, y;
    __asm__("vpbroadcastd %4, %2\n\t"
            "vpmaddubsw %2, %5, %3\n\t"
            "vpmaddubsw %2, %6, %2\n\t"
            "vpaddw %3, %0, %0\n\t"
            "vpaddw %2, %1, %1"
            : "+x"(sum[0]), "+x"(sum[1]), "=&x"(x), "=&x"(y)
            : "m"(*(const int8_t(*)[4])q), "x"(top), "x"(bottom));
}

/* q4t, q4s, q4h: a line into 32-bit sums. */
GEMM_INLINE void multiply_line(__m256i dot[2], __m256i top, __m256i bottom, __m256i ones,
                               const int8_t *q) {
    __m256i x, y;
    __asm__("vpbroadcastd %4, %2\n\t"
            "vpmaddubsw %2, %5, %3\n\t"
            "vpmaddubsw %2, %6, %2\n\t"
            "vpmaddwd %7, %3, %3\n\t"
            "vpmaddwd %7, %2, %2\n\t"
            "vpaddd %3, %0, %0\n\t"
            "vpaddd %2, %1, %1"
            : "+x"(dot[0]), "+x"(dot[1]), "=&x"(x), "=&x"(y)
            : "m"(*(const int8_t(*)[4])q), "x"(top), "x"(bottom), "x"(ones));
}

/* q6: two lines into 32-bit sums. The second activations are loaded twice: a register is short. */
GEMM_INLINE void multiply_two_lines(__m256i dot[2], __m256i top, __m256i bottom, __m256i top2,
                                    __m256i bottom2, __m256i ones, const int8_t *q) {
    __m256i x, y, z;
    __asm__("vpbroadcastd %5, %2\n\t"
            "vpmaddubsw %2, %7, %3\n\t"
            "vpmaddubsw %2, %8, %2\n\t"
            "vpbroadcastd %6, %4\n\t"
            "vpmaddubsw %4, %9, %4\n\t"
            "vpaddw %4, %3, %3\n\t"
            "vpbroadcastd %6, %4\n\t"
            "vpmaddubsw %4, %10, %4\n\t"
            "vpaddw %4, %2, %2\n\t"
            "vpmaddwd %11, %3, %3\n\t"
            "vpmaddwd %11, %2, %2\n\t"
            "vpaddd %3, %0, %0\n\t"
            "vpaddd %2, %1, %1"
            : "+x"(dot[0]), "+x"(dot[1]), "=&x"(x), "=&x"(y), "=&x"(z)
            : "m"(*(const int8_t(*)[4])q), "m"(*(const int8_t(*)[4])(q + 4)), "x"(top), "x"(bottom),
              "x"(top2), "x"(bottom2), "x"(ones));
}

/* Block b of 32 columns, from the start values to 32-bit sums. */
GEMM_INLINE void multiply_block(const cvq_type type, const int rows, const gemm_chunk *w, size_t b,
                                const int32_t *start, const int8_t *q, size_t stride,
                                __m256i (*dot)[2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    const uint8_t *line = w->lines + 512 * b;
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int h = 0; h < 2; h++) {
            dot[i][h] = type == CVQ_TYPE_Q4
                            ? _mm256_setzero_si256()
                            : _mm256_set1_epi32(start[i * GEMM_CHUNK_BLOCKS + (int)b]);
            /* 16-bit zero points and sums: the high halves of the zeros' lanes may be -1, so they
             * are cleared. */
            if (type == CVQ_TYPE_Q4T)
                dot[i][h] = _mm256_madd_epi16(
                    dot[i][h], _mm256_and_si256(load_half((const uint8_t *)(w->zeros[b] + 8 * h)),
                                                _mm256_set1_epi32(0xffff)));
        }
    }
    GEMM_UNROLL for (int l = 0; l < 8; l += type == CVQ_TYPE_Q6 ? 2 : 1) {
        const __m256i top = load_half(line + 64 * l), bottom = load_half(line + 64 * l + 32);
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            const int8_t *four = q + (size_t)i * stride + 4 * l;
            if (type == CVQ_TYPE_Q4)
                multiply_narrow(dot[i], top, bottom, four);
            else if (type == CVQ_TYPE_Q4T || type == CVQ_TYPE_Q4H)
                multiply_line(dot[i], top, bottom, ones, four);
            else
                multiply_two_lines(dot[i], top, bottom, load_half(line + 64 * l + 64),
                                   load_half(line + 64 * l + 96), ones, four);
        }
    }
    if (type != CVQ_TYPE_Q4) return;
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int h = 0; h < 2; h++) dot[i][h] =
            _mm256_add_epi32(_mm256_madd_epi16(dot[i][h], ones),
                             _mm256_set1_epi32(start[i * GEMM_CHUNK_BLOCKS + (int)b]));
    }
}

/* Block b of 128 columns. */
GEMM_INLINE void multiply_wide_block(const int rows, const gemm_chunk *w, size_t b,
                                     const int32_t *start, const int8_t *q, __m256i (*dot)[2]) {
    GEMM_UNROLL for (int i = 0; i < rows; i++) dot[i][0] = dot[i][1] =
        _mm256_set1_epi32(start[i * GEMM_CHUNK_BLOCKS + (int)b]);
    const uint8_t *line = w->lines + 4096 * b;
    for (int l = 0; l < 32; l += 4, line += 512, q += 16) {
        GEMM_UNROLL for (int j = 0; j < 8; j++) { /* of each line even columns, then odd ones */
            __m256i top = load_half(line + 64 * j), bottom = load_half(line + 64 * j + 32);
            const int8_t *pairs = q + GEMM_CHUNK_Q8 * (j % 2) + j / 2 * 4;
            GEMM_UNROLL for (int i = 0; i < rows; i++)
                multiply_wide(dot[i], top, bottom,
                              (const uint32_t *)(const void *)(pairs + 2 * GEMM_CHUNK_Q8 * i));
        }
    }
}

GEMM_INLINE void tile(const cvq_type type, const int rows, const gemm_chunk *w,
                      const gemm_tile_rows *a, float *c, size_t ldc, bool first) {
    const size_t block = type == CVQ_TYPE_Q8 ? 128 : 32;
    for (size_t k = 0; k < w->columns; k += CVQ_ACT_BLOCK, first = false) {
        const size_t end = k + CVQ_ACT_BLOCK < w->columns ? k + CVQ_ACT_BLOCK : w->columns;
        part_sums part;
        part_clear(rows, &part);
        for (size_t b = k / block; b < end / block; b++) {
            __m256i dot[GEMM_MAX_ROWS][2];
            if (type == CVQ_TYPE_Q8)
                multiply_wide_block(rows, w, b, a->start, a->q + block * b, dot);
            else
                multiply_block(type, rows, w, b, a->start, a->q + block * b, a->stride, dot);
            part_add(rows, w, b, dot, &part);
        }
        part_end(rows, &part, a, k, c, ldc, first);
    }
}

#define TILE(type, TYPE, rows)                                                                     \
    static void tile_##type##_##rows(const gemm_chunk *w, const gemm_tile_rows *a, float *c,       \
                                     size_t ldc, bool first) {                                     \
        tile(CVQ_TYPE_##TYPE, rows, w, a, c, ldc, first);                                          \
    }
#define TILES_4(type, TYPE)                                                                        \
    TILE(type, TYPE, 1)                                                                            \
    TILE(type, TYPE, 2)                                                                            \
    TILE(type, TYPE, 3)                                                                            \
    TILE(type, TYPE, 4)
#define TILES_6(type, TYPE)                                                                        \
    TILES_4(type, TYPE)                                                                            \
    TILE(type, TYPE, 5)                                                                            \
    TILE(type, TYPE, 6)
#define NAMES_4(type) tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4
#define NAMES_6(type) NAMES_4(type), tile_##type##_5, tile_##type##_6

TILES_6(q8, Q8)
TILES_4(q6, Q6)
TILES_4(q4t, Q4T)
TILES_4(q4h, Q4H)
TILES_6(q4, Q4)

#define KERNEL_OF(type, unpacks, starts, packs, bytes, most, tiles)                                \
    void gemm_u8##type##_16x##most##__avx2(const cvq_panels *w, size_t panel0, size_t num_panels,  \
                                           const cvq_act8 *a, size_t row0, size_t m, float *c,     \
                                           size_t ldc) {                                           \
        static const gemm_plan plan = {.unpack = unpacks,                                          \
                                       .start = starts,                                            \
                                       .start_lanes = 1,                                           \
                                       .pack = packs,                                              \
                                       .activation_bytes = bytes,                                  \
                                       .rows = most,                                               \
                                       .panels = 1,                                                \
                                       .tile = {{NAMES_##most(tiles)}}};                           \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, unpack_q8_split, start_128, pack_split, 2, 6, q8)
KERNEL_OF(q6, unpack_q6_lines, start_32, NULL, 1, 4, q6)
KERNEL_OF(q4t, unpack_q4t_lines, start_32, NULL, 1, 4, q4t)
KERNEL_OF(q4, unpack_q4_lines, start_32, NULL, 1, 6, q4)
KERNEL_OF(q4s, unpack_q4s_lines, start_32, NULL, 1, 4, q4t)
KERNEL_OF(q4h, unpack_q4h_lines, start_32, NULL, 1, 4, q4h)
