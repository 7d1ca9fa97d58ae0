/* A signature, or a public key: the first byte says which. */
#include "formats/minisign.h"

#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/signed_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char key[] = SIGNED_KEY, signature[] = SIGNED_SIGNATURE;
    char comment[64];
    if (size == 0) return 0;
    const char *text = (const char *)data + 1;
    if (data[0] & 1)
        (void)cvq_minisign_verify(SIGNED_TEXT, 4, text, size - 1, key, strlen(key), comment,
                                  sizeof comment, "fuzz", NULL);
    else
        (void)cvq_minisign_verify(SIGNED_TEXT, 4, signature, strlen(signature), text, size - 1,
                                  comment, sizeof comment, "fuzz", NULL);
    return 0;
}
