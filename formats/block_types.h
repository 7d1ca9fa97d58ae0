/* Block types: what the bytes of a weight mean. The scalar definitions here are the ones that
 * docs/format.md describes and that every kernel must agree with.
 *
 * A matrix [rows, cols] is cut into panels of R rows (R = 16 for matrices, R = 1 for tables of
 * which single rows are read), and a panel into groups of `group` consecutive columns: two blocks
 * with one f16 scale (q4h: a word of another kind) per row each, or (q4s) four with one byte,
 * relative to a scale of the row that stands at the start of the panel. */
#ifndef CVQ_FORMATS_BLOCK_TYPES_H
#define CVQ_FORMATS_BLOCK_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Numbers as in the file; never used twice. */
typedef enum cvq_type {
    CVQ_TYPE_F32 = 0,
    CVQ_TYPE_BF16 = 1,
    CVQ_TYPE_Q8 = 2,
    CVQ_TYPE_Q6 = 3,
    CVQ_TYPE_Q4T = 4,
    CVQ_TYPE_Q4 = 5,
    CVQ_TYPE_Q4S = 6,
    CVQ_TYPE_Q4H = 7,
    CVQ_TYPES
} cvq_type;

#define CVQ_PANEL_ROWS 16
#define CVQ_MAX_GROUP 256
#define CVQ_MAX_BLOCKS 4 /* of a group */

typedef struct cvq_type_info {
    const char *name;
    uint32_t block;      /* columns that share a scale; 0 for f32 and bf16 */
    uint32_t group;      /* columns are padded to a multiple of this: 1 (f32), 64, 128 (q4s), 256
                            (q8) */
    uint32_t row_bytes;  /* bytes of one row's part of a group, scales included: a group of R rows
                            has R x row_bytes */
    uint32_t head_bytes; /* of one row, at the start of its panel: q4s 4, others 0 */
    uint32_t zero_point; /* subtracted from the unsigned code: q8 128, q6 32, q4 8; q4t and q4s have
                            their own in the codebook, q4h 64 with its tables */
    float bits;          /* per weight, without head_bytes */
} cvq_type_info;

/* NULL for a number that is no type. */
const cvq_type_info *cvq_type_describe(uint32_t type);
/* The largest magnitude that the type is made for: q4h 63 x 31/128, the largest scale times the
 * least of its four ends; infinity for the others. */
float cvq_type_limit(cvq_type type);
/* By name ("q4t"); false if unknown. */
bool cvq_type_find(cvq_type *type, const char *name);

/* q4t and q4s: value = d (table[code] + offset - zero). Entries rise from 0 to at most 127. All
 * zero for the other types. */
typedef struct cvq_codebook {
    uint8_t table[16];
    uint8_t zero;
    uint8_t reserved[7];
} cvq_codebook;

/* The default table: "A" of docs/quantization.md. */
extern const cvq_codebook cvq_codebook_default;
/* q4h's two tables, wide and narrow; the same in every file, so it has no codebook. */
extern const uint8_t cvq_q4h_tables[2][16];
#define CVQ_Q4H_ZERO 64
/* Whether the codebook is the type's. */
static inline bool cvq_type_has_codebook(cvq_type type) {
    return type == CVQ_TYPE_Q4T || type == CVQ_TYPE_Q4S;
}
/* Rising, first 0, last <= 127, zero <= 127, reserved 0 (q4t, q4s); all bytes zero (other types).
 */
bool cvq_codebook_valid(const cvq_codebook *c, cvq_type type);

/* The one size function: bytes of a tensor of this type and panel height (16 or 1; f32 only 1), pad
 * rows and columns included. False if rows or cols is 0, if type and panel height do not go
 * together, or if the result does not fit in 63 bits. */
bool cvq_tensor_bytes(uint32_t type, uint32_t panel_rows, uint64_t rows, uint64_t cols,
                      uint64_t *bytes);

/* Of a tensor that cvq_tensor_bytes accepted. */
static inline size_t cvq_padded_cols(const cvq_type_info *t, size_t cols) {
    return (cols + t->group - 1) / t->group * t->group;
}
/* Where group number g starts in its panel. */
static inline size_t cvq_group_offset(const cvq_type_info *t, uint32_t panel_rows, size_t g) {
    return (t->head_bytes + g * t->row_bytes) * panel_rows;
}
static inline size_t cvq_panel_bytes(const cvq_type_info *t, uint32_t panel_rows, size_t cols) {
    return cvq_group_offset(t, panel_rows, cvq_padded_cols(t, cols) / t->group);
}

/* What the scale of a block means, for each half of its columns: value = d x (c - zero), where c is
 * the code, or table[code].
 * - f16 scales: d is the scale with all its bits (sign included); q4t: zero is the codebook's less
 *   the offset, the integer in d's five lowest mantissa bits.
 * - q4s: a byte, 5 bits of level, 2 of offset, the sign: d = +-(row_scale x cvq_q4s_levels[level]),
 *   zero is the codebook's less 5 + 4 x offset. row_scale is for q4s alone.
 * - q4h: from the highest bits down 8 of level, then 4 for the second half and 4 for the first: 1
 * of table, 3 of offset. d = 2^(level / 16 - 18) x (1 + level % 16 / 16), zero is 64 - 2 x offset.
 *   Every word is a scale, and none is 0; under word 0 code 9 stands for 0. */
typedef struct cvq_block_scale {
    float d;
    int zero[2];
    const uint8_t *table[2]; /* NULL: the code itself */
} cvq_block_scale;
static inline int cvq_code_integer(const cvq_block_scale *s, size_t half, uint8_t code) {
    return (s->table[half] ? s->table[half][code] : code) - s->zero[half];
}
extern const uint8_t cvq_q4s_levels[32];
cvq_block_scale cvq_scale_decode(cvq_type type, const cvq_codebook *codebook, float row_scale,
                                 uint16_t scale);
/* The scales of a panel's rows, [R], from its head; 1 for types without. Finite, and below
 * CVQ_MAX_ROW_SCALE in magnitude. */
#define CVQ_MAX_ROW_SCALE 0x1p64f
void cvq_row_scales_pack(cvq_type type, uint32_t panel_rows, const float *row_scales,
                         uint8_t *panel);
void cvq_row_scales_unpack(cvq_type type, uint32_t panel_rows, const uint8_t *panel,
                           float *row_scales);

/* The code for columns that only pad a row out, and for weights that are 0, in one half of a block:
 * the zero point; for types with tables the code whose integer is nearest to 0 under this scale
 * (the lower one of two), so that padding is the same whoever writes it. */
uint8_t cvq_zero_code(cvq_type type, const cvq_codebook *codebook, uint16_t scale, size_t half);
/* Writes it into columns [first, block) of a block. */
void cvq_pad_codes(cvq_type type, const cvq_codebook *codebook, uint16_t scale, size_t first,
                   uint8_t *codes);

/* A group taken apart: codes[r * group + k] (unsigned, before the zero point) and scales[b * R + r]
 * of its blocks (at most CVQ_MAX_BLOCKS x R), words of 16 bits or (q4s) bytes. */
void cvq_group_pack(cvq_type type, uint32_t panel_rows, const uint8_t *codes,
                    const uint16_t *scales, uint8_t *bytes);
void cvq_group_unpack(cvq_type type, uint32_t panel_rows, const uint8_t *bytes, uint8_t *codes,
                      uint16_t *scales);

/* A whole panel to f32: out[r * ld + k] for k < padded columns (ld at least that). Any type; f32
 * with R = 1 copies. */
void cvq_panel_decode(cvq_type type, uint32_t panel_rows, const cvq_codebook *codebook,
                      const uint8_t *panel, size_t cols, float *out, size_t ld);
/* f32 rows [R][ld] to a bf16 panel (nearest even; columns from cols on are written as 0). */
void cvq_panel_encode_bf16(uint32_t panel_rows, const float *rows, size_t ld, size_t cols,
                           uint8_t *panel);

/* Whether every scale of the panel is finite (block types), or every value (f32, bf16). */
bool cvq_panel_finite(cvq_type type, uint32_t panel_rows, const uint8_t *panel, size_t cols);

#endif
