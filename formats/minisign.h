/* Signatures in the format of minisign (https://jedisct1.github.io/minisign/): Ed25519 over the
 * BLAKE2b-512 of the signed bytes ("ED"), or over the bytes themselves ("Ed", older), and a second
 * one over the first and the trusted comment. Only checked here; `minisign -S` makes them. */
#ifndef CVQ_FORMATS_MINISIGN_H
#define CVQ_FORMATS_MINISIGN_H

#include <stddef.h>

#include "base/status.h"

#define CVQ_MAX_SIGNATURE 4096 /* bytes of a .minisig or .pub file */

/* signature: the text of a .minisig file. key: that of a .pub file, or its base64 line alone. All
 * of given sizes. comment [size] receives the trusted comment, cut to fit. CVQ_MISMATCH where the
 * signature is another key's or does not fit the bytes, CVQ_FORMAT where a text is malformed. */
cvq_status cvq_minisign_verify(const void *data, size_t size, const char *signature,
                               size_t signature_size, const char *key, size_t key_size,
                               char *comment, size_t comment_size, const char *where,
                               cvq_error *err);

#endif
