/* Manifests: printed from an opened file, and read back as extents with their hashes. */
#include "formats/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/metadata.h"

#define MAX_TENSORS 65536 /* far above any config's */

/* ---------------------------------------------------------------- printing */

static void append_hash(cJSON *array, const uint8_t *hash) {
    char hex[2 * CVQ_HASH_BYTES + 1];
    cvq_hash_hex(hash, hex);
    cvq_json_append(array, cJSON_CreateString(hex));
}

static void add_file(cJSON *root, const cvq_reader *r) {
    const char *path = cvq_reader_path(r), *slash = strrchr(path, '/');
    char hex[2 * CVQ_HASH_BYTES + 1];
    cvq_hash_hex(cvq_reader_id(r), hex);
    cJSON *file = cvq_json_add_object(root, "file");
    cvq_json_add_string(file, "name", slash ? slash + 1 : path);
    cvq_json_add_u64(file, "bytes", cvq_reader_file_size(r));
    cvq_json_add_string(file, "id", hex);
    cvq_json_add_u64(file, "format_version", CVQ_FILE_VERSION);
}

/* Licences by name and hash. */
static cvq_status add_licenses(cJSON *root, const cvq_metadata *m, cvq_error *err) {
    cJSON *licenses = cvq_json_add_array(root, "licenses");
    for (size_t i = 0; i < m->num_licenses; i++) {
        uint8_t hash[CVQ_HASH_BYTES];
        char hex[2 * CVQ_HASH_BYTES + 1];
        const char *text = m->licenses[i].text;
        CVQ_TRY(cvq_sha256(text, strlen(text), hash, err));
        cvq_hash_hex(hash, hex);
        cJSON *license = cJSON_CreateObject();
        cvq_json_append(licenses, license);
        cvq_json_add_string(license, "name", m->licenses[i].name);
        cvq_json_add_string(license, "sha256", hex);
    }
    return CVQ_OK;
}

static cvq_status add_metadata(cJSON *root, const cvq_reader *r, cvq_error *err) {
    cvq_buffer text = {0};
    cvq_metadata m = {0};
    cvq_status status = cvq_reader_metadata(r, &text, err);
    if (status == CVQ_OK)
        status =
            cvq_metadata_parse(&m, (const char *)text.data, text.size, cvq_reader_path(r), err);
    if (status == CVQ_OK) {
        cvq_metadata_add_origin(root, &m);
        status = add_licenses(root, &m, err);
    }
    cvq_metadata_free(&m);
    cvq_buffer_free(&text);
    return status;
}

static cvq_status add_head(cJSON *root, const cvq_reader *r, cvq_error *err) {
    const uint8_t *data = cvq_reader_map(r)->data;
    const uint64_t bytes = cvq_reader_tensor(r, 0)->offset;
    cJSON *head = cvq_json_add_object(root, "head");
    cvq_json_add_u64(head, "bytes", bytes);
    cJSON *hashes = cvq_json_add_array(head, "sha256");
    for (uint64_t at = 0; at < bytes; at += CVQ_CHUNK_BYTES) {
        uint8_t hash[CVQ_HASH_BYTES];
        const uint64_t n = bytes - at < CVQ_CHUNK_BYTES ? bytes - at : CVQ_CHUNK_BYTES;
        CVQ_TRY(cvq_sha256(data + at, (size_t)n, hash, err));
        append_hash(hashes, hash);
    }
    return CVQ_OK;
}

static void add_tensors(cJSON *root, const cvq_reader *r) {
    cJSON *tensors = cvq_json_add_array(root, "tensors");
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        cJSON *tensor = cJSON_CreateObject();
        cvq_json_append(tensors, tensor);
        cvq_json_add_string(tensor, "name", t->spec.name);
        cvq_json_add_string(tensor, "type", cvq_type_describe(t->type)->name);
        cvq_json_add_u64(tensor, "offset", t->offset);
        cvq_json_add_u64(tensor, "bytes", t->size);
        cJSON *hashes = cvq_json_add_array(tensor, "sha256");
        for (uint64_t at = 0; at < t->size; at += CVQ_CHUNK_BYTES)
            append_hash(hashes, cvq_reader_chunk_hash(r, t->first_chunk + at / CVQ_CHUNK_BYTES));
    }
}

cvq_status cvq_manifest_print(const cvq_reader *r, const cJSON *quality, cvq_buffer *text,
                              cvq_error *err) {
    cJSON *root = cJSON_CreateObject();
    cvq_json_add_string(root, "format", "cvq-manifest");
    cvq_json_add_u64(root, "version", CVQ_MANIFEST_VERSION);
    add_file(root, r);
    cvq_status status = add_metadata(root, r, err);
    if (quality) cvq_json_add_item(root, "quality", cJSON_Duplicate(quality, true));
    if (status == CVQ_OK) status = add_head(root, r, err);
    if (status == CVQ_OK) {
        add_tensors(root, r);
        status = cvq_json_print(text, root, err);
    }
    if (status == CVQ_OK) status = cvq_buffer_append(text, "\n", 1, err);
    cJSON_Delete(root);
    return status;
}

/* ---------------------------------------------------------------- parsing */

typedef struct parser {
    cvq_manifest *m;
    const char *where;
    cvq_error *err;
    uint8_t *next_hash; /* into m->hashes */
} parser;

static cvq_status member(const parser *p, const cJSON *object, const char *key, bool array,
                         const cJSON **out) {
    *out = cJSON_GetObjectItemCaseSensitive(object, key);
    if (*out && (array ? cJSON_IsArray(*out) : cJSON_IsObject(*out))) return CVQ_OK;
    return cvq_fail(p->err, CVQ_FORMAT, p->where, "manifest: \"%s\" must be %s", key,
                    array ? "an array" : "an object");
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static cvq_status parse_hash(const parser *p, const cJSON *value, uint8_t *hash) {
    const char *hex = cJSON_IsString(value) ? value->valuestring : "";
    bool ok = strlen(hex) == 2 * CVQ_HASH_BYTES;
    for (size_t i = 0; ok && i < CVQ_HASH_BYTES; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        ok = high >= 0 && low >= 0;
        if (ok) hash[i] = (uint8_t)(high << 4 | low);
    }
    if (ok) return CVQ_OK;
    return cvq_fail(p->err, CVQ_FORMAT, p->where,
                    "manifest: a SHA-256 must be 64 lower-case hexadecimal digits");
}

/* A part with "bytes" and "sha256", at offset. */
static cvq_status parse_part(parser *p, const cJSON *part, const char *name, size_t owner,
                             uint64_t offset) {
    uint64_t bytes = 0;
    const cJSON *hashes;
    CVQ_TRY(cvq_json_u64(part, "bytes", true, p->m->file_bytes, &bytes, p->where, p->err));
    CVQ_TRY(member(p, part, "sha256", true, &hashes));
    if (bytes == 0 || offset < p->m->extents.end ||
        !cvq_range_within(offset, bytes, p->m->file_bytes))
        return cvq_fail(p->err, CVQ_FORMAT, p->where,
                        "manifest: %s lies before the part in front of it or past the file's end",
                        name);
    if (offset - p->m->extents.end >= CVQ_ALIGNMENT)
        return cvq_fail(p->err, CVQ_FORMAT, p->where, "manifest: a gap in front of %s", name);
    uint64_t count = 0;
    uint8_t *first = p->next_hash;
    for (const cJSON *h = hashes->child; h; h = h->next, count++) {
        CVQ_TRY(parse_hash(p, h, p->next_hash));
        p->next_hash += CVQ_HASH_BYTES;
    }
    if (count != (bytes - 1) / CVQ_CHUNK_BYTES + 1)
        return cvq_fail(p->err, CVQ_FORMAT, p->where,
                        "manifest: %s has %llu hashes; its %llu bytes need one for each MiB", name,
                        (unsigned long long)count, (unsigned long long)bytes);
    return cvq_extents_add(&p->m->extents, owner, offset, bytes, first, p->err);
}

static cvq_status parse_file(parser *p, const cJSON *root) {
    const cJSON *file, *id;
    uint64_t version = 0;
    CVQ_TRY(member(p, root, "file", false, &file));
    CVQ_TRY(cvq_json_string(file, "name", true, &p->m->file, p->where, p->err));
    CVQ_TRY(
        cvq_json_u64(file, "bytes", true, (uint64_t)1 << 53, &p->m->file_bytes, p->where, p->err));
    CVQ_TRY(cvq_json_u64(file, "format_version", true, UINT32_MAX, &version, p->where, p->err));
    p->m->format_version = (uint32_t)version;
    id = cJSON_GetObjectItemCaseSensitive(file, "id");
    CVQ_TRY(parse_hash(p, id, p->m->id));
    if (!p->m->file[0] || strchr(p->m->file, '/') || strcmp(p->m->file, "..") == 0)
        return cvq_fail(p->err, CVQ_FORMAT, p->where,
                        "manifest: the file's name must be a name without folders");
    return CVQ_OK;
}

/* Printable ASCII without spaces, as long as a name can be in a file: it is printed in lists. */
static bool name_possible(const char *name) {
    size_t n = 0;
    while (name[n] > ' ' && name[n] < 0x7f) n++;
    return n > 0 && n < CVQ_MAX_TENSOR_NAME && !name[n];
}

static cvq_status parse_tensors(parser *p, const cJSON *tensors) {
    for (const cJSON *t = tensors->child; t; t = t->next) {
        cvq_manifest_tensor *tensor = &p->m->tensors[p->m->num_tensors];
        CVQ_TRY(cvq_json_string(t, "name", true, &tensor->name, p->where, p->err));
        if (!name_possible(tensor->name))
            return cvq_fail(p->err, CVQ_FORMAT, p->where,
                            "manifest: \"%.100s\" is no name of a tensor", tensor->name);
        CVQ_TRY(cvq_json_string(t, "type", true, &tensor->type, p->where, p->err));
        CVQ_TRY(
            cvq_json_u64(t, "offset", true, p->m->file_bytes, &tensor->offset, p->where, p->err));
        tensor->hashes = p->next_hash;
        CVQ_TRY(parse_part(p, t, tensor->name, p->m->num_tensors++, tensor->offset));
        tensor->bytes = p->m->extents.end - tensor->offset;
    }
    return CVQ_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Damage is told by the tensor's name. */
static cvq_status check_names(const parser *p) {
    const size_t count = p->m->num_tensors;
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, count, sizeof(const char *), "a manifest", p->err));
    const char **names = memory;
    for (size_t i = 0; i < count; i++) names[i] = p->m->tensors[i].name;
    qsort(names, count, sizeof *names, compare_names);
    cvq_status status = CVQ_OK;
    for (size_t i = 1; status == CVQ_OK && i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = cvq_fail(p->err, CVQ_FORMAT, p->where,
                              "manifest: the tensor %.200s stands twice", names[i]);
    free(memory);
    return status;
}

/* How many strings stand in all arrays "sha256": room for the hashes. */
static uint64_t count_hashes(const cJSON *head, const cJSON *tensors) {
    uint64_t n = (uint64_t)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(head, "sha256"));
    for (const cJSON *t = tensors->child; t; t = t->next)
        n += (uint64_t)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(t, "sha256"));
    return n;
}

static cvq_status parse_all(parser *p, const cJSON *root) {
    const char *format = "";
    uint64_t version = 0;
    const cJSON *head, *tensors;
    void *memory = NULL;
    if (!cJSON_IsObject(root))
        return cvq_fail(p->err, CVQ_FORMAT, p->where, "manifest: must be an object");
    CVQ_TRY(cvq_json_string(root, "format", true, &format, p->where, p->err));
    if (strcmp(format, "cvq-manifest") != 0)
        return cvq_fail(p->err, CVQ_FORMAT, p->where,
                        "is not a manifest of a .cvq file: \"format\" must be \"cvq-manifest\"");
    CVQ_TRY(cvq_json_u64(root, "version", true, UINT32_MAX, &version, p->where, p->err));
    if (version != CVQ_MANIFEST_VERSION)
        return cvq_fail(p->err, CVQ_UNSUPPORTED, p->where,
                        "manifest of version %llu; this program reads version %u: get a newer cvq",
                        (unsigned long long)version, CVQ_MANIFEST_VERSION);
    CVQ_TRY(parse_file(p, root));
    CVQ_TRY(member(p, root, "head", false, &head));
    CVQ_TRY(member(p, root, "tensors", true, &tensors));
    const size_t count = (size_t)cJSON_GetArraySize(tensors);
    if (count == 0 || count > MAX_TENSORS)
        return cvq_fail(p->err, CVQ_FORMAT, p->where, "manifest: %zu tensors", count);
    CVQ_TRY(cvq_alloc(&memory, count, sizeof *p->m->tensors, "a manifest", p->err));
    p->m->tensors = memory;
    CVQ_TRY(cvq_alloc(&memory, count_hashes(head, tensors), CVQ_HASH_BYTES, "a manifest", p->err));
    p->m->head_hashes = p->m->hashes = p->next_hash = memory;
    CVQ_TRY(parse_part(p, head, "the head", CVQ_OWNER_HEAD, 0));
    p->m->head_bytes = p->m->extents.end;
    CVQ_TRY(parse_tensors(p, tensors));
    CVQ_TRY(check_names(p));
    if (p->m->extents.end != p->m->file_bytes)
        return cvq_fail(p->err, CVQ_FORMAT, p->where,
                        "manifest: the last tensor does not end with the file");
    return CVQ_OK;
}

cvq_status cvq_manifest_parse(cvq_manifest *m, const char *text, size_t size, const char *where,
                              cvq_error *err) {
    *m = (cvq_manifest){0};
    cvq_error problem = {0};
    parser p = {.m = m, .where = where, .err = &problem};
    cvq_status status = cvq_json_parse(&m->json, text, size, where, &problem);
    if (status == CVQ_OK) status = parse_all(&p, m->json);
    if (status == CVQ_OK) return CVQ_OK;
    cvq_manifest_free(m);
    return cvq_fail_advising(err, where, &problem,
                             status == CVQ_FORMAT ? "; fetch the manifest again" : "");
}

void cvq_manifest_free(cvq_manifest *m) {
    if (!m) return;
    cJSON_Delete(m->json);
    cvq_extents_free(&m->extents);
    free(m->tensors);
    free(m->hashes);
    *m = (cvq_manifest){0};
}

const char *cvq_manifest_owner(const cvq_manifest *m, size_t owner) {
    if (owner == CVQ_OWNER_HEAD) return "head";
    return owner == CVQ_OWNER_PADDING ? "padding" : m->tensors[owner].name;
}
