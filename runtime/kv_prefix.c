/* Sharing a cache's first blocks. */
#include "runtime/kv_prefix.h"

#include <stdlib.h>

#include "base/memory.h"

static size_t row_bytes(const cvq_kv_prefix *p) {
    return cvq_kv_row_bytes(p->whole.type, p->whole.heads, p->whole.head_dim);
}

static size_t first_row(const cvq_kv_prefix *p) {
    return p->keys / CVQ_KV_BLOCK * CVQ_KV_BLOCK;
}

static cvq_status alloc_rows(cvq_kv_prefix *p, cvq_error *err) {
    void *rows;
    CVQ_TRY(
        cvq_alloc(&rows, p->keys - first_row(p), row_bytes(p), "a picture's keys and values", err));
    p->rows = rows;
    return CVQ_OK;
}

cvq_status cvq_kv_prefix_alloc(cvq_kv_prefix *p, cvq_kv_type type, size_t heads, size_t head_dim,
                               size_t keys, cvq_error *err) {
    *p = (cvq_kv_prefix){.keys = keys};
    cvq_kv_init(&p->whole, type, heads, head_dim);
    CVQ_TRY(cvq_kv_reserve(&p->whole, first_row(p), err));
    return alloc_rows(p, err);
}

cvq_status cvq_kv_prefix_take(cvq_kv_prefix *p, const cvq_kv_cache *c, size_t keys,
                              cvq_error *err) {
    *p = (cvq_kv_prefix){.keys = keys};
    cvq_kv_init(&p->whole, c->type, c->heads, c->head_dim);
    CVQ_TRY(cvq_kv_share(&p->whole, c->blocks, keys / CVQ_KV_BLOCK, err));
    CVQ_TRY(alloc_rows(p, err));
    for (size_t slot = first_row(p), i = 0; slot < keys; slot++, i++)
        cvq_kv_move_row(c, slot, p->rows + i * row_bytes(p), false);
    return CVQ_OK;
}

cvq_status cvq_kv_prefix_give(const cvq_kv_prefix *p, cvq_kv_cache *c, cvq_error *err) {
    CVQ_TRY(cvq_kv_share(c, p->whole.blocks, p->whole.num_blocks, err));
    CVQ_TRY(cvq_kv_own(c, first_row(p), p->keys, err));
    for (size_t slot = first_row(p), i = 0; slot < p->keys; slot++, i++)
        cvq_kv_move_row(c, slot, p->rows + i * row_bytes(p), true);
    return CVQ_OK;
}

void cvq_kv_prefix_free(cvq_kv_prefix *p) {
    if (!p) return;
    cvq_kv_free(&p->whole);
    free(p->rows);
    *p = (cvq_kv_prefix){0};
}

size_t cvq_kv_prefix_pieces(const cvq_kv_prefix *p) {
    return p->whole.num_blocks + 1;
}

uint8_t *cvq_kv_prefix_piece(const cvq_kv_prefix *p, size_t i, size_t *size) {
    const cvq_kv_cache *c = &p->whole;
    if (i == c->num_blocks) {
        *size = (p->keys - first_row(p)) * row_bytes(p);
        return p->rows;
    }
    *size = cvq_kv_block_bytes(c->type, c->heads, c->head_dim) - sizeof(cvq_kv_block);
    return c->blocks[i]->data;
}
