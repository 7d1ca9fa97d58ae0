/* The outermost layer of a .cvq file: fixed header, section table, and the hash that binds the
 * head. */
#ifndef CVQ_FORMATS_CVQ_HEAD_INTERNAL_H
#define CVQ_FORMATS_CVQ_HEAD_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "formats/chunk_hash.h"

#define CVQ_SECTION_ALIGNMENT 64u
#define CVQ_SECTION_ENTRY_BYTES 24u
#define CVQ_HEADER_BYTES 240u /* fixed fields and section table */
#define CVQ_HASH_OFFSET 32u   /* of the head's hash in the file */

/* In the order of the file; the number in the file is this + 1. */
typedef enum cvq_section_kind {
    CVQ_SECTION_CONFIG,
    CVQ_SECTION_INDEX,
    CVQ_SECTION_TOKENIZER,
    CVQ_SECTION_METADATA,
    CVQ_SECTION_CHUNKS,
    CVQ_SECTION_RESERVE,
    CVQ_SECTION_DATA,
    CVQ_SECTIONS
} cvq_section_kind;

typedef struct cvq_section {
    uint64_t offset, size;
} cvq_section;

typedef struct cvq_head {
    uint64_t file_size, head_size;
    uint8_t id[CVQ_HASH_BYTES];
    cvq_section sections[CVQ_SECTIONS];
} cvq_head;

/* Offsets and sizes from sections[].size of all sections but RESERVE (and DATA's, which includes
 * the padding between tensors). Leaves so much reserve that metadata may grow to the next multiple
 * of 256 KiB, and by at least 64 KiB, without moving the data. */
cvq_status cvq_head_plan(cvq_head *head, cvq_error *err);
/* The header and section table into bytes[CVQ_HEADER_BYTES], hash field zero. */
void cvq_head_encode(const cvq_head *head, uint8_t *bytes);
/* SHA-256 of head_size bytes with the hash field taken as zero. */
cvq_status cvq_head_hash(const uint8_t *bytes, uint64_t head_size, uint8_t hash[CVQ_HASH_BYTES],
                         cvq_error *err);
/* Everything that can be told without looking into a section: sizes against the real file size,
 * hash, sections in order and covering the file exactly, gaps and reserve zero. */
cvq_status cvq_head_decode(cvq_head *head, const uint8_t *data, uint64_t size, const char *where,
                           cvq_error *err);

#endif
