/* Text to ids and back, exactly as the checkpoint's own tokenizer: Llama 3's pattern by PCRE2,
 * byte-level BPE. */
#ifndef CVQ_RUNTIME_TOKENIZER_H
#define CVQ_RUNTIME_TOKENIZER_H

#include "formats/tokenizer_table.h"

typedef struct cvq_tokenizer cvq_tokenizer; /* immutable, shareable between threads */

/* Borrows the table. */
cvq_status cvq_tokenizer_open(cvq_tokenizer **out, const cvq_tokenizer_table *table,
                              cvq_error *err);
void cvq_tokenizer_close(cvq_tokenizer *t);

/* Special tokens written in the text are plain text. Bytes that are not UTF-8 are single-byte
 * pieces of their own. No bos. *n is the needed number also where cap is too small (CVQ_TOO_SMALL,
 * ids untouched beyond cap). ids may be NULL with cap 0. */
cvq_status cvq_tokenizer_encode(const cvq_tokenizer *t, const char *text, size_t length,
                                int32_t *ids, size_t cap, size_t *n, cvq_error *err);
/* Raw bytes; special tokens and ids without a piece give nothing. Not NUL-terminated. */
cvq_status cvq_tokenizer_decode(const cvq_tokenizer *t, const int32_t *ids, size_t n, char *text,
                                size_t cap, size_t *length, cvq_error *err);

/* Streaming: bytes go in, whole UTF-8 characters come out; bytes that can never become one are
 * replaced by U+FFFD. */
typedef struct cvq_utf8_stream {
    uint8_t pending[4];
    size_t num_pending;
} cvq_utf8_stream;
/* out must hold 3 * (n + 4) bytes; returns the number written. flush: what is still incomplete
 * becomes U+FFFD. */
size_t cvq_utf8_stream_feed(cvq_utf8_stream *s, const uint8_t *bytes, size_t n, bool flush,
                            char *out);

#endif
