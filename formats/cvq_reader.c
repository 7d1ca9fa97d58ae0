/* Opening a .cvq file from the outside in: header, hash of the head, sections, config, tensors,
 * tokenizer; and verifying its weights against the chunk table. Weights are mapped and never read
 * here but by cvq_reader_verify. */
#include "formats/cvq_reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "formats/cvq_head_internal.h"
#include "formats/cvq_index_internal.h"
#include "formats/damage_internal.h"
#include "formats/metadata_frame_internal.h"

struct cvq_reader {
    char *path;
    cvq_file_map map;
    cvq_head head;
    cvq_model_config config;
    cvq_tensor *tensors; /* [count] */
    size_t count;
    uint64_t chunks; /* of all tensors */
    cvq_tokenizer_table tokenizer;
};

#define ULL(x) ((unsigned long long)(x))

static const uint8_t *section_data(const cvq_reader *r, cvq_section_kind kind) {
    return r->map.data + r->head.sections[kind].offset;
}

/* The weights' side: the index against the config, the chunk table and the file's end against the
 * index. */
static cvq_status open_tensors(cvq_reader *r, const char *path, cvq_error *err) {
    const cvq_section *s = r->head.sections;
    cvq_place end = {s[CVQ_SECTION_DATA].offset, 0};
    CVQ_TRY(cvq_index_decode(&r->tensors, &r->count, &end, &r->config,
                             section_data(r, CVQ_SECTION_INDEX), s[CVQ_SECTION_INDEX].size, path,
                             err));
    r->chunks = end.chunk;
    if (s[CVQ_SECTION_CHUNKS].size % CVQ_HASH_BYTES != 0 ||
        s[CVQ_SECTION_CHUNKS].size / CVQ_HASH_BYTES != end.chunk)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "section CHUNKS has %llu bytes; the tensors' %llu chunks need "
                        "%u each" CVQ_DAMAGED,
                        ULL(s[CVQ_SECTION_CHUNKS].size), ULL(end.chunk), CVQ_HASH_BYTES);
    if (end.offset != r->head.file_size)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "the last tensor ends at byte %llu, the file at %llu" CVQ_DAMAGED,
                        ULL(end.offset), ULL(r->head.file_size));
    return CVQ_OK;
}

static cvq_status open_tokenizer(cvq_reader *r, const char *path, cvq_error *err) {
    const cvq_section s = r->head.sections[CVQ_SECTION_TOKENIZER];
    if (s.size > CVQ_MAX_TOKENIZER)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "section TOKENIZER has %llu bytes; at most %u are allowed" CVQ_DAMAGED,
                        ULL(s.size), CVQ_MAX_TOKENIZER);
    CVQ_TRY(cvq_tokenizer_table_open(&r->tokenizer, section_data(r, CVQ_SECTION_TOKENIZER),
                                     (size_t)s.size, path, err));
    if (r->tokenizer.num_tokens > r->config.vocab_size)
        return cvq_fail(err, CVQ_FORMAT, path,
                        "the tokenizer has %u tokens, more than the config's vocab_size "
                        "%u" CVQ_DAMAGED,
                        r->tokenizer.num_tokens, r->config.vocab_size);
    return CVQ_OK;
}

static cvq_status open_all(cvq_reader *r, const char *path, cvq_error *err) {
    r->path = strdup(path);
    if (!r->path) return cvq_fail(err, CVQ_OUT_OF_MEMORY, path, "no memory for its name");
    CVQ_TRY(cvq_file_map_open(&r->map, path, err));
    CVQ_TRY(cvq_head_decode(&r->head, r->map.data, r->map.size, path, err));
    const cvq_section *s = r->head.sections;
    CVQ_TRY(cvq_config_decode(&r->config, section_data(r, CVQ_SECTION_CONFIG),
                              s[CVQ_SECTION_CONFIG].size, path, err));
    CVQ_TRY(open_tensors(r, path, err));
    CVQ_TRY(open_tokenizer(r, path, err));
    return cvq_metadata_check(section_data(r, CVQ_SECTION_METADATA), s[CVQ_SECTION_METADATA].size,
                              path, err);
}

cvq_status cvq_reader_open(cvq_reader **out, const char *path, cvq_error *err) {
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_reader), "a reader", err));
    cvq_reader *r = memory;
    r->map.fd = -1;
    cvq_status status = open_all(r, path, err);
    if (status != CVQ_OK) {
        cvq_reader_close(r);
        return status;
    }
    *out = r;
    return CVQ_OK;
}

void cvq_reader_close(cvq_reader *r) {
    if (!r) return;
    cvq_file_map_close(&r->map);
    free(r->tensors);
    free(r->path);
    free(r);
}

/* ---------------------------------------------------------------- what is in it */

const char *cvq_reader_path(const cvq_reader *r) {
    return r->path;
}
const uint8_t *cvq_reader_id(const cvq_reader *r) {
    return r->head.id;
}
uint64_t cvq_reader_file_size(const cvq_reader *r) {
    return r->head.file_size;
}
const cvq_file_map *cvq_reader_map(const cvq_reader *r) {
    return &r->map;
}
const cvq_model_config *cvq_reader_config(const cvq_reader *r) {
    return &r->config;
}
const cvq_tokenizer_table *cvq_reader_tokenizer(const cvq_reader *r) {
    return &r->tokenizer;
}
void cvq_reader_tokenizer_bytes(const cvq_reader *r, const uint8_t **data, size_t *size) {
    *data = section_data(r, CVQ_SECTION_TOKENIZER);
    *size = (size_t)r->head.sections[CVQ_SECTION_TOKENIZER].size;
}
size_t cvq_reader_tensor_count(const cvq_reader *r) {
    return r->count;
}
const cvq_tensor *cvq_reader_tensor(const cvq_reader *r, size_t i) {
    return &r->tensors[i];
}
const uint8_t *cvq_reader_data(const cvq_reader *r, size_t i) {
    return r->map.data + r->tensors[i].offset;
}
const uint8_t *cvq_reader_chunk_hash(const cvq_reader *r, uint64_t chunk) {
    return section_data(r, CVQ_SECTION_CHUNKS) + CVQ_HASH_BYTES * chunk;
}

cvq_status cvq_reader_metadata(const cvq_reader *r, cvq_buffer *json, cvq_error *err) {
    return cvq_metadata_unpack(json, section_data(r, CVQ_SECTION_METADATA),
                               r->head.sections[CVQ_SECTION_METADATA].size, r->path, err);
}

/* ---------------------------------------------------------------- verifying */

cvq_status cvq_reader_extents(const cvq_reader *r, cvq_extents *out, cvq_error *err) {
    cvq_extents e = {.start = r->head.sections[CVQ_SECTION_DATA].offset};
    for (size_t i = 0; i < r->count; i++) {
        const cvq_tensor *t = &r->tensors[i];
        const cvq_status status = cvq_extents_add(&e, i, t->offset, t->size,
                                                  cvq_reader_chunk_hash(r, t->first_chunk), err);
        if (status != CVQ_OK) {
            cvq_extents_free(&e);
            return status;
        }
    }
    *out = e;
    return CVQ_OK;
}

/* The caller's damage function, and the first damage for the message. */
typedef struct verify_state {
    cvq_damage_fn damage;
    void *context;
    size_t owner;
    uint64_t offset, size; /* 0: none yet */
} verify_state;

static void note_damage(void *context, size_t owner, uint64_t offset, uint64_t size) {
    verify_state *v = context;
    if (v->size == 0) {
        v->owner = owner;
        v->offset = offset;
        v->size = size;
    }
    if (v->damage) v->damage(v->context, owner, offset, size);
}

static cvq_status verify_result(const cvq_reader *r, const verify_state *v, size_t ranges,
                                cvq_error *err) {
    if (ranges == 0) return CVQ_OK;
    const uint64_t end = v->offset + v->size;
    if (v->owner == CVQ_OWNER_PADDING)
        return cvq_fail(err, CVQ_MISMATCH, r->path,
                        "padding in bytes %llu to %llu is not zero (damaged ranges: %zu)"
                        "; fetch these bytes again",
                        ULL(v->offset), ULL(end), ranges);
    return cvq_fail(err, CVQ_MISMATCH, r->path,
                    "tensor %s: bytes %llu to %llu of the file do not match their SHA-256 (damaged "
                    "ranges: %zu); fetch these bytes again",
                    r->tensors[v->owner].spec.name, ULL(v->offset), ULL(end), ranges);
}

cvq_status cvq_reader_verify(const cvq_reader *r, int threads, cvq_damage_fn damage,
                             cvq_extents_progress_fn progress, void *context, cvq_error *err) {
    cvq_extents e = {0};
    void *good = NULL;
    verify_state v = {.damage = damage, .context = context};
    const cvq_extents_watch watch = {.progress = progress, .progress_context = context};
    cvq_status status = cvq_reader_extents(r, &e, err);
    if (status == CVQ_OK) status = cvq_alloc(&good, e.count, sizeof(bool), "verifying", err);
    if (status == CVQ_OK)
        status = cvq_extents_check(&e, &r->map, threads, good, &watch, r->path, err);
    if (status == CVQ_OK)
        status = verify_result(r, &v, cvq_extents_damage(&e, good, note_damage, &v), err);
    free(good);
    cvq_extents_free(&e);
    return status;
}
