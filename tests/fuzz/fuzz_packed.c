/* A packed file, of a .cvq file of up to two pieces and a half. */
#include "formats/packed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"

static cvq_status take(void *context, void *data, size_t size, size_t *got, cvq_error *err) {
    (void)err;
    *got = fuzz_take(context, data, size);
    return CVQ_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t file_size;
    uint8_t id[CVQ_ID_BYTES];
    if (size < CVQ_PACKED_HEADER_BYTES) return 0;
    if (cvq_packed_header(data, &file_size, id, "fuzz", NULL) != CVQ_OK) return 0;
    if (file_size > 5u << 19) return 0;
    cvq_cursor in = cvq_cursor_make(data + CVQ_PACKED_HEADER_BYTES, size - CVQ_PACKED_HEADER_BYTES);
    int fd = open(fuzz_file(NULL, 0, 0), O_RDWR);
    if (fd < 0) return 0;
    if (cvq_file_unpack(fd, file_size, 1, take, &in, NULL, NULL, "fuzz", NULL) == CVQ_OK)
        fuzz_accepted();
    close(fd);
    return 0;
}
