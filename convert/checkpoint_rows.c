/* Tensors lie in a file behind its header and one another, without gaps, so hashing a file is
 * hashing the header and then each tensor as it is read. Where a run goes on that was interrupted
 * inside a file, what comes before is read again for the hash alone. */
#include "convert/checkpoint_rows.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/file_time.h"
#include "base/half.h"
#include "base/memory.h"

#define PIECE (1u << 20) /* read at once for the hash alone */

struct cvq_checkpoint_rows {
    const cvq_tensor_map *map;
    const cvq_safetensors *checkpoint;
    const cvq_model_config *config;
    size_t *order;  /* [tensor count] numbers of the model's tensors as they lie in the files */
    uint64_t *cols; /* [tensor count] */
    /* hashing */
    cvq_hasher *hasher;
    size_t file;       /* that is being hashed */
    uint64_t position; /* of its bytes, so many are */
    uint8_t *piece;    /* [PIECE] */
    uint8_t *hashes;   /* [files][CVQ_HASH_BYTES] */
    bool *known;       /* [files] */
};

static const cvq_file_map *file_of(const cvq_checkpoint_rows *r, size_t file) {
    return cvq_safetensors_file_map(r->checkpoint, file);
}

/* ---------------------------------------------------------------- hashing */

static cvq_status feed(cvq_checkpoint_rows *r, const uint8_t *bytes, size_t size, cvq_error *err) {
    CVQ_TRY(cvq_hasher_feed(r->hasher, bytes, size, err));
    r->position += size;
    if (r->position < file_of(r, r->file)->size) return CVQ_OK;
    CVQ_TRY(cvq_hasher_take(r->hasher, r->hashes + CVQ_HASH_BYTES * r->file, err));
    r->known[r->file] = true;
    r->position = 0;
    return CVQ_OK;
}

/* The bytes of a file up to `end` that were not hashed. */
static cvq_status catch_up(cvq_checkpoint_rows *r, size_t file, uint64_t end, cvq_error *err) {
    const int fd = file_of(r, file)->fd;
    const char *name = cvq_safetensors_file_name(r->checkpoint, file);
    if (r->file != file && r->position > 0)
        return cvq_fail(err, CVQ_INTERNAL, name, "read before the end of another file");
    r->file = file;
    while (!r->known[file] && r->position < end) {
        const uint64_t at = r->position, left = end - at;
        const size_t n = left < PIECE ? (size_t)left : PIECE;
        CVQ_TRY(cvq_read_all(fd, at, r->piece, n, name, err));
        cvq_file_advise(fd, at, n, CVQ_ADVICE_DONTNEED);
        CVQ_TRY(feed(r, r->piece, n, err));
    }
    return CVQ_OK;
}

static uint64_t row_bytes(const cvq_checkpoint_rows *r, size_t tensor) {
    return r->cols[tensor] * cvq_st_dtype_size(cvq_tensor_map_source(r->map, tensor)->dtype);
}

static cvq_status check_rows(void *context, size_t tensor, uint64_t first, uint64_t count,
                             const uint8_t *raw, cvq_error *err) {
    cvq_checkpoint_rows *r = context;
    const cvq_st_tensor *t = cvq_tensor_map_source(r->map, tensor);
    if (r->known[t->file]) return CVQ_OK;
    CVQ_TRY(catch_up(r, t->file, t->offset + first * row_bytes(r, tensor), err));
    return feed(r, raw, (size_t)(count * row_bytes(r, tensor)), err);
}

const uint8_t *cvq_checkpoint_rows_hash(const cvq_checkpoint_rows *r, size_t file) {
    return r->known[file] ? r->hashes + CVQ_HASH_BYTES * file : NULL;
}

void cvq_checkpoint_rows_set_hash(cvq_checkpoint_rows *r, size_t file, const uint8_t *hash) {
    memcpy(r->hashes + CVQ_HASH_BYTES * file, hash, CVQ_HASH_BYTES);
    r->known[file] = true;
}

cvq_status cvq_checkpoint_rows_finish(cvq_checkpoint_rows *r, cvq_error *err) {
    for (size_t i = 0; i < cvq_safetensors_files(r->checkpoint); i++)
        CVQ_TRY(catch_up(r, i, file_of(r, i)->size, err));
    return CVQ_OK;
}

/* ---------------------------------------------------------------- rows */

static size_t rows_size(void *context, size_t tensor, uint64_t count) {
    return (size_t)(count * row_bytes(context, tensor)); /* within the tensor's size */
}

static cvq_status read_rows(void *context, size_t tensor, uint64_t first, uint64_t count,
                            uint8_t *raw, cvq_error *err) {
    const cvq_checkpoint_rows *r = context;
    const cvq_st_tensor *t = cvq_tensor_map_source(r->map, tensor);
    const int fd = file_of(r, t->file)->fd;
    const uint64_t offset = t->offset + first * row_bytes(r, tensor);
    const size_t size = (size_t)(count * row_bytes(r, tensor));
    CVQ_TRY(cvq_read_all(fd, offset, raw, size, cvq_safetensors_file_name(r->checkpoint, t->file),
                         err));
    cvq_file_advise(fd, offset, size, CVQ_ADVICE_DONTNEED);
    return CVQ_OK;
}

static void will_need(void *context, size_t tensor, uint64_t first, uint64_t count) {
    const cvq_checkpoint_rows *r = context;
    const cvq_st_tensor *t = cvq_tensor_map_source(r->map, tensor);
    cvq_file_advise(file_of(r, t->file)->fd, t->offset + first * row_bytes(r, tensor),
                    count * row_bytes(r, tensor), CVQ_ADVICE_WILLNEED);
}

static cvq_status decode_rows(void *context, size_t tensor, uint64_t count, const uint8_t *raw,
                              float *out, cvq_error *err) {
    const cvq_checkpoint_rows *r = context;
    const uint64_t n = count * r->cols[tensor];
    cvq_st_tensor t = *cvq_tensor_map_source(r->map, tensor);
    t.data = raw;
    t.size = count * row_bytes(r, tensor);
    CVQ_TRY(cvq_st_read_f32(&t, 0, n, out, err));
    /* One rule: everything has bf16's precision, except inv_freq kept in f32 (the one F32 tensor
     * whose type no recipe chooses). */
    cvq_tensor_spec spec;
    if (t.dtype == CVQ_ST_BF16) return CVQ_OK;
    cvq_model_tensor_spec(r->config, tensor, &spec);
    if (spec.role == CVQ_ROLE_INV_FREQ) return CVQ_OK;
    for (uint64_t i = 0; i < n; i++) out[i] = cvq_bf16_to_f32(cvq_f32_to_bf16(out[i]));
    return CVQ_OK;
}

/* ---------------------------------------------------------------- opening */

typedef struct place {
    uint64_t file, offset;
    size_t tensor;
} place;

static int compare_places(const void *a, const void *b) {
    const place *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static cvq_status find_order(cvq_checkpoint_rows *r, size_t count, cvq_error *err) {
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, count, sizeof(place), "the checkpoint's order", err));
    place *places = memory;
    for (size_t i = 0; i < count; i++) {
        const cvq_st_tensor *t = cvq_tensor_map_source(r->map, i);
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(r->config, i, &spec);
        places[i] = (place){t->file, t->offset, i};
        r->cols[i] = spec.cols;
    }
    qsort(places, count, sizeof *places, compare_places);
    for (size_t i = 0; i < count; i++) r->order[i] = places[i].tensor;
    free(places);
    return CVQ_OK;
}

static cvq_status make_rows(cvq_checkpoint_rows *r, cvq_error *err) {
    const size_t count = cvq_model_tensor_count(r->config);
    const size_t files = cvq_safetensors_files(r->checkpoint);
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, count, sizeof *r->order, "the checkpoint's order", err));
    r->order = p;
    CVQ_TRY(cvq_alloc(&p, count, sizeof *r->cols, "the checkpoint's order", err));
    r->cols = p;
    CVQ_TRY(cvq_alloc(&p, PIECE, 1, "hashing", err));
    r->piece = p;
    CVQ_TRY(cvq_alloc(&p, files, CVQ_HASH_BYTES, "hashes", err));
    r->hashes = p;
    CVQ_TRY(cvq_alloc(&p, files, sizeof *r->known, "hashes", err));
    r->known = p;
    CVQ_TRY(cvq_hasher_open(&r->hasher, err));
    return find_order(r, count, err);
}

cvq_status cvq_checkpoint_rows_open(cvq_checkpoint_rows **out, const cvq_tensor_map *map,
                                    const cvq_safetensors *checkpoint,
                                    const cvq_model_config *config, cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_checkpoint_rows), "the checkpoint's rows", err));
    cvq_checkpoint_rows *r = p;
    r->map = map;
    r->checkpoint = checkpoint;
    r->config = config;
    const cvq_status status = make_rows(r, err);
    if (status != CVQ_OK) {
        cvq_checkpoint_rows_close(r);
        return status;
    }
    *out = r;
    return CVQ_OK;
}

void cvq_checkpoint_rows_close(cvq_checkpoint_rows *r) {
    if (!r) return;
    cvq_hasher_close(r->hasher);
    free(r->order);
    free(r->cols);
    free(r->piece);
    free(r->hashes);
    free(r->known);
    free(r);
}

cvq_row_source cvq_checkpoint_rows_source(cvq_checkpoint_rows *r) {
    return (cvq_row_source){.context = r,
                            .order = r->order,
                            .size = rows_size,
                            .read = read_rows,
                            .check = check_rows,
                            .decode = decode_rows,
                            .will_need = will_need};
}

/* ---------------------------------------------------------------- identity */

static cvq_status feed_file(cvq_hasher *h, const cvq_safetensors *s, size_t file, cvq_error *err) {
    const cvq_file_map *map = cvq_safetensors_file_map(s, file);
    const char *name = cvq_safetensors_file_name(s, file);
    struct stat st;
    if (fstat(map->fd, &st) != 0) return cvq_fail_errno(err, name, "cannot tell its age");
    const struct timespec modified = cvq_file_modified(&st);
    const uint64_t facts[] = {map->size, (uint64_t)modified.tv_sec, (uint64_t)modified.tv_nsec};
    CVQ_TRY(cvq_hasher_feed(h, name, strlen(name) + 1, err));
    CVQ_TRY(cvq_hasher_feed(h, facts, sizeof facts, err));
    return cvq_hasher_feed(h, map->data, 8 + (size_t)cvq_load_le(map->data, 8), err);
}

cvq_status cvq_checkpoint_identity(const cvq_safetensors *s, uint8_t hash[CVQ_HASH_BYTES],
                                   cvq_error *err) {
    cvq_hasher *h = NULL;
    CVQ_TRY(cvq_hasher_open(&h, err));
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < cvq_safetensors_files(s); i++)
        status = feed_file(h, s, i, err);
    if (status == CVQ_OK) status = cvq_hasher_take(h, hash, err);
    cvq_hasher_close(h);
    return status;
}
