/* A signature, or a public key: the first byte says which. */
#include "formats/minisign.h"

#include <stdbool.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/signed_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char key[] = SIGNED_KEY, signature[] = SIGNED_SIGNATURE;
    char comment[64];
    if (size == 0) return 0;
    const char *text = (const char *)data + 1;
    const bool is_signature = data[0] & 1;
    if (cvq_minisign_verify(SIGNED_TEXT, 4, is_signature ? text : signature,
                            is_signature ? size - 1 : strlen(signature), is_signature ? key : text,
                            is_signature ? strlen(key) : size - 1, comment, sizeof comment, "fuzz",
                            NULL) == CVQ_OK)
        fuzz_accepted();
    return 0;
}
