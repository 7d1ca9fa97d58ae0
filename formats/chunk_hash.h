/* SHA-256 by libcrypto: of bytes, and of a tensor in chunks of CVQ_CHUNK_BYTES. */
#ifndef CVQ_FORMATS_CHUNK_HASH_H
#define CVQ_FORMATS_CHUNK_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/file_map.h"

#define CVQ_HASH_BYTES 32
#define CVQ_HASH_DIGITS (2 * CVQ_HASH_BYTES) /* in hexadecimal */

cvq_status cvq_sha256(const void *data, size_t size, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err);
/* Of a whole file, however large: what was hashed does not stay resident. */
cvq_status cvq_sha256_file(const cvq_file_map *file, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err);
/* hex[CVQ_HASH_DIGITS + 1], lower case, NUL-terminated. */
void cvq_hash_hex(const uint8_t hash[CVQ_HASH_BYTES], char *hex);

/* Hashing a stream: feed any number of pieces, then take the hash. */
typedef struct cvq_hasher cvq_hasher;
cvq_status cvq_hasher_open(cvq_hasher **out, cvq_error *err);
cvq_status cvq_hasher_feed(cvq_hasher *h, const void *data, size_t size, cvq_error *err);
/* The hash of what came since the start or the last take; ready for the next stream. */
cvq_status cvq_hasher_take(cvq_hasher *h, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err);
void cvq_hasher_close(cvq_hasher *h);

#endif
