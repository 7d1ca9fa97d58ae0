/* Writing a .cvq file. The plan lays the whole head out in memory; what is missing then are the
 * chunk hashes, which come as tensors are appended, and the head's own hash. The head is written
 * last, so a file that was not finished is no .cvq file. */
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
    /* once begun */
    int fd;
    char *where;
    cvq_hasher *hasher;
    size_t tensor; /* being written */
    uint64_t done; /* its bytes so far */
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
    else if (cvq_type_has_table(t->type))
        t->codebook = cvq_codebook_default;
    if (!cvq_codebook_valid(&t->codebook, t->type))
        return WRONG(name, "its codebook is not valid for type %s", info->name);
    return cvq_tensor_place(t, next, name, err);
}

/* Tensors placed from 0 on; they move to the data's start when the head's size is known. */
static cvq_status plan_tensors(cvq_writer *w, const cvq_file_spec *spec, cvq_place *end,
                               cvq_error *err) {
    void *memory = NULL;
    w->count = cvq_model_tensor_count(spec->config);
    CVQ_TRY(cvq_alloc(&memory, w->count, sizeof(cvq_tensor), "the tensor index", err));
    w->tensors = memory;
    for (size_t i = 0; i < w->count; i++) CVQ_TRY(plan_tensor(&w->tensors[i], spec, i, end, err));
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

/* ---------------------------------------------------------------- writing */

static cvq_status file_bytes(const cvq_writer *w, uint64_t *size, cvq_error *err) {
    struct stat st;
    if (fstat(w->fd, &st) != 0) return cvq_fail_errno(err, w->where, "cannot tell its size");
    *size = (uint64_t)st.st_size;
    return CVQ_OK;
}

cvq_status cvq_writer_begin(cvq_writer *w, int fd, const char *where, cvq_error *err) {
    if (w->where) return WRONG(where, "the writer has begun already");
    w->fd = fd;
    w->where = strdup(where);
    if (!w->where) return cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for its name");
    uint64_t size;
    CVQ_TRY(file_bytes(w, &size, err));
    if (size != 0) return WRONG(where, "the file to be written is not empty");
    return cvq_hasher_open(&w->hasher, err);
}

/* The hash of the chunk that ends at w->done goes into the head. */
static cvq_status take_chunk(cvq_writer *w, cvq_error *err) {
    const cvq_tensor *t = &w->tensors[w->tensor];
    const uint64_t chunk = t->first_chunk + (w->done - 1) / CVQ_CHUNK_BYTES;
    return cvq_hasher_take(
        w->hasher, w->bytes + w->head.sections[CVQ_SECTION_CHUNKS].offset + CVQ_HASH_BYTES * chunk,
        err);
}

/* Zeros from the end of the current tensor to the next, which becomes the current one. */
static cvq_status next_tensor(cvq_writer *w, cvq_error *err) {
    static const uint8_t zeros[CVQ_ALIGNMENT];
    const cvq_tensor *t = &w->tensors[w->tensor];
    w->done = 0;
    if (++w->tensor == w->count) return CVQ_OK;
    const uint64_t end = t->offset + t->size;
    return cvq_write_all(w->fd, end, zeros, (size_t)(t[1].offset - end), w->where, err);
}

cvq_status cvq_writer_append(cvq_writer *w, const void *data, size_t size, cvq_error *err) {
    const uint8_t *p = data;
    if (!w->hasher) return WRONG(".cvq writer", "append before begin");
    if (size == 0) return CVQ_OK;
    if (w->tensor == w->count) return WRONG(w->where, "%zu bytes more than its tensors have", size);
    const cvq_tensor *t = &w->tensors[w->tensor];
    if (size > t->size - w->done)
        return WRONG(w->where, "tensor %s has %llu bytes left, and %zu came", t->spec.name,
                     ULL(t->size - w->done), size);
    CVQ_TRY(cvq_write_all(w->fd, t->offset + w->done, p, size, w->where, err));
    while (size > 0) {
        const uint64_t left = CVQ_CHUNK_BYTES - w->done % CVQ_CHUNK_BYTES;
        const size_t n = size < left ? size : (size_t)left;
        CVQ_TRY(cvq_hasher_feed(w->hasher, p, n, err));
        p += n;
        size -= n;
        w->done += n;
        if (n == left || w->done == t->size) CVQ_TRY(take_chunk(w, err));
    }
    return w->done == t->size ? next_tensor(w, err) : CVQ_OK;
}

cvq_status cvq_writer_finish(cvq_writer *w, uint8_t *id, cvq_error *err) {
    if (!w->hasher) return WRONG(".cvq writer", "finish before begin");
    if (w->tensor != w->count)
        return WRONG(w->where, "tensor %s is not complete: %llu of %llu bytes came",
                     w->tensors[w->tensor].spec.name, ULL(w->done),
                     ULL(w->tensors[w->tensor].size));
    CVQ_TRY(cvq_head_hash(w->bytes, w->head.head_size, w->head.id, err));
    memcpy(w->bytes + CVQ_HASH_OFFSET, w->head.id, CVQ_ID_BYTES);
    CVQ_TRY(cvq_write_all(w->fd, 0, w->bytes, (size_t)w->head.head_size, w->where, err));
    if (fsync(w->fd) != 0) return cvq_fail_errno(err, w->where, "cannot write it to the disk");
    uint64_t size;
    CVQ_TRY(file_bytes(w, &size, err));
    if (size != w->head.file_size)
        return cvq_fail(err, CVQ_IO, w->where, "it has %llu bytes, not the planned %llu", ULL(size),
                        ULL(w->head.file_size));
    if (id) memcpy(id, w->head.id, CVQ_ID_BYTES);
    return CVQ_OK;
}

void cvq_writer_free(cvq_writer *w) {
    if (!w) return;
    cvq_hasher_close(w->hasher);
    free(w->where);
    free(w->bytes);
    free(w->tensors);
    free(w);
}
