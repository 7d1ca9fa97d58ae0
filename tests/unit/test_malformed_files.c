/* Each malformation of a .cvq file is refused with its own message, which says where and what to do
 * - also where the head's hash was made to fit; and damage of any kind is survived.
 * cvq-test: formats */
#include "runtime/weight_check.h"
#include "tests/unit/head_edit.h"

enum { MATRIX = 2 /* language_expert_query_key_value, q4t */, EMBEDDING = 10 };
static uint64_t config_at(const edit *e, int field) {
    return e->s[CVQ_SECTION_CONFIG].offset + 4 * (uint64_t)field;
}
static void set_config(const edit *e, int field, uint32_t value) {
    cvq_store_le(e->head + config_at(e, field), value, 4);
}
/* Ends the file inside a section, at this share of it. */
static void cut(edit *e, cvq_section_kind kind, uint64_t part, uint64_t of) {
    e->cut = e->s[kind].offset + e->s[kind].size * part / of;
}
/* Puts `bytes` bytes of value over the first scale or value of the first tensor of a type, and
 * mends the hash of its chunk. */
static void put_weight(edit *e, cvq_type type, uint32_t value, unsigned bytes) {
    size_t i = 0;
    while (cvq_load_le(entry_of(e, i) + 104, 4) != type) i++;
    const uint64_t offset = cvq_load_le(entry_of(e, i) + 152, 8);
    const uint64_t size = cvq_load_le(entry_of(e, i) + 160, 8);
    const size_t n = size < CVQ_CHUNK_BYTES ? (size_t)size : CVQ_CHUNK_BYTES;
    uint8_t *chunk = malloc(n), *hash = e->head + e->s[CVQ_SECTION_CHUNKS].offset +
                                        CVQ_HASH_BYTES * cvq_load_le(entry_of(e, i) + 168, 8);
    if (!chunk || pread(e->fd, chunk, n, (off_t)offset) != (ssize_t)n) abort();
    cvq_store_le(chunk, value, bytes);
    if (cvq_sha256(chunk, n, hash, NULL) != CVQ_OK) abort();
    if (pwrite(e->fd, chunk, n, (off_t)offset) != (ssize_t)n) abort();
    free(chunk);
}
/* clang-format off */
#define CASE(name) static void name(edit *e)
CASE(magic) { e->head[3] = 'R'; }
CASE(magic_text) { e->head[4] = '\n'; }
CASE(version) { e->head[8] = 2; }
CASE(feature) { e->head[15] = 0x80; }
CASE(file_more) { add(e->head + 16, 1); }
CASE(file_less) { add(e->head + 16, UINT64_MAX); }
CASE(file_huge) { cvq_store_le(e->head + 16, UINT64_MAX, 8); }
CASE(head_zero) { cvq_store_le(e->head + 24, 0, 8); }
CASE(head_odd) { add(e->head + 24, 64); }
CASE(head_huge) { cvq_store_le(e->head + 24, (uint64_t)1 << 63, 8); }
CASE(head_large) { cvq_store_le(e->head + 24, (uint64_t)CVQ_MAX_HEAD, 8); }
CASE(head_longer) { add(e->head + 24, 65536); }
CASE(sections_more) { e->head[64] = 8; }
CASE(sections_huge) { e->head[67] = 0xff; }
CASE(reserved) { e->head[68] = 1; }
CASE(kind_twice) { row_of(e, CVQ_SECTION_INDEX)[0] = 1; }
CASE(kind_swapped) {
    row_of(e, CVQ_SECTION_TOKENIZER)[0] = 4;
    row_of(e, CVQ_SECTION_METADATA)[0] = 3;
}
CASE(row_reserved) { row_of(e, CVQ_SECTION_DATA)[4] = 1; }
CASE(section_overlaps) { add(row_of(e, CVQ_SECTION_INDEX) + 8, (uint64_t)-64); }
CASE(section_hole) { add(row_of(e, CVQ_SECTION_TOKENIZER) + 8, 64); }
CASE(section_zero) { cvq_store_le(row_of(e, CVQ_SECTION_CONFIG) + 8, 0, 8); }
CASE(section_far) { cvq_store_le(row_of(e, CVQ_SECTION_CHUNKS) + 8, UINT64_MAX - 63, 8); }
CASE(size_huge) { cvq_store_le(row_of(e, CVQ_SECTION_INDEX) + 16, UINT64_MAX, 8); }
CASE(size_63) { cvq_store_le(row_of(e, CVQ_SECTION_CHUNKS) + 16, INT64_MAX, 8); }
CASE(size_wraps) {
    cvq_store_le(row_of(e, CVQ_SECTION_INDEX) + 16, 0 - e->s[CVQ_SECTION_INDEX].offset, 8);
}
CASE(reserve_short) { add(row_of(e, CVQ_SECTION_RESERVE) + 16, (uint64_t)-64); }
CASE(data_short) { add(row_of(e, CVQ_SECTION_DATA) + 16, (uint64_t)-1); }
CASE(data_long) { add(row_of(e, CVQ_SECTION_DATA) + 16, 1); }
CASE(gap) { e->head[CVQ_HEADER_BYTES + 3] = 1; }
CASE(gap_config) { e->head[e->s[CVQ_SECTION_CONFIG].offset + CVQ_CONFIG_BYTES] = 1; }
CASE(reserve) { e->head[e->size - 1] = 1; }
CASE(config_size) { add(row_of(e, CVQ_SECTION_CONFIG) + 16, 4); }
CASE(config_zero) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset, 0, 4); }
CASE(config_layers) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset + 4, 0xffffffff, 4); }
CASE(config_more) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset + 4, 2, 4); }
CASE(config_nan) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset + 28, 0x7fc00000, 4); }
CASE(config_eos) { e->head[e->s[CVQ_SECTION_CONFIG].offset + 4 * 18] = 1; }
CASE(index_size) { add(row_of(e, CVQ_SECTION_INDEX) + 16, 200); }
CASE(name) { entry_of(e, MATRIX)[0] = 'n'; }
CASE(name_tail) { entry_of(e, MATRIX)[103] = 'n'; }
CASE(names_swapped) {
    uint8_t t[CVQ_INDEX_ENTRY_BYTES];
    memcpy(t, entry_of(e, 5), sizeof t);
    memcpy(entry_of(e, 5), entry_of(e, 6), sizeof t);
    memcpy(entry_of(e, 6), t, sizeof t);
}
CASE(type_unknown) { entry_of(e, MATRIX)[104] = CVQ_TYPES; }
CASE(type_huge) { entry_of(e, MATRIX)[107] = 0xff; }
CASE(type_of_norm) { entry_of(e, 0)[104] = CVQ_TYPE_BF16; }
CASE(type_of_matrix) { entry_of(e, MATRIX)[104] = CVQ_TYPE_F32; }
CASE(type_other) {
    entry_of(e, MATRIX)[104] = CVQ_TYPE_Q8;
    memset(entry_of(e, MATRIX) + 176, 0, 24);
}
CASE(panel_one) { entry_of(e, MATRIX)[108] = 1; }
CASE(panel_of_table) { entry_of(e, EMBEDDING)[108] = 16; }
CASE(ndim) { entry_of(e, MATRIX)[112] = 3; }
CASE(entry_reserved) { entry_of(e, MATRIX)[116] = 1; }
CASE(dim) { add(entry_of(e, MATRIX) + 120, 1); }
CASE(dim_huge) { cvq_store_le(entry_of(e, MATRIX) + 128, UINT64_MAX, 8); }
CASE(dim_unused) { cvq_store_le(entry_of(e, MATRIX) + 144, 0, 8); }
CASE(offset) { add(entry_of(e, MATRIX) + 152, CVQ_ALIGNMENT); }
CASE(offset_overlaps) { add(entry_of(e, MATRIX) + 152, 0 - (uint64_t)CVQ_ALIGNMENT); }
CASE(offset_huge) { cvq_store_le(entry_of(e, MATRIX) + 152, (uint64_t)0 - 65536, 8); }
CASE(size_less) { add(entry_of(e, MATRIX) + 160, (uint64_t)-1); }
CASE(size_overflow) { cvq_store_le(entry_of(e, MATRIX) + 160, (uint64_t)1 << 63, 8); }
CASE(first_chunk) { add(entry_of(e, MATRIX) + 168, 1); }
CASE(codebook_falls) { entry_of(e, MATRIX)[176 + 5] = 1; }
CASE(codebook_high) { entry_of(e, MATRIX)[176 + 15] = 128; }
CASE(codebook_extra) { entry_of(e, 0)[176] = 1; }
CASE(tokenizer_magic) { e->head[e->s[CVQ_SECTION_TOKENIZER].offset] = 'X'; }
CASE(tokenizer_size) {
    add(row_of(e, CVQ_SECTION_TOKENIZER) + 16, (uint64_t)-1);
    uint8_t *last = e->head + e->s[CVQ_SECTION_TOKENIZER].offset + e->s[CVQ_SECTION_TOKENIZER].size;
    last[-1] = 0;
}
CASE(metadata_size) { cvq_store_le(e->head + e->s[CVQ_SECTION_METADATA].offset, 0, 8); }
CASE(metadata_bomb) {
    cvq_store_le(e->head + e->s[CVQ_SECTION_METADATA].offset, CVQ_MAX_METADATA + 1, 8);
}
CASE(metadata_other) { add(e->head + e->s[CVQ_SECTION_METADATA].offset, 1); }
CASE(metadata_frame) { e->head[e->s[CVQ_SECTION_METADATA].offset + 8] ^= 1; }
CASE(metadata_behind) { add(row_of(e, CVQ_SECTION_METADATA) + 16, 1); }
CASE(chunks_more) { add(row_of(e, CVQ_SECTION_CHUNKS) + 16, 32); }
CASE(chunks_less) { add(row_of(e, CVQ_SECTION_CHUNKS) + 16, (uint64_t)-32); }
CASE(chunks_fewer) {
    const cvq_section chunks = e->s[CVQ_SECTION_CHUNKS];
    const uint64_t end = (chunks.offset + chunks.size + 63) / 64 * 64 - 64;
    memset(e->head + end, 0, 64);
    add(row_of(e, CVQ_SECTION_CHUNKS) + 16, (uint64_t)-64);
    add(row_of(e, CVQ_SECTION_RESERVE) + 8, (uint64_t)-64);
    add(row_of(e, CVQ_SECTION_RESERVE) + 16, 64);
    memset(e->head + chunks.offset + chunks.size - 64, 0, 64);
}
CASE(file_63) { cvq_store_le(e->head + 16, (uint64_t)1 << 63, 8); }
CASE(sections_none) { e->head[64] = 0; }
CASE(config_heads) { set_config(e, 2, 0); }
CASE(config_heads_odd) { set_config(e, 2, 5); }
CASE(config_groups) { set_config(e, 3, 2); }
CASE(config_width) { set_config(e, 0, 0x7fffffff); }
CASE(config_wide) { set_config(e, 4, 0xffffffff); }
CASE(config_vocab) { set_config(e, 5, 0x80000000); }
CASE(config_vocab_small) { set_config(e, 5, 258); }
CASE(config_positions) { set_config(e, 6, 0); }
CASE(config_infinite) { set_config(e, 7, 0x7f800000); }
CASE(config_negative) { set_config(e, 28, 0xb58637bd); }
CASE(config_no_eos) { set_config(e, 10, 0); }
CASE(config_many_eos) { set_config(e, 10, 9); }
CASE(config_bos) { set_config(e, 8, 5000); }
CASE(config_pad) { set_config(e, 9, 0xffffffff); }
CASE(config_template) { set_config(e, 19, 77); }
CASE(config_vit_layers) { set_config(e, 21, 0); }
CASE(config_image) { set_config(e, 24, 0x10000); }
CASE(config_patch) { set_config(e, 25, 0); }
CASE(config_channels) { set_config(e, 26, 4); }
CASE(config_grid) { set_config(e, 27, 18); }
CASE(name_empty) { memset(entry_of(e, MATRIX), 0, 104); }
CASE(name_twice) { memcpy(entry_of(e, 6), entry_of(e, 5), 104); }
CASE(name_endless) { memset(entry_of(e, MATRIX), 'n', 104); }
CASE(dim_zero) { cvq_store_le(entry_of(e, MATRIX) + 120, 0, 8); }
CASE(offset_shared) { memcpy(entry_of(e, 6) + 152, entry_of(e, 5) + 152, 8); }
CASE(offset_in_head) { cvq_store_le(entry_of(e, MATRIX) + 152, 0, 8); }
CASE(size_zero) { cvq_store_le(entry_of(e, MATRIX) + 160, 0, 8); }
CASE(first_chunk_huge) { cvq_store_le(entry_of(e, MATRIX) + 168, UINT64_MAX, 8); }
CASE(tokenizer_tokens) { cvq_store_le(e->head + e->s[CVQ_SECTION_TOKENIZER].offset + 8, UINT32_MAX, 4); }
CASE(metadata_frame_bomb) { /* a frame that claims 4 GiB */
    cvq_store_le(e->head + e->s[CVQ_SECTION_METADATA].offset + 8 + 5, 1ull << 32, 8);
}
CASE(metadata_endless) { /* a block that is longer than the frame */
    uint8_t *block = e->head + e->s[CVQ_SECTION_METADATA].offset + 8 + 13;
    cvq_store_le(block, cvq_load_le(block, 3) + (64u << 3), 3);
}
CASE(cut_all) { e->cut = 0; }
CASE(cut_magic) { e->cut = 5; }
CASE(cut_header) { e->cut = 100; }
CASE(cut_table) { e->cut = 72 + 24 * 5; }
CASE(cut_config) { cut(e, CVQ_SECTION_CONFIG, 1, 2); }
CASE(cut_index) { cut(e, CVQ_SECTION_INDEX, 1, 2); }
CASE(cut_tokenizer) { cut(e, CVQ_SECTION_TOKENIZER, 1, 2); }
CASE(cut_metadata) { cut(e, CVQ_SECTION_METADATA, 1, 2); }
CASE(cut_chunks) { cut(e, CVQ_SECTION_CHUNKS, 1, 2); }
CASE(cut_reserve) { cut(e, CVQ_SECTION_RESERVE, 1, 2); }
CASE(cut_before_data) { cut(e, CVQ_SECTION_DATA, 0, 1); }
CASE(cut_data) { cut(e, CVQ_SECTION_DATA, 1, 2); }
CASE(cut_last_byte) { e->cut = e->s[CVQ_SECTION_DATA].offset + e->s[CVQ_SECTION_DATA].size - 1; }
CASE(f32_nan) { put_weight(e, CVQ_TYPE_F32, 0x7fc00000, 4); }
CASE(f32_infinite) { put_weight(e, CVQ_TYPE_F32, 0xff800000, 4); }
CASE(bf16_nan) { put_weight(e, CVQ_TYPE_BF16, 0x7fc1, 2); }
CASE(bf16_infinite) { put_weight(e, CVQ_TYPE_BF16, 0x7f80, 2); }
CASE(q8_nan) { put_weight(e, CVQ_TYPE_Q8, 0x7e00, 2); }
CASE(q8_infinite) { put_weight(e, CVQ_TYPE_Q8, 0xfc00, 2); }
CASE(q6_nan) { put_weight(e, CVQ_TYPE_Q6, 0xfe00, 2); }
CASE(q6_infinite) { put_weight(e, CVQ_TYPE_Q6, 0x7c00, 2); }
CASE(q4_nan) { put_weight(e, CVQ_TYPE_Q4, 0x7c01, 2); }
CASE(q4_infinite) { put_weight(e, CVQ_TYPE_Q4, 0x7c00, 2); }
CASE(q4t_nan) { put_weight(e, CVQ_TYPE_Q4T, 0x7fff, 2); }
CASE(q4t_infinite) { put_weight(e, CVQ_TYPE_Q4T, 0xfc00, 2); }
CASE(q4s_nan) { put_weight(e, CVQ_TYPE_Q4S, 0x7fc00000, 4); }
CASE(q4s_infinite) { put_weight(e, CVQ_TYPE_Q4S, 0x7f800000, 4); }
CASE(q4s_large) { put_weight(e, CVQ_TYPE_Q4S, 0xdf800000, 4); }
#undef CASE
/* clang-format on */

typedef struct malformation {
    const char *name;
    void (*change)(edit *e);
    cvq_status status;
    const char *message; /* part of it */
} malformation;

#define NOT_FINITE "a scale or value is infinite or not a number"
#define M(change, status, message)                                                                 \
    { #change, change, CVQ_##status, message }
/* The hash of the head, and that of a changed weight, are made right after each change. */
static const malformation malformations[] = {
    M(magic, FORMAT, "not a .cvq file"),
    M(magic_text, FORMAT, "not a .cvq file"),
    M(version, UNSUPPORTED, "file version 2"),
    M(feature, UNSUPPORTED, "features 0x80000000"),
    M(file_more, FORMAT, "truncated"),
    M(file_less, FORMAT, "1 bytes too many"),
    M(file_huge, FORMAT, "truncated"),
    M(head_zero, FORMAT, "head size 0 is not a multiple"),
    M(head_odd, FORMAT, "is not a multiple of 65536"),
    M(head_huge, FORMAT, "head size 9223372036854775808 is above"),
    M(head_large, FORMAT, "is larger than the file"),
    M(head_longer, MISMATCH, "does not match its SHA-256"),
    M(sections_more, FORMAT, "8 sections, not 7"),
    M(sections_huge, FORMAT, "4278190087 sections, not 7"),
    M(reserved, FORMAT, "header's reserved field"),
    M(kind_twice, FORMAT, "section 1 is of kind 1; 2 (INDEX)"),
    M(kind_swapped, FORMAT, "section 2 is of kind 4"),
    M(row_reserved, FORMAT, "section DATA: reserved"),
    M(section_overlaps, FORMAT, "section INDEX starts at"),
    M(section_hole, FORMAT, "section TOKENIZER starts at"),
    M(section_zero, FORMAT, "section CONFIG starts at byte 0; 256 is"),
    M(section_far, FORMAT, "section CHUNKS starts at byte 18446744073709551552"),
    M(size_huge, FORMAT, "section INDEX, 18446744073709551615 bytes"),
    M(size_63, FORMAT, "section CHUNKS, 9223372036854775807 bytes"),
    M(size_wraps, FORMAT, "ends behind the head"),
    M(reserve_short, FORMAT, "section RESERVE ends at"),
    M(data_short, FORMAT, "section DATA ends at"),
    M(data_long, FORMAT, "ends behind the file"),
    M(gap, FORMAT, "padding before section CONFIG"),
    M(gap_config, FORMAT, "padding before section INDEX"),
    M(reserve, FORMAT, "section RESERVE is not zero"),
    M(config_size, FORMAT, "section CONFIG has 120 bytes"),
    M(config_zero, FORMAT, "config: hidden_size is 0"),
    M(config_layers, FORMAT, "config: num_hidden_layers is 4294967295"),
    M(config_more, FORMAT, "section INDEX has"),
    M(config_nan, FORMAT, "config: rms_norm_eps"),
    M(config_eos, FORMAT, "unused eos id 7"),
    M(index_size, FORMAT, "section TOKENIZER starts at"),
    M(name, FORMAT,
      "tensor 2 has another name than model.layers.0.self_attn.language_expert_query"),
    M(name_tail, FORMAT, "tensor 2 has another name"),
    M(names_swapped, FORMAT, "tensor 5 has another name"),
    M(type_unknown, UNSUPPORTED, "which this program does not know"),
    M(type_huge, UNSUPPORTED, "type number 4278190084"),
    M(type_of_norm, FORMAT, "input_layernorm.weight: type bf16 is not allowed"),
    M(type_of_matrix, FORMAT, "type f32 is not allowed"),
    M(type_other, FORMAT, "query_key_value.weight: size is"),
    M(panel_one, FORMAT, "panels of 1 rows, not 16"),
    M(panel_of_table, FORMAT, "embed_tokens.weight: panels of 16 rows, not 1"),
    M(ndim, FORMAT, "3 dimensions, not 2"),
    M(entry_reserved, FORMAT, "query_key_value.weight: reserved"),
    M(dim, FORMAT, "dimension 0 is 121, not 120"),
    M(dim_huge, FORMAT, "dimension 1 is 18446744073709551615"),
    M(dim_unused, FORMAT, "dimension 3 is 0, not 1"),
    M(offset, FORMAT, "query_key_value.weight: offset is"),
    M(offset_overlaps, FORMAT, "query_key_value.weight: offset is"),
    M(offset_huge, FORMAT, "offset is 18446744073709486080"),
    M(size_less, FORMAT, "query_key_value.weight: size is"),
    M(size_overflow, FORMAT, "size is 9223372036854775808"),
    M(first_chunk, FORMAT, "first chunk is 3, not 2"),
    M(codebook_falls, FORMAT, "codebook is not valid for type q4t"),
    M(codebook_high, FORMAT, "codebook is not valid for type q4t"),
    M(codebook_extra, FORMAT, "codebook is not valid for type f32"),
    M(tokenizer_magic, FORMAT, "tokenizer table: no magic"),
    M(tokenizer_size, FORMAT, "tokenizer table: its counts need"),
    M(metadata_size, FORMAT, "metadata: 0 bytes"),
    M(metadata_bomb, FORMAT, "metadata: 16777217 bytes"),
    M(metadata_other, FORMAT, "does not state the section's"),
    M(metadata_frame, FORMAT, "not a whole zstd frame"),
    M(metadata_behind, FORMAT, "metadata: 1 bytes behind its zstd frame"),
    M(chunks_more, FORMAT, "section RESERVE starts at"),
    M(chunks_fewer, FORMAT, "section CHUNKS has"),
    M(chunks_less, FORMAT, "padding before section RESERVE"),
    M(file_63, FORMAT, "truncated"),
    M(sections_none, FORMAT, "0 sections, not 7"),
    M(config_heads, FORMAT, "config: num_attention_heads is 0"),
    M(config_heads_odd, FORMAT, "config: hidden_size / num_attention_heads"),
    M(config_groups, FORMAT, "config: num_attention_heads / num_multi_query_heads"),
    M(config_width, FORMAT, "config: hidden_size is 2147483647"),
    M(config_wide, FORMAT, "config: intermediate_size is 4294967295"),
    M(config_vocab, FORMAT, "config: vocab_size is 2147483648"),
    M(config_vocab_small, FORMAT, "config: eos_token_id 258 is not below vocab_size 258"),
    M(config_positions, FORMAT, "config: max_position_embeddings is 0"),
    M(config_infinite, FORMAT, "config: rms_norm_eps"),
    M(config_negative, FORMAT, "config: vision_config.layer_norm_eps"),
    M(config_no_eos, FORMAT, "config: eos_token_id (how many) is 0"),
    M(config_many_eos, FORMAT, "config: eos_token_id (how many) is 9"),
    M(config_bos, FORMAT, "config: bos_token_id 5000 is not below"),
    M(config_pad, FORMAT, "config: pad_token_id 4294967295 is not below"),
    M(config_template, FORMAT, "config: template_version is 77"),
    M(config_vit_layers, FORMAT, "config: vision_config.num_hidden_layers is 0"),
    M(config_image, FORMAT, "config: vision_config.image_size is 65536"),
    M(config_patch, FORMAT, "config: vision_config.patch_size is 0"),
    M(config_channels, FORMAT, "config: vision_config.in_channels is 4"),
    M(config_grid, FORMAT, "config: vision_config.num_positions is 18, not 17"),
    M(name_empty, FORMAT, "tensor 2 has another name"),
    M(name_twice, FORMAT, "tensor 6 has another name"),
    M(name_endless, FORMAT, "tensor 2 has another name"),
    M(dim_zero, FORMAT, "dimension 0 is 0, not 120"),
    M(offset_shared, FORMAT, "offset is"),
    M(offset_in_head, FORMAT, "query_key_value.weight: offset is 0, not"),
    M(size_zero, FORMAT, "query_key_value.weight: size is 0, not"),
    M(first_chunk_huge, FORMAT, "first chunk is 18446744073709551615, not 2"),
    M(tokenizer_tokens, FORMAT, "tokenizer table: 4294967295 tokens"),
    M(metadata_frame_bomb, FORMAT, "does not state the section's"),
    M(metadata_endless, FORMAT, "not a whole zstd frame"),
    M(cut_all, FORMAT, "not a .cvq file"),
    M(cut_magic, FORMAT, "not a .cvq file"),
    M(cut_header, FORMAT, "truncated: 100 bytes, within the header"),
    M(cut_table, FORMAT, "truncated: 192 bytes, within the header"),
    M(cut_config, FORMAT, "truncated: 314 bytes of"),
    M(cut_index, FORMAT, "truncated"),
    M(cut_tokenizer, FORMAT, "truncated"),
    M(cut_metadata, FORMAT, "truncated"),
    M(cut_chunks, FORMAT, "truncated"),
    M(cut_reserve, FORMAT, "truncated"),
    M(cut_before_data, FORMAT, "truncated"),
    M(cut_data, FORMAT, "truncated"),
    M(cut_last_byte, FORMAT, "fetch the rest"),
    M(f32_nan, FORMAT, NOT_FINITE),
    M(f32_infinite, FORMAT, NOT_FINITE),
    M(bf16_nan, FORMAT, NOT_FINITE),
    M(bf16_infinite, FORMAT, NOT_FINITE),
    M(q8_nan, FORMAT, NOT_FINITE),
    M(q8_infinite, FORMAT, NOT_FINITE),
    M(q6_nan, FORMAT, NOT_FINITE),
    M(q6_infinite, FORMAT, NOT_FINITE),
    M(q4_nan, FORMAT, NOT_FINITE),
    M(q4_infinite, FORMAT, NOT_FINITE),
    M(q4t_nan, FORMAT, NOT_FINITE),
    M(q4t_infinite, FORMAT, NOT_FINITE),
    M(q4s_nan, FORMAT, NOT_FINITE),
    M(q4s_infinite, FORMAT, NOT_FINITE),
    M(q4s_large, FORMAT, NOT_FINITE),
};

/* Opening, and looking at all that is in it. */
static cvq_status open_and_use(cvq_error *err) {
    cvq_reader *r = NULL;
    cvq_weight_check *w = NULL;
    cvq_buffer json = {0};
    cvq_status status = cvq_reader_open(&r, path, err);
    if (status == CVQ_OK) status = cvq_reader_metadata(r, &json, err);
    if (status == CVQ_OK) status = cvq_weight_check_open(&w, r, err);
    if (status == CVQ_OK)
        status = cvq_weight_check_tensors(w, 0, cvq_reader_tensor_count(r), 1, NULL, err);
    cvq_weight_check_close(w);
    cvq_buffer_free(&json);
    cvq_reader_close(r);
    return status;
}

/* A message says what to do about it. */
static bool advises(const char *message) {
    static const char *const words[] = {"fetch ", "convert the model again", "use ",
                                        "get ",   "cvq-convert makes",       "make it again"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(message, words[i])) return true;
    return false;
}

static void check_malformation(const malformation *m, edit *e) {
    cvq_error err = {0};
    const size_t size = (size_t)(e->s[CVQ_SECTION_DATA].offset + e->s[CVQ_SECTION_DATA].size);
    e->cut = size;
    m->change(e);
    put_head(e->fd, e, true);
    if (e->cut < size && ftruncate(e->fd, (off_t)e->cut) != 0) abort();
    const cvq_status s = open_and_use(&err);
    CHECK_SAY(s == m->status && strstr(err.message, m->message) && strcmp(err.where, path) == 0 &&
                  advises(err.message),
              "%s: status %d, \"%s\"", m->name, s, err.message);
}

static void malformed_files_are_refused(void) {
    const size_t count = sizeof malformations / sizeof *malformations;
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    e.fd = fresh(SMALL_METADATA, false, id);
    uint8_t *good = read_head(e.fd, &e);
    const uint64_t file_size = e.s[CVQ_SECTION_DATA].offset + e.s[CVQ_SECTION_DATA].size;
    uint8_t *whole = malloc((size_t)file_size);
    e.head = malloc((size_t)e.size);
    if (!e.head || !whole || pread(e.fd, whole, (size_t)file_size, 0) != (ssize_t)file_size)
        abort();
    for (size_t i = 0; i < count; i++) {
        memcpy(e.head, good, (size_t)e.size);
        check_malformation(&malformations[i], &e);
        if (pwrite(e.fd, whole, (size_t)file_size, 0) != (ssize_t)file_size) abort();
    }
    cvq_error err = {0};
    CHECK_SAY(open_and_use(&err) == CVQ_OK, "%s", err.message); /* the way back is right, too */
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            CHECK_SAY(strcmp(malformations[i].name, malformations[k].name) != 0, "%s twice",
                      malformations[i].name);
    printf("  %zu malformed files\n", count);
    free(e.head);
    free(good);
    free(whole);
    close(e.fd);
}

/* Without a new hash no bit of the head can change. */
static void head_bits_are_bound(void) {
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    uint64_t state = 11;
    const int fd = fresh(SMALL_METADATA, false, id);
    e.head = read_head(fd, &e);
    for (int i = 0; i < 200; i++) {
        const uint64_t at = i < 60 ? (uint64_t)i * 4 : small_random(&state) % e.size;
        const uint8_t bit = (uint8_t)(1u << small_random(&state) % 8);
        cvq_reader *r = NULL;
        e.head[at] ^= bit;
        if (pwrite(fd, e.head + at, 1, (off_t)at) != 1) abort();
        CHECK_SAY(cvq_reader_open(&r, path, NULL) != CVQ_OK, "byte %llu", (unsigned long long)at);
        cvq_reader_close(r);
        e.head[at] ^= bit;
        if (pwrite(fd, e.head + at, 1, (off_t)at) != 1) abort();
    }
    free(e.head);
    close(fd);
}

/* With a new hash anything may be in the head: opening ends, and what it accepts can be used. */
static void random_heads_are_survived(void) {
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    uint64_t state = 12;
    const int fd = fresh(SMALL_METADATA, false, id);
    uint8_t *good = read_head(fd, &e);
    const uint64_t used = e.s[CVQ_SECTION_CHUNKS].offset + e.s[CVQ_SECTION_CHUNKS].size;
    e.head = malloc((size_t)e.size);
    if (!e.head) abort();
    for (int i = 0; i < 300; i++) {
        cvq_reader *r = NULL;
        memcpy(e.head, good, (size_t)e.size);
        for (uint32_t n = small_random(&state) % 3 + 1; n > 0; n--)
            e.head[small_random(&state) % used] = (uint8_t)small_random(&state);
        put_head(fd, &e, true);
        if (cvq_reader_open(&r, path, NULL) != CVQ_OK) continue;
        cvq_buffer json = {0};
        (void)cvq_reader_metadata(r, &json, NULL);
        (void)cvq_reader_verify(r, 1, NULL, NULL, NULL, NULL);
        cvq_buffer_free(&json);
        cvq_reader_close(r);
    }
    free(e.head);
    free(good);
    close(fd);
}

int main(void) {
    if (!make_folder()) return 1;
    RUN(malformed_files_are_refused);
    RUN(head_bits_are_bound);
    RUN(random_heads_are_survived);
    temp_close();
    return REPORT();
}
