/* Opening a .cvq file from the outside in: header, hash of the head, sections, config, tensors,
 * tokenizer; and verifying its weights against the chunk table. Weights are mapped and never read
 * here but by cvq_reader_verify. */
#include "formats/cvq_reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "base/parallel.h"
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

/* Chunks hashed between two calls of the progress function: 64 MiB. */
#define BATCH 64

enum { BAD_CHUNK = 1, BAD_PADDING = 2, HASH_FAILED = 4 };

/* One chunk, and the padding behind it where it is its tensor's last. */
typedef struct verify_unit {
    size_t tensor;
    uint64_t chunk, offset, size, padding;
    unsigned found;
} verify_unit;

typedef struct verify_state {
    const cvq_reader *r;
    verify_unit units[BATCH];
    size_t tensor;     /* the next chunk: */
    uint64_t in_chunk; /* its number within the tensor */
    cvq_damage_fn damage;
    void *context;
    size_t ranges; /* damaged ones so far */
    /* the range that still grows, size 0 if none */
    size_t bad_tensor;
    uint64_t bad_offset, bad_size;
    /* the first one, for the message */
    size_t first_tensor;
    uint64_t first_offset, first_size;
} verify_state;

static void verify_chunk(void *context, size_t index, int thread) {
    verify_state *v = context;
    verify_unit *u = &v->units[index];
    const uint8_t *data = v->r->map.data + u->offset;
    uint8_t hash[CVQ_HASH_BYTES];
    (void)thread;
    if (cvq_sha256(data, (size_t)u->size, hash, NULL) != CVQ_OK)
        u->found = HASH_FAILED;
    else if (memcmp(hash, cvq_reader_chunk_hash(v->r, u->chunk), sizeof hash) != 0)
        u->found = BAD_CHUNK;
    if (!cvq_all_zero(data + u->size, (size_t)u->padding)) u->found |= BAD_PADDING;
}

/* The next chunks in order; fewer than BATCH at the end. */
static size_t next_batch(verify_state *v) {
    const cvq_reader *r = v->r;
    size_t n = 0;
    while (n < BATCH && v->tensor < r->count) {
        const cvq_tensor *t = &r->tensors[v->tensor];
        const uint64_t at = v->in_chunk * CVQ_CHUNK_BYTES, left = t->size - at;
        verify_unit *u = &v->units[n++];
        *u = (verify_unit){.tensor = v->tensor,
                           .chunk = t->first_chunk + v->in_chunk,
                           .offset = t->offset + at,
                           .size = left < CVQ_CHUNK_BYTES ? left : CVQ_CHUNK_BYTES};
        v->in_chunk++;
        if (left > CVQ_CHUNK_BYTES) continue;
        if (++v->tensor < r->count) u->padding = t[1].offset - (t->offset + t->size);
        v->in_chunk = 0;
    }
    return n;
}

static void flush_damage(verify_state *v) {
    if (v->bad_size == 0) return;
    if (v->ranges++ == 0) {
        v->first_tensor = v->bad_tensor;
        v->first_offset = v->bad_offset;
        v->first_size = v->bad_size;
    }
    if (v->damage) v->damage(v->context, v->bad_tensor, v->bad_offset, v->bad_size);
    v->bad_size = 0;
}

static void add_damage(verify_state *v, size_t tensor, uint64_t offset, uint64_t size) {
    if (v->bad_size && v->bad_tensor == tensor && v->bad_offset + v->bad_size == offset) {
        v->bad_size += size;
        return;
    }
    flush_damage(v);
    v->bad_tensor = tensor;
    v->bad_offset = offset;
    v->bad_size = size;
}

static cvq_status verify_result(const verify_state *v, cvq_error *err) {
    if (v->ranges == 0) return CVQ_OK;
    const uint64_t end = v->first_offset + v->first_size;
    if (v->first_tensor == SIZE_MAX)
        return cvq_fail(err, CVQ_MISMATCH, v->r->path,
                        "padding in bytes %llu to %llu is not zero (damaged ranges: %zu)"
                        "; fetch these bytes again",
                        ULL(v->first_offset), ULL(end), v->ranges);
    return cvq_fail(err, CVQ_MISMATCH, v->r->path,
                    "tensor %s: bytes %llu to %llu of the file do not match their SHA-256 (damaged "
                    "ranges: %zu); fetch these bytes again",
                    v->r->tensors[v->first_tensor].spec.name, ULL(v->first_offset), ULL(end),
                    v->ranges);
}

static cvq_status verify_all(verify_state *v, int threads, cvq_verify_progress_fn progress,
                             cvq_error *err) {
    const cvq_reader *r = v->r;
    const uint64_t start = r->head.sections[CVQ_SECTION_DATA].offset;
    size_t n;
    while ((n = next_batch(v)) > 0) {
        const verify_unit *last = &v->units[n - 1];
        const uint64_t end = last->offset + last->size + last->padding;
        cvq_file_map_advise(&r->map, end, (uint64_t)BATCH * CVQ_CHUNK_BYTES, CVQ_ADVICE_WILLNEED);
        cvq_parallel_for(threads, n, verify_chunk, v);
        for (size_t i = 0; i < n; i++) {
            const verify_unit *u = &v->units[i];
            if (u->found & HASH_FAILED)
                return cvq_fail(err, CVQ_INTERNAL, r->path, "libcrypto refused to hash");
            if (u->found & BAD_CHUNK) add_damage(v, u->tensor, u->offset, u->size);
            if (u->found & BAD_PADDING) add_damage(v, SIZE_MAX, u->offset + u->size, u->padding);
        }
        if (progress && progress(v->context, end - start, r->head.file_size - start) != 0)
            return cvq_fail(err, CVQ_CANCELLED, r->path, "verifying was stopped");
    }
    flush_damage(v);
    return verify_result(v, err);
}

cvq_status cvq_reader_verify(const cvq_reader *r, int threads, cvq_damage_fn damage,
                             cvq_verify_progress_fn progress, void *context, cvq_error *err) {
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(verify_state), "verifying", err));
    verify_state *v = memory;
    v->r = r;
    v->damage = damage;
    v->context = context;
    const cvq_status status = verify_all(v, threads, progress, err);
    free(v);
    return status;
}
