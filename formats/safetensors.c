/* One safetensors file: an 8-byte header length, a JSON header, then the tensors' bytes. Nothing
 * of it is trusted: every number is checked before it is used, and the tensors must cover the data
 * exactly, so that no byte of a checkpoint goes unaccounted for. */
#include "formats/safetensors_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "formats/json.h"

#define MAX_NAME 255
#define MAX_TENSORS (1u << 20)

static const struct {
    const char *name;
    size_t size;
} dtypes[CVQ_ST_DTYPES] = {
    [CVQ_ST_F32] = {"F32", 4},   [CVQ_ST_F16] = {"F16", 2}, [CVQ_ST_BF16] = {"BF16", 2},
    [CVQ_ST_F64] = {"F64", 8},   [CVQ_ST_I64] = {"I64", 8}, [CVQ_ST_I32] = {"I32", 4},
    [CVQ_ST_I16] = {"I16", 2},   [CVQ_ST_I8] = {"I8", 1},   [CVQ_ST_U8] = {"U8", 1},
    [CVQ_ST_BOOL] = {"BOOL", 1},
};

const char *cvq_st_dtype_name(cvq_st_dtype d) {
    return (unsigned)d < CVQ_ST_DTYPES ? dtypes[d].name : "?";
}

size_t cvq_st_dtype_size(cvq_st_dtype d) {
    return (unsigned)d < CVQ_ST_DTYPES ? dtypes[d].size : 0;
}

/* ---------------------------------------------------------------- names and sizes */

bool cvq_st_good_name(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > MAX_NAME) return false;
    for (size_t i = 0; i < n; i++) {
        if (name[i] < 0x20 || name[i] > 0x7e) return false;
    }
    return true;
}

cvq_status cvq_st_copy_string(char **out, const char *text, cvq_error *err) {
    void *p = NULL;
    size_t n = strlen(text);
    CVQ_TRY(cvq_alloc(&p, n + 1, 1, "name", err));
    memcpy(p, text, n);
    *out = p;
    return CVQ_OK;
}

bool cvq_st_tensor_size(const cvq_st_tensor *t, uint64_t *size) {
    uint64_t n = cvq_st_dtype_size(t->dtype);
    for (uint32_t i = 0; i < t->ndim; i++) {
        if (!cvq_mul_u64(n, t->dims[i], &n)) return false;
    }
    if (n > INT64_MAX) return false;
    *size = n;
    return true;
}

/* ---------------------------------------------------------------- one file's header */

static cvq_status parse_dtype(cvq_st_tensor *t, const cJSON *entry, const char *path,
                              cvq_error *err) {
    const char *text = NULL;
    CVQ_TRY(cvq_json_string(entry, "dtype", true, &text, path, err));
    for (unsigned d = 0; d < CVQ_ST_DTYPES; d++) {
        if (strcmp(text, dtypes[d].name) == 0) {
            t->dtype = (cvq_st_dtype)d;
            return CVQ_OK;
        }
    }
    return cvq_fail(err, CVQ_UNSUPPORTED, path, "tensor %s has the unknown dtype \"%.40s\"",
                    t->name, text);
}

static cvq_status parse_shape(cvq_st_tensor *t, const cJSON *entry, const char *path,
                              cvq_error *err) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    if (!cJSON_IsArray(shape)) {
        return cvq_fail(err, CVQ_FORMAT, path, "tensor %s: \"shape\" must be an array", t->name);
    }
    for (const cJSON *d = shape->child; d; d = d->next) {
        if (t->ndim == CVQ_ST_MAX_DIMS) {
            return cvq_fail(err, CVQ_FORMAT, path, "tensor %s has more than %d dimensions", t->name,
                            CVQ_ST_MAX_DIMS);
        }
        if (!cvq_json_is_u64(d, &t->dims[t->ndim])) {
            return cvq_fail(err, CVQ_FORMAT, path,
                            "tensor %s: dimension %u of \"shape\" is no size", t->name, t->ndim);
        }
        t->ndim++;
    }
    if (!cvq_st_tensor_size(t, &t->size)) {
        return cvq_fail(err, CVQ_FORMAT, path,
                        "tensor %s: its \"shape\" needs more than 2^63 bytes", t->name);
    }
    return CVQ_OK;
}

/* data_size: bytes of the file behind the header, data_start of which come before. */
static cvq_status parse_offsets(cvq_st_tensor *t, const cJSON *entry, uint64_t data_start,
                                uint64_t data_size, const char *path, cvq_error *err) {
    const cJSON *pair = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    uint64_t begin, end;
    if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2 ||
        !cvq_json_is_u64(pair->child, &begin) || !cvq_json_is_u64(pair->child->next, &end) ||
        begin > end) {
        return cvq_fail(err, CVQ_FORMAT, path,
                        "tensor %s: \"data_offsets\" must be a begin and an end", t->name);
    }
    if (end - begin != t->size) {
        return cvq_fail(err, CVQ_FORMAT, path,
                        "tensor %s: its shape and dtype need %llu bytes, its \"data_offsets\" "
                        "span %llu",
                        t->name, (unsigned long long)t->size, (unsigned long long)(end - begin));
    }
    if (end > data_size) {
        return cvq_fail(err, CVQ_FORMAT, path,
                        "tensor %s ends %llu bytes behind the end of the file", t->name,
                        (unsigned long long)(end - data_size));
    }
    t->offset = data_start + begin;
    return CVQ_OK;
}

static cvq_status parse_tensor(cvq_st_tensor *t, const cJSON *entry, uint64_t data_start,
                               uint64_t data_size, const char *path, cvq_error *err) {
    if (!cJSON_IsObject(entry)) {
        return cvq_fail(err, CVQ_FORMAT, path, "tensor %s: its entry is no object", t->name);
    }
    for (const cJSON *c = entry->child; c; c = c->next) {
        if (strcmp(c->string, "dtype") != 0 && strcmp(c->string, "shape") != 0 &&
            strcmp(c->string, "data_offsets") != 0) {
            return cvq_fail(err, CVQ_FORMAT, path, "tensor %s: unknown key \"%.40s\"", t->name,
                            c->string);
        }
    }
    CVQ_TRY(parse_dtype(t, entry, path, err));
    CVQ_TRY(parse_shape(t, entry, path, err));
    return parse_offsets(t, entry, data_start, data_size, path, err);
}

static cvq_status check_metadata(const cJSON *metadata, const char *path, cvq_error *err) {
    bool good = cJSON_IsObject(metadata);
    for (const cJSON *c = good ? metadata->child : NULL; c && good; c = c->next) {
        good = cJSON_IsString(c);
    }
    if (good) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, path, "\"__metadata__\" must be an object of strings");
}

int cvq_st_compare_names(const void *a, const void *b) {
    return strcmp((*(const cvq_st_tensor *const *)a)->name,
                  (*(const cvq_st_tensor *const *)b)->name);
}

static int compare_place(const void *a, const void *b) {
    const cvq_st_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Tensors in order of place; they must follow each other from data_start to the file's end. */
static cvq_status check_coverage(const cvq_st_tensor *t, size_t n, uint64_t data_start,
                                 uint64_t file_size, const char *path, cvq_error *err) {
    uint64_t at = data_start;
    for (size_t i = 0; i < n; i++) {
        if (t[i].offset > at) {
            return cvq_fail(err, CVQ_FORMAT, path,
                            "%llu bytes between %s and tensor %s belong to no tensor",
                            (unsigned long long)(t[i].offset - at),
                            i ? t[i - 1].name : "the header", t[i].name);
        }
        if (t[i].offset < at) {
            return cvq_fail(err, CVQ_FORMAT, path, "tensors %s and %s overlap by %llu bytes",
                            t[i - 1].name, t[i].name, (unsigned long long)(at - t[i].offset));
        }
        at += t[i].size;
    }
    if (at != file_size) {
        return cvq_fail(err, CVQ_FORMAT, path, "%llu bytes behind %s belong to no tensor",
                        (unsigned long long)(file_size - at), n ? t[n - 1].name : "the header");
    }
    return CVQ_OK;
}

/* The header of a mapped file as JSON. */
static cvq_status read_header(cJSON **out, const cvq_st_file *f, uint64_t *data_start,
                              cvq_error *err) {
    cvq_cursor c = cvq_cursor_make(f->map.data, (size_t)f->map.size);
    uint64_t length = cvq_cursor_u64(&c);
    if (c.failed) {
        return cvq_fail(err, CVQ_FORMAT, f->path, "only %llu bytes: not a safetensors file",
                        (unsigned long long)f->map.size);
    }
    if (length > CVQ_ST_MAX_HEADER) {
        return cvq_fail(err, CVQ_FORMAT, f->path,
                        "a header of %llu bytes, more than the %u allowed: not a safetensors file",
                        (unsigned long long)length, CVQ_ST_MAX_HEADER);
    }
    const uint8_t *text = cvq_cursor_bytes(&c, (size_t)length);
    if (!text) {
        return cvq_fail(err, CVQ_FORMAT, f->path,
                        "its header of %llu bytes ends behind the end of the file",
                        (unsigned long long)length);
    }
    if (length == 0 || text[0] != '{') {
        return cvq_fail(err, CVQ_FORMAT, f->path, "its header does not begin with '{'");
    }
    *data_start = 8 + length;
    return cvq_json_parse(out, (const char *)text, (size_t)length, f->path, err);
}

static cvq_status reserve(cvq_safetensors *s, size_t more, const char *path, cvq_error *err) {
    size_t need = s->count + more; /* each at most MAX_TENSORS and a header's values: no overflow */
    if (need > MAX_TENSORS) {
        return cvq_fail(err, CVQ_FORMAT, path, "more than %u tensors", MAX_TENSORS);
    }
    if (need <= s->capacity) return CVQ_OK;
    size_t capacity = 2 * s->capacity > need ? 2 * s->capacity : need;
    void *grown = NULL;
    CVQ_TRY(cvq_alloc(&grown, capacity, sizeof *s->tensors, "tensors of a checkpoint", err));
    if (s->count) memcpy(grown, s->tensors, s->count * sizeof *s->tensors);
    free(s->tensors);
    s->tensors = grown;
    s->capacity = capacity;
    return CVQ_OK;
}

/* Adds one tensor of the header; what was allocated is s's. */
static cvq_status add_tensor(cvq_safetensors *s, const cJSON *entry, size_t file,
                             uint64_t data_start, cvq_error *err) {
    const cvq_st_file *f = &s->files[file];
    if (!cvq_st_good_name(entry->string)) {
        return cvq_fail(err, CVQ_FORMAT, f->path,
                        "a tensor's name must be 1 to %d printable ASCII characters", MAX_NAME);
    }
    char *name = NULL;
    CVQ_TRY(cvq_st_copy_string(&name, entry->string, err));
    cvq_st_tensor *t = &s->tensors[s->count++];
    *t = (cvq_st_tensor){.name = name, .file = (uint32_t)file};
    CVQ_TRY(parse_tensor(t, entry, data_start, f->map.size - data_start, f->path, err));
    t->data = f->map.data + t->offset;
    return CVQ_OK;
}

cvq_status cvq_st_load_file(cvq_safetensors *s, size_t file, cvq_error *err) {
    cvq_st_file *f = &s->files[file];
    uint64_t data_start = 0;
    cJSON *header = NULL;
    CVQ_TRY(cvq_file_map_open(&f->map, f->path, err));
    cvq_status status = read_header(&header, f, &data_start, err);
    if (status != CVQ_OK) return status;
    size_t first = s->count;
    if ((status = reserve(s, (size_t)cJSON_GetArraySize(header), f->path, err)) != CVQ_OK) {
        goto done;
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): read_header() set it */
    for (const cJSON *c = header->child; c && status == CVQ_OK; c = c->next) {
        status = strcmp(c->string, "__metadata__") == 0 ? check_metadata(c, f->path, err)
                                                        : add_tensor(s, c, file, data_start, err);
    }
    if (status != CVQ_OK) goto done;
    size_t n = s->count - first;
    cvq_st_tensor *added = n > 0 ? s->tensors + first : NULL;
    if (n > 1) qsort(added, n, sizeof *added, compare_place);
    status = check_coverage(added, n, data_start, f->map.size, f->path, err);
done:
    cJSON_Delete(header);
    return status;
}

/* ---------------------------------------------------------------- values */

static uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

cvq_status cvq_st_read_f32(const cvq_st_tensor *t, uint64_t first, uint64_t count, float *out,
                           cvq_error *err) {
    if (t->dtype != CVQ_ST_F32 && t->dtype != CVQ_ST_F16 && t->dtype != CVQ_ST_BF16) {
        return cvq_fail(err, CVQ_UNSUPPORTED, t->name, "%s values: only F32, F16 and BF16 are read",
                        cvq_st_dtype_name(t->dtype));
    }
    size_t size = dtypes[t->dtype].size;
    if (!cvq_range_within(first, count, t->size / size)) {
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, t->name, "reading past its end");
    }
    const uint8_t *p = t->data + first * size;
    switch (t->dtype) {
    case CVQ_ST_BF16:
        for (uint64_t i = 0; i < count; i++) out[i] = cvq_bf16_to_f32(load_u16(p + 2 * i));
        break;
    case CVQ_ST_F16:
        for (uint64_t i = 0; i < count; i++) out[i] = cvq_f16_to_f32(load_u16(p + 2 * i));
        break;
    default:
        for (uint64_t i = 0; i < count; i++) {
            out[i] = cvq_bits_f32((uint32_t)cvq_load_le(p + 4 * i, 4));
        }
    }
    return CVQ_OK;
}
