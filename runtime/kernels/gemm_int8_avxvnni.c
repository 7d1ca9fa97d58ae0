/* int8 matrix kernels with AVX-VNNI: as with AVX-512 VNNI, in ymm registers. A tile is one panel
 * (two halves) x 6 rows: 12 integer accumulators; the floats stay in c. */
#include "runtime/kernels/gemm_int8_ymm.h"
#include "runtime/kernels/vnni_ymm.h"

static void unpack_q8_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q8(w, data, out);
}
static void unpack_q6_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q6(w, data, out);
}
static void unpack_q4t_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4t(w, data, out, true);
}
static void unpack_q4s_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4s(w, data, out, true);
}
static void unpack_q4h_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4h(w, data, out);
}
static void unpack_q4_lines(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    unpack_q4(w, data, out);
}

/* Four activations by the two halves of a line. In assembly, so that gcc 12 neither copies every
 * accumulator twice nor loads activations ahead, for which there are no registers. */
GEMM_INLINE void multiply_line(__m256i dot[2], __m256i top, __m256i bottom, const int8_t *q) {
    __m256i four;
    __asm__("vpbroadcastd %3, %2\n\t" VPDPBUSD " %2, %4, %0\n\t" VPDPBUSD " %2, %5, %1"
            : "+x"(dot[0]), "+x"(dot[1]), "=&x"(four)
            : "m"(*(const int8_t(*)[4])q), "x"(top), "x"(bottom));
}

GEMM_INLINE void multiply_block(const int rows, const int block, const gemm_chunk *w,
                                const gemm_tile_rows *a, size_t b, part_sums *part) {
    __m256i dot[GEMM_MAX_ROWS][2];
    GEMM_UNROLL for (int i = 0; i < rows; i++) dot[i][0] = dot[i][1] =
        _mm256_set1_epi32(a->start[i * GEMM_CHUNK_BLOCKS + (int)b]);
    const uint8_t *line = w->lines + b * (size_t)block * 16;
    const int8_t *q = a->q + b * (size_t)block;
    for (int l0 = 0; l0 < block / 4; l0 += 8, line += 512, q += 32) {
        GEMM_UNROLL for (int l = 0; l < 8; l++) {
            __m256i top = load_half(line + 64 * l), bottom = load_half(line + 64 * l + 32);
            GEMM_UNROLL for (int i = 0; i < rows; i++)
                multiply_line(dot[i], top, bottom, q + (size_t)i * a->stride + 4 * l);
        }
    }
    part_add(rows, w, b, dot, part);
}

GEMM_INLINE void tile(const int rows, const int block, const gemm_chunk *w, const gemm_tile_rows *a,
                      float *c, size_t ldc, bool first) {
    for (size_t k = 0; k < w->columns; k += CVQ_ACT_BLOCK, first = false) {
        const size_t end = k + CVQ_ACT_BLOCK < w->columns ? k + CVQ_ACT_BLOCK : w->columns;
        part_sums part;
        part_clear(rows, &part);
        for (size_t b = k / (size_t)block; b < end / (size_t)block; b++)
            multiply_block(rows, block, w, a, b, &part);
        part_end(rows, &part, a, k, c, ldc, first);
    }
}

#define TILE(rows, block)                                                                          \
    static void tile_##block##_##rows(const gemm_chunk *w, const gemm_tile_rows *a, float *c,      \
                                      size_t ldc, bool first) {                                    \
        tile(rows, block, w, a, c, ldc, first);                                                    \
    }
#define TILES(block)                                                                               \
    TILE(1, block)                                                                                 \
    TILE(2, block) TILE(3, block) TILE(4, block) TILE(5, block) TILE(6, block)
TILES(32)
TILES(128)

#define KERNEL_OF(type, block)                                                                     \
    void gemm_u8##type##_16x6__avxvnni(const cvq_panels *w, size_t panel0, size_t num_panels,      \
                                       const cvq_act8 *a, size_t row0, size_t m, float *c,         \
                                       size_t ldc) {                                               \
        static const gemm_plan plan = {                                                            \
            .unpack = unpack_##type##_lines,                                                       \
            .start = start_##block,                                                                \
            .start_lanes = 1,                                                                      \
            .rows = 6,                                                                             \
            .panels = 1,                                                                           \
            .tile = {{tile_##block##_1, tile_##block##_2, tile_##block##_3, tile_##block##_4,      \
                      tile_##block##_5, tile_##block##_6}}};                                       \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, 128)
KERNEL_OF(q6, 32)
KERNEL_OF(q4t, 32)
KERNEL_OF(q4, 32)
KERNEL_OF(q4s, 32)
KERNEL_OF(q4h, 32)
