/* Writing a .cvq file. The plan lays the whole head out in memory; what is missing then are the
 * chunk hashes, which come with the tensors' bytes, and the head's own hash. The head is written
 * last, so a file that was not finished is no .cvq file; what nobody writes, the padding between
 * tensors, reads as zeros since the file was given its size. */
#include "formats/cvq_writer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/file_map.h"
#include "formats/cvq_head_internal.h"
#include "formats/cvq_index_internal.h"
#include "formats/metadata_frame_internal.h"
#include "formats/tokenizer_table.h"

struct cvq_writer {
    cvq_tensor *tensors; /* [count] */
    size_t count;
    cvq_head head;
    uint8_t *bytes; /* [head.head_size] */
    uint64_t chunks;
    uint8_t *there; /* [chunks] 1 for a chunk that has come */
    /* once begun */
    int fd;
    char *where;
};

#define ULL(x) ((unsigned long long)(x))
#define WRONG(where, ...) cvq_fail(err, CVQ_INVALID_ARGUMENT, where, __VA_ARGS__)

/* ---------------------------------------------------------------- planning */

static cvq_status plan_tensor(cvq_tensor *t, const cvq_file_spec *spec, size_t i, cvq_place *next,
                              cvq_error *err) {
    cvq_model_tensor_spec(spec->config, i, &t->spec);
    const char *name = t->spec.name;
    const cvq_type_info *info = cvq_type_describe(spec->types[i]);
    if (!info) return WRONG(name, "type number %u does not exist", (unsigned)spec->types[i]);
    if (!cvq_type_allowed(t->spec.role, spec->types[i]))
        return WRONG(name, "type %s is not possible for this tensor", info->name);
    t->type = spec->types[i];
    t->panel_rows = cvq_panel_rows_for(t->spec.role);
    if (spec->codebooks)
        t->codebook = spec->codebooks[i];
    else if (cvq_type_has_codebook(t->type))
        t->codebook = cvq_codebook_default;
    if (!cvq_codebook_valid(&t->codebook, t->type))
        return WRONG(name, "its codebook is not valid for type %s", info->name);
    return cvq_tensor_place(t, next, name, err);
}

/* Tensors placed from 0 on; they move to the data's start when the head's size is known. */
static cvq_status plan_tensors(cvq_writer *w, const cvq_file_spec *spec, cvq_place *end,
                               cvq_error *err) {
    void *memory = NULL, *there = NULL;
    w->count = cvq_model_tensor_count(spec->config);
    CVQ_TRY(cvq_alloc(&memory, w->count, sizeof(cvq_tensor), "the tensor index", err));
    w->tensors = memory;
    for (size_t i = 0; i < w->count; i++) CVQ_TRY(plan_tensor(&w->tensors[i], spec, i, end, err));
    w->chunks = end->chunk;
    CVQ_TRY(cvq_alloc(&there, w->chunks, 1, "the chunks", err));
    w->there = there;
    return CVQ_OK;
}

static cvq_status check_tokenizer(const cvq_file_spec *spec, cvq_error *err) {
    cvq_tokenizer_table table;
    if (spec->tokenizer_size > CVQ_MAX_TOKENIZER)
        return WRONG("tokenizer", "%zu bytes; at most %u are possible", spec->tokenizer_size,
                     CVQ_MAX_TOKENIZER);
    CVQ_TRY(
        cvq_tokenizer_table_open(&table, spec->tokenizer, spec->tokenizer_size, "tokenizer", err));
    if (table.num_tokens > spec->config->vocab_size)
        return WRONG("tokenizer", "%u tokens, more than vocab_size %u", table.num_tokens,
                     spec->config->vocab_size);
    return CVQ_OK;
}

static cvq_status lay_out_head(cvq_writer *w, const cvq_file_spec *spec, const cvq_place *end,
                               const cvq_buffer *metadata, cvq_error *err) {
    cvq_section *s = w->head.sections;
    s[CVQ_SECTION_CONFIG].size = CVQ_CONFIG_BYTES;
    s[CVQ_SECTION_INDEX].size = (uint64_t)w->count * CVQ_INDEX_ENTRY_BYTES;
    s[CVQ_SECTION_TOKENIZER].size = spec->tokenizer_size;
    s[CVQ_SECTION_METADATA].size = metadata->size;
    s[CVQ_SECTION_CHUNKS].size = end->chunk * CVQ_HASH_BYTES;
    s[CVQ_SECTION_DATA].size = end->offset;
    CVQ_TRY(cvq_head_plan(&w->head, err));

    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, w->head.head_size, 1, "the head", err));
    w->bytes = memory;
    cvq_head_encode(&w->head, w->bytes);
    cvq_config_encode(spec->config, w->bytes + s[CVQ_SECTION_CONFIG].offset);
    for (size_t i = 0; i < w->count; i++) {
        w->tensors[i].offset += w->head.head_size;
        cvq_index_entry_encode(&w->tensors[i],
                               w->bytes + s[CVQ_SECTION_INDEX].offset + CVQ_INDEX_ENTRY_BYTES * i);
    }
    memcpy(w->bytes + s[CVQ_SECTION_TOKENIZER].offset, spec->tokenizer, spec->tokenizer_size);
    memcpy(w->bytes + s[CVQ_SECTION_METADATA].offset, metadata->data, metadata->size);
    return CVQ_OK;
}

cvq_status cvq_writer_plan(cvq_writer **out, const cvq_file_spec *spec, cvq_error *err) {
    void *memory = NULL;
    cvq_buffer metadata = {0};
    cvq_place end = {0, 0};
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_writer), "a writer", err));
    cvq_writer *w = memory;
    w->fd = -1;
    cvq_status status = cvq_model_config_check(spec->config, "config", err);
    if (status == CVQ_OK) status = check_tokenizer(spec, err);
    if (status == CVQ_OK) status = plan_tensors(w, spec, &end, err);
    if (status == CVQ_OK)
        status = cvq_metadata_pack(&metadata, spec->metadata, spec->metadata_size, err);
    if (status == CVQ_OK) status = lay_out_head(w, spec, &end, &metadata, err);
    cvq_buffer_free(&metadata);
    if (status != CVQ_OK) {
        cvq_writer_free(w);
        return status;
    }
    *out = w;
    return CVQ_OK;
}

size_t cvq_writer_tensor_count(const cvq_writer *w) {
    return w->count;
}
const cvq_tensor *cvq_writer_tensor(const cvq_writer *w, size_t i) {
    return &w->tensors[i];
}
uint64_t cvq_writer_file_size(const cvq_writer *w) {
    return w->head.file_size;
}

cvq_status cvq_writer_plan_hash(const cvq_writer *w, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err) {
    return cvq_sha256(w->bytes, (size_t)w->head.head_size, hash, err);
}

cvq_status cvq_writer_set_metadata(cvq_writer *w, const char *text, size_t size, cvq_error *err) {
    const cvq_section *s = &w->head.sections[CVQ_SECTION_METADATA];
    cvq_buffer metadata = {0};
    cvq_status status = cvq_metadata_pack(&metadata, text, size, err);
    if (status == CVQ_OK && metadata.size != s->size)
        status = WRONG("metadata", "%zu bytes, %llu were planned", metadata.size, ULL(s->size));
    if (status == CVQ_OK) memcpy(w->bytes + s->offset, metadata.data, metadata.size);
    cvq_buffer_free(&metadata);
    return status;
}

/* ---------------------------------------------------------------- writing */

static cvq_status file_bytes(const cvq_writer *w, uint64_t *size, cvq_error *err) {
    struct stat st;
    if (fstat(w->fd, &st) != 0) return cvq_fail_errno(err, w->where, "cannot tell its size");
    *size = (uint64_t)st.st_size;
    return CVQ_OK;
}

cvq_status cvq_writer_begin(cvq_writer *w, int fd, const char *where, bool resume, cvq_error *err) {
    if (w->where) return WRONG(where, "the writer has begun already");
    w->fd = fd;
    w->where = strdup(where);
    if (!w->where) return cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for its name");
    if (fd == CVQ_WRITE_NOTHING) return CVQ_OK;
    uint64_t size;
    CVQ_TRY(file_bytes(w, &size, err));
    if (size != (resume ? w->head.file_size : 0))
        return WRONG(where, "the file to be written has %llu bytes already", ULL(size));
    return cvq_file_reserve(fd, w->head.file_size, where, err);
}

static uint64_t tensor_chunks(const cvq_tensor *t) {
    return (t->size - 1) / CVQ_CHUNK_BYTES + 1;
}

static uint8_t *hash_of(const cvq_writer *w, uint64_t chunk) {
    return w->bytes + w->head.sections[CVQ_SECTION_CHUNKS].offset + CVQ_HASH_BYTES * chunk;
}

static cvq_status take_chunk(cvq_writer *w, uint64_t chunk, const uint8_t *data, size_t size,
                             cvq_error *err) {
    if (w->there[chunk]) return WRONG(w->where, "chunk %llu came twice", ULL(chunk));
    CVQ_TRY(cvq_sha256(data, size, hash_of(w, chunk), err));
    w->there[chunk] = 1;
    return CVQ_OK;
}

cvq_status cvq_writer_put(cvq_writer *w, size_t tensor, uint64_t offset, const void *data,
                          size_t size, cvq_error *err) {
    if (!w->where) return WRONG(".cvq writer", "put before begin");
    if (tensor >= w->count) return WRONG(w->where, "there is no tensor %zu", tensor);
    const cvq_tensor *t = &w->tensors[tensor];
    if (!cvq_range_within(offset, size, t->size) || offset % CVQ_CHUNK_BYTES != 0 ||
        (size % CVQ_CHUNK_BYTES != 0 && offset + size != t->size))
        return WRONG(w->where, "tensor %s: bytes %llu to %llu of %llu are not whole chunks",
                     t->spec.name, ULL(offset), ULL(offset + size), ULL(t->size));
    const uint8_t *p = data;
    for (size_t at = 0; at < size; at += CVQ_CHUNK_BYTES) {
        const size_t n = size - at < CVQ_CHUNK_BYTES ? size - at : CVQ_CHUNK_BYTES;
        const uint64_t chunk = t->first_chunk + (offset + at) / CVQ_CHUNK_BYTES;
        CVQ_TRY(take_chunk(w, chunk, p + at, n, err));
    }
    if (w->fd == CVQ_WRITE_NOTHING) return CVQ_OK;
    return cvq_write_all(w->fd, t->offset + offset, data, size, w->where, err);
}

const uint8_t *cvq_writer_hashes(const cvq_writer *w, size_t tensor, size_t *chunks) {
    *chunks = (size_t)tensor_chunks(&w->tensors[tensor]);
    return hash_of(w, w->tensors[tensor].first_chunk);
}

cvq_status cvq_writer_adopt(cvq_writer *w, size_t tensor, const uint8_t *hashes, size_t chunks,
                            cvq_error *err) {
    if (tensor >= w->count || chunks != tensor_chunks(&w->tensors[tensor]))
        return WRONG(w->where, "tensor %zu does not have %zu chunks", tensor, chunks);
    const uint64_t first = w->tensors[tensor].first_chunk;
    memcpy(hash_of(w, first), hashes, CVQ_HASH_BYTES * chunks);
    memset(w->there + first, 1, chunks);
    return CVQ_OK;
}

static cvq_status check_complete(const cvq_writer *w, cvq_error *err) {
    for (size_t i = 0; i < w->count; i++) {
        const cvq_tensor *t = &w->tensors[i];
        const uint64_t chunks = tensor_chunks(t);
        const uint8_t *gap = memchr(w->there + t->first_chunk, 0, (size_t)chunks);
        if (gap)
            return WRONG(w->where, "tensor %s is not complete: chunk %llu of %llu is missing",
                         t->spec.name, ULL(gap - (w->there + t->first_chunk)), ULL(chunks));
    }
    return CVQ_OK;
}

/* The weights are there. */
static cvq_status write_head(const cvq_writer *w, cvq_error *err) {
    /* Once the head is there, the weights must be: a power cut may not leave a head alone. */
    if (fsync(w->fd) != 0) return cvq_fail_errno(err, w->where, "cannot write it to the disk");
    CVQ_TRY(cvq_write_all(w->fd, 0, w->bytes, (size_t)w->head.head_size, w->where, err));
    if (fsync(w->fd) != 0) return cvq_fail_errno(err, w->where, "cannot write it to the disk");
    uint64_t size;
    CVQ_TRY(file_bytes(w, &size, err));
    if (size != w->head.file_size)
        return cvq_fail(err, CVQ_IO, w->where, "it has %llu bytes, not the planned %llu", ULL(size),
                        ULL(w->head.file_size));
    return CVQ_OK;
}

cvq_status cvq_writer_finish(cvq_writer *w, uint8_t *id, cvq_error *err) {
    if (!w->where) return WRONG(".cvq writer", "finish before begin");
    CVQ_TRY(check_complete(w, err));
    CVQ_TRY(cvq_head_hash(w->bytes, w->head.head_size, w->head.id, err));
    memcpy(w->bytes + CVQ_HASH_OFFSET, w->head.id, CVQ_ID_BYTES);
    if (w->fd != CVQ_WRITE_NOTHING) CVQ_TRY(write_head(w, err));
    if (id) memcpy(id, w->head.id, CVQ_ID_BYTES);
    return CVQ_OK;
}

const uint8_t *cvq_writer_head(const cvq_writer *w, uint64_t *size) {
    *size = w->head.head_size;
    return w->bytes;
}

void cvq_writer_free(cvq_writer *w) {
    if (!w) return;
    free(w->where);
    free(w->there);
    free(w->bytes);
    free(w->tensors);
    free(w);
}
