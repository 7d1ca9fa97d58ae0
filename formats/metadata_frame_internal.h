/* The METADATA section: u64 size of the text, then one zstd frame. */
#ifndef CVQ_FORMATS_METADATA_FRAME_INTERNAL_H
#define CVQ_FORMATS_METADATA_FRAME_INTERNAL_H

#include "base/memory.h"

cvq_status cvq_metadata_pack(cvq_buffer *section, const char *json, size_t size, cvq_error *err);
/* Without decompressing: the stated size is within bounds and the frame's own, and the frame fills
 * the section. */
cvq_status cvq_metadata_check(const uint8_t *section, uint64_t size, const char *where,
                              cvq_error *err);
/* Of a checked section: NUL-terminated text, the NUL not counted. */
cvq_status cvq_metadata_unpack(cvq_buffer *json, const uint8_t *section, uint64_t size,
                               const char *where, cvq_error *err);

#endif
