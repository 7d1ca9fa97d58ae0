/* A small .cvq file for tests: a config with odd sizes, a tokenizer of 259 tokens, and tensors of
 * any types filled from a fixed generator. */
#ifndef CVQ_TESTS_SMALL_FILE_H
#define CVQ_TESTS_SMALL_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "formats/cvq_writer.h"
#include "formats/tokenizer_table.h"

/* xorshift64*; the state must not be 0. */
static inline uint32_t small_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (uint32_t)((x * 2685821657736338717u) >> 32);
}

static inline cvq_model_config small_config(void) {
    const cvq_model_config c = {.hidden_size = 72,
                                .num_layers = 1,
                                .num_heads = 3,
                                .num_kv_heads = 1,
                                .intermediate_size = 40,
                                .vocab_size = 5000,
                                .max_positions = 32,
                                .rms_norm_eps = 1e-5f,
                                .bos_id = 256,
                                .pad_id = 257,
                                .num_eos = 2,
                                .eos_ids = {257, 258},
                                .template_version = CVQ_TEMPLATE_CHAT,
                                .vit_hidden_size = 20,
                                .vit_num_layers = 2,
                                .vit_num_heads = 2,
                                .vit_intermediate_size = 36,
                                .image_size = 28,
                                .patch_size = 7,
                                .in_channels = 3,
                                .vit_num_positions = 17,
                                .vit_layer_norm_eps = 1e-6f};
    return c;
}

/* The same with a decoder's matrices of 32 and 64 columns: whole blocks, as feedback needs them. */
static inline cvq_model_config small_block_config(void) {
    cvq_model_config c = small_config();
    c.hidden_size = 32;
    c.num_heads = 2;
    c.num_kv_heads = 1;
    c.intermediate_size = 64;
    return c;
}

/* The same with a vocabulary of 300, for tests that ask it many questions. */
static inline cvq_model_config small_quick_config(void) {
    cvq_model_config c = small_config();
    c.vocab_size = 300;
    return c;
}

/* 256 bytes, "ab" (256), "abc" (257), a special "<s>" (258); two merges. */
static inline cvq_status small_tokenizer(cvq_buffer *table, cvq_error *err) {
    uint8_t bytes[256 + 8], special[259] = {0};
    uint32_t offsets[260];
    for (uint32_t i = 0; i < 256; i++) {
        bytes[i] = (uint8_t)i;
        offsets[i] = i;
    }
    memcpy(bytes + 256, "ababc<s>", 8);
    offsets[256] = 256;
    offsets[257] = 258;
    offsets[258] = 261;
    offsets[259] = 264;
    special[258] = 1;
    const uint32_t merges[6] = {'a', 'b', 256, 256, 'c', 257};
    const cvq_tokenizer_source source = {.num_tokens = 259,
                                         .bytes = bytes,
                                         .offsets = offsets,
                                         .special = special,
                                         .num_merges = 2,
                                         .merges = merges,
                                         .ignore_merges = true};
    return cvq_tokenizer_table_build(table, &source, err);
}

/* One panel of any type, from the generator; values are finite. */
static inline void small_panel(const cvq_tensor *t, uint64_t *state, uint8_t *panel) {
    const cvq_type_info *info = cvq_type_describe(t->type);
    const size_t cols = (size_t)t->spec.cols, height = t->panel_rows;
    const size_t size = cvq_panel_bytes(info, t->panel_rows, cols);
    if (t->type == CVQ_TYPE_F32) {
        for (size_t i = 0; i < size; i += 4)
            cvq_store_le(panel + i, cvq_f32_bits((float)small_random(state) * 0x1p-31f - 1.0f), 4);
        return;
    }
    if (t->type == CVQ_TYPE_BF16) {
        for (size_t i = 0; i < size; i += 2)
            cvq_store_le(panel + i, 0x3c00u | (small_random(state) & 0x83ffu), 2);
        return;
    }
    uint8_t codes[CVQ_PANEL_ROWS * CVQ_MAX_GROUP];
    uint16_t scales[CVQ_MAX_BLOCKS * CVQ_PANEL_ROWS];
    float row_scales[CVQ_PANEL_ROWS];
    const bool head = info->head_bytes != 0;
    const uint32_t mask = t->type == CVQ_TYPE_Q8 ? 255 : t->type == CVQ_TYPE_Q6 ? 63 : 15;
    for (size_t r = 0; head && r < height; r++)
        row_scales[r] = (float)(small_random(state) >> 8) * 0x1p-40f;
    cvq_row_scales_pack(t->type, t->panel_rows, row_scales, panel);
    for (size_t at = head * 4 * height; at < size; at += height * info->row_bytes) {
        for (size_t i = 0; i < info->group / info->block * height; i++)
            scales[i] = head ? (uint16_t)(small_random(state) & 255u)
                             : (uint16_t)(0x1c00u | (small_random(state) & 0x83ffu));
        for (size_t i = 0; i < height * info->group; i++)
            codes[i] = (uint8_t)(small_random(state) & mask);
        cvq_group_pack(t->type, t->panel_rows, codes, scales, panel + at);
    }
}

/* All bytes of a tensor into data[t->size]. */
static inline void small_tensor(const cvq_tensor *t, size_t number, uint8_t *data) {
    const cvq_type_info *info = cvq_type_describe(t->type);
    const size_t panel = cvq_panel_bytes(info, t->panel_rows, (size_t)t->spec.cols);
    uint64_t state = 88172645463325252u + number;
    for (size_t at = 0; at < t->size; at += panel) small_panel(t, &state, data + at);
}

/* Types that rotate through all that a tensor may have, from one of the twelve on, so that every
 * role gets every type. */
static inline void small_types_from(const cvq_model_config *c, size_t next, cvq_type *types) {
    static const cvq_type order[] = {CVQ_TYPE_Q4T, CVQ_TYPE_Q8,   CVQ_TYPE_Q6,  CVQ_TYPE_BF16,
                                     CVQ_TYPE_Q4,  CVQ_TYPE_F32,  CVQ_TYPE_Q4H, CVQ_TYPE_Q8,
                                     CVQ_TYPE_Q6,  CVQ_TYPE_BF16, CVQ_TYPE_Q4S, CVQ_TYPE_F32};
    for (size_t i = 0; i < cvq_model_tensor_count(c); i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(c, i, &spec);
        types[i] = CVQ_TYPE_F32;
        if (spec.role == CVQ_ROLE_INV_FREQ) types[i] = CVQ_TYPE_BF16;
        if (spec.role != CVQ_ROLE_MATRIX && spec.role != CVQ_ROLE_TABLE) continue;
        do types[i] = order[next++ % 12];
        while (!cvq_type_allowed(spec.role, types[i]));
    }
}
static inline void small_types(const cvq_model_config *c, cvq_type *types) {
    small_types_from(c, 0, types);
}

/* What a tensor's bytes are made of: rotary frequencies are those of the first layer. */
static inline size_t small_number(const cvq_writer *w, size_t i) {
    if (cvq_writer_tensor(w, i)->spec.role != CVQ_ROLE_INV_FREQ) return i;
    for (i = 0; cvq_writer_tensor(w, i)->spec.role != CVQ_ROLE_INV_FREQ;) i++;
    return i;
}

/* Write such a file: tensor by tensor, or backwards and chunk by chunk. */
static inline cvq_status small_write_config(const cvq_model_config *c, size_t first_type, int fd,
                                            const char *metadata, bool backwards,
                                            uint8_t id[CVQ_ID_BYTES], cvq_error *err) {
    cvq_type types[256];
    cvq_buffer table = {0};
    cvq_writer *w = NULL;
    small_types_from(c, first_type, types);
    cvq_status status = small_tokenizer(&table, err);
    const cvq_file_spec spec = {.config = c,
                                .types = types,
                                .tokenizer = table.data,
                                .tokenizer_size = table.size,
                                .metadata = metadata,
                                .metadata_size = strlen(metadata)};
    if (status == CVQ_OK) status = cvq_writer_plan(&w, &spec, err);
    if (status == CVQ_OK) status = cvq_writer_begin(w, fd, "small.cvq", false, err);
    for (size_t n = 0; status == CVQ_OK && n < cvq_writer_tensor_count(w); n++) {
        const size_t i = backwards ? cvq_writer_tensor_count(w) - 1 - n : n;
        const cvq_tensor *t = cvq_writer_tensor(w, i);
        const uint64_t step = backwards ? CVQ_CHUNK_BYTES : t->size;
        uint8_t *data = malloc((size_t)t->size);
        if (!data) {
            status = cvq_fail(err, CVQ_OUT_OF_MEMORY, "small.cvq", "no memory for a tensor");
            break;
        }
        small_tensor(t, small_number(w, i), data);
        for (uint64_t at = (t->size - 1) / step * step; status == CVQ_OK; at -= step) {
            const uint64_t left = t->size - at;
            status = cvq_writer_put(w, i, at, data + at, (size_t)(left < step ? left : step), err);
            if (at == 0) break;
        }
        free(data);
    }
    if (status == CVQ_OK) status = cvq_writer_finish(w, id, err);
    cvq_writer_free(w);
    cvq_buffer_free(&table);
    return status;
}

static inline cvq_status small_write(int fd, const char *metadata, bool backwards,
                                     uint8_t id[CVQ_ID_BYTES], cvq_error *err) {
    const cvq_model_config c = small_config();
    return small_write_config(&c, 0, fd, metadata, backwards, id, err);
}

#define SMALL_METADATA                                                                             \
    "{\"format\":\"cvq\",\"recipe\":{\"name\":\"custom\",\"types\":{}},\"source\":{\"revision\":"  \
    "\"\",\"files\":[]},\"generation\":{},\"licenses\":[],\"card\":\"\"}"

#endif
