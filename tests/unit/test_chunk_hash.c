/* SHA-256 against published values, whole and in pieces.
 * cvq-test: formats */
#include "formats/chunk_hash.h"

#include <string.h>

#include "tests/unit/harness.h"

static const struct {
    const char *text, *hash;
} known[] = {/* FIPS 180-4 examples */
             {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
             {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
             {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"}};

static void known_hashes(void) {
    cvq_hasher *h = NULL;
    CHECK(cvq_hasher_open(&h, NULL) == CVQ_OK);
    for (size_t i = 0; i < 3; i++) {
        const size_t n = strlen(known[i].text);
        uint8_t hash[CVQ_HASH_BYTES];
        char hex[65];
        CHECK(cvq_sha256(known[i].text, n, hash, NULL) == CVQ_OK);
        cvq_hash_hex(hash, hex);
        CHECK_SAY(strcmp(hex, known[i].hash) == 0, "%s", hex);
        for (size_t at = 0; at < n; at++)
            CHECK(cvq_hasher_feed(h, known[i].text + at, 1, NULL) == CVQ_OK);
        memset(hash, 0, sizeof hash);
        CHECK(cvq_hasher_take(h, hash, NULL) == CVQ_OK); /* and starts anew */
        cvq_hash_hex(hash, hex);
        CHECK_SAY(strcmp(hex, known[i].hash) == 0, "%s", hex);
    }
    cvq_hasher_close(h);
    cvq_hasher_close(NULL);
}

int main(void) {
    RUN(known_hashes);
    return REPORT();
}
