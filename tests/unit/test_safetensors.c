/* safetensors: malformed files by name, shards against their index, values, and writing.
 * cvq-test: formats */
#include "formats/safetensors.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "tests/unit/harness.h"
#include "tests/unit/temp_folder.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* A file of a header's length, the header and `data` bytes 0, 1, 2, ... */
static void write_file(const char *name, const char *header, size_t data) {
    cvq_buffer b = {0};
    cvq_buffer_append_le(&b, strlen(header), 8, NULL);
    cvq_buffer_append(&b, header, strlen(header), NULL);
    for (size_t i = 0; i < data; i++) cvq_buffer_append_le(&b, i & 255, 1, NULL);
    temp_write(name, b.data, b.size);
    cvq_buffer_free(&b);
}

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end \
    "]}"
#define A_0_8 T("a", "F32", "2", "0", "8")

typedef struct bad_file {
    const char *header;
    size_t data;
    cvq_status status;
    const char *message;
} bad_file;

static const bad_file bad_files[] = {
    {"", 0, CVQ_FORMAT, "does not begin with '{'"},
    {" {}", 0, CVQ_FORMAT, "does not begin with '{'"},
    {"[]", 0, CVQ_FORMAT, "does not begin with '{'"},
    {"{", 0, CVQ_FORMAT, "line 1"},
    {"{} x", 0, CVQ_FORMAT, "text behind"},
    {"{}", 1, CVQ_FORMAT, "1 bytes behind the header"},
    {"{\"a\":1}", 0, CVQ_FORMAT, "tensor a: its entry is no object"},
    {"{\"a\":{}}", 0, CVQ_FORMAT, "\"dtype\" is missing"},
    {"{\"__metadata__\":[]}", 0, CVQ_FORMAT, "must be an object of strings"},
    {"{\"__metadata__\":{\"a\":1}}", 0, CVQ_FORMAT, "must be an object of strings"},
    {"{" A_0_8 "," A_0_8 "}", 8, CVQ_FORMAT, "\"a\" stands twice"},
    {"{" T("", "F32", "2", "0", "8") "}", 8, CVQ_FORMAT, "printable ASCII"},
    {"{" T("a\\n", "F32", "2", "0", "8") "}", 8, CVQ_FORMAT, "printable ASCII"},
    {"{" T("\xc3\xa9", "F32", "2", "0", "8") "}", 8, CVQ_FORMAT, "printable ASCII"},
    {"{" T("a", "F8_E4M3", "8", "0", "8") "}", 8, CVQ_UNSUPPORTED, "unknown dtype \"F8_E4M3\""},
    {"{" T("a", "f32", "2", "0", "8") "}", 8, CVQ_UNSUPPORTED, "unknown dtype \"f32\""},
    {"{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, CVQ_FORMAT,
     "\"dtype\" must be a string"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, CVQ_FORMAT,
     "\"shape\" must be an array"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, CVQ_FORMAT,
     "\"shape\" must be an array"},
    {"{" T("a", "F32", "-2", "0", "8") "}", 8, CVQ_FORMAT, "dimension 0 of \"shape\" is no size"},
    {"{" T("a", "F32", "1,2.5", "0", "8") "}", 8, CVQ_FORMAT, "dimension 1 of \"shape\""},
    {"{" T("a", "F32", "\"2\"", "0", "8") "}", 8, CVQ_FORMAT, "dimension 0 of \"shape\""},
    {"{" T("a", "F32", "9007199254740993", "0", "8") "}", 8, CVQ_FORMAT, "dimension 0"},
    {"{" T("a", "F32", "1,1,1,1,1,1,1,1,2", "0", "8") "}", 8, CVQ_FORMAT, "more than 8 dim"},
    {"{" T("a", "F32", "4294967296,4294967296", "0", "8") "}", 8, CVQ_FORMAT, "2^63 bytes"},
    {"{" T("a", "F32", "4294967296,1073741824,4", "0", "0") "}", 0, CVQ_FORMAT, "2^63 bytes"},
    {"{" T("a", "F64", "2251799813685248,512", "0", "8") "}", 8, CVQ_FORMAT, "2^63 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, CVQ_FORMAT, "must be a begin and an end"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, CVQ_FORMAT,
     "must be a begin and an end"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, CVQ_FORMAT,
     "must be a begin and an end"},
    {"{" T("a", "F32", "2", "8", "0") "}", 8, CVQ_FORMAT, "must be a begin and an end"},
    {"{" T("a", "F32", "2", "-8", "0") "}", 8, CVQ_FORMAT, "must be a begin and an end"},
    {"{" T("a", "F32", "2", "0", "1e300") "}", 8, CVQ_FORMAT, "must be a begin and an end"},
    {"{" T("a", "F32", "2", "0", "7") "}", 7, CVQ_FORMAT,
     "need 8 bytes, its \"data_offsets\" span 7"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, CVQ_FORMAT,
     "unknown key \"x\""},
    {"{" A_0_8 "}", 7, CVQ_FORMAT, "tensor a ends 1 bytes behind the end of the file"},
    {"{" A_0_8 "}", 9, CVQ_FORMAT, "1 bytes behind a belong to no tensor"},
    {"{" A_0_8 "," T("b", "U8", "4", "4", "8") "}", 8, CVQ_FORMAT,
     "tensors a and b overlap by 4 bytes"},
    {"{" A_0_8 "," T("b", "F32", "2", "0", "8") "}", 8, CVQ_FORMAT,
     "tensors a and b overlap by 8 bytes"},
    {"{" A_0_8 "," T("b", "U8", "1", "10", "11") "}", 11, CVQ_FORMAT,
     "2 bytes between a and tensor b"},
    {"{" T("b", "U8", "1", "3", "4") "}", 4, CVQ_FORMAT, "3 bytes between the header and tensor b"},
};

static void bad_files_are_refused(void) {
    for (size_t i = 0; i < COUNT(bad_files); i++) {
        const bad_file *b = &bad_files[i];
        cvq_safetensors *s = NULL;
        cvq_error err = {0};
        write_file("bad.safetensors", b->header, b->data);
        cvq_status status = cvq_safetensors_open(&s, temp_path("bad.safetensors"), &err);
        CHECK_SAY(status == b->status && !s && strstr(err.message, b->message) &&
                      strstr(err.where, "bad.safetensors"),
                  "%s + %zu gives %d: %s", b->header, b->data, status, err.message);
        cvq_safetensors_close(s);
    }
}

/* A good file cut anywhere, and lengths that do not fit. */
static void bad_lengths_are_refused(void) {
    static const char header[] = "{" A_0_8 "}";
    size_t size = 8 + sizeof header - 1 + 8;
    uint8_t bytes[256] = {0};
    cvq_safetensors *s = NULL;
    cvq_store_le(bytes, sizeof header - 1, 8);
    memcpy(bytes + 8, header, sizeof header - 1);
    for (size_t n = 0; n <= size; n++) {
        temp_write("cut.safetensors", bytes, n);
        cvq_status status = cvq_safetensors_open(&s, temp_path("cut.safetensors"), NULL);
        CHECK_SAY(status == (n == size ? CVQ_OK : CVQ_FORMAT), "%zu bytes: %d", n, status);
    }
    cvq_safetensors_close(s);
    static const uint64_t lengths[] = {UINT64_MAX, INT64_MAX, 100000001, 100000000, 4096};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        cvq_error err = {0};
        s = NULL;
        cvq_store_le(bytes, lengths[i], 8);
        temp_write("length.safetensors", bytes, size);
        CHECK(cvq_safetensors_open(&s, temp_path("length.safetensors"), &err) == CVQ_FORMAT);
        CHECK_SAY(strstr(err.message, lengths[i] > 100000000 ? "more than the 100000000 allowed"
                                                             : "ends behind the end of the file"),
                  "%s", err.message);
    }
}

static void long_names_are_refused(void) {
    char name[300], header[512];
    for (size_t n = 255; n <= 256; n++) {
        cvq_safetensors *s = NULL;
        memset(name, 'x', n);
        name[n] = 0;
        snprintf(header, sizeof header,
                 "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
        write_file("name.safetensors", header, 1);
        cvq_status status = cvq_safetensors_open(&s, temp_path("name.safetensors"), NULL);
        CHECK(status == (n == 255 ? CVQ_OK : CVQ_FORMAT));
        cvq_safetensors_close(s);
    }
}

/* Out of order in the header, a scalar, an empty tensor, every dtype, padding behind the header. */
static void good_file(void) {
    static const char header[] = "{" T("h", "F16", "2", "16", "20") "," T(
        "s", "F32", "", "0",
        "4") ","
             "\"__metadata__\":{\"format\":\"pt\"}," T("b", "BF16", "1,3,2", "4", "16") "," T(
                 "none", "I32", "0,5", "20",
                 "20") "," T("d", "F64", "1", "20",
                             "28") "," T("l", "I64", "1", "28",
                                         "36") "," T("i", "I32", "1", "36",
                                                     "40") "," T("w", "I16", "1", "40",
                                                                 "42") "," T("c", "I8", "1", "42",
                                                                             "43") "," T("u", "U8",
                                                                                         "1", "43",
                                                                                         "44") "," T("o",
                                                                                                     "BOOL",
                                                                                                     "2",
                                                                                                     "44",
                                                                                                     "46") "}   ";
    static const char order[] = "s b h none d l i w c u o";
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    char names[64] = "";
    write_file("good.safetensors", header, 46);
    CHECK_SAY(cvq_safetensors_open(&s, temp_path("good.safetensors"), &err) == CVQ_OK, "%s",
              err.message);
    if (!s) return;
    CHECK(cvq_safetensors_count(s) == 11 && cvq_safetensors_files(s) == 1);
    for (size_t i = 0; i < cvq_safetensors_count(s); i++) {
        const cvq_st_tensor *t = cvq_safetensors_at(s, i);
        if (i) strcat(names, " ");
        strcat(names, t->name);
        CHECK(t->file == 0 && cvq_safetensors_find(s, t->name) == t);
        CHECK(t->data == cvq_safetensors_file_map(s, 0)->data + t->offset);
    }
    CHECK_SAY(strcmp(names, order) == 0, "%s", names);
    const cvq_st_tensor *b = cvq_safetensors_find(s, "b");
    CHECK(b->ndim == 3 && b->dims[0] == 1 && b->dims[1] == 3 && b->dims[2] == 2 && b->size == 12);
    CHECK(b->data[0] == 4 && b->dtype == CVQ_ST_BF16);
    CHECK(cvq_safetensors_find(s, "s")->ndim == 0 && cvq_safetensors_find(s, "none")->size == 0);
    CHECK(!cvq_safetensors_find(s, "x") && !cvq_safetensors_find(s, ""));
    CHECK(strcmp(cvq_safetensors_file_name(s, 0), "good.safetensors") == 0);
    cvq_safetensors_close(s);
    cvq_safetensors_close(NULL);
    CHECK(strcmp(cvq_st_dtype_name(CVQ_ST_BOOL), "BOOL") == 0);
    CHECK(cvq_st_dtype_size(CVQ_ST_F64) == 8 && cvq_st_dtype_size(CVQ_ST_DTYPES) == 0);
}

static void empty_file(void) {
    cvq_safetensors *s = NULL;
    write_file("empty.safetensors", "{}", 0);
    CHECK(cvq_safetensors_open(&s, temp_path("empty.safetensors"), NULL) == CVQ_OK);
    CHECK(s && cvq_safetensors_count(s) == 0 && !cvq_safetensors_find(s, "a"));
    cvq_safetensors_close(s);
}

/* ---------------------------------------------------------------- values */

static void values(void) {
    static const float expected[] = {1.5f, -2.0f, 0.0f, 65504.0f, 0x1p-24f, -0x1p-24f};
    uint8_t bytes[36];
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    float out[6];
    for (size_t i = 0; i < 6; i++) cvq_store_le(bytes + 2 * i, cvq_f32_to_f16(expected[i]), 2);
    for (size_t i = 0; i < 6; i++) cvq_store_le(bytes + 12 + 4 * i, cvq_f32_bits(expected[i]), 4);
    /* an odd header length, so that nothing is aligned */
    static const char header[] =
        "{" T("h", "F16", "2,3", "0", "12") "," T("f", "F32", "6", "12", "36") "}";
    cvq_buffer b = {0};
    cvq_buffer_append_le(&b, 0, 8, NULL);
    cvq_buffer_append(&b, header, sizeof header - 1, NULL);
    if (b.size % 2 == 0) cvq_buffer_append(&b, " ", 1, NULL);
    cvq_store_le(b.data, b.size - 8, 8);
    cvq_buffer_append(&b, bytes, sizeof bytes, NULL);
    temp_write("values.safetensors", b.data, b.size);
    cvq_buffer_free(&b);
    CHECK(cvq_safetensors_open(&s, temp_path("values.safetensors"), NULL) == CVQ_OK);
    if (!s) return;
    const cvq_st_tensor *h = cvq_safetensors_find(s, "h"), *f = cvq_safetensors_find(s, "f");
    CHECK(cvq_st_read_f32(h, 0, 6, out, NULL) == CVQ_OK && !memcmp(out, expected, sizeof out));
    CHECK(cvq_st_read_f32(f, 0, 6, out, NULL) == CVQ_OK && !memcmp(out, expected, sizeof out));
    CHECK(cvq_st_read_f32(f, 2, 3, out, NULL) == CVQ_OK && !memcmp(out, expected + 2, 12));
    CHECK(cvq_st_read_f32(f, 6, 0, out, NULL) == CVQ_OK);
    CHECK(cvq_st_read_f32(f, 5, 2, out, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_st_read_f32(f, UINT64_MAX, 2, out, &err) == CVQ_INVALID_ARGUMENT);
    CHECK(strcmp(err.where, "f") == 0);
    cvq_safetensors_close(s);
}

static void other_dtypes_are_no_values(void) {
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    float out;
    write_file("int.safetensors", "{" T("n", "I64", "1", "0", "8") "}", 8);
    CHECK(cvq_safetensors_open(&s, temp_path("int.safetensors"), NULL) == CVQ_OK);
    CHECK(s && cvq_st_read_f32(cvq_safetensors_at(s, 0), 0, 1, &out, &err) == CVQ_UNSUPPORTED);
    CHECK_SAY(strstr(err.message, "I64 values"), "%s", err.message);
    cvq_safetensors_close(s);
}

/* ---------------------------------------------------------------- shards */

#define SHARD_1 "model-00001-of-00002.safetensors"
#define SHARD_2 "model-00002-of-00002.safetensors"
#define INDEX "model.safetensors.index.json"
#define MAP(entries) "{\"metadata\":{\"total_size\":16},\"weight_map\":{" entries "}}"

typedef struct bad_index {
    const char *index, *message;
} bad_index;

static const bad_index bad_indexes[] = {
    {"[]", "\"weight_map\" must be an object"},
    {"{}", "\"weight_map\" must be an object"},
    {MAP(""), "\"weight_map\" must be an object"},
    {MAP("\"a\":1"), "gives \"a\" no plain file name"},
    {MAP("\"a\":\"\""), "gives \"a\" no plain file name"},
    {MAP("\"a\":\".safetensors\""), "gives \"a\" no plain file name"},
    {MAP("\"a\":\"../x.safetensors\""), "gives \"a\" no plain file name"},
    {MAP("\"a\":\"/etc/x.safetensors\""), "gives \"a\" no plain file name"},
    {MAP("\"a\":\"sub/x.safetensors\""), "gives \"a\" no plain file name"},
    {MAP("\"a\":\"config.json\""), "gives \"a\" no plain file name"},
    {MAP("\"a\":\"" SHARD_1 "\""), "tensor c of " SHARD_1 " is not in the index"},
    {MAP("\"a\":\"" SHARD_1 "\",\"b\":\"" SHARD_2 "\""),
     "tensor c of " SHARD_1 " is not in the index"},
    {MAP("\"a\":\"" SHARD_1 "\",\"c\":\"" SHARD_1 "\",\"b\":\"" SHARD_1 "\""),
     "tensor b should be in " SHARD_1 " but is not"},
    {MAP("\"a\":\"" SHARD_1 "\",\"c\":\"" SHARD_2 "\",\"b\":\"" SHARD_2 "\""),
     "tensor c should be in " SHARD_2 " but is in " SHARD_1},
    {MAP("\"a\":\"" SHARD_1 "\",\"c\":\"" SHARD_1 "\",\"b\":\"" SHARD_2 "\",\"z\":\"" SHARD_2 "\""),
     "tensor z should be in " SHARD_2 " but is not"},
    {MAP("\"a\":\"" SHARD_1 "\",\"c\":\"" SHARD_1 "\",\"b\":\"gone.safetensors\""), "no such file"},
    {MAP("\"a\":\"" SHARD_1 "\",\"a\":\"" SHARD_1 "\""), "\"a\" stands twice"},
};
#define GOOD_INDEX MAP("\"b\":\"" SHARD_2 "\",\"c\":\"" SHARD_1 "\",\"a\":\"" SHARD_1 "\"")

static void bad_indexes_are_refused(void) {
    write_file(SHARD_1, "{" T("c", "U8", "4", "0", "4") "," T("a", "U8", "4", "4", "8") "}", 8);
    write_file(SHARD_2, "{" T("b", "F32", "2", "0", "8") "}", 8);
    for (size_t i = 0; i < COUNT(bad_indexes); i++) {
        cvq_safetensors *s = NULL;
        cvq_error err = {0};
        temp_write_text(INDEX, bad_indexes[i].index);
        cvq_status status = cvq_safetensors_open(&s, temp_folder, &err);
        CHECK_SAY(status != CVQ_OK && !s && strstr(err.message, bad_indexes[i].message),
                  "%s gives %d: %s", bad_indexes[i].index, status, err.message);
    }
}

static void shards(void) {
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    temp_write_text(INDEX, GOOD_INDEX);
    CHECK_SAY(cvq_safetensors_open(&s, temp_folder, &err) == CVQ_OK, "%s", err.message);
    if (!s) return;
    CHECK(cvq_safetensors_count(s) == 3 && cvq_safetensors_files(s) == 2);
    CHECK(strcmp(cvq_safetensors_file_name(s, 1), SHARD_2) == 0);
    CHECK(strcmp(cvq_safetensors_at(s, 0)->name, "c") == 0);
    CHECK(cvq_safetensors_find(s, "b")->file == 1 && cvq_safetensors_find(s, "a")->data[0] == 4);
    cvq_safetensors_close(s);
    /* the same name in two shards */
    write_file(SHARD_2, "{" T("b", "U8", "4", "0", "4") "," T("a", "U8", "4", "4", "8") "}", 8);
    s = NULL;
    CHECK(cvq_safetensors_open(&s, temp_folder, &err) == CVQ_FORMAT && !s);
    CHECK_SAY(strstr(err.message, "tensor a is in " SHARD_1 ", too") ||
                  strstr(err.message, "tensor a is in " SHARD_2 ", too"),
              "%s", err.message);
    CHECK(remove(temp_path(INDEX)) == 0);
}

static void folders(void) {
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    CHECK(cvq_safetensors_open(&s, temp_folder, &err) == CVQ_NOT_FOUND && !s);
    CHECK_SAY(strstr(err.message, "neither model.safetensors.index.json nor"), "%s", err.message);
    write_file("model.safetensors", "{" A_0_8 "}", 8);
    CHECK(cvq_safetensors_open(&s, temp_folder, NULL) == CVQ_OK);
    CHECK(s && strcmp(cvq_safetensors_file_name(s, 0), "model.safetensors") == 0);
    cvq_safetensors_close(s);
    s = NULL;
    CHECK(cvq_safetensors_open(&s, temp_path("nowhere"), NULL) == CVQ_NOT_FOUND && !s);
}

/* ---------------------------------------------------------------- writing */

static cvq_status write_two(const char *name, size_t bytes, cvq_error *err) {
    const cvq_st_tensor tensors[] = {
        {.name = "say \"x\\y\"", .dtype = CVQ_ST_I32, .ndim = 1, .dims = {3}},
        {.name = "logits", .dtype = CVQ_ST_F32, .ndim = 2, .dims = {2, 2}},
    };
    uint8_t data[64];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)i;
    int fd = open(temp_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    cvq_st_writer *w = NULL;
    cvq_status status = cvq_st_writer_open(&w, fd, tensors, 2, name, err);
    if (status == CVQ_OK) status = cvq_st_writer_append(w, data, 5, err);
    if (status == CVQ_OK && bytes > 5) status = cvq_st_writer_append(w, data + 5, bytes - 5, err);
    if (status == CVQ_OK) {
        status = cvq_st_writer_finish(w, err);
    } else {
        cvq_st_writer_free(w);
    }
    close(fd);
    return status;
}

static void written_files_are_read(void) {
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    CHECK_SAY(write_two("out.safetensors", 28, &err) == CVQ_OK, "%s", err.message);
    CHECK_SAY(cvq_safetensors_open(&s, temp_path("out.safetensors"), &err) == CVQ_OK, "%s",
              err.message);
    if (!s) return;
    const cvq_st_tensor *t = cvq_safetensors_find(s, "say \"x\\y\"");
    CHECK(t && t->dtype == CVQ_ST_I32 && t->ndim == 1 && t->dims[0] == 3 && t->data[0] == 0);
    CHECK(t && t->offset % 8 == 0);
    t = cvq_safetensors_find(s, "logits");
    CHECK(t && t->ndim == 2 && t->dims[1] == 2 && t->data[0] == 12 && t->data[15] == 27);
    cvq_safetensors_close(s);
}

static void wrong_amounts_are_told(void) {
    cvq_error err = {0};
    CHECK(write_two("out.safetensors", 27, &err) == CVQ_INVALID_ARGUMENT);
    CHECK_SAY(strstr(err.message, "1 bytes fewer"), "%s", err.message);
    memset(&err, 0, sizeof err);
    CHECK(write_two("out.safetensors", 29, &err) == CVQ_INVALID_ARGUMENT);
    CHECK_SAY(strstr(err.message, "1 bytes more"), "%s", err.message);
}

static void bad_tensors_are_not_written(void) {
    cvq_st_tensor pair[] = {
        {.name = "a", .dtype = CVQ_ST_F32, .ndim = 1, .dims = {1}},
        {.name = "a", .dtype = CVQ_ST_F32, .ndim = 1, .dims = {1}},
    };
    cvq_st_writer *w = NULL;
    int fd = open(temp_path("out.safetensors"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(cvq_st_writer_open(&w, fd, pair, 2, "out", NULL) == CVQ_INVALID_ARGUMENT);
    pair[1].name = "a\n";
    CHECK(cvq_st_writer_open(&w, fd, pair, 2, "out", NULL) == CVQ_INVALID_ARGUMENT);
    pair[1].name = "b";
    pair[1].ndim = 3;
    pair[1].dims[0] = pair[1].dims[1] = pair[1].dims[2] = 1u << 31;
    CHECK(cvq_st_writer_open(&w, fd, pair, 2, "out", NULL) == CVQ_INVALID_ARGUMENT);
    pair[1].ndim = 9;
    CHECK(cvq_st_writer_open(&w, fd, pair, 2, "out", NULL) == CVQ_INVALID_ARGUMENT && !w);
    CHECK(cvq_st_writer_open(&w, fd, NULL, 0, "out", NULL) == CVQ_OK);
    CHECK(cvq_st_writer_finish(w, NULL) == CVQ_OK);
    cvq_st_writer_free(NULL);
    close(fd);
    cvq_safetensors *s = NULL;
    CHECK(cvq_safetensors_open(&s, temp_path("out.safetensors"), NULL) == CVQ_OK);
    cvq_safetensors_close(s);
}

/* A descriptor that cannot be written: the error names the file. */
static void write_errors_are_passed_on(void) {
    cvq_st_tensor t = {.name = "a", .dtype = CVQ_ST_F32, .ndim = 1, .dims = {1}};
    cvq_st_writer *w = NULL;
    cvq_error err = {0};
    int fd = open(temp_path("good.safetensors"), O_RDONLY);
    CHECK(cvq_st_writer_open(&w, fd, &t, 1, "out.st", &err) == CVQ_IO && !w);
    CHECK(strcmp(err.where, "out.st") == 0);
    close(fd);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(bad_files_are_refused);
    RUN(bad_lengths_are_refused);
    RUN(long_names_are_refused);
    RUN(good_file);
    RUN(empty_file);
    RUN(values);
    RUN(other_dtypes_are_no_values);
    RUN(bad_indexes_are_refused);
    RUN(shards);
    RUN(folders);
    RUN(written_files_are_read);
    RUN(wrong_amounts_are_told);
    RUN(bad_tensors_are_not_written);
    RUN(write_errors_are_passed_on);
    temp_close();
    return REPORT();
}
