/* For heads of .cvq files. Config, types, tokenizer table and metadata are changed one at a time,
 * and the rest is planned anew to fit, as the writer plans it; or a section's bytes are changed and
 * the section table alone fits. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/cvq_head_internal.h"
#include "formats/cvq_index_internal.h"
#include "formats/metadata_frame_internal.h"
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/random_tokenizer.h"

#define MOST_SECTION (1u << 16)
#define MOST_TENSORS 2000u

typedef struct head {
    uint8_t bytes[CVQ_SECTION_RESERVE][MOST_SECTION];
    size_t sizes[CVQ_SECTION_RESERVE];
    uint64_t data_size;
} head;

static bool take_apart(head *h, const uint8_t *data, size_t size) {
    if (size < CVQ_HEADER_BYTES) return false;
    for (unsigned i = 0; i < CVQ_SECTIONS; i++) {
        const uint8_t *entry = data + 72 + CVQ_SECTION_ENTRY_BYTES * i;
        const uint64_t at = cvq_load_le(entry + 8, 8), bytes = cvq_load_le(entry + 16, 8);
        if (i == CVQ_SECTION_DATA) h->data_size = bytes;
        if (i >= CVQ_SECTION_RESERVE) continue;
        if (!cvq_range_within(at, bytes, size) || bytes > MOST_SECTION) return false;
        memcpy(h->bytes[i], data + at, (size_t)bytes);
        h->sizes[i] = (size_t)bytes;
    }
    return true;
}

/* Up to the end of the chunks' hashes; what is behind is zeros. 0: too long. */
static size_t put_together(const head *h, uint8_t *data, size_t most) {
    cvq_head plan = {0};
    for (int i = 0; i < CVQ_SECTION_RESERVE; i++) plan.sections[i].size = h->sizes[i];
    plan.sections[CVQ_SECTION_DATA].size = h->data_size;
    if (cvq_head_plan(&plan, NULL) != CVQ_OK) return 0;
    const cvq_section *last = &plan.sections[CVQ_SECTION_CHUNKS];
    const size_t size = (size_t)(last->offset + last->size);
    if (size > most) return 0;
    memset(data, 0, size);
    cvq_head_encode(&plan, data);
    for (int i = 0; i < CVQ_SECTION_RESERVE; i++)
        memcpy(data + plan.sections[i].offset, h->bytes[i], h->sizes[i]);
    return size;
}

static void make_tokenizer(head *h, uint64_t *state) {
    cvq_buffer table = {0};
    if (random_tokenizer(&table, state, NULL) != CVQ_OK || table.size > MOST_SECTION) abort();
    memcpy(h->bytes[CVQ_SECTION_TOKENIZER], table.data, table.size);
    h->sizes[CVQ_SECTION_TOKENIZER] = table.size;
    cvq_buffer_free(&table);
}

/* One of its numbers, mostly to a small one. */
static void change_config(head *h, uint64_t *state) {
    uint8_t *field = h->bytes[CVQ_SECTION_CONFIG] + 4 * mutate_below(state, CVQ_CONFIG_BYTES / 4);
    if (h->sizes[CVQ_SECTION_CONFIG] != CVQ_CONFIG_BYTES) return;
    const uint32_t old = (uint32_t)cvq_load_le(field, 4);
    const uint32_t values[] = {mutate_below(state, 64),
                               old + 1,
                               old - 1,
                               old * 2,
                               old / 2,
                               old ^ 1u << mutate_below(state, 32)};
    cvq_store_le(field, values[mutate_below(state, 6)], 4);
}

static void change_bytes(head *h, unsigned section, bool may_grow) {
    uint8_t *bytes = h->bytes[section];
    const size_t size = h->sizes[section];
    if (size == 0 && !may_grow) return;
    const size_t now = LLVMFuzzerMutate(bytes, size, may_grow ? MOST_SECTION : size);
    if (may_grow)
        h->sizes[section] = now;
    else
        memset(bytes + now, 0, size - now);
}

/* Only to what the writer takes: the target metadata is for what it does not. */
static void change_metadata(head *h, cvq_buffer *json, uint64_t *state) {
    static uint8_t text[MOST_SECTION];
    cvq_buffer section = {0};
    if (json->size == 0 || json->size > MOST_SECTION) return;
    memcpy(text, json->data, json->size);
    const size_t size = mutate_json_text(text, json->size, sizeof text, state);
    if (cvq_metadata_pack(&section, (const char *)text, size, NULL) == CVQ_OK &&
        section.size <= MOST_SECTION) {
        memcpy(h->bytes[CVQ_SECTION_METADATA], section.data, section.size);
        h->sizes[CVQ_SECTION_METADATA] = section.size;
        cvq_buffer_free(json);
        if (cvq_buffer_append(json, text, size, NULL) != CVQ_OK) abort();
    }
    cvq_buffer_free(&section);
}

/* The head that the writer plans of these parts. 0: it does not, or it is too long. */
static size_t plan_again(const head *h, const cvq_buffer *json, uint32_t first_type, uint8_t *data,
                         size_t most) {
    cvq_model_config config;
    cvq_writer *w = NULL;
    size_t size = 0;
    uint64_t head_size;
    if (cvq_config_decode(&config, h->bytes[CVQ_SECTION_CONFIG], h->sizes[CVQ_SECTION_CONFIG], "",
                          NULL) != CVQ_OK ||
        cvq_model_tensor_count(&config) > MOST_TENSORS)
        return 0;
    static cvq_type types[MOST_TENSORS];
    small_types_from(&config, first_type, types);
    const cvq_file_spec spec = {.config = &config,
                                .types = types,
                                .tokenizer = h->bytes[CVQ_SECTION_TOKENIZER],
                                .tokenizer_size = h->sizes[CVQ_SECTION_TOKENIZER],
                                .metadata = (const char *)json->data,
                                .metadata_size = json->size};
    if (cvq_writer_plan(&w, &spec, NULL) == CVQ_OK) {
        const uint8_t *bytes = cvq_writer_head(w, &head_size);
        const uint8_t *last = bytes + 72 + CVQ_SECTION_ENTRY_BYTES * CVQ_SECTION_CHUNKS;
        size = (size_t)(cvq_load_le(last + 8, 8) + cvq_load_le(last + 16, 8));
        if (size <= most)
            memcpy(data, bytes, size);
        else
            size = 0;
    }
    cvq_writer_free(w);
    return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    static head h; /* large */
    uint64_t state = seed + 1u;
    cvq_buffer json = {0};
    if (mutate_below(&state, 8) == 0 || !take_apart(&h, data, size))
        return LLVMFuzzerMutate(data, size, most);
    (void)cvq_metadata_unpack(&json, h.bytes[CVQ_SECTION_METADATA], h.sizes[CVQ_SECTION_METADATA],
                              "", NULL);
    switch (mutate_below(&state, 10)) {
    case 0:
    case 1:
    case 2:
        change_config(&h, &state);
        break;
    case 3:
        make_tokenizer(&h, &state);
        break;
    case 4:
        change_bytes(&h, CVQ_SECTION_TOKENIZER, true);
        break;
    case 5:
        change_bytes(&h, CVQ_SECTION_INDEX, false);
        break;
    case 6:
        change_bytes(&h, mutate_below(&state, CVQ_SECTION_RESERVE), true);
        break;
    case 7:
        break; /* other types */
    default:
        change_metadata(&h, &json, &state);
    }
    size_t now = 0;
    if (mutate_below(&state, 4) > 0) now = plan_again(&h, &json, seed % 12, data, most);
    if (now == 0) now = put_together(&h, data, most);
    cvq_buffer_free(&json);
    return now ? now : LLVMFuzzerMutate(data, size, most);
}
