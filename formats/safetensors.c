/* safetensors files: an 8-byte header length, a JSON header, then the tensors' bytes. Nothing of it
 * is trusted: every number is checked before it is used, and the tensors must cover the data
 * exactly, so that no byte of a checkpoint goes unaccounted for. A checkpoint of several files is
 * checked against its index in both directions. The writer at the end makes small files of outputs.
 */
#include "formats/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/half.h"
#include "formats/json.h"

#define MAX_HEADER 100000000u /* the reference implementation's cap */
#define MAX_INDEX (64u << 20)
#define MAX_NAME 255
#define MAX_FILES 512 /* each keeps a descriptor open */
#define MAX_TENSORS (1u << 20)
#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"
#define SUFFIX ".safetensors"

static const struct {
    const char *name;
    size_t size;
} dtypes[CVQ_ST_DTYPES] = {
    [CVQ_ST_F32] = {"F32", 4},   [CVQ_ST_F16] = {"F16", 2}, [CVQ_ST_BF16] = {"BF16", 2},
    [CVQ_ST_F64] = {"F64", 8},   [CVQ_ST_I64] = {"I64", 8}, [CVQ_ST_I32] = {"I32", 4},
    [CVQ_ST_I16] = {"I16", 2},   [CVQ_ST_I8] = {"I8", 1},   [CVQ_ST_U8] = {"U8", 1},
    [CVQ_ST_BOOL] = {"BOOL", 1},
};

typedef struct st_file {
    char *name; /* base name */
    char *path;
    cvq_file_map map;
} st_file;

struct cvq_safetensors {
    st_file *files;
    size_t num_files;
    cvq_st_tensor *tensors; /* their names are owned, too */
    size_t count, capacity;
    const cvq_st_tensor **by_name; /* [count] */
};

const char *cvq_st_dtype_name(cvq_st_dtype d) {
    return (unsigned)d < CVQ_ST_DTYPES ? dtypes[d].name : "?";
}

size_t cvq_st_dtype_size(cvq_st_dtype d) {
    return (unsigned)d < CVQ_ST_DTYPES ? dtypes[d].size : 0;
}

/* ---------------------------------------------------------------- names and sizes */

/* Names go into error messages and tables as they are, so they are bounded and printable ASCII. */
static bool good_name(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > MAX_NAME) return false;
    for (size_t i = 0; i < n; i++) {
        if (name[i] < 0x20 || name[i] > 0x7e) return false;
    }
    return true;
}

static cvq_status copy_string(char **out, const char *text, cvq_error *err) {
    void *p = NULL;
    size_t n = strlen(text);
    CVQ_TRY(cvq_alloc(&p, n + 1, 1, "name", err));
    memcpy(p, text, n);
    *out = p;
    return CVQ_OK;
}

/* Bytes of dims x dtype; false if that is more than 2^63 - 1. */
static bool tensor_size(const cvq_st_tensor *t, uint64_t *size) {
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
    if (!tensor_size(t, &t->size)) {
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
static cvq_status read_header(cJSON **out, const st_file *f, uint64_t *data_start, cvq_error *err) {
    cvq_cursor c = cvq_cursor_make(f->map.data, (size_t)f->map.size);
    uint64_t length = cvq_cursor_u64(&c);
    if (c.failed) {
        return cvq_fail(err, CVQ_FORMAT, f->path, "only %llu bytes: not a safetensors file",
                        (unsigned long long)f->map.size);
    }
    if (length > MAX_HEADER) {
        return cvq_fail(err, CVQ_FORMAT, f->path,
                        "a header of %llu bytes, more than the %u allowed: not a safetensors file",
                        (unsigned long long)length, MAX_HEADER);
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
    const st_file *f = &s->files[file];
    if (!good_name(entry->string)) {
        return cvq_fail(err, CVQ_FORMAT, f->path,
                        "a tensor's name must be 1 to %d printable ASCII characters", MAX_NAME);
    }
    char *name = NULL;
    CVQ_TRY(copy_string(&name, entry->string, err));
    cvq_st_tensor *t = &s->tensors[s->count++];
    *t = (cvq_st_tensor){.name = name, .file = (uint32_t)file};
    CVQ_TRY(parse_tensor(t, entry, data_start, f->map.size - data_start, f->path, err));
    t->data = f->map.data + t->offset;
    return CVQ_OK;
}

/* Map file number `file`, whose path is set, and add its tensors. */
static cvq_status load_file(cvq_safetensors *s, size_t file, cvq_error *err) {
    st_file *f = &s->files[file];
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
    if (n > 1) qsort(s->tensors + first, n, sizeof *s->tensors, compare_place);
    status = check_coverage(s->tensors + first, n, data_start, f->map.size, f->path, err);
done:
    cJSON_Delete(header);
    return status;
}

/* ---------------------------------------------------------------- the index of shards */

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const cvq_st_tensor *const *)a)->name,
                  (*(const cvq_st_tensor *const *)b)->name);
}

static int compare_entries(const void *a, const void *b) {
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

/* A plain base name: shards lie beside their index. */
static bool good_shard_name(const char *name) {
    size_t n = strlen(name), suffix = strlen(SUFFIX);
    return good_name(name) && n > suffix && strcmp(name + n - suffix, SUFFIX) == 0 &&
           name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

static cvq_status set_file(st_file *f, const char *dir, const char *name, cvq_error *err) {
    CVQ_TRY(copy_string(&f->name, name, err));
    return cvq_path_join(&f->path, dir, name, err);
}

/* The different shard names of the map, sorted, become s->files. `names` has room for all. */
static cvq_status list_shards(cvq_safetensors *s, const char *dir, const cJSON *map,
                              const char **names, const char *path, cvq_error *err) {
    size_t n = 0, unique = 0;
    for (const cJSON *c = map->child; c; c = c->next) {
        if (!cJSON_IsString(c) || !good_shard_name(c->valuestring)) {
            return cvq_fail(err, CVQ_FORMAT, path,
                            "\"weight_map\" gives \"%.100s\" no plain file name ending in " SUFFIX,
                            c->string);
        }
        names[n++] = c->valuestring;
    }
    qsort(names, n, sizeof *names, compare_strings);
    for (size_t i = 0; i < n; i++) {
        if (unique == 0 || strcmp(names[unique - 1], names[i]) != 0) names[unique++] = names[i];
    }
    if (unique > MAX_FILES) {
        return cvq_fail(err, CVQ_FORMAT, path, "%zu files, more than the %d allowed", unique,
                        MAX_FILES);
    }
    void *files = NULL;
    CVQ_TRY(cvq_alloc(&files, unique, sizeof *s->files, "files of a checkpoint", err));
    s->files = files;
    for (; s->num_files < unique; s->num_files++) s->files[s->num_files].map.fd = -1;
    for (size_t i = 0; i < unique; i++) CVQ_TRY(set_file(&s->files[i], dir, names[i], err));
    return CVQ_OK;
}

/* Names in order, so that equal ones are neighbours. */
static cvq_status sort_names(cvq_safetensors *s, cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, s->count, sizeof *s->by_name, "names of tensors", err));
    s->by_name = p;
    for (size_t i = 0; i < s->count; i++) s->by_name[i] = &s->tensors[i];
    if (s->count > 1) qsort(s->by_name, s->count, sizeof *s->by_name, compare_names);
    for (size_t i = 1; i < s->count; i++) {
        const cvq_st_tensor *a = s->by_name[i - 1], *b = s->by_name[i];
        if (strcmp(a->name, b->name) == 0) {
            return cvq_fail(err, CVQ_FORMAT, s->files[b->file].path, "tensor %s is in %.100s, too",
                            a->name, s->files[a->file].name);
        }
    }
    return CVQ_OK;
}

/* Both lists in order of name; the first difference is named. */
static cvq_status compare_with_index(const cvq_safetensors *s, const cJSON *const *entries,
                                     size_t n, const char *path, cvq_error *err) {
    size_t i = 0, j = 0;
    while (i < n || j < s->count) {
        const cJSON *e = i < n ? entries[i] : NULL;
        const cvq_st_tensor *t = j < s->count ? s->by_name[j] : NULL;
        int order = !e ? 1 : !t ? -1 : strcmp(e->string, t->name);
        if (order < 0) {
            return cvq_fail(err, CVQ_FORMAT, path, "tensor %.200s should be in %.100s but is not",
                            e->string, e->valuestring);
        }
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): not without e, and then order < 0 */
        const char *file = s->files[t->file].name;
        if (order > 0) {
            return cvq_fail(err, CVQ_FORMAT, path, "tensor %s of %.100s is not in the index",
                            t->name, file);
        }
        if (strcmp(e->valuestring, file) != 0) {
            return cvq_fail(err, CVQ_FORMAT, path, "tensor %s should be in %.100s but is in %.100s",
                            t->name, e->valuestring, file);
        }
        i++;
        j++;
    }
    return CVQ_OK;
}

static cvq_status open_shards(cvq_safetensors *s, const char *dir, const char *path,
                              cvq_error *err) {
    cJSON *index = NULL;
    void *pointers = NULL;
    CVQ_TRY(cvq_json_read_file(&index, path, MAX_INDEX, err));
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    cvq_status status;
    if (!cJSON_IsObject(map) || !map->child) {
        status = cvq_fail(err, CVQ_FORMAT, path, "\"weight_map\" must be an object of names");
        goto done;
    }
    size_t n = (size_t)cJSON_GetArraySize(map);
    if ((status = cvq_alloc(&pointers, n, sizeof(void *), "index", err)) != CVQ_OK) goto done;
    if ((status = list_shards(s, dir, map, pointers, path, err)) != CVQ_OK) goto done;
    for (size_t i = 0; i < s->num_files && status == CVQ_OK; i++) status = load_file(s, i, err);
    if (status != CVQ_OK || (status = sort_names(s, err)) != CVQ_OK) goto done;
    const cJSON **entries = pointers;
    size_t k = 0;
    for (const cJSON *c = map->child; c; c = c->next) entries[k++] = c;
    qsort(entries, n, sizeof *entries, compare_entries);
    status = compare_with_index(s, entries, n, path, err);
done:
    free(pointers);
    cJSON_Delete(index);
    return status;
}

/* ---------------------------------------------------------------- opening */

static cvq_status open_single(cvq_safetensors *s, const char *path, cvq_error *err) {
    void *files = NULL;
    const char *slash = strrchr(path, '/');
    CVQ_TRY(cvq_alloc(&files, 1, sizeof *s->files, "files of a checkpoint", err));
    s->files = files;
    s->num_files = 1;
    s->files[0].map.fd = -1;
    CVQ_TRY(copy_string(&s->files[0].name, slash ? slash + 1 : path, err));
    CVQ_TRY(copy_string(&s->files[0].path, path, err));
    CVQ_TRY(load_file(s, 0, err));
    return sort_names(s, err);
}

static cvq_status open_directory(cvq_safetensors *s, const char *dir, cvq_error *err) {
    char *path = NULL;
    bool there = false;
    CVQ_TRY(cvq_path_join(&path, dir, INDEX_NAME, err));
    cvq_status status = cvq_file_there(&there, path, err);
    if (there) status = open_shards(s, dir, path, err);
    free(path);
    if (there || status != CVQ_OK) return status;
    CVQ_TRY(cvq_path_join(&path, dir, SINGLE_NAME, err));
    status = cvq_file_there(&there, path, err);
    if (there)
        status = open_single(s, path, err);
    else if (status == CVQ_OK)
        status = cvq_fail(err, CVQ_NOT_FOUND, dir,
                          "neither " INDEX_NAME " nor " SINGLE_NAME " is there");
    free(path);
    return status;
}

cvq_status cvq_safetensors_open(cvq_safetensors **out, const char *path, cvq_error *err) {
    struct stat st;
    void *p = NULL;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT) return cvq_fail(err, CVQ_NOT_FOUND, path, "no such file or folder");
        return cvq_fail_errno(err, path, "cannot open");
    }
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_safetensors), "checkpoint", err));
    cvq_status status =
        S_ISDIR(st.st_mode) ? open_directory(p, path, err) : open_single(p, path, err);
    if (status != CVQ_OK) {
        cvq_safetensors_close(p);
        return status;
    }
    *out = p;
    return CVQ_OK;
}

void cvq_safetensors_close(cvq_safetensors *s) {
    if (!s) return;
    for (size_t i = 0; i < s->count; i++) free((void *)(uintptr_t)s->tensors[i].name);
    for (size_t i = 0; i < s->num_files; i++) {
        free(s->files[i].name);
        free(s->files[i].path);
        cvq_file_map_close(&s->files[i].map);
    }
    free(s->by_name);
    free(s->tensors);
    free(s->files);
    free(s);
}

size_t cvq_safetensors_count(const cvq_safetensors *s) {
    return s->count;
}

const cvq_st_tensor *cvq_safetensors_at(const cvq_safetensors *s, size_t i) {
    return &s->tensors[i];
}

const cvq_st_tensor *cvq_safetensors_find(const cvq_safetensors *s, const char *name) {
    cvq_st_tensor key = {.name = name};
    const cvq_st_tensor *k = &key;
    const cvq_st_tensor **found =
        s->count ? bsearch(&k, s->by_name, s->count, sizeof *s->by_name, compare_names) : NULL;
    return found ? *found : NULL;
}

size_t cvq_safetensors_files(const cvq_safetensors *s) {
    return s->num_files;
}

const char *cvq_safetensors_file_name(const cvq_safetensors *s, size_t file) {
    return s->files[file].name;
}

const cvq_file_map *cvq_safetensors_file_map(const cvq_safetensors *s, size_t file) {
    return &s->files[file].map;
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

/* ---------------------------------------------------------------- writing */

struct cvq_st_writer {
    int fd;
    char *where;
    uint64_t at, end; /* file offsets: of the next byte, of the last */
};

/* "name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]} */
static cvq_status print_tensor(cvq_buffer *b, const cvq_st_tensor *t, uint64_t begin, uint64_t end,
                               cvq_error *err) {
    char text[128];
    CVQ_TRY(cvq_buffer_append(b, "\"", 1, err));
    for (const char *c = t->name; *c; c++) {
        if (*c == '"' || *c == '\\') CVQ_TRY(cvq_buffer_append(b, "\\", 1, err));
        CVQ_TRY(cvq_buffer_append(b, c, 1, err));
    }
    int n = snprintf(text, sizeof text, "\":{\"dtype\":\"%s\",\"shape\":[", dtypes[t->dtype].name);
    CVQ_TRY(cvq_buffer_append(b, text, (size_t)n, err));
    for (uint32_t i = 0; i < t->ndim; i++) {
        n = snprintf(text, sizeof text, "%s%llu", i ? "," : "", (unsigned long long)t->dims[i]);
        CVQ_TRY(cvq_buffer_append(b, text, (size_t)n, err));
    }
    n = snprintf(text, sizeof text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
                 (unsigned long long)end);
    return cvq_buffer_append(b, text, (size_t)n, err);
}

static cvq_status print_header(cvq_buffer *b, const cvq_st_tensor *tensors, size_t count,
                               uint64_t *data_size, const char *where, cvq_error *err) {
    uint64_t at = 0;
    CVQ_TRY(cvq_buffer_append_le(b, 0, 8, err)); /* the length comes last */
    for (size_t i = 0; i < count; i++) {
        const cvq_st_tensor *t = &tensors[i];
        uint64_t size, end;
        if ((unsigned)t->dtype >= CVQ_ST_DTYPES || t->ndim > CVQ_ST_MAX_DIMS ||
            !good_name(t->name)) {
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where,
                            "tensor %zu has no good name, dtype or number of dimensions", i);
        }
        if (!tensor_size(t, &size) || !cvq_add_u64(at, size, &end) || end > INT64_MAX) {
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "tensor %s is too large", t->name);
        }
        CVQ_TRY(cvq_buffer_append(b, i ? "," : "{", 1, err));
        CVQ_TRY(print_tensor(b, t, at, end, err));
        at = end;
    }
    CVQ_TRY(cvq_buffer_append(b, count ? "}" : "{}", count ? 1 : 2, err));
    while (b->size % 8 != 0) CVQ_TRY(cvq_buffer_append(b, " ", 1, err));
    if (b->size - 8 > MAX_HEADER) {
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "a header of more than %u bytes",
                        MAX_HEADER);
    }
    cvq_store_le(b->data, b->size - 8, 8);
    *data_size = at;
    return CVQ_OK;
}

static cvq_status check_different(const cvq_st_tensor *tensors, size_t count, const char *where,
                                  cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, count, sizeof(char *), "names of tensors", err));
    const cvq_st_tensor **sorted = p;
    cvq_status status = CVQ_OK;
    for (size_t i = 0; i < count; i++) sorted[i] = &tensors[i];
    if (count > 1) qsort(sorted, count, sizeof *sorted, compare_names);
    for (size_t i = 1; i < count && status == CVQ_OK; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            status = cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "tensor %s stands twice",
                              sorted[i]->name);
        }
    }
    free(p);
    return status;
}

cvq_status cvq_st_writer_open(cvq_st_writer **out, int fd, const cvq_st_tensor *tensors,
                              size_t count, const char *where, cvq_error *err) {
    cvq_buffer header = {0};
    void *p = NULL;
    uint64_t data_size = 0;
    cvq_status status = cvq_alloc(&p, 1, sizeof(cvq_st_writer), "safetensors writer", err);
    if (status != CVQ_OK) return status;
    cvq_st_writer *w = p;
    if ((status = copy_string(&w->where, where, err)) != CVQ_OK) goto done;
    if ((status = print_header(&header, tensors, count, &data_size, where, err)) != CVQ_OK) {
        goto done;
    }
    if ((status = check_different(tensors, count, where, err)) != CVQ_OK) goto done;
    w->fd = fd;
    w->at = header.size;
    w->end = header.size + data_size; /* both below 2^63 */
    status = cvq_write_all(fd, 0, header.data, header.size, where, err);
done:
    cvq_buffer_free(&header);
    if (status != CVQ_OK) {
        cvq_st_writer_free(w);
        return status;
    }
    *out = w;
    return CVQ_OK;
}

static cvq_status check_room(const cvq_st_writer *w, uint64_t size, cvq_error *err) {
    if (size <= w->end - w->at) return CVQ_OK;
    return cvq_fail(err, CVQ_INVALID_ARGUMENT, w->where,
                    "%llu bytes more than the tensors announced",
                    (unsigned long long)(size - (w->end - w->at)));
}

cvq_status cvq_st_writer_append(cvq_st_writer *w, const void *data, size_t size, cvq_error *err) {
    CVQ_TRY(check_room(w, size, err));
    CVQ_TRY(cvq_write_all(w->fd, w->at, data, size, w->where, err));
    w->at += size;
    return CVQ_OK;
}

cvq_status cvq_st_writer_skip(cvq_st_writer *w, uint64_t size, cvq_error *err) {
    struct stat st;
    CVQ_TRY(check_room(w, size, err));
    w->at += size;
    if (fstat(w->fd, &st) != 0) return cvq_fail_errno(err, w->where, "cannot tell its size");
    /* A hole at the file's end has to be made. */
    if ((uint64_t)st.st_size < w->at && ftruncate(w->fd, (off_t)w->at) != 0)
        return cvq_fail_errno(err, w->where, "cannot make it longer");
    return CVQ_OK;
}

cvq_status cvq_st_writer_finish(cvq_st_writer *w, cvq_error *err) {
    cvq_status status = CVQ_OK;
    if (w->at != w->end) {
        status = cvq_fail(err, CVQ_INVALID_ARGUMENT, w->where,
                          "%llu bytes fewer than the tensors announced",
                          (unsigned long long)(w->end - w->at));
    }
    cvq_st_writer_free(w);
    return status;
}

void cvq_st_writer_free(cvq_st_writer *w) {
    if (!w) return;
    free(w->where);
    free(w);
}
