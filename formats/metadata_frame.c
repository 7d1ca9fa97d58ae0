/* The metadata's frame: written without compression, read with any. Its text is bounded before
 * memory is asked for, and the frame must give exactly the stated number of bytes. */
#include "formats/metadata_frame_internal.h"

#include <stdlib.h>
#include <zstd.h>

#include "base/checked.h"
#include "formats/cvq_layout.h"
#include "formats/damage_internal.h"

#define SIZE_BYTES 8u
#define BAD(...) cvq_fail(err, CVQ_FORMAT, where, "metadata: " __VA_ARGS__)

/* RFC 8878, 3.1.1: magic number; a header byte that says "one segment, 8 bytes of content size";
 * that size; blocks, each with a header of 3 bytes: bit 0 the last, bits 1 and 2 the kind (0 raw),
 * from bit 3 the size. */
#define ZSTD_FRAME_MAGIC 0xfd2fb528u
#define ONE_SEGMENT_SIZE_8 0xe0u
#define MOST_IN_BLOCK (128u << 10)

/* A frame of raw blocks: what a compressor would make of the text depends on its version, and then
 * so would the file's id. Its length follows from the text's, too. */
static cvq_status append_frame(cvq_buffer *out, const char *text, size_t size, cvq_error *err) {
    CVQ_TRY(cvq_buffer_append_le(out, ZSTD_FRAME_MAGIC, 4, err));
    CVQ_TRY(cvq_buffer_append_le(out, ONE_SEGMENT_SIZE_8, 1, err));
    CVQ_TRY(cvq_buffer_append_le(out, size, 8, err));
    for (size_t at = 0; at < size; at += MOST_IN_BLOCK) {
        const size_t n = size - at < MOST_IN_BLOCK ? size - at : MOST_IN_BLOCK;
        CVQ_TRY(cvq_buffer_append_le(out, (at + n == size) | n << 3, 3, err));
        CVQ_TRY(cvq_buffer_append(out, text + at, n, err));
    }
    return CVQ_OK;
}

cvq_status cvq_metadata_pack(cvq_buffer *section, const char *json, size_t size, cvq_error *err) {
    if (size == 0 || size > CVQ_MAX_METADATA)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "metadata",
                        "%zu bytes; 1 to %u are possible: shorten the model card or the licences",
                        size, CVQ_MAX_METADATA);
    CVQ_TRY(cvq_buffer_append_le(section, size, SIZE_BYTES, err));
    return append_frame(section, json, size, err);
}

cvq_status cvq_metadata_check(const uint8_t *section, uint64_t size, const char *where,
                              cvq_error *err) {
    if (size <= SIZE_BYTES)
        return BAD("its section has only %llu bytes" CVQ_DAMAGED, (unsigned long long)size);
    const uint64_t stated = cvq_load_le(section, SIZE_BYTES);
    if (stated == 0 || stated > CVQ_MAX_METADATA)
        return BAD("%llu bytes; 1 to %u are allowed" CVQ_DAMAGED, (unsigned long long)stated,
                   CVQ_MAX_METADATA);
    const uint8_t *frame = section + SIZE_BYTES;
    const size_t n = (size_t)size - SIZE_BYTES;
    const size_t frame_size = ZSTD_findFrameCompressedSize(frame, n);
    if (ZSTD_isError(frame_size))
        return BAD("not a whole zstd frame (%s)" CVQ_DAMAGED, ZSTD_getErrorName(frame_size));
    if (frame_size != n) return BAD("%zu bytes behind its zstd frame" CVQ_DAMAGED, n - frame_size);
    if (ZSTD_getFrameContentSize(frame, n) != stated)
        return BAD("its zstd frame does not state the section's %llu bytes" CVQ_DAMAGED,
                   (unsigned long long)stated);
    return CVQ_OK;
}

cvq_status cvq_metadata_unpack(cvq_buffer *json, const uint8_t *section, uint64_t size,
                               const char *where, cvq_error *err) {
    CVQ_TRY(cvq_metadata_check(section, size, where, err));
    const size_t stated = (size_t)cvq_load_le(section, SIZE_BYTES);
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, stated + 1, 1, "metadata", err)); /* zeroed: the NUL is there */
    const size_t n =
        ZSTD_decompress(memory, stated, section + SIZE_BYTES, (size_t)size - SIZE_BYTES);
    cvq_status status = CVQ_OK;
    if (ZSTD_isError(n))
        status = BAD("zstd: %s" CVQ_DAMAGED, ZSTD_getErrorName(n));
    else if (n != stated)
        status = BAD("decompressed to %zu bytes, not %zu" CVQ_DAMAGED, n, stated);
    cvq_buffer text = {0};
    if (status == CVQ_OK) status = cvq_buffer_append(&text, memory, stated + 1, err);
    free(memory);
    if (status != CVQ_OK) return status;
    text.size = stated;
    cvq_buffer_free(json);
    *json = text;
    return CVQ_OK;
}
