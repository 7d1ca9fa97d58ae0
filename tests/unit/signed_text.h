/* The text "test" as minisign's own tests sign it: prehashed (Ed25519 over BLAKE2b-512). */
#ifndef CVQ_TESTS_SIGNED_TEXT_H
#define CVQ_TESTS_SIGNED_TEXT_H

#define SIGNED_TEXT "test"
#define SIGNED_KEY "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
#define SIGNED_SIGNATURE                                                                           \
    "untrusted comment: signature from minisign secret key\n"                                      \
    "RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/"                              \
    "z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n"                                                      \
    "trusted comment: timestamp:1633700835\tfile:test\tprehashed\n"                                \
    "wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n"

#endif
