/* SHA-256 through libcrypto's EVP interface, which picks the processor's own instructions. */
#include "formats/chunk_hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "base/memory.h"

#define FILE_STEP ((uint64_t)16 << 20)

struct cvq_hasher {
    EVP_MD_CTX *context;
};

/* Without memory for its own tables libcrypto 3.0 crashes in the first hash; this refuses. */
static cvq_status check_libcrypto(cvq_error *err) {
    if (OSSL_LIB_CTX_get0_global_default()) return CVQ_OK;
    return cvq_fail(err, CVQ_OUT_OF_MEMORY, "SHA-256", "no memory for libcrypto's tables");
}

static cvq_status hash_failure(cvq_error *err) {
    return cvq_fail(err, CVQ_INTERNAL, "SHA-256", "libcrypto refused to hash");
}

cvq_status cvq_sha256(const void *data, size_t size, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err) {
    unsigned length = 0;
    CVQ_TRY(check_libcrypto(err));
    if (EVP_Digest(data, size, hash, &length, EVP_sha256(), NULL) != 1 || length != CVQ_HASH_BYTES)
        return hash_failure(err);
    return CVQ_OK;
}

cvq_status cvq_sha256_file(const cvq_file_map *file, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err) {
    cvq_hasher *h = NULL;
    CVQ_TRY(cvq_hasher_open(&h, err));
    cvq_status status = CVQ_OK;
    for (uint64_t at = 0; status == CVQ_OK && at < file->size; at += FILE_STEP) {
        const uint64_t n = file->size - at < FILE_STEP ? file->size - at : FILE_STEP;
        status = cvq_hasher_feed(h, file->data + at, (size_t)n, err);
        cvq_file_map_advise(file, at, n, CVQ_ADVICE_DONTNEED);
    }
    if (status == CVQ_OK) status = cvq_hasher_take(h, hash, err);
    cvq_hasher_close(h);
    return status;
}

void cvq_hash_hex(const uint8_t hash[CVQ_HASH_BYTES], char *hex) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < CVQ_HASH_BYTES; i++) {
        hex[2 * i] = digits[hash[i] >> 4];
        hex[2 * i + 1] = digits[hash[i] & 15];
    }
    hex[CVQ_HASH_DIGITS] = '\0';
}

cvq_status cvq_hasher_open(cvq_hasher **out, cvq_error *err) {
    void *memory = NULL;
    CVQ_TRY(check_libcrypto(err));
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_hasher), "a hash", err));
    cvq_hasher *h = memory;
    h->context = EVP_MD_CTX_new();
    if (!h->context) {
        free(h);
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, "SHA-256", "no memory for a hash");
    }
    if (EVP_DigestInit_ex(h->context, EVP_sha256(), NULL) != 1) {
        cvq_hasher_close(h);
        return hash_failure(err);
    }
    *out = h;
    return CVQ_OK;
}

cvq_status cvq_hasher_feed(cvq_hasher *h, const void *data, size_t size, cvq_error *err) {
    return EVP_DigestUpdate(h->context, data, size) == 1 ? CVQ_OK : hash_failure(err);
}

cvq_status cvq_hasher_take(cvq_hasher *h, uint8_t hash[CVQ_HASH_BYTES], cvq_error *err) {
    unsigned length = 0;
    if (EVP_DigestFinal_ex(h->context, hash, &length) != 1 || length != CVQ_HASH_BYTES ||
        EVP_DigestInit_ex(h->context, NULL, NULL) != 1)
        return hash_failure(err);
    return CVQ_OK;
}

void cvq_hasher_close(cvq_hasher *h) {
    if (!h) return;
    EVP_MD_CTX_free(h->context);
    free(h);
}
