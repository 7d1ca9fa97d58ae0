/* A picture's structure, as the parent walks it, and what is left of it through stb_image, as the
 * child does - here without the child, whose limits stand between stb_image and everything else. */
#include <stdlib.h>

#include "imageio/picture_internal.h"
#include "tests/fuzz/fuzz.h"

#define MOST_PIXELS 65536
#define MOST_ARENA (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_picture_kind kind;
    cvq_picture_stream stream = {0};
    if (cvq_picture_sniff(&kind, data, size, "fuzz", NULL) != CVQ_OK) return 0;
    const cvq_status status = kind == CVQ_PICTURE_PNG
                                  ? cvq_png_stream(&stream, data, size, MOST_PIXELS, "fuzz", NULL)
                                  : cvq_jpeg_stream(&stream, data, size, MOST_PIXELS, "fuzz", NULL);
    if (status == CVQ_OK && stream.decoder_bytes <= MOST_ARENA) {
        uint8_t *arena = aligned_alloc(64, MOST_ARENA);
        const char *reason = NULL;
        int width = 0, height = 0;
        if (!arena) abort();
        (void)cvq_stb_decode(stream.bytes.data, stream.bytes.size, arena, MOST_ARENA, &width,
                             &height, &reason);
        free(arena);
    }
    cvq_buffer_free(&stream.bytes);
    return 0;
}
