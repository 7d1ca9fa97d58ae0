#include "convert/reproduce.h"

#include <stdlib.h>
#include <string.h>

#define DIFFERS(...) cvq_fail(err, CVQ_MISMATCH, where, __VA_ARGS__)
#define ULL(x) ((unsigned long long)(x))

/* ---------------------------------------------------------------- the stages */

static const cvq_source_file *find_file(const cvq_metadata *m, const char *name) {
    for (size_t i = 0; i < m->num_files; i++)
        if (strcmp(m->files[i].name, name) == 0) return &m->files[i];
    return NULL;
}

/* A file whose hash is not known yet has zeros there. */
static bool hash_known(const cvq_source_file *f) {
    return strspn(f->sha256, "0") < CVQ_HASH_DIGITS;
}

/* Both lists name a file once. */
static cvq_status expect_sources(const cvq_metadata *expected, const cvq_metadata *found,
                                 const char *where, cvq_error *err) {
    for (size_t i = 0; i < expected->num_files; i++) {
        const cvq_source_file *e = &expected->files[i], *f = find_file(found, e->name);
        if (!f) return DIFFERS("was made from a checkpoint with a %s, which is not there", e->name);
        if (f->size != e->size || (hash_known(f) && strcmp(f->sha256, e->sha256) != 0))
            return DIFFERS("was made from another %s: %llu bytes with SHA-256 %s", e->name,
                           (unsigned long long)e->size, e->sha256);
    }
    for (size_t i = 0; i < found->num_files; i++)
        if (!find_file(expected, found->files[i].name))
            return DIFFERS("was made from a checkpoint without a %s, which is there",
                           found->files[i].name);
    return CVQ_OK;
}

static cvq_status check_sources(const cvq_manifest *m, const cvq_metadata *metadata,
                                const char *where, cvq_error *err) {
    cvq_metadata origin = {0};
    cvq_status status = cvq_metadata_parse_origin(&origin, m->json, where, err);
    if (status == CVQ_OK) status = expect_sources(&origin, metadata, where, err);
    cvq_metadata_free(&origin);
    return status;
}

/* What the manifest says of the file's licences, by name and hash of the text. */
static cvq_status check_licenses(const cvq_manifest *m, const cvq_metadata *metadata,
                                 const char *where, cvq_error *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(m->json, "licenses");
    const cJSON *item = cJSON_IsArray(list) ? list->child : NULL;
    for (size_t i = 0; i < metadata->num_licenses; i++, item = item->next) {
        const cvq_named_text *license = &metadata->licenses[i];
        const char *name = NULL, *sha256 = NULL;
        uint8_t hash[CVQ_HASH_BYTES];
        char hex[CVQ_HASH_DIGITS + 1];
        if (!item) return DIFFERS("does not tell of the licence %s, which is there", license->name);
        CVQ_TRY(cvq_json_string(item, "name", true, &name, where, err));
        CVQ_TRY(cvq_json_string(item, "sha256", true, &sha256, where, err));
        CVQ_TRY(cvq_sha256(license->text, strlen(license->text), hash, err));
        cvq_hash_hex(hash, hex);
        if (strcmp(name, license->name) != 0 || strcmp(sha256, hex) != 0)
            return DIFFERS("tells of a licence %s with SHA-256 %s where its checkpoint has %s with "
                           "%s",
                           name, sha256, license->name, hex);
    }
    if (item) return DIFFERS("tells of a licence that its checkpoint does not have");
    return CVQ_OK;
}

/* Where everything lies. */
static cvq_status check_places(const cvq_manifest *m, const cvq_writer *w, const char *where,
                               cvq_error *err) {
    uint64_t head_bytes;
    cvq_writer_head(w, &head_bytes);
    if (m->format_version != CVQ_FILE_VERSION)
        return DIFFERS("is of format version %u, its checkpoint gives version %u",
                       m->format_version, CVQ_FILE_VERSION);
    if (m->head_bytes != head_bytes)
        return DIFFERS("has a head of %llu bytes, its checkpoint and recipe give one of %llu",
                       ULL(m->head_bytes), ULL(head_bytes));
    for (size_t i = 0; i < m->num_tensors; i++) {
        const uint64_t offset = cvq_writer_tensor(w, i)->offset;
        if (m->tensors[i].offset != offset)
            return DIFFERS("tensor %s: begins at byte %llu, its checkpoint and recipe give %llu",
                           m->tensors[i].name, ULL(m->tensors[i].offset), ULL(offset));
    }
    return CVQ_OK; /* a manifest's file ends with its last tensor, as every file */
}

cvq_status cvq_expect_plan(const cvq_manifest *m, const cvq_writer *w, const cvq_metadata *metadata,
                           const char *where, cvq_error *err) {
    CVQ_TRY(check_sources(m, metadata, where, err));
    if (m->num_tensors != cvq_writer_tensor_count(w))
        return DIFFERS("has %zu tensors, its checkpoint gives %zu", m->num_tensors,
                       cvq_writer_tensor_count(w));
    for (size_t i = 0; i < m->num_tensors; i++) {
        const cvq_manifest_tensor *e = &m->tensors[i];
        const cvq_tensor *t = cvq_writer_tensor(w, i);
        const char *type = cvq_type_describe(t->type)->name;
        if (strcmp(e->name, t->spec.name) != 0)
            return DIFFERS("has the tensor %s where its checkpoint gives %s", e->name,
                           t->spec.name);
        if (strcmp(e->type, type) != 0 || e->bytes != t->size)
            return DIFFERS("tensor %s: has %llu bytes of %s, its recipe gives %llu of %s", e->name,
                           (unsigned long long)e->bytes, e->type, (unsigned long long)t->size,
                           type);
    }
    CVQ_TRY(check_licenses(m, metadata, where, err));
    return check_places(m, w, where, err);
}

cvq_status cvq_expect_tensor(const cvq_manifest *m, const cvq_writer *w, size_t tensor,
                             const char *where, cvq_error *err) {
    const cvq_manifest_tensor *e = &m->tensors[tensor];
    size_t chunks;
    const uint8_t *hashes = cvq_writer_hashes(w, tensor, &chunks);
    for (size_t i = 0; i < chunks; i++) {
        if (memcmp(hashes + CVQ_HASH_BYTES * i, e->hashes + CVQ_HASH_BYTES * i, CVQ_HASH_BYTES) ==
            0)
            continue;
        const uint64_t first = (uint64_t)CVQ_CHUNK_BYTES * i, left = e->bytes - first;
        return DIFFERS(
            "tensor %s: bytes %llu to %llu of it are not what its checkpoint and recipe "
            "give",
            e->name, (unsigned long long)first,
            (unsigned long long)(first + (left < CVQ_CHUNK_BYTES ? left : CVQ_CHUNK_BYTES) - 1));
    }
    return CVQ_OK;
}

cvq_status cvq_expect_head(const cvq_manifest *m, const cvq_writer *w,
                           const uint8_t id[CVQ_ID_BYTES], const cvq_metadata *metadata,
                           const char *where, cvq_error *err) {
    uint64_t size;
    const uint8_t *head = cvq_writer_head(w, &size);
    CVQ_TRY(check_sources(m, metadata, where, err));
    if (memcmp(id, m->id, CVQ_ID_BYTES) != 0)
        return DIFFERS("every weight is what its checkpoint and recipe give, but something else in "
                       "its head (config, tokenizer, metadata) is not");
    for (uint64_t at = 0; at < size; at += CVQ_CHUNK_BYTES) {
        const uint64_t n = size - at < CVQ_CHUNK_BYTES ? size - at : CVQ_CHUNK_BYTES;
        uint8_t hash[CVQ_HASH_BYTES];
        CVQ_TRY(cvq_sha256(head + at, (size_t)n, hash, err));
        if (memcmp(hash, m->head_hashes + at / CVQ_CHUNK_BYTES * CVQ_HASH_BYTES, sizeof hash) != 0)
            return DIFFERS("has the id that its checkpoint and recipe give, but says of bytes %llu "
                           "to %llu of the head what is not so: the manifest was changed",
                           ULL(at), ULL(at + n - 1));
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- converting again */

/* expected: SHA-256 in hexadecimal, or "". */
static cvq_status expect_calibration(const char *expected, const uint8_t *given, const char *what,
                                     const char *option, const char *where, cvq_error *err) {
    char hex[CVQ_HASH_DIGITS + 1] = "";
    if (given) cvq_hash_hex(given, hex);
    if (strcmp(hex, expected) == 0) return CVQ_OK;
    if (!expected[0]) return DIFFERS("was made without %s: leave %s out", what, option);
    return DIFFERS("was made with %s from the file with SHA-256 %s: give that file with %s", what,
                   expected, option);
}

static cvq_status expect_calibrations(const cvq_metadata *origin, const cvq_quantize_options *o,
                                      const char *where, cvq_error *err) {
    CVQ_TRY(expect_calibration(origin->importance,
                               o->importance ? cvq_importance_hash(o->importance) : NULL,
                               "the importance of inputs", "--imatrix", where, err));
    return expect_calibration(origin->second_moments,
                              o->moments ? cvq_second_moments_file_hash(o->moments) : NULL,
                              "feedback", "--feedback", where, err);
}

cvq_status cvq_reproduce(const cvq_checkpoint *c, const cvq_manifest *m,
                         const cvq_convert_options *options, const char *where,
                         cvq_convert_result *result, cvq_error *err) {
    cvq_metadata origin = {0};
    cvq_recipe *recipe = NULL;
    cvq_convert_options o = *options;
    const cvq_convert_target target = {
        .fd = CVQ_WRITE_NOTHING, .journal = -1, .where = where, .expected = m};
    cvq_status status = cvq_metadata_parse_origin(&origin, m->json, where, err);
    if (status == CVQ_OK) status = expect_calibrations(&origin, &o.quantize, where, err);
    if (status == CVQ_OK)
        status =
            cvq_recipe_of_rules(&recipe, origin.recipe, origin.rules, origin.num_rules, where, err);
    o.revision = origin.revision;
    o.card = origin.card;
    if (status == CVQ_OK) status = cvq_convert(c, recipe, &o, &target, result, err);
    cvq_recipe_free(recipe);
    cvq_metadata_free(&origin);
    return status;
}
