/* What the bytes of a weight mean: the table of types, the one size function, and the scalar code
 * that packs, unpacks and decodes. Everything else that reads weights is checked against this file;
 * docs/format.md says the same in words. */
#include "formats/block_types.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"

_Static_assert(sizeof(cvq_codebook) == 24, "the codebook lies in the file as it is");

static const cvq_type_info types[CVQ_TYPES] = {
    [CVQ_TYPE_F32] = {"f32", 0, 1, 4, 0, 0, 32.0f},
    [CVQ_TYPE_BF16] = {"bf16", 0, 64, 128, 0, 0, 16.0f},
    [CVQ_TYPE_Q8] = {"q8", 128, 256, 260, 0, 128, 8.125f},
    [CVQ_TYPE_Q6] = {"q6", 32, 64, 52, 0, 32, 6.5f},
    [CVQ_TYPE_Q4T] = {"q4t", 32, 64, 36, 0, 0, 4.5f},
    [CVQ_TYPE_Q4] = {"q4", 32, 64, 36, 0, 8, 4.5f},
    [CVQ_TYPE_Q4S] = {"q4s", 32, 128, 68, 4, 0, 4.25f},
    [CVQ_TYPE_Q4H] = {"q4h", 32, 64, 36, 0, 0, 4.5f},
};

/* 255 x 1.06^(level - 31), rounded; level 0 makes a block of zeros. */
const uint8_t cvq_q4s_levels[32] = {0,   44,  47,  50,  53,  56,  59,  63,  67,  71,  75,
                                    80,  84,  89,  95,  100, 106, 113, 120, 127, 134, 142,
                                    151, 160, 170, 180, 191, 202, 214, 227, 241, 255};

const uint8_t cvq_q4h_tables[2][16] = {
    {0, 19, 27, 35, 41, 46, 51, 56, 60, 64, 69, 75, 81, 87, 96, 113},
    {21, 29, 35, 40, 45, 49, 53, 56, 59, 62, 66, 70, 74, 79, 84, 93}};

const cvq_codebook cvq_codebook_default = {
    .table = {0, 13, 24, 33, 42, 49, 56, 62, 68, 74, 80, 87, 94, 103, 112, 127}, .zero = 67};

const cvq_type_info *cvq_type_describe(uint32_t type) {
    return type < CVQ_TYPES ? &types[type] : NULL;
}

float cvq_type_limit(cvq_type type) {
    return cvq_bits_f32(type == CVQ_TYPE_Q4H ? 0x41742000u : 0x7f800000u); /* 15.2578125 */
}

bool cvq_type_find(cvq_type *type, const char *name) {
    for (uint32_t i = 0; i < CVQ_TYPES; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *type = (cvq_type)i;
            return true;
        }
    }
    return false;
}

bool cvq_codebook_valid(const cvq_codebook *c, cvq_type type) {
    if (!cvq_type_has_codebook(type)) return cvq_all_zero((const uint8_t *)c, sizeof *c);
    if (c->table[0] != 0 || c->table[15] > 127 || c->zero > 127) return false;
    for (int i = 1; i < 16; i++) {
        if (c->table[i] <= c->table[i - 1]) return false;
    }
    return cvq_all_zero(c->reserved, sizeof c->reserved);
}

bool cvq_tensor_bytes(uint32_t type, uint32_t panel_rows, uint64_t rows, uint64_t cols,
                      uint64_t *bytes) {
    const cvq_type_info *t = cvq_type_describe(type);
    if (!t || rows == 0 || cols == 0) return false;
    if (panel_rows != 1 && (panel_rows != CVQ_PANEL_ROWS || type == CVQ_TYPE_F32)) return false;
    uint64_t padded_rows, padded_cols, row, total;
    if (!cvq_round_up_u64(rows, panel_rows, &padded_rows)) return false;
    if (!cvq_round_up_u64(cols, t->group, &padded_cols)) return false;
    if (!cvq_mul_u64(padded_cols / t->group, t->row_bytes, &row)) return false;
    if (!cvq_add_u64(row, t->head_bytes, &row)) return false;
    if (!cvq_mul_u64(row, padded_rows, &total) || total > INT64_MAX) return false;
    *bytes = total;
    return true;
}

cvq_block_scale cvq_scale_decode(cvq_type type, const cvq_codebook *codebook, float row_scale,
                                 uint16_t scale) {
    if (type == CVQ_TYPE_Q4H) {
        cvq_block_scale s = {.d = cvq_bits_f32(0x36800000u + ((uint32_t)scale >> 8 << 19))};
        for (int half = 0; half < 2; half++) {
            const unsigned bits = (unsigned)scale >> 4 * half & 15u;
            s.table[half] = cvq_q4h_tables[bits >> 3];
            s.zero[half] = CVQ_Q4H_ZERO - 2 * (int)(bits & 7);
        }
        return s;
    }
    if (type == CVQ_TYPE_Q4S) {
        const float d = row_scale * (float)cvq_q4s_levels[scale & 31u];
        const int zero = codebook->zero - (5 + 4 * (scale >> 5 & 3));
        return (cvq_block_scale){
            scale & 128u ? -d : d, {zero, zero}, {codebook->table, codebook->table}};
    }
    const float d = cvq_f16_to_f32(scale);
    if (type == CVQ_TYPE_Q4T) {
        const int zero = codebook->zero - (scale & 31);
        return (cvq_block_scale){d, {zero, zero}, {codebook->table, codebook->table}};
    }
    const int zero = (int)types[type].zero_point;
    return (cvq_block_scale){d, {zero, zero}, {NULL, NULL}};
}

uint8_t cvq_zero_code(cvq_type type, const cvq_codebook *codebook, uint16_t scale, size_t half) {
    const cvq_block_scale s = cvq_scale_decode(type, codebook, 1.0f, scale);
    uint8_t best = 0;
    if (!s.table[half]) return (uint8_t)s.zero[half];
    for (uint8_t i = 1; i < 16; i++) {
        if (abs(cvq_code_integer(&s, half, i)) < abs(cvq_code_integer(&s, half, best))) best = i;
    }
    return best;
}

void cvq_pad_codes(cvq_type type, const cvq_codebook *codebook, uint16_t scale, size_t first,
                   uint8_t *codes) {
    const size_t block = types[type].block;
    for (size_t k = first; k < block; k++)
        codes[k] = cvq_zero_code(type, codebook, scale, k / (block / 2));
}

void cvq_row_scales_pack(cvq_type type, uint32_t panel_rows, const float *row_scales,
                         uint8_t *panel) {
    if (types[type].head_bytes == 0) return;
    for (size_t r = 0; r < panel_rows; r++)
        cvq_store_le(panel + 4 * r, cvq_f32_bits(row_scales[r]), 4);
}

void cvq_row_scales_unpack(cvq_type type, uint32_t panel_rows, const uint8_t *panel,
                           float *row_scales) {
    const bool head = types[type].head_bytes != 0;
    for (size_t r = 0; r < panel_rows; r++)
        row_scales[r] = head ? cvq_bits_f32((uint32_t)cvq_load_le(panel + 4 * r, 4)) : 1.0f;
}

/* A group's scales: how many, and the bytes of each. */
static size_t scale_count(const cvq_type_info *t, uint32_t panel_rows) {
    return t->group / t->block * panel_rows;
}
static unsigned scale_size(const cvq_type_info *t) {
    return t->head_bytes ? 1 : 2;
}

/* Where the code of row r, column k of a block stands, from the start of the block's plane: 4
 * consecutive columns of a row are neighbours, then the next row. q8 keeps a code in a byte; the
 * 4-bit plane has columns k and k + 16 in one byte, the 2-bit plane k, k + 8, k + 16, k + 24. */
static size_t byte_place(uint32_t panel_rows, size_t r, size_t k) {
    return 4 * panel_rows * (k / 4) + 4 * r + k % 4;
}

void cvq_group_pack(cvq_type type, uint32_t panel_rows, const uint8_t *codes,
                    const uint16_t *scales, uint8_t *bytes) {
    const size_t height = panel_rows, group = types[type].group, block = types[type].block;
    const size_t count = scale_count(&types[type], panel_rows);
    const unsigned size = scale_size(&types[type]);
    for (size_t i = 0; i < count; i++) cvq_store_le(bytes + size * i, scales[i], size);
    uint8_t *plane = bytes + size * count;
    memset(plane, 0, height * types[type].row_bytes - size * count);
    for (size_t r = 0; r < height; r++) {
        for (size_t k = 0; k < group; k++) {
            const size_t b = k / block, kb = k % block;
            const uint32_t code = codes[r * group + k];
            if (type == CVQ_TYPE_Q8) {
                plane[128 * height * b + byte_place(panel_rows, r, kb)] = (uint8_t)code;
                continue;
            }
            uint8_t *low = plane + 16 * height * b + byte_place(panel_rows, r, kb % 16);
            *low = (uint8_t)(*low | (code & 15u) << (kb / 16 * 4));
            if (type == CVQ_TYPE_Q6) {
                uint8_t *high =
                    plane + 32 * height + 8 * height * b + byte_place(panel_rows, r, kb % 8);
                *high = (uint8_t)(*high | (code >> 4 & 3u) << (kb / 8 * 2));
            }
        }
    }
}

void cvq_group_unpack(cvq_type type, uint32_t panel_rows, const uint8_t *bytes, uint8_t *codes,
                      uint16_t *scales) {
    const size_t height = panel_rows, group = types[type].group, block = types[type].block;
    const size_t count = scale_count(&types[type], panel_rows);
    const unsigned size = scale_size(&types[type]);
    for (size_t i = 0; i < count; i++) scales[i] = (uint16_t)cvq_load_le(bytes + size * i, size);
    const uint8_t *plane = bytes + size * count;
    for (size_t r = 0; r < height; r++) {
        for (size_t k = 0; k < group; k++) {
            const size_t b = k / block, kb = k % block;
            if (type == CVQ_TYPE_Q8) {
                codes[r * group + k] = plane[128 * height * b + byte_place(panel_rows, r, kb)];
                continue;
            }
            uint32_t low = plane[16 * height * b + byte_place(panel_rows, r, kb % 16)];
            uint32_t code = low >> (kb / 16 * 4) & 15u;
            if (type == CVQ_TYPE_Q6) {
                uint32_t high =
                    plane[32 * height + 8 * height * b + byte_place(panel_rows, r, kb % 8)];
                code |= (high >> (kb / 8 * 2) & 3u) << 4;
            }
            codes[r * group + k] = (uint8_t)code;
        }
    }
}

/* One group of a block type to f32: value = d x (integer), rounded once. */
static void group_decode(cvq_type type, size_t height, const cvq_codebook *codebook,
                         const float *row_scales, const uint8_t *bytes, float *out, size_t ld) {
    const size_t group = types[type].group, block = types[type].block;
    uint8_t codes[CVQ_PANEL_ROWS * CVQ_MAX_GROUP];
    uint16_t scales[CVQ_MAX_BLOCKS * CVQ_PANEL_ROWS];
    cvq_group_unpack(type, (uint32_t)height, bytes, codes, scales);
    for (size_t b = 0; b < group / block; b++) {
        for (size_t r = 0; r < height; r++) {
            /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): all were unpacked */
            const uint16_t scale = scales[b * height + r];
            const cvq_block_scale s = cvq_scale_decode(type, codebook, row_scales[r], scale);
            const uint8_t *code = codes + r * group + b * block;
            float *row = out + r * ld + b * block;
            for (size_t k = 0; k < block; k++)
                /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): as above */
                row[k] = s.d * (float)cvq_code_integer(&s, k / (block / 2), code[k]);
        }
    }
}

/* Index of row r, column k in a group of bf16, counted in 16-bit values: lines of 2 columns x 16
 * rows, or plain for single rows. */
static size_t bf16_place(size_t height, size_t r, size_t k) {
    return 2 * height * (k / 2) + 2 * r + k % 2;
}

void cvq_panel_decode(cvq_type type, uint32_t panel_rows, const cvq_codebook *codebook,
                      const uint8_t *panel, size_t cols, float *out, size_t ld) {
    const cvq_type_info *t = &types[type];
    const size_t height = panel_rows, groups = cvq_padded_cols(t, cols) / t->group;
    float row_scales[CVQ_PANEL_ROWS];
    cvq_row_scales_unpack(type, panel_rows, panel, row_scales);
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *bytes = panel + cvq_group_offset(t, panel_rows, g);
        float *to = out + g * t->group;
        if (type == CVQ_TYPE_F32) {
            to[0] = cvq_bits_f32((uint32_t)cvq_load_le(bytes, 4));
        } else if (type == CVQ_TYPE_BF16) {
            for (size_t r = 0; r < height; r++) {
                for (size_t k = 0; k < t->group; k++) {
                    const uint8_t *p = bytes + 2 * bf16_place(height, r, k);
                    to[r * ld + k] = cvq_bf16_to_f32((uint16_t)cvq_load_le(p, 2));
                }
            }
        } else {
            group_decode(type, height, codebook, row_scales, bytes, to, ld);
        }
    }
}

void cvq_panel_encode_bf16(uint32_t panel_rows, const float *rows, size_t ld, size_t cols,
                           uint8_t *panel) {
    const cvq_type_info *t = &types[CVQ_TYPE_BF16];
    const size_t height = panel_rows, padded = cvq_padded_cols(t, cols);
    for (size_t r = 0; r < height; r++) {
        for (size_t k = 0; k < padded; k++) {
            uint8_t *group = panel + k / t->group * t->row_bytes * height;
            uint16_t h = k < cols ? cvq_f32_to_bf16(rows[r * ld + k]) : 0;
            cvq_store_le(group + 2 * bf16_place(height, r, k % t->group), h, 2);
        }
    }
}

/* Whether none of n 16-bit values has all bits of `exponent` set; written so that compilers make
 * vectors of it. */
static bool halves_finite(const uint8_t *p, size_t n, unsigned exponent) {
    unsigned found = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned v = p[2 * i] | (unsigned)p[2 * i + 1] << 8;
        found |= (v & exponent) == exponent;
    }
    return !found;
}

static bool floats_finite(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((cvq_load_le(p + 4 * i, 4) & 0x7f800000u) == 0x7f800000u) return false;
    return true;
}

bool cvq_panel_finite(cvq_type type, uint32_t panel_rows, const uint8_t *panel, size_t cols) {
    const cvq_type_info *t = &types[type];
    const size_t size = cvq_panel_bytes(t, panel_rows, cols);
    if (type == CVQ_TYPE_F32) return floats_finite(panel, size / 4);
    if (type == CVQ_TYPE_BF16) return halves_finite(panel, size / 2, 0x7f80u);
    if (t->head_bytes) { /* bytes are always finite */
        float row_scales[CVQ_PANEL_ROWS];
        bool finite = true;
        cvq_row_scales_unpack(type, panel_rows, panel, row_scales);
        for (size_t r = 0; r < panel_rows; r++)
            finite &= row_scales[r] > -CVQ_MAX_ROW_SCALE && row_scales[r] < CVQ_MAX_ROW_SCALE;
        return finite;
    }
    if (type == CVQ_TYPE_Q4H) return true; /* every word is a finite scale */
    const size_t stride = (size_t)t->row_bytes * panel_rows;
    for (size_t at = 0; at < size; at += stride) {
        if (!halves_finite(panel + at, 2 * (size_t)panel_rows, 0x7c00u)) return false;
    }
    return true;
}
