/* A file packed for transport. 16-bit weights have little to say in their upper bytes (sign and
 * exponent), so pieces of the file are split into planes of upper and lower bytes where that helps,
 * and each plane is a zstd frame, or stored where that is smaller. Pieces are independent: packing
 * and unpacking use all threads. Layout (little-endian), normative text in docs/publish.md:
 *
 *   header  magic 89 'C' 'V' 'Z' 0D 0A 1A 0A | u32 version 1 | u32 piece bytes (1 MiB)
 *           | u64 file size | u8[32] id of the .cvq file | u64 0
 *   pieces  u32 planes (1 or 2) | u32 bytes[2] | u32 0 | the planes' bytes
 *
 * What comes out is verified by the caller: it is a .cvq file with hashes of its own. */
#ifndef CVQ_FORMATS_PACKED_FILE_H
#define CVQ_FORMATS_PACKED_FILE_H

#include "formats/cvq_layout.h"

#define CVQ_PACKED_HEADER_BYTES 64

/* Bytes of the file done; nonzero stops with CVQ_CANCELLED. Called from the caller's thread. */
typedef int (*cvq_pack_progress_fn)(void *context, uint64_t done, uint64_t total);
/* The next bytes out. */
typedef cvq_status (*cvq_pack_write_fn)(void *context, const void *data, size_t size,
                                        cvq_error *err);
/* Exactly the next `size` bytes in; fewer (*got < size) only at the end of the input. */
typedef cvq_status (*cvq_pack_read_fn)(void *context, void *data, size_t size, size_t *got,
                                       cvq_error *err);

/* Pack the file_size bytes of a .cvq file, read from fd by offset. The same file gives the same
 * bytes with any number of threads. where names the file in errors. */
cvq_status cvq_file_pack(int fd, uint64_t file_size, const uint8_t id[CVQ_ID_BYTES], int threads,
                         cvq_pack_write_fn write, void *write_context,
                         cvq_pack_progress_fn progress, void *context, const char *where,
                         cvq_error *err);

/* A packed file's header, from its first CVQ_PACKED_HEADER_BYTES. CVQ_FORMAT where it is none. */
cvq_status cvq_packed_header(const uint8_t *header, uint64_t *file_size, uint8_t id[CVQ_ID_BYTES],
                             const char *where, cvq_error *err);
/* Unpack what follows the header into fd, by offset; the input must end with the last piece. */
cvq_status cvq_file_unpack(int fd, uint64_t file_size, int threads, cvq_pack_read_fn read,
                           void *read_context, cvq_pack_progress_fn progress, void *context,
                           const char *where, cvq_error *err);

#endif
