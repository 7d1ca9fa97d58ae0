/* What the int8 matrix kernels of AVX2 and AVX-VNNI share: unpacking into lines of unsigned codes
 * (a line is two ymm: rows 0..7 and 8..15, 4 columns each) and small helpers. */
#ifndef CVQ_RUNTIME_KERNELS_GEMM_INT8_YMM_H
#define CVQ_RUNTIME_KERNELS_GEMM_INT8_YMM_H

#include <immintrin.h>
#include <string.h>

#include "runtime/kernels/block_scales_ymm.h"
#include "runtime/kernels/gemm_int8_start.h"

GEMM_INLINE __m256i load_half(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
GEMM_INLINE void store_half(uint8_t *p, __m256i x) {
    _mm256_store_si256((__m256i *)(void *)p, x);
}

/* The scales of both blocks of a group. */
GEMM_INLINE void unpack_scales(const uint8_t *data, float (*out)[CVQ_PANEL_ROWS]) {
    for (int i = 0; i < 4; i++)
        _mm256_storeu_ps(
            out[i / 2] + i % 2 * 8,
            _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(data + 16 * i))));
}

/* q8 is read in place. */
GEMM_INLINE void unpack_q8(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    unpack_scales(data, out->scale);
    out->lines = data + 64;
    out->zero = 128;
}

GEMM_INLINE void unpack_q4(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const __m256i low = _mm256_set1_epi8(15);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        const uint8_t *plane = group + 64 + b % 2 * 256;
        uint8_t *lines = out->storage + b * 512;
        for (int l = 0; l < 8; l++) { /* halves of lines */
            __m256i x = load_half(plane + 32 * l);
            store_half(lines + 32 * l, _mm256_and_si256(x, low));
            store_half(lines + 32 * l + 256, _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
        }
    }
    out->lines = out->storage;
    out->zero = 8;
}

GEMM_INLINE void unpack_q6(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(52);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        const uint8_t *plane = group + 64 + b % 2 * 256;
        const uint8_t *plane2 = group + 64 + 512 + b % 2 * 128;
        uint8_t *lines = out->storage + b * 512;
        for (int l = 0; l < 8; l++) {
            /* Line l / 2 has columns 2l.. and 16 + 2l..; their high bits stand in line l / 2 % 2
             * of the 2-bit plane, at bits 2 (l / 4) and 4 further up. */
            __m256i x = load_half(plane + 32 * l), h = load_half(plane2 + 32 * (l % 4));
            __m256i hx = l < 4 ? _mm256_slli_epi16(h, 4) : _mm256_slli_epi16(h, 2);
            __m256i hy = l < 4 ? h : _mm256_srli_epi16(h, 2);
            __m256i y = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
            x = _mm256_and_si256(x, low);
            store_half(lines + 32 * l, _mm256_or_si256(x, _mm256_and_si256(hx, high)));
            store_half(lines + 32 * l + 256, _mm256_or_si256(y, _mm256_and_si256(hy, high)));
        }
    }
    out->lines = out->storage;
    out->zero = 32;
}

/* A byte in each lane becomes four. */
GEMM_INLINE __m256i spread(__m256i byte) {
    byte = _mm256_or_si256(byte, _mm256_slli_epi32(byte, 8));
    return _mm256_or_si256(byte, _mm256_slli_epi32(byte, 16));
}

/* Block b's codes, from `plane`, become entries of the table. add_offset: each row's offset is
 * added to them (at most 158) and the zero is the codebook's; else they stay within 127 and `zeros`
 * gets codebook->zero - offset. */
GEMM_INLINE void unpack_by_table(const uint8_t *plane, __m256i table, __m256i *offset,
                                 __m256i codebook_zero, const bool add_offset, size_t b,
                                 gemm_chunk *out) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int h = 0; h < 2; h++) {
        __m256i zero = _mm256_sub_epi32(codebook_zero, offset[h]);
        _mm256_storeu_si256((__m256i *)(void *)(out->zeros[b] + 8 * h), zero);
        offset[h] = spread(offset[h]);
    }
    uint8_t *lines = out->storage + b * 512;
    for (int l = 0; l < 8; l++) {
        __m256i x = load_half(plane + 32 * l), y = _mm256_srli_epi16(x, 4);
        x = _mm256_shuffle_epi8(table, _mm256_and_si256(x, low));
        y = _mm256_shuffle_epi8(table, _mm256_and_si256(y, low));
        if (add_offset) {
            x = _mm256_add_epi8(x, offset[l % 2]);
            y = _mm256_add_epi8(y, offset[l % 2]);
        }
        store_half(lines + 32 * l, x);
        store_half(lines + 32 * l + 256, y);
    }
}

GEMM_INLINE void unpack_q4t(const cvq_panels *w, const uint8_t *data, gemm_chunk *out,
                            const bool add_offset) {
    const __m256i codebook_zero = _mm256_set1_epi32(w->codebook->zero);
    const __m256i table = load_table(w->codebook->table);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        __m256i scales = load_half(group + b % 2 * 32), offset[2];
        scales = _mm256_and_si256(scales, _mm256_set1_epi16(31));
        offset[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(scales));
        offset[1] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(scales, 1));
        unpack_by_table(group + 64 + b % 2 * 256, table, offset, codebook_zero, add_offset, b, out);
    }
    out->lines = out->storage;
    out->zero = w->codebook->zero;
}

GEMM_INLINE void unpack_q4s(const cvq_panels *w, const uint8_t *data, gemm_chunk *out,
                            const bool add_offset) {
    const __m256i codebook_zero = _mm256_set1_epi32(w->codebook->zero);
    const __m256i table = load_table(w->codebook->table);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 4 * GEMM_GROUP_BYTES(68), *scales = group + b % 4 * 16;
        __m256i offset[2];
        __m256 d[2];
        q4s_scales(out->head, scales, d);
        for (int h = 0; h < 2; h++) {
            _mm256_storeu_ps(out->scale[b] + 8 * h, d[h]);
            offset[h] =
                _mm256_add_epi32(q4s_offsets(q4s_lanes(scales + 8 * h)), _mm256_set1_epi32(5));
        }
        unpack_by_table(group + 64 + b % 4 * 256, table, offset, codebook_zero, add_offset, b, out);
    }
    out->lines = out->storage;
    out->zero = w->codebook->zero;
}

GEMM_INLINE void unpack_q4h(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const __m256i low = _mm256_set1_epi8(15);
    const q4h_tables tables = q4h_tables_load();
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        const uint8_t *plane = group + 64 + b % 2 * 256;
        uint8_t *lines = out->storage + b * 512;
        for (int h = 0; h < 2; h++) { /* of the lines */
            const __m256i words = q4h_words(group + b % 2 * 32 + 16 * h);
            const __m256i bytes = q4h_bytes(words),
                          narrow[2] = {q4h_narrow(bytes, 0), q4h_narrow(bytes, 1)};
            _mm256_storeu_ps(out->scale[b] + 8 * h, q4h_scales(words));
            for (int at = 32 * h; at < 256; at += 64) {
                __m256i x = load_half(plane + at), y = _mm256_srli_epi16(x, 4);
                x = q4h_entries(_mm256_and_si256(x, low), &tables, narrow[0]);
                y = q4h_entries(_mm256_and_si256(y, low), &tables, narrow[1]);
                store_half(lines + at, _mm256_add_epi8(x, q4h_offsets(bytes, 0)));
                store_half(lines + at + 256, _mm256_add_epi8(y, q4h_offsets(bytes, 1)));
            }
        }
    }
    out->lines = out->storage;
    out->zero = CVQ_Q4H_ZERO;
}

GEMM_INLINE __m256i broadcast4(const void *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm256_set1_epi32(four);
}

/* What a tile gathers over 128 columns, before the activations' scale. */
typedef struct part_sums {
    __m256 row[GEMM_MAX_ROWS][2];
} part_sums;

GEMM_INLINE void part_clear(const int rows, part_sums *part) {
    GEMM_UNROLL for (int i = 0; i < rows; i++) part->row[i][0] = part->row[i][1] =
        _mm256_setzero_ps();
}

/* The end of block b. */
GEMM_INLINE void part_add(const int rows, const gemm_chunk *w, size_t b, __m256i (*dot)[2],
                          part_sums *part) {
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        GEMM_UNROLL for (int h = 0; h < 2; h++) part->row[i][h] = _mm256_fmadd_ps(
            _mm256_loadu_ps(w->scale[b] + 8 * h), _mm256_cvtepi32_ps(dot[i][h]), part->row[i][h]);
    }
}

/* The end of 128 columns, the chunk's k and following. */
GEMM_INLINE void part_end(const int rows, const part_sums *part, const gemm_tile_rows *a, size_t k,
                          float *c, size_t ldc, bool first) {
    const float *scale = a->scale + k / CVQ_ACT_BLOCK;
    GEMM_UNROLL for (int i = 0; i < rows; i++) {
        const __m256 s = _mm256_set1_ps(scale[(size_t)i * a->scale_stride]);
        GEMM_UNROLL for (int h = 0; h < 2; h++) {
            float *out = c + (size_t)i * ldc + 8 * h;
            __m256 before = first ? _mm256_setzero_ps() : _mm256_loadu_ps(out);
            _mm256_storeu_ps(out, _mm256_fmadd_ps(part->row[i][h], s, before));
        }
    }
}

#endif
