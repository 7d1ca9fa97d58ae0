/* Layout, growth and conversion of keys and values. */
#include "runtime/kv_cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"

#define LANES CVQ_PANEL_ROWS

/* Elements of one head in a block: keys [16 panels][d][16], then values [ceil(d / 16)][256][16]. */
static size_t key_elements(size_t d) {
    return d * CVQ_KV_BLOCK;
}
static size_t value_elements(size_t d) {
    return cvq_round_up(d, LANES) * CVQ_KV_BLOCK;
}
static size_t element_bytes(cvq_kv_type type) {
    return type == CVQ_KV_F32 ? 4 : type == CVQ_KV_F16 ? 2 : 1;
}
/* int8 adds scales [256] of keys and [256] of values, f32, in front of a head's elements. */
static size_t scale_bytes(cvq_kv_type type) {
    return type == CVQ_KV_Q8 ? 2 * CVQ_KV_BLOCK * sizeof(float) : 0;
}
static size_t head_bytes(cvq_kv_type type, size_t d) {
    return scale_bytes(type) + (key_elements(d) + value_elements(d)) * element_bytes(type);
}

size_t cvq_kv_block_bytes(cvq_kv_type type, size_t heads, size_t head_dim) {
    return sizeof(cvq_kv_block) + heads * head_bytes(type, head_dim);
}

size_t cvq_kv_tile_floats(size_t head_dim) {
    return value_elements(head_dim);
}

void cvq_kv_init(cvq_kv_cache *c, cvq_kv_type type, size_t heads, size_t head_dim) {
    *c = (cvq_kv_cache){.type = type, .heads = heads, .head_dim = head_dim};
}

/* ---------------------------------------------------------------- blocks */

/* Zeroed. */
static cvq_status block_new(cvq_kv_block **out, const cvq_kv_cache *c, cvq_error *err) {
    void *p;
    CVQ_TRY(cvq_alloc(&p, 1, cvq_kv_block_bytes(c->type, c->heads, c->head_dim), "KV cache", err));
    *out = p;
    atomic_init(&(*out)->references, 1);
    return CVQ_OK;
}

static void block_release(cvq_kv_block *block) {
    if (block && atomic_fetch_sub(&block->references, 1) == 1) free(block);
}

void cvq_kv_free(cvq_kv_cache *c) {
    if (!c) return;
    for (size_t b = 0; b < c->num_blocks; b++) block_release(c->blocks[b]);
    free(c->blocks);
    c->blocks = NULL;
    c->num_blocks = c->capacity = 0;
}

/* Room in the list for so many blocks. */
static cvq_status grow_list(cvq_kv_cache *c, size_t blocks, cvq_error *err) {
    if (blocks <= c->num_blocks) return CVQ_OK;
    void *list;
    CVQ_TRY(cvq_alloc(&list, blocks, sizeof *c->blocks, "KV cache", err));
    if (c->blocks) memcpy(list, c->blocks, c->num_blocks * sizeof *c->blocks);
    free(c->blocks);
    c->blocks = list;
    return CVQ_OK;
}

static void append(cvq_kv_cache *c, cvq_kv_block *block) {
    c->blocks[c->num_blocks++] = block;
    c->capacity = c->num_blocks * CVQ_KV_BLOCK;
}

cvq_status cvq_kv_reserve(cvq_kv_cache *c, size_t keys, cvq_error *err) {
    size_t need = (keys + CVQ_KV_BLOCK - 1) / CVQ_KV_BLOCK;
    CVQ_TRY(grow_list(c, need, err));
    while (c->num_blocks < need) {
        cvq_kv_block *block;
        CVQ_TRY(block_new(&block, c, err));
        append(c, block);
    }
    return CVQ_OK;
}

cvq_status cvq_kv_share(cvq_kv_cache *c, cvq_kv_block *const *blocks, size_t n, cvq_error *err) {
    CVQ_TRY(grow_list(c, n, err));
    for (size_t b = 0; b < n; b++) {
        atomic_fetch_add(&blocks[b]->references, 1);
        if (b == c->num_blocks) {
            append(c, blocks[b]);
        } else {
            block_release(c->blocks[b]);
            c->blocks[b] = blocks[b];
        }
    }
    return CVQ_OK;
}

cvq_status cvq_kv_own(cvq_kv_cache *c, size_t first, size_t keys, cvq_error *err) {
    CVQ_TRY(cvq_kv_reserve(c, keys, err));
    for (size_t b = first / CVQ_KV_BLOCK; b * CVQ_KV_BLOCK < keys; b++) {
        cvq_kv_block *shared = c->blocks[b];
        if (atomic_load(&shared->references) == 1) continue;
        CVQ_TRY(block_new(&c->blocks[b], c, err));
        if (b * CVQ_KV_BLOCK < first)
            memcpy(c->blocks[b]->data, shared->data, c->heads * head_bytes(c->type, c->head_dim));
        block_release(shared);
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- slots */

typedef struct head_view {
    float *scales; /* [2][256], of int8 alone */
    uint8_t *keys, *values;
} head_view;

static head_view head_of(const cvq_kv_cache *c, size_t block, size_t head) {
    uint8_t *p = c->blocks[block]->data + head * head_bytes(c->type, c->head_dim);
    head_view v = {.scales = (float *)(void *)p};
    v.keys = p + scale_bytes(c->type);
    v.values = v.keys + key_elements(c->head_dim) * element_bytes(c->type);
    return v;
}

/* Element i of a key goes to panel slot / 16, row i, lane slot % 16; of a value to panel i / 16,
 * row slot, lane i % 16. */
static size_t key_index(size_t d, size_t slot, size_t i) {
    return (slot / LANES * d + i) * LANES + slot % LANES;
}
static size_t value_index(size_t slot, size_t i) {
    return (i / LANES * CVQ_KV_BLOCK + slot) * LANES + i % LANES;
}

static void store_f32(size_t d, const head_view *h, size_t at, const float *key,
                      const float *value) {
    float *keys = (float *)(void *)h->keys, *values = (float *)(void *)h->values;
    for (size_t i = 0; i < d; i++) keys[key_index(d, at, i)] = key[i];
    for (size_t i = 0; i < d; i++) values[value_index(at, i)] = value[i];
}

static void store_f16(size_t d, const cvq_kernels *k, const head_view *h, size_t at,
                      const float *key, const float *value) {
    enum { PIECE = 256 }; /* on the stack, so that head_dim has no bound here */
    uint16_t half[PIECE];
    uint16_t *keys = (uint16_t *)(void *)h->keys, *values = (uint16_t *)(void *)h->values;
    for (size_t i0 = 0; i0 < d; i0 += PIECE) {
        size_t n = d - i0 < PIECE ? d - i0 : PIECE;
        k->f32_to_f16(key + i0, n, half);
        for (size_t i = 0; i < n; i++) keys[key_index(d, at, i0 + i)] = half[i];
        k->f32_to_f16(value + i0, n, half);
        for (size_t i = 0; i < n; i++) values[value_index(at, i0 + i)] = half[i];
    }
}

/* The factor that brings a vector's largest magnitude to 127, 0 for a vector of zeros; its scale is
 * stored. */
static float int8_factor(const float *x, size_t n, float *scale) {
    float max = 0;
    for (size_t i = 0; i < n; i++) max = fmaxf(max, fabsf(x[i]));
    *scale = max / 127.0f;
    return max > 0 ? 127.0f / max : 0;
}

static void store_q8(size_t d, const head_view *h, size_t at, const float *key,
                     const float *value) {
    int8_t *keys = (int8_t *)h->keys, *values = (int8_t *)h->values;
    float key_factor = int8_factor(key, d, h->scales + at);
    float value_factor = int8_factor(value, d, h->scales + CVQ_KV_BLOCK + at);
    for (size_t i = 0; i < d; i++) {
        keys[key_index(d, at, i)] = (int8_t)lrintf(key[i] * key_factor);
        values[value_index(at, i)] = (int8_t)lrintf(value[i] * value_factor);
    }
}

void cvq_kv_store(const cvq_kv_cache *c, const cvq_kernels *k, size_t slot, const float *key,
                  const float *value) {
    for (size_t h = 0; h < c->heads; h++) {
        head_view v = head_of(c, slot / CVQ_KV_BLOCK, h);
        size_t d = c->head_dim, at = slot % CVQ_KV_BLOCK;
        if (c->type == CVQ_KV_F32)
            store_f32(d, &v, at, key + h * d, value + h * d);
        else if (c->type == CVQ_KV_F16)
            store_f16(d, k, &v, at, key + h * d, value + h * d);
        else
            store_q8(d, &v, at, key + h * d, value + h * d);
    }
}

size_t cvq_kv_row_bytes(cvq_kv_type type, size_t heads, size_t head_dim) {
    size_t scales = type == CVQ_KV_Q8 ? 2 * sizeof(float) : 0;
    return heads * (scales + 2 * head_dim * element_bytes(type));
}

/* Copies `size` bytes between a row and a place in the cache, and steps on in the row. */
static void move_piece(uint8_t **row, void *place, size_t size, bool to_cache) {
    memcpy(to_cache ? place : *row, to_cache ? *row : place, size);
    *row += size;
}

void cvq_kv_move_row(const cvq_kv_cache *c, size_t slot, uint8_t *row, bool to_cache) {
    size_t at = slot % CVQ_KV_BLOCK, d = c->head_dim, size = element_bytes(c->type);
    for (size_t h = 0; h < c->heads; h++) {
        head_view v = head_of(c, slot / CVQ_KV_BLOCK, h);
        if (c->type == CVQ_KV_Q8) {
            move_piece(&row, v.scales + at, sizeof(float), to_cache);
            move_piece(&row, v.scales + CVQ_KV_BLOCK + at, sizeof(float), to_cache);
        }
        for (size_t i = 0; i < d; i++)
            move_piece(&row, v.keys + key_index(d, at, i) * size, size, to_cache);
        for (size_t i = 0; i < d; i++)
            move_piece(&row, v.values + value_index(at, i) * size, size, to_cache);
    }
}

/* ---------------------------------------------------------------- for attention */

const float *cvq_kv_keys(const cvq_kv_cache *c, const cvq_kernels *k, size_t block, size_t head,
                         size_t panels, float *scratch) {
    head_view v = head_of(c, block, head);
    size_t d = c->head_dim;
    if (c->type == CVQ_KV_F32) return (const float *)(const void *)v.keys;
    if (c->type == CVQ_KV_F16) {
        k->f16_to_f32((const uint16_t *)(const void *)v.keys, panels * d * LANES, scratch);
        return scratch;
    }
    const int8_t *q = (const int8_t *)v.keys;
    for (size_t i = 0; i < panels * d * LANES; i++) scratch[i] = (float)q[i];
    return scratch;
}

const float *cvq_kv_values(const cvq_kv_cache *c, const cvq_kernels *k, size_t block, size_t head,
                           size_t panels, float *scratch) {
    head_view v = head_of(c, block, head);
    if (c->type == CVQ_KV_F32) return (const float *)(const void *)v.values;
    size_t dims = cvq_round_up(c->head_dim, LANES) / LANES, keys = panels * LANES;
    for (size_t p = 0; p < dims; p++) {
        float *out = scratch + p * CVQ_KV_BLOCK * LANES;
        if (c->type == CVQ_KV_F16) {
            const uint16_t *half = (const uint16_t *)(const void *)v.values;
            k->f16_to_f32(half + p * CVQ_KV_BLOCK * LANES, keys * LANES, out);
            continue;
        }
        const int8_t *q = (const int8_t *)v.values + p * CVQ_KV_BLOCK * LANES;
        for (size_t i = 0; i < keys * LANES; i++) out[i] = (float)q[i];
    }
    return scratch;
}

cvq_kv_scales cvq_kv_block_scales(const cvq_kv_cache *c, size_t block, size_t head) {
    if (c->type != CVQ_KV_Q8) return (cvq_kv_scales){0};
    const float *scales = head_of(c, block, head).scales;
    return (cvq_kv_scales){scales, scales + CVQ_KV_BLOCK};
}

cvq_kv_panels cvq_kv_key_panels(const cvq_kv_cache *c, size_t block, size_t head) {
    head_view v = head_of(c, block, head);
    return (cvq_kv_panels){
        .data = v.keys, .stride = c->head_dim * LANES, .k = c->head_dim, .next = v.values};
}

cvq_kv_panels cvq_kv_value_panels(const cvq_kv_cache *c, size_t block, size_t head, size_t keys) {
    head_view v = head_of(c, block, head);
    bool last = block + 1 == c->num_blocks;
    return (cvq_kv_panels){.data = v.values,
                           .stride = (size_t)CVQ_KV_BLOCK * LANES,
                           .k = keys,
                           .next = last ? NULL : head_of(c, block + 1, head).keys};
}
