/* --kld: a reference's saved predictions, with the hash of the head made to fit. */
#include "bench/logits_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/chunk_hash.h"
#include "tests/fuzz/fuzz.h"

#define HASHED_BYTES 128
#define HEAD_BYTES 160

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_logits_file f = {0};
    if (size < HEAD_BYTES) return 0;
    uint8_t *mended = malloc(size);
    if (!mended) return 0;
    memcpy(mended, data, size);
    (void)cvq_sha256(mended, HASHED_BYTES, mended + HASHED_BYTES, NULL);
    cvq_logits_head expected = {.vocab = 300, .context = 32, .rows = cvq_load_le(data + 24, 8)};
    memcpy(expected.text, data + 32, sizeof expected.text);
    if (cvq_logits_open(&f, fuzz_file(mended, size, 0), &expected, NULL) != CVQ_OK) goto done;
    fuzz_accepted();
    for (uint64_t i = 0; i < f.head.rows && i < 4; i++) {
        cvq_saved_row row;
        (void)cvq_logits_row(&f, i, &row, NULL);
    }
    cvq_logits_close(&f);
done:
    free(mended);
    return 0;
}
