/* formats/: what is too large, too small, empty or out of order, and callers that stop the work.
 * cvq-test: formats */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/cvq_head_internal.h"
#include "formats/extents.h"
#include "formats/manifest.h"
#include "formats/metadata_frame_internal.h"
#include "formats/minisign.h"
#include "formats/safetensors.h"
#include "formats/tokenizer_table.h"
#include "tests/unit/harness.h"
#include "tests/unit/packed_room.h"
#include "tests/unit/signed_text.h"
#include "tests/unit/small_file.h"
#include "tests/unit/temp_folder.h"

/* Sizes of which some sum does not fit: section by section, and around the limits. */
static void heads_too_large(void) {
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 64, UINT64_MAX - 1000,
                                     UINT64_MAX - 4096, (uint64_t)1 << 63};
    for (int i = CVQ_SECTION_CONFIG; i < CVQ_SECTION_RESERVE; i++) {
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            cvq_head head = {0};
            head.sections[i].size = sizes[k];
            CHECK(cvq_head_plan(&head, NULL) == CVQ_UNSUPPORTED);
        }
    }
    for (uint64_t left = 0; left < (uint64_t)1 << 20; left += 1 << 14) { /* each sum once */
        cvq_head head = {0};
        head.sections[CVQ_SECTION_METADATA].size = UINT64_MAX - left;
        CHECK(cvq_head_plan(&head, NULL) == CVQ_UNSUPPORTED);
    }
    for (int k = 0; k < 2; k++) {
        cvq_head head = {0};
        head.sections[CVQ_SECTION_DATA].size = k ? UINT64_MAX - 4096 : INT64_MAX;
        CHECK(cvq_head_plan(&head, NULL) == CVQ_UNSUPPORTED);
    }
}

static int stop(void *context, uint64_t done, uint64_t total) {
    (void)done, (void)total;
    return ++*(int *)context > 0;
}

static void extents_in_order(void) {
    static uint8_t hashes[600][CVQ_HASH_BYTES];
    cvq_extents e = {.start = 100, .end = 100};
    cvq_extents_free(NULL);
    CHECK(cvq_extents_add(&e, 0, 50, 8, hashes[0], NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_extents_add(&e, 0, UINT64_MAX - 3, 8, hashes[0], NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_extents_add(&e, 0, 120, (uint64_t)600 << 20, hashes[0], NULL) == CVQ_OK);
    CHECK(e.count == 601 && e.items[0].owner == CVQ_OWNER_PADDING && e.items[0].size == 20);
    bool good[601] = {false};
    for (size_t i = 0; i < 601; i += 2) good[i] = true;
    CHECK(cvq_extents_damage(&e, good, NULL, NULL) == 300);
    memset(good, 0, sizeof good);
    CHECK(cvq_extents_damage(&e, good, NULL, NULL) == 2); /* the padding, and one row of chunks */
    cvq_extents_sort_by_hash(&e);
    CHECK(e.count == 600);
    e.items[0].hash = NULL;
    e.count = 1;
    cvq_extents_sort_by_hash(&e);
    CHECK(e.count == 0 && !cvq_extents_find(&e, &(cvq_extent){.size = 1, .hash = hashes[0]}));
    cvq_extents_free(&e);
}

/* ---------------------------------------------------------------- manifests */

static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    char *out = at ? malloc(strlen(text) + strlen(to) + 1) : NULL;
    if (!out) return NULL;
    memcpy(out, text, (size_t)(at - text));
    strcpy(out + (at - text), to);
    strcat(out, at + strlen(from));
    return out;
}

static void manifests(void) {
    static const char *const changes[][2] = {
        {"\"small.cvq\"", "\"\""},
        {"\"small.cvq\"", "\"..\""},
        {"\"small.cvq\"", "\"a/small.cvq\""},
        {"\"head\":{\"bytes\":", "\"head\":{\"bytes\":9"},
        {"\"head\":{\"bytes\":", "\"head\":{\"bytes\":0,\"b\":"},
        {"\"offset\":", "\"offset\":9"},
        {"\"tensors\":[", "\"tensors\":[],\"other\":["},
        {"\"tensors\":[", "\"tensors\":{},\"other\":["},
        {"\"head\":{", "\"head\":[],\"other\":{"},
        {"\"head\":{", "\"other\":{"},
        {"\"format\":", "\"other\":"}};
    cvq_reader *r = NULL;
    cvq_buffer text = {0};
    cvq_manifest m;
    cvq_manifest_free(NULL);
    CHECK(cvq_reader_open(&r, temp_path("small.cvq"), NULL) == CVQ_OK);
    CHECK(r && cvq_manifest_print(r, NULL, &text, NULL) == CVQ_OK);
    CHECK(cvq_manifest_parse(&m, (const char *)text.data, text.size, "m", NULL) == CVQ_OK);
    cvq_manifest_free(&m);
    CHECK(cvq_buffer_append(&text, "", 1, NULL) == CVQ_OK); /* a string from here on */
    for (size_t i = 0; text.data && i < sizeof changes / sizeof *changes; i++) {
        char *changed = replaced((const char *)text.data, changes[i][0], changes[i][1]);
        CHECK_SAY(changed != NULL, "%s is not there", changes[i][0]);
        cvq_error err = {0};
        if (changed)
            CHECK_SAY(cvq_manifest_parse(&m, changed, strlen(changed), "m", &err) == CVQ_FORMAT,
                      "%s: %s", changes[i][1], err.message);
        free(changed);
    }
    cvq_buffer_free(&text);
    cvq_reader_close(r);
}

/* ---------------------------------------------------------------- packed files */

/* A file of this size, packed and unpacked. */
static void pack_size(size_t size) {
    static uint8_t room[4 << 20], content[2 << 20], back[2 << 20];
    static const uint8_t id[CVQ_ID_BYTES];
    uint64_t state = 88172645463325252u;
    int called = 0;
    for (size_t i = 0; i < size; i++) content[i] = i % 2 ? 0x3f : (uint8_t)small_random(&state);
    temp_write("content", content, size);
    packed_room p = {room, sizeof room, 0, SIZE_MAX};
    const int in = open(temp_path("content"), O_RDONLY | O_CLOEXEC);
    const int out = open(temp_path("back"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(cvq_file_pack(in, size, id, 1, packed_keep, &p, NULL, NULL, "content", NULL) == CVQ_OK);
    const packed_room packed = {room, p.at, CVQ_PACKED_HEADER_BYTES, SIZE_MAX};
    p = packed;
    CHECK(cvq_file_unpack(out, size, 1, packed_take, &p, NULL, NULL, "packed", NULL) == CVQ_OK);
    CHECK(pread(out, back, size, 0) == (ssize_t)size && memcmp(back, content, size) == 0);
    for (size_t most = CVQ_PACKED_HEADER_BYTES; most < packed.size; most += 16) {
        p = packed;
        p.most = most;
        if (most > CVQ_PACKED_HEADER_BYTES + 64) break;
        const cvq_status status =
            cvq_file_unpack(out, size, 1, packed_take, &p, NULL, NULL, "packed", NULL);
        CHECK(status == CVQ_IO || (status == CVQ_OK && size > 64));
    }
    p = packed;
    CHECK(cvq_file_unpack(out, size, 1, packed_take, &p, stop, &called, "packed", NULL) ==
          CVQ_CANCELLED);
    p = (packed_room){room + (sizeof room / 2), sizeof room / 2, 0, SIZE_MAX};
    CHECK(cvq_file_pack(in, size, id, 1, packed_keep, &p, stop, &called, "x", NULL) ==
          CVQ_CANCELLED);
    p.at = 0;
    CHECK(cvq_file_pack(in, size + 5, id, 1, packed_keep, &p, NULL, NULL, "x", NULL) == CVQ_IO);
    p.size = 80; /* for what comes out */
    p.at = 0;
    CHECK(size < 100 ||
          cvq_file_pack(in, size, id, 1, packed_keep, &p, NULL, NULL, "x", NULL) != CVQ_OK);
    /* A piece's own header: planes, sizes, the reserved field. */
    static const uint32_t heads[][4] = {{0, 1, 0, 0},   {3, 1, 1, 0},   {1, 0, 0, 0},
                                        {1, 1, 1, 0},   {2, 1, 0, 0},   {1, 1, 0, 1},
                                        {2, 1, ~0u, 0}, {1, ~0u, 0, 0}, {2, 1, 1, 0}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        for (unsigned k = 0; k < 4; k++)
            cvq_store_le(room + CVQ_PACKED_HEADER_BYTES + 4 * k, heads[i][k], 4);
        p = packed;
        const bool stored = size == 2 && i == 8; /* a byte in each plane: as good as another */
        const cvq_status status =
            cvq_file_unpack(out, size, 1, packed_take, &p, NULL, NULL, "p", NULL);
        CHECK_SAY(status == (stored ? CVQ_OK : CVQ_FORMAT), "%zu bytes, head %zu", size, i);
    }
    close(in);
    close(out);
}

static void packed_files(void) {
    static const size_t sizes[] = {1, 2, 3, 7, 4096, 4097, (1 << 20) + 1, (3 << 19) + 2};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) pack_size(sizes[i]);
    uint8_t header[CVQ_PACKED_HEADER_BYTES], id[CVQ_ID_BYTES];
    uint64_t size;
    for (size_t at = 0; at < sizeof header; at++) {
        static const uint8_t good[16] = {0x89, 'C', 'V', 'Z', '\r', '\n', 0x1a, '\n', 1};
        memset(header, 0, sizeof header);
        memcpy(header, good, sizeof good);
        header[14] = 0x10; /* 1 MiB */
        header[16] = 1;
        CHECK(cvq_packed_header(header, &size, id, "p", NULL) == CVQ_OK && size == 1);
        header[at] ^= 0x80;
        const bool free_to_differ = at >= 16 && at < 56 && at != 23;
        CHECK_SAY((cvq_packed_header(header, &size, id, "p", NULL) == CVQ_OK) == free_to_differ,
                  "byte %zu", at);
    }
    header[63] = header[16] = 0;
    CHECK(cvq_packed_header(header, &size, id, "p", NULL) == CVQ_FORMAT); /* an empty file */
}

/* ---------------------------------------------------------------- the rest */

static void signatures(void) {
    static const char key[] = SIGNED_KEY, text[] = SIGNED_SIGNATURE;
    char comment[64], other[sizeof text], other_key[sizeof key], longer[2 * 8192 + sizeof text];
#define VERIFY(signature, k, size)                                                                 \
    cvq_minisign_verify(SIGNED_TEXT, 4, signature, strlen(signature), k, strlen(k), comment, size, \
                        "t", NULL)
    CHECK(VERIFY(text, key, sizeof comment) == CVQ_OK);
    CHECK(VERIFY(text, key, 0) == CVQ_OK); /* nobody asks for the comment */
    memcpy(other_key, key, sizeof key);
    other_key[0] = 'S'; /* another algorithm of keys */
    CHECK(VERIFY(text, other_key, 0) == CVQ_FORMAT);
    char *algorithm = other + (strstr(text, "RUQf") - text);
    memcpy(other, text, sizeof text);
    memcpy(algorithm, "RWQf", 4); /* not hashed before: other bytes were signed */
    CHECK(VERIFY(other, key, 0) == CVQ_MISMATCH);
    memcpy(algorithm, "RXQf", 4); /* 'E' and no known letter */
    CHECK(VERIFY(other, key, 0) == CVQ_FORMAT);
    memcpy(algorithm, "SUQf", 4); /* not 'E' */
    CHECK(VERIFY(other, key, 0) == CVQ_FORMAT);
    const size_t before = (size_t)(strstr(text, "timestamp") - text);
    memcpy(longer, text, before);
    memset(longer + before, 'x', 2 * 8192);
    memcpy(longer + before + 2 * 8192, text + before, sizeof text - before);
    CHECK(VERIFY(longer, key, 0) == CVQ_FORMAT); /* a comment beyond all bounds */
}

static void tensors_to_write(void) {
    static const cvq_st_tensor wrong[] = {
        {.name = "a", .dtype = CVQ_ST_DTYPES, .ndim = 1, .dims = {1}},
        {.name = "a", .ndim = CVQ_ST_MAX_DIMS + 1},
        {.name = "", .ndim = 1, .dims = {1}},
        {.name = "a\x7f", .ndim = 1, .dims = {1}},
        {.name = "a", .ndim = 2, .dims = {UINT64_MAX, 2}},
        {.name = "a", .ndim = 1, .dims = {(uint64_t)1 << 62}}};
    cvq_st_writer *w = NULL;
    const int fd = open(temp_path("t"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_SAY(cvq_st_writer_open(&w, fd, &wrong[i], 1, "t", NULL) == CVQ_INVALID_ARGUMENT,
                  "tensor %zu", i);
    const cvq_st_tensor two[] = {
        {.name = "\"\\", .dtype = CVQ_ST_U8, .ndim = 1, .dims = {(uint64_t)5 << 60}},
        {.name = "b", .dtype = CVQ_ST_U8, .ndim = 1, .dims = {(uint64_t)5 << 60}},
        {.name = "b", .dtype = CVQ_ST_U8, .ndim = 1, .dims = {(uint64_t)15 << 60}}};
    CHECK(cvq_st_writer_open(&w, fd, two, 2, "t", NULL) == CVQ_INVALID_ARGUMENT); /* above 2^63 */
    CHECK(cvq_st_writer_open(&w, fd, two + 1, 2, "t", NULL) == CVQ_INVALID_ARGUMENT); /* 2^64 */
    CHECK(cvq_st_writer_open(&w, fd, NULL, 0, "t", NULL) == CVQ_OK); /* none at all */
    CHECK(cvq_st_writer_skip(w, 1, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_st_writer_finish(w, NULL) == CVQ_OK);
    CHECK(strcmp(cvq_st_dtype_name(CVQ_ST_DTYPES), "?") == 0);
    close(fd);
}

static void tables_and_frames(void) {
    const uint8_t bytes[2] = {'a', 'b'}, special[2] = {0};
    const uint32_t offsets[3] = {0, 1, 2}, late[3] = {1, 1, 2};
    cvq_tokenizer_source source = {
        .num_tokens = 2, .bytes = bytes, .offsets = late, .special = special};
    cvq_buffer out = {0};
    CHECK(cvq_tokenizer_table_build(&out, &source, NULL) == CVQ_INVALID_ARGUMENT);
    source.offsets = offsets;
    source.num_merges = UINT32_MAX;
    CHECK(cvq_tokenizer_table_build(&out, &source, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_metadata_check(bytes, 2, "m", NULL) == CVQ_FORMAT);
    CHECK(cvq_metadata_unpack(&out, bytes, 2, "m", NULL) == CVQ_FORMAT);
    cvq_buffer_free(&out);
}

int main(void) {
    cvq_error err = {0};
    if (!temp_open()) return 1;
    const int fd = open(temp_path("small.cvq"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_SAY(small_write(fd, SMALL_METADATA, false, NULL, &err) == CVQ_OK, "%s", err.message);
    close(fd);
    RUN(heads_too_large);
    RUN(extents_in_order);
    RUN(manifests);
    RUN(packed_files);
    RUN(signatures);
    RUN(tensors_to_write);
    RUN(tables_and_frames);
    temp_close();
    return REPORT();
}
