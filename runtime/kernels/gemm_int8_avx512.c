/* int8 matrix kernels with AVX-512 VNNI: vpdpbusd multiplies unsigned codes by signed activations,
 * one 64-byte line (16 rows x 4 columns) and one broadcast of 4 activations at a time.
 *
 * The zero point costs nothing: the accumulator starts at -zero x (sum of the activations), one
 * broadcast load. Offsets are added to the table's entries while unpacking (at most 158). Tiles of
 * 2 panels x 6 rows keep 12 integer and 12 float accumulators, those of 128 columns, in registers;
 * q8 is read in place. */
#include <immintrin.h>

#include "runtime/kernels/block_scales_zmm.h"
#include "runtime/kernels/gemm_int8_start.h"

#define KEPT_ROWS 2

static __m512i load_line(const uint8_t *p) {
    return _mm512_loadu_si512((const void *)p);
}

static void unpack_scales(const uint8_t *data, float (*out)[CVQ_PANEL_ROWS]) {
    for (int b = 0; b < 2; b++) {
        __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)(data + 32 * b));
        _mm512_store_ps(out[b], _mm512_cvtph_ps(half));
    }
}

static void unpack_q8(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    unpack_scales(data, out->scale);
    out->lines = data + 64;
    out->zero = 128;
}

static void unpack_q4(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const __m512i low = _mm512_set1_epi8(15);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        const uint8_t *plane = group + 64 + b % 2 * 256;
        uint8_t *lines = out->storage + b * 512;
        for (int l = 0; l < 4; l++) {
            __m512i x = load_line(plane + 64 * l);
            _mm512_store_si512(lines + 64 * l, _mm512_and_si512(x, low));
            _mm512_store_si512(lines + 64 * l + 256,
                               _mm512_and_si512(_mm512_srli_epi16(x, 4), low));
        }
    }
    out->lines = out->storage;
    out->zero = 8;
}

/* A byte in each lane becomes four. */
static __m512i spread(__m512i byte) {
    byte = _mm512_or_si512(byte, _mm512_slli_epi32(byte, 8));
    return _mm512_or_si512(byte, _mm512_slli_epi32(byte, 16));
}

/* A block's codes become entries of the table plus the offset of their row. */
static void unpack_by_table(const uint8_t *plane, __m512i table, __m512i offset, uint8_t *lines) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int l = 0; l < 4; l++) {
        __m512i x = load_line(plane + 64 * l), y = _mm512_srli_epi16(x, 4);
        x = _mm512_shuffle_epi8(table, _mm512_and_si512(x, low));
        y = _mm512_shuffle_epi8(table, _mm512_and_si512(y, low));
        _mm512_store_si512(lines + 64 * l, _mm512_add_epi8(x, offset));
        _mm512_store_si512(lines + 64 * l + 256, _mm512_add_epi8(y, offset));
    }
}

static void unpack_q4t(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    const __m512i table = load_table(w->codebook->table);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        __m256i scales = _mm256_loadu_si256((const __m256i *)(const void *)(group + b % 2 * 32));
        __m512i offset = _mm512_cvtepu16_epi32(_mm256_and_si256(scales, _mm256_set1_epi16(31)));
        unpack_by_table(group + 64 + b % 2 * 256, table, spread(offset), out->storage + b * 512);
    }
    out->lines = out->storage;
    out->zero = w->codebook->zero;
}

static void unpack_q4s(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    const __m512i table = load_table(w->codebook->table);
    const q4s_levels levels = q4s_levels_load();
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 4 * GEMM_GROUP_BYTES(68);
        __m512i lanes = q4s_lanes(group + b % 4 * 16);
        _mm512_store_ps(out->scale[b], q4s_scales(levels, out->head, lanes));
        __m512i offset = _mm512_add_epi32(q4s_offsets(lanes), _mm512_set1_epi32(5));
        unpack_by_table(group + 64 + b % 4 * 256, table, spread(offset), out->storage + b * 512);
    }
    out->lines = out->storage;
    out->zero = w->codebook->zero;
}

static void unpack_q4h(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i wide = load_table(cvq_q4h_tables[0]), narrow = load_table(cvq_q4h_tables[1]);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        const __m512i lanes = q4h_lanes(group + b % 2 * 32);
        const q4h_halves halves = q4h_halves_of(lanes);
        _mm512_store_ps(out->scale[b], q4h_scales(lanes));
        const uint8_t *plane = group + 64 + b % 2 * 256;
        uint8_t *lines = out->storage + b * 512;
        for (int l = 0; l < 4; l++) {
            __m512i x = load_line(plane + 64 * l), y = _mm512_srli_epi16(x, 4);
            x = q4h_entries(_mm512_and_si512(x, low), wide, narrow, &halves, 0);
            y = q4h_entries(_mm512_and_si512(y, low), wide, narrow, &halves, 1);
            _mm512_store_si512(lines + 64 * l, x);
            _mm512_store_si512(lines + 64 * l + 256, y);
        }
    }
    out->lines = out->storage;
    out->zero = CVQ_Q4H_ZERO;
}

static void unpack_q6(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(52);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        const uint8_t *plane = group + 64 + b % 2 * 256;
        const uint8_t *plane2 = group + 64 + 512 + b % 2 * 128;
        uint8_t *lines = out->storage + b * 512;
        for (int l = 0; l < 4; l++) {
            /* Line l has columns 4l.. and 16 + 4l..; their high bits stand in line l % 2 of the
             * 2-bit plane, at bits 2 (l / 2) and 4 further up. */
            __m512i x = load_line(plane + 64 * l), h = load_line(plane2 + 64 * (l % 2));
            __m512i hx = l < 2 ? _mm512_slli_epi16(h, 4) : _mm512_slli_epi16(h, 2);
            __m512i hy = l < 2 ? h : _mm512_srli_epi16(h, 2);
            __m512i y = _mm512_and_si512(_mm512_srli_epi16(x, 4), low);
            x = _mm512_and_si512(x, low);
            x = _mm512_or_si512(x, _mm512_and_si512(hx, high));
            y = _mm512_or_si512(y, _mm512_and_si512(hy, high));
            _mm512_store_si512(lines + 64 * l, x);
            _mm512_store_si512(lines + 64 * l + 256, y);
        }
    }
    out->lines = out->storage;
    out->zero = 32;
}

/* Four activations by a line of each panel. In assembly, so that gcc 12 neither copies every
 * accumulator twice nor loads activations ahead, for which there are no registers. */
GEMM_INLINE void multiply_line(const int panels, __m512i *dot, const __m512i *line,
                               const int8_t *q) {
    __m512i four;
    if (panels == 2)
        __asm__("vpbroadcastd %3, %2\n\t"
                "vpdpbusd %2, %4, %0\n\t"
                "vpdpbusd %2, %5, %1"
                : "+v"(dot[0]), "+v"(dot[1]), "=&v"(four)
                : "m"(*(const int8_t(*)[4])q), "v"(line[0]), "v"(line[1]));
    else
        __asm__("vpdpbusd %1%{1to16%}, %2, %0"
                : "+v"(dot[0])
                : "m"(*(const int8_t(*)[4])q), "v"(line[0]));
}

/* Block b: part += scales x (float)(sum of products). */
GEMM_INLINE void multiply_block(const int panels, const int rows, const int block,
                                const gemm_chunk *w, const gemm_tile_rows *a, size_t b,
                                __m512 (*part)[GEMM_MAX_PANELS]) {
    __m512i dot[GEMM_MAX_ROWS][GEMM_MAX_PANELS];
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) dot[i][p] =
            _mm512_set1_epi32(a->start[i * GEMM_CHUNK_BLOCKS + (int)b]);
    }
    const int8_t *q = a->q + b * (size_t)block;
    const uint8_t *line[GEMM_MAX_PANELS];
    GEMM_UNROLL for (int p = 0; p < panels; p++) line[p] = w[p].lines + b * (size_t)block * 16;
    for (int l0 = 0; l0 < block / 4; l0 += 8, q += 32) {
        GEMM_UNROLL for (int l = 0; l < 8; l++) {
            __m512i weights[GEMM_MAX_PANELS];
            GEMM_UNROLL for (int p = 0; p < panels; p++) weights[p] =
                load_line(line[p] + 64 * (l0 + l));
            GEMM_UNROLL for (int i = 0; i < rows; i++)
                multiply_line(panels, dot[i], weights, q + (size_t)i * a->stride + 4 * l);
        }
    }
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) part[i][p] = _mm512_fmadd_ps(
            _mm512_load_ps(w[p].scale[b]), _mm512_cvtepi32_ps(dot[i][p]), part[i][p]);
    }
}

/* Stores of c take turns with the products, so of blocks of 32 columns, which leave registers free,
 * the first rows' c stays there for a whole chunk. */
GEMM_INLINE void tile(const int panels, const int rows, const int block, const gemm_chunk *w,
                      const gemm_tile_rows *a, float *c, size_t ldc, bool first) {
    const int kept = block > 32 ? 0 : rows < KEPT_ROWS ? rows : KEPT_ROWS;
    __m512 keep[KEPT_ROWS][GEMM_MAX_PANELS];
    GEMM_UNROLL for (int i = 0; i < kept; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++) keep[i][p] =
            first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + (size_t)i * ldc + 16 * p);
    }
    for (size_t k = 0; k < w->columns; k += CVQ_ACT_BLOCK, first = false) {
        const size_t end = k + CVQ_ACT_BLOCK < w->columns ? k + CVQ_ACT_BLOCK : w->columns;
        __m512 part[GEMM_MAX_ROWS][GEMM_MAX_PANELS];
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            GEMM_UNROLL for (int p = 0; p < panels; p++) part[i][p] = _mm512_setzero_ps();
        }
        for (size_t b = k / (size_t)block; b < end / (size_t)block; b++)
            multiply_block(panels, rows, block, w, a, b, part);
        const float *scale = a->scale + k / CVQ_ACT_BLOCK;
        GEMM_UNROLL for (int i = 0; i < rows; i++) {
            const __m512 s = _mm512_set1_ps(scale[(size_t)i * a->scale_stride]);
            GEMM_UNROLL for (int p = 0; p < panels; p++) {
                if (i < kept) {
                    keep[i][p] = _mm512_fmadd_ps(part[i][p], s, keep[i][p]);
                    continue;
                }
                float *out = c + (size_t)i * ldc + 16 * p;
                __m512 before = first ? _mm512_setzero_ps() : _mm512_loadu_ps(out);
                _mm512_storeu_ps(out, _mm512_fmadd_ps(part[i][p], s, before));
            }
        }
    }
    GEMM_UNROLL for (int i = 0; i < kept; i++) {
        GEMM_UNROLL for (int p = 0; p < panels; p++)
            _mm512_storeu_ps(c + (size_t)i * ldc + 16 * p, keep[i][p]);
    }
}

#define TILE(panels, rows, block)                                                                  \
    static void tile_##block##_##panels##x##rows(const gemm_chunk *w, const gemm_tile_rows *a,     \
                                                 float *c, size_t ldc, bool first) {               \
        tile(panels, rows, block, w, a, c, ldc, first);                                            \
    }
#define TILES(panels, block)                                                                       \
    TILE(panels, 1, block)                                                                         \
    TILE(panels, 2, block)                                                                         \
    TILE(panels, 3, block)                                                                         \
    TILE(panels, 4, block) TILE(panels, 5, block) TILE(panels, 6, block)
TILES(1, 32)
TILES(2, 32)
TILES(1, 128)
TILES(2, 128)

#define PLAN(type, block)                                                                          \
    {                                                                                              \
        .unpack = unpack_##type, .start = start_##block, .start_lanes = 1, .rows = 6, .panels = 2, \
        .tile = {                                                                                  \
            {tile_##block##_1x1, tile_##block##_1x2, tile_##block##_1x3, tile_##block##_1x4,       \
             tile_##block##_1x5, tile_##block##_1x6},                                              \
            {tile_##block##_2x1, tile_##block##_2x2, tile_##block##_2x3, tile_##block##_2x4,       \
             tile_##block##_2x5, tile_##block##_2x6}                                               \
        }                                                                                          \
    }

#define KERNEL_OF(type, block)                                                                     \
    void gemm_u8##type##_32x6__avx512(const cvq_panels *w, size_t panel0, size_t num_panels,       \
                                      const cvq_act8 *a, size_t row0, size_t m, float *c,          \
                                      size_t ldc) {                                                \
        static const gemm_plan plan = PLAN(type, block);                                           \
        cvq_gemm_int8_run(&plan, w, panel0, num_panels, a, row0, m, c, ldc);                       \
    }
KERNEL_OF(q8, 128)
KERNEL_OF(q6, 32)
KERNEL_OF(q4t, 32)
KERNEL_OF(q4, 32)
KERNEL_OF(q4s, 32)
KERNEL_OF(q4h, 32)
