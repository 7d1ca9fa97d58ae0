/* Keys and values of one attention (a decoder layer, or a ViT layer's own tokens), laid out as the
 * f32 tile kernel reads them.
 *
 * A block holds 256 keys of every head. Per head: keys as 16 panels [d][16] (a lane is a key),
 * values as ceil(d / 16) panels [256][16] (a lane is a dimension). Blocks are allocated as slots
 * come, zeroed, so unused places are finite. Elements are f32, f16 or int8 with one f32 scale per
 * key for keys and one for values. A block may be shared with what keeps a picture's slots
 * (runtime/kv_prefix.h); before a slot is written its block is made the cache's own. */
#ifndef CVQ_RUNTIME_KV_CACHE_H
#define CVQ_RUNTIME_KV_CACHE_H

#include <stdalign.h>
#include <stdatomic.h>

#include "base/status.h"
#include "cvq.h"
#include "runtime/engine.h"

#define CVQ_KV_BLOCK 256 /* keys */

typedef struct cvq_kv_block {
    atomic_uint references;
    alignas(64) uint8_t data[];
} cvq_kv_block;

typedef struct cvq_kv_cache {
    cvq_kv_type type;
    size_t heads, head_dim;
    size_t capacity;   /* in keys, a multiple of CVQ_KV_BLOCK; grows */
    size_t num_blocks; /* allocated */
    cvq_kv_block **blocks;
} cvq_kv_cache;

/* Nothing is allocated yet. type is not CVQ_KV_DEFAULT. */
void cvq_kv_init(cvq_kv_cache *c, cvq_kv_type type, size_t heads, size_t head_dim);
void cvq_kv_free(cvq_kv_cache *c);
/* Make room for keys 0 .. keys - 1. */
cvq_status cvq_kv_reserve(cvq_kv_cache *c, size_t keys, cvq_error *err);
/* The same, with the blocks of slots first .. keys - 1 made the cache's own, for writing there.
 * Earlier slots keep their values. */
cvq_status cvq_kv_own(cvq_kv_cache *c, size_t first, size_t keys, cvq_error *err);
/* Its first n blocks become these, which it shares from now on: nobody writes to them any more. */
cvq_status cvq_kv_share(cvq_kv_cache *c, cvq_kv_block *const *blocks, size_t n, cvq_error *err);
/* What a block takes in memory. */
size_t cvq_kv_block_bytes(cvq_kv_type type, size_t heads, size_t head_dim);

/* Store key and value [heads x head_dim] at a reserved slot. Different slots may be stored by
 * different threads. */
void cvq_kv_store(const cvq_kv_cache *c, const cvq_kernels *k, size_t slot, const float *key,
                  const float *value);
/* A slot's key and value of every head as they are stored: out of the cache, or back into a place
 * that is the cache's own. row: cvq_kv_row_bytes. */
size_t cvq_kv_row_bytes(cvq_kv_type type, size_t heads, size_t head_dim);
void cvq_kv_move_row(const cvq_kv_cache *c, size_t slot, uint8_t *row, bool to_cache);
/* Keys of one head and block as 16 panels [head_dim][16]; values as panels [256][16]. Either points
 * into the cache (f32) or into scratch: room for cvq_kv_tile_floats(head_dim). panels: how many key
 * panels will be read. Those of q8 are without their scales. */
const float *cvq_kv_keys(const cvq_kv_cache *c, const cvq_kernels *k, size_t block, size_t head,
                         size_t panels, float *scratch);
const float *cvq_kv_values(const cvq_kv_cache *c, const cvq_kernels *k, size_t block, size_t head,
                           size_t panels, float *scratch);
size_t cvq_kv_tile_floats(size_t head_dim);
/* Of q8: [256] of the block's keys and of its values; NULL for other types. */
typedef struct cvq_kv_scales {
    const float *keys, *values;
} cvq_kv_scales;
cvq_kv_scales cvq_kv_block_scales(const cvq_kv_cache *c, size_t block, size_t head);
/* Keys and values as they lie in the cache, f16 or q8, for the kernels that read them so. */
cvq_kv_panels cvq_kv_key_panels(const cvq_kv_cache *c, size_t block, size_t head);
cvq_kv_panels cvq_kv_value_panels(const cvq_kv_cache *c, size_t block, size_t head, size_t keys);

#endif
