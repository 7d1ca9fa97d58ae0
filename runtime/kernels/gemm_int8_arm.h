/* What the int8 matrix kernels of all aarch64 levels share: unpacking into lines of signed bytes,
 * which are the codes (with a table: its entry plus the offset) less 128, so that the zero point
 * falls by 128 as well. A line is four quarters of 4 rows x 4 columns. */
#ifndef CVQ_RUNTIME_KERNELS_GEMM_INT8_ARM_H
#define CVQ_RUNTIME_KERNELS_GEMM_INT8_ARM_H

#include <arm_neon.h>
#include <string.h>

#include "runtime/kernels/gemm_int8.h"

#define START_LANES 4 /* a vector for each start value */
#define START_STRIDE (START_LANES * GEMM_CHUNK_BLOCKS)

GEMM_INLINE float32x4_t load_halves(const uint8_t *data) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(data)));
}
GEMM_INLINE void unpack_scales(const uint8_t *data, float (*out)[CVQ_PANEL_ROWS]) {
    for (int i = 0; i < 8; i++) vst1q_f32(out[i / 4] + i % 4 * 4, load_halves(data + 8 * i));
}
GEMM_INLINE void store_signed(uint8_t *to, uint8x16_t codes) {
    vst1q_u8(to, veorq_u8(codes, vdupq_n_u8(128)));
}

GEMM_INLINE void unpack_q8(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    unpack_scales(data, out->scale);
    for (size_t i = 0; i < GEMM_CHUNK_Q8 * CVQ_PANEL_ROWS; i += 16)
        store_signed(out->storage + i, vld1q_u8(data + 64 + i));
    out->lines = out->storage;
    out->zero = 0;
}

GEMM_INLINE void unpack_q4(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        const uint8_t *plane = group + 64 + b % 2 * 256;
        uint8_t *lines = out->storage + b * 512;
        for (int j = 0; j < 256; j += 16) {
            uint8x16_t x = vld1q_u8(plane + j);
            store_signed(lines + j, vandq_u8(x, vdupq_n_u8(15)));
            store_signed(lines + j + 256, vshrq_n_u8(x, 4));
        }
    }
    out->lines = out->storage;
    out->zero = 8 - 128;
}

GEMM_INLINE void unpack_q6(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const uint8x16_t high = vdupq_n_u8(0x30);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(52);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        const uint8_t *plane = group + 64 + b % 2 * 256;
        const uint8_t *plane2 = group + 64 + 512 + b % 2 * 128;
        uint8_t *lines = out->storage + b * 512;
        for (int j = 0; j < 128; j += 16) {
            /* Lines 0, 1 (bits 0-1), 2, 3 (2-3), 4, 5 (4-5) and 6, 7 (6-7) of the block. */
            uint8x16_t h = vld1q_u8(plane2 + j);
            uint8x16_t x = vld1q_u8(plane + j), y = vld1q_u8(plane + j + 128);
            uint8x16_t code = vandq_u8(x, vdupq_n_u8(15));
            store_signed(lines + j, vorrq_u8(code, vandq_u8(vshlq_n_u8(h, 4), high)));
            code = vandq_u8(y, vdupq_n_u8(15));
            store_signed(lines + j + 128, vorrq_u8(code, vandq_u8(vshlq_n_u8(h, 2), high)));
            store_signed(lines + j + 256, vorrq_u8(vshrq_n_u8(x, 4), vandq_u8(h, high)));
            code = vandq_u8(vshrq_n_u8(h, 2), high);
            store_signed(lines + j + 384, vorrq_u8(vshrq_n_u8(y, 4), code));
        }
    }
    out->lines = out->storage;
    out->zero = 32 - 128;
}

/* Four rows' codes, a quarter of each line, become entries of the table plus their row's offset. */
GEMM_INLINE void unpack_by_table(const uint8_t *plane, uint8x16_t table, uint8x16_t offset,
                                 int quarter, uint8_t *lines) {
    for (int j = 16 * quarter; j < 256; j += 64) {
        uint8x16_t x = vld1q_u8(plane + j);
        uint8x16_t low = vqtbl1q_u8(table, vandq_u8(x, vdupq_n_u8(15)));
        uint8x16_t upper = vqtbl1q_u8(table, vshrq_n_u8(x, 4));
        store_signed(lines + j, vaddq_u8(low, offset));
        store_signed(lines + j + 256, vaddq_u8(upper, offset));
    }
}

GEMM_INLINE void unpack_q4t(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    const uint8x16_t table = vld1q_u8(w->codebook->table);
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        if (b % 2 == 0) unpack_scales(group, &out->scale[b]);
        const uint8_t *plane = group + 64 + b % 2 * 256, *scales = group + b % 2 * 32;
        for (int quarter = 0; quarter < 4; quarter++) {
            uint16x4_t s = vreinterpret_u16_u8(vld1_u8(scales + 8 * quarter));
            uint32x4_t offset32 = vmovl_u16(vand_u16(s, vdup_n_u16(31)));
            uint8x16_t offset = vreinterpretq_u8_u32(vmulq_n_u32(offset32, 0x01010101u));
            unpack_by_table(plane, table, offset, quarter, out->storage + b * 512);
        }
    }
    out->lines = out->storage;
    out->zero = w->codebook->zero - 128;
}

/* d of four of q4s's rows; levels and scales are bytes, head: the rows' scales. */
GEMM_INLINE float32x4_t q4s_scales(const uint8_t *head, uint32x4_t level, uint32x4_t scale) {
    float32x4_t d = vmulq_f32(vreinterpretq_f32_u8(vld1q_u8(head)), vcvtq_f32_u32(level));
    uint32x4_t sign = vshlq_n_u32(vandq_u32(scale, vdupq_n_u32(128)), 24);
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(d), sign));
}

/* Bytes 4n .. 4n + 3 as lanes. */
GEMM_INLINE uint32x4_t four_lanes(uint8x16_t bytes, int n) {
    const uint8x16_t place = {0, 64, 64, 64, 1, 64, 64, 64, 2, 64, 64, 64, 3, 64, 64, 64};
    return vreinterpretq_u32_u8(vqtbl1q_u8(bytes, vaddq_u8(place, vdupq_n_u8((uint8_t)(4 * n)))));
}

GEMM_INLINE void unpack_q4s(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    const uint8x16_t table = vld1q_u8(w->codebook->table);
    const uint8x16x2_t levels = {{vld1q_u8(cvq_q4s_levels), vld1q_u8(cvq_q4s_levels + 16)}};
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 4 * GEMM_GROUP_BYTES(68);
        const uint8x16_t scales = vld1q_u8(group + b % 4 * 16);
        const uint8x16_t level = vqtbl2q_u8(levels, vandq_u8(scales, vdupq_n_u8(31)));
        const uint8x16_t offsets =
            vaddq_u8(vandq_u8(vshrq_n_u8(scales, 3), vdupq_n_u8(12)), vdupq_n_u8(5));
        for (int quarter = 0; quarter < 4; quarter++) {
            float32x4_t d = q4s_scales(out->head + 16 * quarter, four_lanes(level, quarter),
                                       four_lanes(scales, quarter));
            vst1q_f32(out->scale[b] + 4 * quarter, d);
            uint32x4_t offset = vmulq_n_u32(four_lanes(offsets, quarter), 0x01010101u);
            unpack_by_table(group + 64 + b % 4 * 256, table, vreinterpretq_u8_u32(offset), quarter,
                            out->storage + b * 512);
        }
    }
    out->lines = out->storage;
    out->zero = w->codebook->zero - 128;
}

/* d of four rows: the level at the place of an exponent's end and a mantissa's start; level 0 is
 * 2^-18. */
GEMM_INLINE float32x4_t q4h_scales(uint32x4_t words) {
    uint32x4_t level = vshlq_n_u32(vandq_u32(words, vdupq_n_u32(0xff00)), 11);
    return vreinterpretq_f32_u32(vaddq_u32(level, vdupq_n_u32((127 - 18) << 23)));
}

/* Both tables, one behind the other; bits: which of them (16 or 0) for each byte. */
GEMM_INLINE uint8x16_t q4h_entries(uint8x16x2_t tables, uint8x16_t codes, uint8x16_t bits,
                                   uint8x16_t offset) {
    return vaddq_u8(vqtbl2q_u8(tables, vorrq_u8(codes, bits)), offset);
}

GEMM_INLINE void unpack_q4h(const cvq_panels *w, const uint8_t *data, gemm_chunk *out) {
    (void)w;
    const uint8x16_t sixteen = vdupq_n_u8(16), even = vdupq_n_u8(14);
    const uint8x16x2_t tables = {{vld1q_u8(cvq_q4h_tables[0]), vld1q_u8(cvq_q4h_tables[1])}};
    for (size_t b = 0; b < out->columns / 32; b++) {
        const uint8_t *group = data + b / 2 * GEMM_GROUP_BYTES(36);
        const uint8_t *plane = group + 64 + b % 2 * 256, *scales = group + b % 2 * 32;
        uint8_t *lines = out->storage + b * 512;
        for (int quarter = 0; quarter < 4; quarter++) {
            uint32x4_t words = vmovl_u16(vreinterpret_u16_u8(vld1_u8(scales + 8 * quarter)));
            vst1q_f32(out->scale[b] + 4 * quarter, q4h_scales(words));
            uint32x4_t low = vmulq_n_u32(vandq_u32(words, vdupq_n_u32(255)), 0x01010101u);
            uint8x16_t bytes = vreinterpretq_u8_u32(low);
            uint8x16_t first = vandq_u8(vshlq_n_u8(bytes, 1), sixteen);
            uint8x16_t second = vandq_u8(vshrq_n_u8(bytes, 3), sixteen);
            uint8x16_t offset = vandq_u8(vshlq_n_u8(bytes, 1), even);
            uint8x16_t offset2 = vandq_u8(vshrq_n_u8(bytes, 3), even);
            for (int j = 16 * quarter; j < 256; j += 64) {
                uint8x16_t x = vld1q_u8(plane + j), codes = vandq_u8(x, vdupq_n_u8(15));
                store_signed(lines + j, q4h_entries(tables, codes, first, offset));
                codes = vshrq_n_u8(x, 4);
                store_signed(lines + j + 256, q4h_entries(tables, codes, second, offset2));
            }
        }
    }
    out->lines = out->storage;
    out->zero = CVQ_Q4H_ZERO - 128;
}

/* Sums start this much higher, and are then the bits of a float that is 1.5 x 2^23 more than they:
 * one subtraction instead of a conversion, for which most cores have a single unit. Sums of 128
 * columns are below 2^21. */
#define SUM_BITS 0x4b400000
#define SUM_MORE 12582912.0f

GEMM_INLINE float32x4_t sum_to_float(int32x4_t sum) {
    return vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(SUM_MORE));
}

/* The starts of a row's eight blocks of 32 columns, or two of 128, in the lanes of s. */
GEMM_INLINE void start_lanes(const size_t block, const int32_t *sums, int32_t zero,
                             int32x4_t s[2]) {
    const int32x4_t none = vdupq_n_s32(SUM_BITS), factor = vdupq_n_s32(zero);
    int32x4_t first = vld1q_s32(sums), second = vld1q_s32(sums + 4);
    if (block == 128) {
        first = vpaddq_s32(first, second);
        first = second = vpaddq_s32(first, first);
    }
    s[0] = vmlsq_s32(none, first, factor);
    s[1] = vmlsq_s32(none, second, factor);
}

/* The starts of one row and 256 columns, four lanes for each. */
GEMM_INLINE void start_row(const size_t block, const int32_t *sums, int32_t zero, int32_t *out) {
    int32x4_t s[2];
    start_lanes(block, sums, zero, s);
    GEMM_UNROLL for (int j = 0; j < 2; j++) {
        vst1q_s32(out + 16 * j, vdupq_laneq_s32(s[j], 0));
        vst1q_s32(out + 16 * j + 4, vdupq_laneq_s32(s[j], 1));
        if (block == 128) break;
        vst1q_s32(out + 16 * j + 8, vdupq_laneq_s32(s[j], 2));
        vst1q_s32(out + 16 * j + 12, vdupq_laneq_s32(s[j], 3));
    }
}

#define START_OF(block)                                                                            \
    static void start_##block(const int32_t *sums, size_t stride, size_t rows, size_t columns,     \
                              int32_t zero, int32_t *out) {                                        \
        for (size_t i = 0; i < rows; i++)                                                          \
            for (size_t k = 0; k < columns; k += 256)                                              \
                start_row(block, sums + i * stride + k / CVQ_ACT_SUM, zero,                        \
                          out + i * START_STRIDE + START_LANES * (k / block));                     \
    }

/* A load for each use: compilers load once and copy, which takes the units of the products. */
GEMM_INLINE int32x4_t load_again(const int32_t *p) {
    int32x4_t x;
    __asm__ volatile("ldr %q0, %1" : "=w"(x) : "Q"(*(const int32_t(*)[4])p));
    return x;
}

/* The start of block b for row i. */
GEMM_INLINE int32x4_t start_value(const gemm_tile_rows *a, size_t i, size_t b) {
    return load_again(a->start + i * START_STRIDE + START_LANES * b);
}

/* What the sums of 128 columns start from. */
GEMM_INLINE float32x4_t part_start(void) {
    static const _Alignas(16) int32_t zeros[4];
    return vreinterpretq_f32_s32(load_again(zeros));
}

/* The end of a block, for a row and a quarter. */
GEMM_INLINE void part_add(int32x4_t sum, float32x4_t weight_scale, float32x4_t *part) {
    *part = vfmaq_f32(*part, weight_scale, sum_to_float(sum));
}

/* The end of the 128 columns from k on, for four numbers of c; first: of the whole chunk. */
GEMM_INLINE void part_end(float32x4_t part, float scale, float *c, bool fresh) {
    float32x4_t before = fresh ? vdupq_n_f32(0) : vld1q_f32(c);
    vst1q_f32(c, vfmaq_n_f32(before, part, scale));
}

#endif
