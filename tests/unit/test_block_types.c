/* Block types: sizes against the figures of the design, layouts against their formulas written out
 * a second time, values against theirs.
 * cvq-test: formats */
#include "formats/block_types.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/half.h"
#include "tests/unit/harness.h"

static uint64_t seed = 0x1234567887654321u;
static uint32_t random32(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}

static const cvq_type block_types[] = {CVQ_TYPE_Q8, CVQ_TYPE_Q6,  CVQ_TYPE_Q4T,
                                       CVQ_TYPE_Q4, CVQ_TYPE_Q4S, CVQ_TYPE_Q4H};
static const uint32_t heights[] = {16, 1};
#define EACH_BLOCK_TYPE(t, h)                                                                      \
    for (int t = 0; t < 6; t++)                                                                    \
        for (int h = 0; h < 2; h++)

static uint32_t code_limit(cvq_type type) {
    return type == CVQ_TYPE_Q8 ? 256 : type == CVQ_TYPE_Q6 ? 64 : 16;
}

static void types_are_described(void) {
    static const struct {
        const char *name;
        uint32_t block, group, row_bytes, head_bytes, zero;
        double bits;
    } wanted[] = {{"f32", 0, 1, 4, 0, 0, 32},           {"bf16", 0, 64, 128, 0, 0, 16},
                  {"q8", 128, 256, 260, 0, 128, 8.125}, {"q6", 32, 64, 52, 0, 32, 6.5},
                  {"q4t", 32, 64, 36, 0, 0, 4.5},       {"q4", 32, 64, 36, 0, 8, 4.5},
                  {"q4s", 32, 128, 68, 4, 0, 4.25},     {"q4h", 32, 64, 36, 0, 0, 4.5}};
    for (uint32_t i = 0; i < CVQ_TYPES; i++) {
        const cvq_type_info *t = cvq_type_describe(i);
        cvq_type found;
        CHECK(t && strcmp(t->name, wanted[i].name) == 0);
        CHECK(cvq_type_find(&found, wanted[i].name) && found == i);
        CHECK(t->block == wanted[i].block && t->group == wanted[i].group);
        CHECK(t->row_bytes == wanted[i].row_bytes && t->zero_point == wanted[i].zero);
        CHECK(t->head_bytes == wanted[i].head_bytes);
        CHECK((double)t->bits == wanted[i].bits);
        CHECK((double)t->row_bytes * 8 / t->group == wanted[i].bits);
    }
    cvq_type type;
    CHECK(!cvq_type_describe(CVQ_TYPES) && !cvq_type_describe(UINT32_MAX));
    CHECK(!cvq_type_find(&type, "q5") && !cvq_type_find(&type, "") && !cvq_type_find(&type, "Q4"));
}

static void sizes_are_exact(void) {
    uint64_t n;
    /* 16 rows x a pair of blocks, as the design lists them */
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q8, 16, 16, 256, &n) && n == 64 + 2 * 2048);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4, 16, 16, 64, &n) && n == 64 + 2 * 256);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4T, 16, 16, 64, &n) && n == 64 + 2 * 256);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4H, 16, 16, 64, &n) && n == 64 + 2 * 256);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q6, 16, 16, 64, &n) && n == 64 + 2 * 256 + 2 * 128);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_BF16, 16, 16, 64, &n) && n == 2048);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4S, 16, 16, 128, &n) && n == 64 + 1088);
    /* matrices of the real model */
    CHECK(cvq_tensor_bytes(CVQ_TYPE_BF16, 16, 14336, 4096, &n) && n == 2ull * 14336 * 4096);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4, 16, 14336, 4096, &n) && n == 14336ull * 4096 / 16 * 9);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q6, 16, 128256, 4096, &n) && n == 128256ull * 4096 / 16 * 13);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q8, 1, 128256, 4096, &n) && n == 128256ull * 4096 / 128 * 130);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4S, 16, 4096, 14336, &n) &&
          n == 4096 * 4 + 4096ull * 14336 / 32 * 17);
    /* padding: rows to 16 only in panels of 16, columns to the group */
    CHECK(cvq_tensor_bytes(CVQ_TYPE_BF16, 16, 17, 65, &n) && n == 32 * 128 * 2);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_BF16, 1, 17, 65, &n) && n == 17 * 128 * 2);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q8, 16, 1, 257, &n) && n == 16 * 2 * 260);
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4S, 16, 17, 129, &n) && n == 2 * (64 + 2 * 1088));
    CHECK(cvq_tensor_bytes(CVQ_TYPE_Q4S, 1, 17, 129, &n) && n == 17 * (4 + 2 * 68));
    CHECK(cvq_tensor_bytes(CVQ_TYPE_F32, 1, 3, 7, &n) && n == 84);
    const cvq_type_info *q8 = cvq_type_describe(CVQ_TYPE_Q8);
    CHECK(cvq_padded_cols(q8, 257) == 512 && cvq_panel_bytes(q8, 16, 257) == 16 * 2 * 260);
    const cvq_type_info *q4s = cvq_type_describe(CVQ_TYPE_Q4S);
    CHECK(cvq_panel_bytes(q4s, 16, 129) == 64 + 2 * 1088 && cvq_group_offset(q4s, 16, 1) == 1152);
}

static void impossible_sizes_are_refused(void) {
    uint64_t n = 7;
    const uint64_t huge = UINT64_MAX, half = (uint64_t)1 << 63;
    CHECK(!cvq_tensor_bytes(CVQ_TYPES, 16, 1, 1, &n));
    CHECK(!cvq_tensor_bytes(CVQ_TYPE_Q4, 0, 1, 1, &n) &&
          !cvq_tensor_bytes(CVQ_TYPE_Q4, 8, 1, 1, &n));
    CHECK(!cvq_tensor_bytes(CVQ_TYPE_F32, 16, 1, 1, &n));
    CHECK(!cvq_tensor_bytes(CVQ_TYPE_Q4, 16, 0, 1, &n) &&
          !cvq_tensor_bytes(CVQ_TYPE_Q4, 16, 1, 0, &n));
    for (uint32_t t = 0; t < CVQ_TYPES; t++) {
        CHECK(!cvq_tensor_bytes(t, 1, huge, 1, &n) && !cvq_tensor_bytes(t, 1, 1, huge, &n));
        CHECK(!cvq_tensor_bytes(t, 1, half, 1, &n));
        CHECK(!cvq_tensor_bytes(t, 1, 1, half, &n) == (cvq_type_describe(t)->bits >= 8));
        CHECK(!cvq_tensor_bytes(t, 1, huge, huge, &n));
        CHECK(!cvq_tensor_bytes(t, 1, (uint64_t)1 << 32, (uint64_t)1 << 32, &n));
        if (t) CHECK(!cvq_tensor_bytes(t, 16, huge - 3, huge - 3, &n));
    }
    CHECK(cvq_tensor_bytes(CVQ_TYPE_F32, 1, 1, ((uint64_t)1 << 61) - 1, &n));
    CHECK(n == ((uint64_t)1 << 63) - 4);
    CHECK(!cvq_tensor_bytes(CVQ_TYPE_F32, 1, 1, (uint64_t)1 << 61, &n));
}

static void codebooks_are_checked(void) {
    cvq_codebook c = cvq_codebook_default, none = {0};
    CHECK(cvq_codebook_valid(&c, CVQ_TYPE_Q4T) && !cvq_codebook_valid(&none, CVQ_TYPE_Q4T));
    CHECK(cvq_codebook_valid(&none, CVQ_TYPE_Q4) && !cvq_codebook_valid(&c, CVQ_TYPE_Q4));
    CHECK(cvq_codebook_valid(&c, CVQ_TYPE_Q4S) && !cvq_codebook_valid(&none, CVQ_TYPE_Q4S));
    CHECK(cvq_codebook_valid(&none, CVQ_TYPE_Q4H) && !cvq_codebook_valid(&c, CVQ_TYPE_Q4H));
    c.table[15] = 128;
    CHECK(!cvq_codebook_valid(&c, CVQ_TYPE_Q4T));
    c = cvq_codebook_default;
    c.table[0] = 1;
    CHECK(!cvq_codebook_valid(&c, CVQ_TYPE_Q4T));
    c = cvq_codebook_default;
    c.table[7] = c.table[6];
    CHECK(!cvq_codebook_valid(&c, CVQ_TYPE_Q4T));
    c = cvq_codebook_default;
    c.zero = 128;
    CHECK(!cvq_codebook_valid(&c, CVQ_TYPE_Q4T));
    c = cvq_codebook_default;
    c.reserved[6] = 1;
    CHECK(!cvq_codebook_valid(&c, CVQ_TYPE_Q4T));
}

/* Where the design puts code (r, k) of a group: reads it back by formula. */
static uint32_t code_by_formula(cvq_type type, size_t height, const uint8_t *group, size_t r,
                                size_t k) {
    const uint8_t *p = group + 4 * height; /* two f16, or four bytes */
    if (type == CVQ_TYPE_Q8) {
        const size_t b = k / 128, g = k % 128 / 4, i = k % 4;
        return p[b * 128 * height + 4 * height * g + 4 * r + i];
    }
    const size_t b = k / 32, kb = k % 32;
    const size_t l = kb % 16 / 4, i = kb % 4;
    const uint32_t byte = p[b * 16 * height + 4 * height * l + 4 * r + i];
    const uint32_t low = kb < 16 ? byte & 15 : byte >> 4;
    if (type != CVQ_TYPE_Q6) return low;
    const uint8_t *high = p + 32 * height + b * 8 * height;
    const size_t m = kb % 8 / 4;
    return low | (high[4 * height * m + 4 * r + i] >> (2 * (kb / 8)) & 3u) << 4;
}

static void groups_round_trip(void) {
    EACH_BLOCK_TYPE(t, h) {
        const cvq_type type = block_types[t];
        const cvq_type_info *info = cvq_type_describe(type);
        const size_t height = heights[h], n = height * info->group;
        uint8_t codes[16 * 256], back[16 * 256], bytes[16 * 260 + 1];
        uint16_t scales[64], scales_back[64];
        const bool bytewise = type == CVQ_TYPE_Q4S;
        const size_t blocks = bytewise ? 4 : 2, size = bytewise ? 1 : 2;
        for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(random32() % code_limit(type));
        for (size_t i = 0; i < blocks * height; i++)
            scales[i] = (uint16_t)(random32() & (bytewise ? 255u : 0xffffu));
        memset(bytes, 0xa5, sizeof bytes);
        cvq_group_pack(type, heights[h], codes, scales, bytes);
        CHECK(bytes[height * info->row_bytes] == 0xa5);
        cvq_group_unpack(type, heights[h], bytes, back, scales_back);
        CHECK_SAY(memcmp(codes, back, n) == 0, "%s, %zu rows", info->name, height);
        CHECK(memcmp(scales, scales_back, blocks * height * sizeof *scales) == 0);
        for (size_t i = 0; i < blocks * height; i++)
            CHECK(cvq_load_le(bytes + size * i, (unsigned)size) == scales[i]);
        for (size_t r = 0; r < height; r++)
            for (size_t k = 0; k < info->group; k++)
                CHECK(code_by_formula(type, height, bytes, r, k) == codes[r * info->group + k]);
    }
}

/* half: of the block, 0 or 1 */
static float value_by_formula(cvq_type type, const cvq_codebook *c, float row_scale, uint32_t code,
                              uint16_t scale, size_t half) {
    static const uint8_t wide[16] = {0,  19, 27, 35, 41, 46, 51, 56,
                                     60, 64, 69, 75, 81, 87, 96, 113};
    static const uint8_t narrow[16] = {21, 29, 35, 40, 45, 49, 53, 56,
                                       59, 62, 66, 70, 74, 79, 84, 93};
    static const uint8_t levels[32] = {0,   44,  47,  50,  53,  56,  59,  63,  67,  71,  75,
                                       80,  84,  89,  95,  100, 106, 113, 120, 127, 134, 142,
                                       151, 160, 170, 180, 191, 202, 214, 227, 241, 255};
    float d = cvq_f16_to_f32(scale);
    int32_t v = (int32_t)code;
    if (type == CVQ_TYPE_Q4S) {
        d = row_scale * (float)levels[scale % 32] * (scale < 128 ? 1.0f : -1.0f);
        v = c->table[code] + 5 + 4 * (scale / 32 % 4) - c->zero;
    }
    if (type == CVQ_TYPE_Q4H) {
        const int level = scale / 256, choice = scale / (half ? 16 : 1) % 16;
        d = ldexpf((float)(16 + level % 16), level / 16 - 22);
        v = (choice < 8 ? wide : narrow)[code] + 2 * (choice % 8) - 64;
    }
    if (type == CVQ_TYPE_Q8) v -= 128;
    if (type == CVQ_TYPE_Q6) v -= 32;
    if (type == CVQ_TYPE_Q4) v -= 8;
    if (type == CVQ_TYPE_Q4T) v = c->table[code] + (scale & 31) - c->zero;
    return d * (float)v;
}

static void panels_decode(void) {
    EACH_BLOCK_TYPE(t, h) {
        const cvq_type type = block_types[t];
        const cvq_type_info *info = cvq_type_describe(type);
        const size_t height = heights[h], cols = info->group * 2 - 5, ld = info->group * 2 + 3;
        uint8_t panel[2 * 16 * 260];
        float out[16 * (512 + 3)], row_scales[16];
        for (size_t i = 0; i < 16 * ld; i++) out[i] = -99;
        for (size_t i = 0; i < sizeof panel; i++) panel[i] = (uint8_t)random32();
        const bool head = info->head_bytes != 0;
        for (size_t r = 0; r < height; r++) row_scales[r] = (float)random32() * 0x1p-40f;
        cvq_row_scales_pack(type, heights[h], row_scales, panel);
        for (size_t g = 0; g < 2 && !head && type != CVQ_TYPE_Q4H; g++) /* scales: finite */
            for (size_t i = 0; i < 2 * height; i++)
                panel[g * height * info->row_bytes + 2 * i + 1] &= 0xbb;
        cvq_panel_decode(type, heights[h], &cvq_codebook_default, panel, cols, out, ld);
        for (size_t r = 0; r < height; r++) {
            for (size_t k = 0; k < 2 * info->group; k++) {
                const uint8_t *group =
                    panel + (head ? 4 * height : 0) + k / info->group * height * info->row_bytes;
                const size_t kg = k % info->group, b = kg / info->block;
                const size_t at = b * height + r;
                const uint16_t scale = head ? group[at] : (uint16_t)cvq_load_le(group + 2 * at, 2);
                const uint32_t code = code_by_formula(type, height, group, r, kg);
                const float wanted =
                    value_by_formula(type, &cvq_codebook_default, row_scales[r], code, scale,
                                     kg % info->block / (info->block / 2));
                CHECK(memcmp(&wanted, &out[r * ld + k], 4) == 0);
            }
            for (size_t k = 2 * info->group; k < ld; k++) CHECK(out[r * ld + k] == -99);
        }
    }
}

static void bf16_panels_round_trip(void) {
    for (int h = 0; h < 2; h++) {
        const size_t height = heights[h], cols = 67, ld = 131;
        float rows[16 * 131], out[16 * 131];
        uint8_t panel[16 * 256];
        for (size_t i = 0; i < 16 * ld; i++) rows[i] = (float)random32() * 0x1p-31f - 1.0f;
        rows[1] = -0.0f;
        cvq_panel_encode_bf16(heights[h], rows, ld, cols, panel);
        cvq_panel_decode(CVQ_TYPE_BF16, heights[h], NULL, panel, cols, out, ld);
        for (size_t r = 0; r < height; r++) {
            for (size_t k = 0; k < 128; k++) {
                const float x = k < cols ? cvq_bf16_to_f32(cvq_f32_to_bf16(rows[r * ld + k])) : 0;
                CHECK(memcmp(&x, &out[r * ld + k], 4) == 0);
                const size_t l = k % 64 / 2, j = k % 2;
                const size_t place = height == 16 ? 32 * l + 2 * r + j : k % 64;
                CHECK(cvq_load_le(panel + k / 64 * 128 * height + 2 * place, 2) ==
                      (k < cols ? cvq_f32_to_bf16(rows[r * ld + k]) : 0));
            }
        }
    }
}

static void f32_rows_are_copied(void) {
    const float x[5] = {1.5f, -0.0f, INFINITY, 1e-40f, -3};
    uint8_t bytes[20];
    float out[5];
    for (int i = 0; i < 5; i++) cvq_store_le(bytes + 4 * i, cvq_f32_bits(x[i]), 4);
    cvq_panel_decode(CVQ_TYPE_F32, 1, NULL, bytes, 5, out, 5);
    CHECK(memcmp(x, out, sizeof x) == 0);
}

static void zero_codes_are_nearest_to_zero(void) {
    CHECK(cvq_zero_code(CVQ_TYPE_Q8, NULL, 0x3c00, 1) == 128);
    CHECK(cvq_zero_code(CVQ_TYPE_Q6, NULL, 0x3c00, 0) == 32);
    CHECK(cvq_zero_code(CVQ_TYPE_Q4, NULL, 0x3c00, 0) == 8);
    CHECK(cvq_zero_code(CVQ_TYPE_Q4S, &cvq_codebook_default, 0, 1) == 7);
    for (size_t half = 0; half < 2; half++) {
        CHECK(cvq_zero_code(CVQ_TYPE_Q4H, NULL, 0, half) == 9);
        CHECK(value_by_formula(CVQ_TYPE_Q4H, NULL, 1, 9, 0, half) == 0);
    }
    for (uint32_t n = 0; n < 64; n++) { /* every offset, and q4h's tables in either half */
        const cvq_type type = n < 32 ? CVQ_TYPE_Q4T : CVQ_TYPE_Q4H;
        const size_t half = n / 16 % 2;
        const unsigned word = n < 32 ? 0x3c00u | (unsigned)n : (unsigned)n % 16 << 4 * half;
        const uint16_t scale = (uint16_t)word;
        const float d = n < 32 ? cvq_f16_to_f32(scale) : 0x1p-18f;
        const cvq_codebook *c = &cvq_codebook_default;
        const uint8_t code = cvq_zero_code(type, c, scale, half);
        const float got = fabsf(value_by_formula(type, c, 1, code, scale, half));
        for (uint32_t u = 0; u < 16; u++) {
            const float other = fabsf(value_by_formula(type, c, 1, u, scale, half));
            CHECK(u < code ? other > got : other >= got);
        }
        CHECK(got <= 4 * d);
        uint8_t codes[33];
        memset(codes, 77, sizeof codes);
        cvq_pad_codes(type, c, scale, 7, codes);
        for (size_t k = 0; k < 33; k++)
            CHECK(codes[k] == (k < 7 || k == 32 ? 77 : cvq_zero_code(type, c, scale, k / 16)));
    }
}

static void infinities_are_found(void) {
    for (uint32_t t = 0; t < CVQ_TYPES; t++) {
        for (int h = 0; h < 2; h++) {
            const cvq_type_info *info = cvq_type_describe(t);
            if (t == CVQ_TYPE_F32 && h == 0) continue;
            uint8_t panel[2 * 16 * 260];
            const size_t cols = 2 * info->group, size = cvq_panel_bytes(info, heights[h], cols);
            const size_t second = size / 2;
            memset(panel, 0, sizeof panel);
            CHECK(cvq_panel_finite((cvq_type)t, heights[h], panel, cols));
            if (t == CVQ_TYPE_F32)
                cvq_store_le(panel + size - 4, 0x7f800001u, 4);
            else if (t == CVQ_TYPE_BF16)
                cvq_store_le(panel + size - 2, 0xff80u, 2);
            else if (t == CVQ_TYPE_Q4S) /* finite, but too large */
                cvq_store_le(panel + 4 * (heights[h] - 1), 0xdf800000u, 4);
            else
                cvq_store_le(panel + second + 2 * (2 * heights[h] - 1), 0x7c00u, 2);
            CHECK(cvq_panel_finite((cvq_type)t, heights[h], panel, cols) == (t == CVQ_TYPE_Q4H));
            memset(panel, 0, sizeof panel);
            if (t > CVQ_TYPE_BF16) { /* codes are not scales */
                memset(panel + second - 8, 0xff, 8);
                CHECK(cvq_panel_finite((cvq_type)t, heights[h], panel, cols));
            }
        }
    }
}

int main(void) {
    RUN(types_are_described);
    RUN(sizes_are_exact);
    RUN(impossible_sizes_are_refused);
    RUN(codebooks_are_checked);
    RUN(groups_round_trip);
    RUN(panels_decode);
    RUN(bf16_panels_round_trip);
    RUN(f32_rows_are_copied);
    RUN(zero_codes_are_nearest_to_zero);
    RUN(infinities_are_found);
    return REPORT();
}
