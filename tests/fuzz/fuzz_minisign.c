/* A signature, or a public key: the first byte says which. */
#include "formats/minisign.h"

#include <string.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char key[] = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    static const char signature[] =
        "untrusted comment: signature from minisign secret key\n"
        "RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/"
        "z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n"
        "trusted comment: timestamp:1633700835\tfile:test\tprehashed\n"
        "wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ=="
        "\n";
    char comment[64];
    if (size == 0) return 0;
    const char *text = (const char *)data + 1;
    if (data[0] & 1)
        (void)cvq_minisign_verify("test", 4, text, size - 1, key, strlen(key), comment,
                                  sizeof comment, "fuzz", NULL);
    else
        (void)cvq_minisign_verify("test", 4, signature, strlen(signature), text, size - 1, comment,
                                  sizeof comment, "fuzz", NULL);
    return 0;
}
