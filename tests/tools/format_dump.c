/* The C side of tests/test_reader.py:
 *
 *   format_dump small FILE         writes the small file of tests/unit/small_file.h
 *   format_dump values FILE N      tensor N of a .cvq file as f32 [rows][cols], raw on stdout
 *   format_dump example SCRATCH    the worked example of docs/format.md (writes SCRATCH on the way)
 */
#include <fcntl.h>
#include <unistd.h>

#include "formats/cvq_reader.h"
#include "tests/unit/small_file.h"

static int fail(const cvq_error *err) {
    fprintf(stderr, "format_dump: %s: %s\n", err->where, err->message);
    return 1;
}

static cvq_status write_small(const char *path, const char *metadata, cvq_error *err) {
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return cvq_fail_errno(err, path, "cannot open");
    const cvq_status status = small_write(fd, metadata, false, NULL, err);
    close(fd);
    return status;
}

static cvq_status print_values(const cvq_reader *r, size_t number, cvq_error *err) {
    const cvq_tensor *t = cvq_reader_tensor(r, number);
    const cvq_type_info *info = cvq_type_describe(t->type);
    const size_t cols = (size_t)t->spec.cols, padded = cvq_padded_cols(info, cols);
    const size_t panel = cvq_panel_bytes(info, t->panel_rows, cols);
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, t->panel_rows * padded, sizeof(float), "a panel", err));
    float *values = memory;
    for (size_t row = 0; row < t->spec.rows; row++) {
        const size_t in_panel = row % t->panel_rows;
        if (in_panel == 0)
            cvq_panel_decode(t->type, t->panel_rows, &t->codebook,
                             cvq_reader_data(r, number) + row / t->panel_rows * panel, cols, values,
                             padded);
        fwrite(values + in_panel * padded, sizeof(float), cols, stdout);
    }
    free(memory);
    return CVQ_OK;
}

/* ---------------------------------------------------------------- the worked example */

static void print_hex(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (i % 16 == 0) printf("%04zx:", i);
        printf(" %02x%s", bytes[i], i % 16 == 15 || i + 1 == size ? "\n" : "");
    }
}

static void print_part(const char *title, const uint8_t *bytes, size_t size) {
    printf("%s\n```\n", title);
    print_hex(bytes, size);
    printf("```\n");
}

static void print_head(const cvq_reader *r) {
    const uint8_t *file = cvq_reader_map(r)->data, *table;
    const size_t config = 256, index = 384, entry = 200, count = cvq_reader_tensor_count(r);
    size_t size;
    cvq_reader_tokenizer_bytes(r, &table, &size);
    print_part("Header and section table:", file, 240);
    print_part("CONFIG, at 0x100:", file + config, 116);
    print_part("Entry 2 of INDEX, type q4t:", file + index + 2 * entry, entry);
    print_part("TOKENIZER, its header:", table, 32);
    print_part("TOKENIZER, its two merges:", table + size - 264 - 24, 24);
    const size_t metadata = ((size_t)(table - file) + size + 63) / 64 * 64;
    print_part("METADATA, whose text is `{}`:", file + metadata, 19);
    printf("%zu tensors; the first starts at 0x%llx, the last ends at 0x%llx.\n", count,
           (unsigned long long)cvq_reader_tensor(r, 0)->offset,
           (unsigned long long)cvq_reader_file_size(r));
}

/* One group of one row: codes 7k + 3 + k / 16 (modulo their number), two scales, one of them
 * negative; for q4s a row scale and four. */
static void print_group(cvq_type type) {
    const cvq_type_info *info = cvq_type_describe(type);
    uint8_t bytes[CVQ_MAX_GROUP * 2], codes[CVQ_MAX_GROUP];
    float values[CVQ_MAX_GROUP];
    static const uint16_t f16_scales[2] = {0x2c05, 0xb00b};
    static const uint16_t levels[4] = {0x1f, 0xac, 0x40, 0xf5};
    const uint32_t head = info->head_bytes;
    const float row_scale = 0x1p-11f;
    const uint32_t codes_of_type = type == CVQ_TYPE_Q8 ? 256 : type == CVQ_TYPE_Q6 ? 64 : 16;
    if (info->block == 0) {
        for (uint32_t k = 0; k < info->group; k++) values[k] = 0.375f * (float)k - 5.0f;
        if (type == CVQ_TYPE_BF16)
            cvq_panel_encode_bf16(1, values, info->group, info->group, bytes);
        else
            cvq_store_le(bytes, cvq_f32_bits(values[0]), 4);
    } else {
        for (uint32_t k = 0; k < info->group; k++)
            codes[k] = (uint8_t)((7 * k + 3 + k / 16) % codes_of_type);
        cvq_row_scales_pack(type, 1, &row_scale, bytes);
        cvq_group_pack(type, 1, codes, head ? levels : f16_scales, bytes + head);
    }
    cvq_panel_decode(type, 1, &cvq_codebook_default, bytes, info->group, values, info->group);
    char title[64];
    snprintf(title, sizeof title, "%s, R = 1:", info->name);
    print_part(title, bytes, head + info->row_bytes);
    printf("%s values:", info->name);
    const uint32_t shown[] = {0, 1, 2, 3, 8, 16, 24, 31, 32, 33, 63, 127, 128, 255};
    for (size_t i = 0; i < sizeof shown / sizeof *shown && shown[i] < info->group; i++)
        printf(" [%u] %.9g", shown[i], (double)values[shown[i]]);
    printf("\n");
}

static int print_example(const char *path) {
    static const cvq_type order[] = {CVQ_TYPE_F32, CVQ_TYPE_BF16, CVQ_TYPE_Q8,  CVQ_TYPE_Q6,
                                     CVQ_TYPE_Q4T, CVQ_TYPE_Q4,   CVQ_TYPE_Q4S, CVQ_TYPE_Q4H};
    cvq_reader *r = NULL;
    cvq_error err = {0};
    cvq_status status = write_small(path, "{}", &err);
    if (status == CVQ_OK) status = cvq_reader_open(&r, path, &err);
    if (status != CVQ_OK) return fail(&err);
    print_head(r);
    for (int i = 0; i < CVQ_TYPES; i++) print_group(order[i]);
    cvq_reader_close(r);
    return 0;
}

int main(int argc, char **argv) {
    cvq_error err = {0};
    if (argc == 3 && strcmp(argv[1], "small") == 0)
        return write_small(argv[2], SMALL_METADATA, &err) == CVQ_OK ? 0 : fail(&err);
    if (argc == 3 && strcmp(argv[1], "example") == 0) return print_example(argv[2]);
    if (argc != 4 || strcmp(argv[1], "values") != 0) {
        fprintf(stderr, "usage: format_dump small|example FILE, or values FILE N\n");
        return 2;
    }
    cvq_reader *r = NULL;
    const size_t number = (size_t)strtoul(argv[3], NULL, 10);
    cvq_status status = cvq_reader_open(&r, argv[2], &err);
    if (status == CVQ_OK && number >= cvq_reader_tensor_count(r))
        status = cvq_fail(&err, CVQ_INVALID_ARGUMENT, argv[2], "there is no tensor %zu", number);
    if (status == CVQ_OK) status = print_values(r, number, &err);
    cvq_reader_close(r);
    return status == CVQ_OK ? 0 : fail(&err);
}
