/* A checkpoint of safetensors files: one, or shards that are checked against their index in both
 * directions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/json.h"
#include "formats/safetensors_internal.h"

#define MAX_INDEX (64u << 20)
#define MAX_FILES 512 /* each keeps a descriptor open */
#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"
#define SUFFIX ".safetensors"

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_entries(const void *a, const void *b) {
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

/* A plain base name: shards lie beside their index. */
static bool good_shard_name(const char *name) {
    size_t n = strlen(name), suffix = strlen(SUFFIX);
    return cvq_st_good_name(name) && n > suffix && strcmp(name + n - suffix, SUFFIX) == 0 &&
           name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

static cvq_status set_file(cvq_st_file *f, const char *dir, const char *name, cvq_error *err) {
    CVQ_TRY(cvq_st_copy_string(&f->name, name, err));
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
    if (s->count > 1) qsort(s->by_name, s->count, sizeof *s->by_name, cvq_st_compare_names);
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
    for (size_t i = 0; i < s->num_files && status == CVQ_OK; i++)
        status = cvq_st_load_file(s, i, err);
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
    CVQ_TRY(cvq_st_copy_string(&s->files[0].name, slash ? slash + 1 : path, err));
    CVQ_TRY(cvq_st_copy_string(&s->files[0].path, path, err));
    CVQ_TRY(cvq_st_load_file(s, 0, err));
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
        s->count ? bsearch(&k, s->by_name, s->count, sizeof *s->by_name, cvq_st_compare_names)
                 : NULL;
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
