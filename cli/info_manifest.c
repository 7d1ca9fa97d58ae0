/* Manifests: printed, read with their signature, and compared with an older file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cli/info.h"
#include "cli/manifest_file.h"
#include "formats/minisign.h"

#define MAX_QUALITY (1u << 20)

cvq_status info_manifest_print(const info_arguments *args, cvq_error *err) {
    cvq_reader *r = NULL;
    cJSON *quality = NULL;
    cvq_buffer text = {0};
    cvq_status status = cvq_reader_open(&r, args->manifest, err);
    if (status == CVQ_OK && args->quality)
        status = cvq_json_read_file(&quality, args->quality, MAX_QUALITY, err);
    if (status == CVQ_OK && quality && !cJSON_IsObject(quality))
        status = cvq_fail(err, CVQ_FORMAT, args->quality, "must be one JSON object");
    if (status == CVQ_OK) status = cvq_manifest_print(r, quality, &text, err);
    if (status == CVQ_OK) fwrite(text.data, 1, text.size, stdout);
    cvq_buffer_free(&text);
    cJSON_Delete(quality);
    cvq_reader_close(r);
    return status;
}

/* ---------------------------------------------------------------- reading */

/* --pubkey is a .pub file, or the key itself. */
static cvq_status read_key(const char *given, cvq_buffer *key, cvq_error *err) {
    if (strncmp(given, "RW", 2) == 0 && strlen(given) == 56)
        return cvq_buffer_append(key, given, strlen(given), err);
    return cvq_read_file(key, given, CVQ_MAX_SIGNATURE, err);
}

bool info_signature_name(char *name, size_t size, const char *manifest) {
    return (size_t)snprintf(name, size, "%s.minisig", manifest) < size;
}

static cvq_status check_signature(const info_arguments *args, const char *path,
                                  const cvq_buffer *text, cvq_error *err) {
    cvq_buffer key = {0}, signature = {0};
    char comment[256], name[4096];
    cvq_status status = read_key(args->pubkey, &key, err);
    if (status == CVQ_OK && !info_signature_name(name, sizeof name, path))
        status = cvq_fail(err, CVQ_INVALID_ARGUMENT, path, "its name is too long");
    if (status == CVQ_OK) status = cvq_read_file(&signature, name, CVQ_MAX_SIGNATURE, err);
    if (status == CVQ_OK)
        status = cvq_minisign_verify(text->data, text->size, (const char *)signature.data,
                                     signature.size, (const char *)key.data, key.size, comment,
                                     sizeof comment, path, err);
    if (status == CVQ_OK)
        cvq_say_note(&args->common, "the manifest's signature is right; its comment: %s", comment);
    cvq_buffer_free(&key);
    cvq_buffer_free(&signature);
    return status;
}

cvq_status info_manifest_read(const info_arguments *args, const char *path, cvq_manifest *m,
                              cvq_error *err) {
    cvq_buffer text = {0};
    bool model = false;
    cvq_status status = cvq_manifest_text(&text, &model, path, err);
    if (status == CVQ_OK && model)
        status =
            cvq_fail(err, CVQ_INVALID_ARGUMENT, path,
                     "is a .cvq file and no manifest; cvq-info --manifest prints that of a file");
    if (status == CVQ_OK && args->pubkey)
        status = check_signature(args, path, &text, err);
    else if (status == CVQ_OK)
        cvq_say_note(&args->common,
                     "the manifest's signature was not checked; give its publisher's --pubkey");
    if (status == CVQ_OK)
        status = cvq_manifest_parse(m, (const char *)text.data, text.size, path, err);
    cvq_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- updates */

/* Whether the older file has these bytes: somewhere in its tensors, or, of the head, in the same
 * place. */
static cvq_status find(bool *has, const cvq_reader *old, const cvq_extents *contents,
                       const cvq_extent *x, cvq_error *err) {
    const cvq_file_map *map = cvq_reader_map(old);
    *has = !x->hash || cvq_extents_find(contents, x);
    if (*has || x->owner != CVQ_OWNER_HEAD || !cvq_range_within(x->offset, x->size, map->size))
        return CVQ_OK;
    return cvq_extent_match(x, map->data + x->offset, has, err);
}

typedef struct diff_totals {
    uint64_t needed, all;
} diff_totals;

static void print_ranges(const cvq_manifest *m, const bool *have, diff_totals *totals) {
    const cvq_extents *e = &m->extents;
    puts("offset\tbytes\ttensor");
    for (size_t i = 0; i < e->count;) {
        const cvq_extent *first = &e->items[i];
        uint64_t size = 0;
        if (have[i]) {
            totals->all += e->items[i++].size;
            continue;
        }
        while (i < e->count && !have[i] && e->items[i].owner == first->owner)
            size += e->items[i++].size;
        totals->all += size;
        totals->needed += size;
        printf("%" PRIu64 "\t%" PRIu64 "\t%s\n", first->offset, size,
               cvq_manifest_owner(m, first->owner));
    }
}

cvq_status info_diff(const info_arguments *args, cvq_error *err) {
    cvq_manifest m = {0};
    cvq_reader *old = NULL;
    cvq_extents have = {0};
    void *found = NULL;
    diff_totals totals = {0};
    char needed[32], all[32];
    cvq_status status = info_manifest_read(args, args->diff, &m, err);
    if (status == CVQ_OK) status = cvq_reader_open(&old, args->common.operands[0], err);
    if (status == CVQ_OK) status = cvq_reader_extents(old, &have, err);
    if (status == CVQ_OK) status = cvq_alloc(&found, m.extents.count, sizeof(bool), "a list", err);
    if (status != CVQ_OK) goto done;
    cvq_extents_sort_by_hash(&have);
    for (size_t i = 0; status == CVQ_OK && i < m.extents.count; i++)
        status = find((bool *)found + i, old, &have, &m.extents.items[i], err);
    if (status != CVQ_OK) goto done;
    print_ranges(&m, found, &totals);
    cvq_say_note(&args->common, "%s of %s are to be fetched; the rest is in %s",
                 cvq_human_bytes(totals.needed, needed), cvq_human_bytes(totals.all, all),
                 cvq_reader_path(old));
done:
    free(found);
    cvq_extents_free(&have);
    cvq_reader_close(old);
    cvq_manifest_free(&m);
    return status;
}
