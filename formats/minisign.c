/* minisign's format, with Ed25519 and BLAKE2b of libcrypto. */
#include "formats/minisign.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define KEY_ID_BYTES 8
#define KEY_BYTES 32
#define SIGNATURE_BYTES 64
#define DIGEST_BYTES 64
#define COMMENT "untrusted comment: "
#define TRUSTED "trusted comment: "
#define MAX_COMMENT 1024

typedef struct text_line {
    const char *text;
    size_t size;
} text_line;

/* The next line, without its end; false at the end of the text. */
static bool next_line(const char **at, const char *end, text_line *line) {
    if (*at == end) return false;
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    line->text = *at;
    line->size = (size_t)((newline ? newline : end) - *at);
    *at = newline ? newline + 1 : end;
    if (line->size > 0 && line->text[line->size - 1] == '\r') line->size--;
    return true;
}

static bool starts_with(text_line line, const char *prefix) {
    return line.size >= strlen(prefix) && memcmp(line.text, prefix, strlen(prefix)) == 0;
}

/* Exactly `size` bytes in base64, with its padding and nothing else. */
static bool decode_base64(text_line line, uint8_t *out, size_t size) {
    uint8_t bytes[160], again[216];
    const size_t digits = (size + 2) / 3 * 4;
    if (line.size != digits || digits > sizeof again - 1 || size > sizeof bytes - 3) return false;
    if (EVP_DecodeBlock(bytes, (const uint8_t *)line.text, (int)digits) < 0) return false;
    /* It forgives much: only what it would print itself is taken. */
    if (EVP_EncodeBlock(again, bytes, (int)size) != (int)digits) return false;
    if (memcmp(again, line.text, digits) != 0) return false;
    memcpy(out, bytes, size);
    return true;
}

static bool verify_ed25519(const uint8_t key[KEY_BYTES], const uint8_t signature[SIGNATURE_BYTES],
                           const void *data, size_t size) {
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key, KEY_BYTES);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = pkey && ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
              EVP_DigestVerify(ctx, signature, SIGNATURE_BYTES, data, size) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return ok;
}

typedef struct public_key {
    uint8_t algorithm[2], id[KEY_ID_BYTES], key[KEY_BYTES];
} public_key;
typedef struct signed_text {
    uint8_t algorithm[2], id[KEY_ID_BYTES], signature[SIGNATURE_BYTES];
} signed_text;
_Static_assert(sizeof(public_key) == 42 && sizeof(signed_text) == 74, "as they are in base64");

static cvq_status parse_key(public_key *key, const char *text, size_t size, cvq_error *err) {
    const char *at = text, *end = text + size;
    text_line line = {text, 0};
    bool ok = next_line(&at, end, &line);
    if (ok && starts_with(line, COMMENT)) ok = next_line(&at, end, &line);
    ok = ok && decode_base64(line, (uint8_t *)key, sizeof *key) &&
         memcmp(key->algorithm, "Ed", 2) == 0;
    if (ok) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, "public key",
                    "is not one of minisign; give the .pub file, or the line in it that begins "
                    "with RW");
}

typedef struct parsed_signature {
    signed_text first;
    uint8_t second[SIGNATURE_BYTES];
    text_line comment;
} parsed_signature;

static cvq_status parse_signature(parsed_signature *s, const char *text, size_t size,
                                  const char *where, cvq_error *err) {
    const char *at = text, *end = text + size;
    text_line line[4] = {{0}};
    bool ok = true;
    for (int i = 0; ok && i < 4; i++) ok = next_line(&at, end, &line[i]);
    ok = ok && at == end && starts_with(line[0], COMMENT) && starts_with(line[2], TRUSTED) &&
         decode_base64(line[1], (uint8_t *)&s->first, sizeof s->first) &&
         decode_base64(line[3], s->second, sizeof s->second);
    if (ok) {
        s->comment.text = line[2].text + strlen(TRUSTED);
        s->comment.size = line[2].size - strlen(TRUSTED);
        ok = s->comment.size <= MAX_COMMENT && s->first.algorithm[0] == 'E' &&
             (s->first.algorithm[1] == 'D' || s->first.algorithm[1] == 'd');
    }
    if (ok) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, where,
                    "its .minisig is not a signature of minisign; fetch it again");
}

static bool matches(const public_key *key, const parsed_signature *s, const void *data,
                    size_t size) {
    uint8_t digest[DIGEST_BYTES], both[SIGNATURE_BYTES + MAX_COMMENT];
    unsigned n = sizeof digest;
    if (s->first.algorithm[1] == 'D') {
        if (EVP_Digest(data, size, digest, &n, EVP_blake2b512(), NULL) != 1) return false;
        data = digest;
        size = sizeof digest;
    }
    memcpy(both, s->first.signature, SIGNATURE_BYTES);
    memcpy(both + SIGNATURE_BYTES, s->comment.text, s->comment.size);
    return verify_ed25519(key->key, s->first.signature, data, size) &&
           verify_ed25519(key->key, s->second, both, SIGNATURE_BYTES + s->comment.size);
}

cvq_status cvq_minisign_verify(const void *data, size_t size, const char *signature,
                               size_t signature_size, const char *key, size_t key_size,
                               char *comment, size_t comment_size, const char *where,
                               cvq_error *err) {
    public_key k;
    parsed_signature s;
    CVQ_TRY(parse_key(&k, key, key_size, err));
    CVQ_TRY(parse_signature(&s, signature, signature_size, where, err));
    if (memcmp(k.id, s.first.id, KEY_ID_BYTES) != 0)
        return cvq_fail(err, CVQ_MISMATCH, where,
                        "is signed with another key than the one given; do not trust it unless "
                        "that key's owner is known");
    if (!matches(&k, &s, data, size))
        return cvq_fail(err, CVQ_MISMATCH, where,
                        "does not fit its signature: it, or the signature, was changed; do not "
                        "trust it");
    if (comment_size > 0)
        snprintf(comment, comment_size, "%.*s", (int)s.comment.size, s.comment.text);
    return CVQ_OK;
}
