/* What a .cvq file tells about its source: base name, size and SHA-256 of every file of the
 * checkpoint, and the licence texts themselves. Nothing of this depends on where the checkpoint
 * lies, when it was converted or by how many threads. */
#include "convert/provenance.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file_map.h"
#include "base/memory.h"

#define MAX_LICENSES 64
#define MAX_REVISION 100

/* Files that a checkpoint may have beside its weights and licences. */
static const char *const small_files[] = {"config.json", "generation_config.json", "tokenizer.json",
                                          "model.safetensors.index.json"};
#define SMALL_FILES (sizeof small_files / sizeof *small_files)

static cvq_status copy_text(char **out, const char *text, size_t size, cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, (uint64_t)size + 1, 1, "provenance", err));
    memcpy(p, text, size);
    *out = p;
    return CVQ_OK;
}

cvq_status cvq_text_read(cvq_buffer *text, const char *path, cvq_error *err) {
    CVQ_TRY(cvq_read_file(text, path, CVQ_MAX_TEXT, err));
    if (cvq_utf8_valid((const char *)text->data, text->size)) return CVQ_OK;
    cvq_buffer_free(text);
    return cvq_fail(err, CVQ_FORMAT, path, "not UTF-8 text: convert it to UTF-8");
}

/* ---------------------------------------------------------------- licences */

static bool is_license_name(const char *name) {
    return strstr(name, "LICENSE") || strncmp(name, "USE_POLICY", 10) == 0 ||
           strncmp(name, "NOTICE", 6) == 0;
}

static int compare_texts(const void *a, const void *b) {
    return strcmp(((const cvq_named_text *)a)->name, ((const cvq_named_text *)b)->name);
}

/* Adds the text if the path is a regular file (links are followed). */
static cvq_status add_license(cvq_metadata *m, const char *path, const char *name, cvq_error *err) {
    struct stat st;
    cvq_buffer text = {0};
    if (stat(path, &st) != 0) return cvq_fail_errno(err, path, "cannot read this licence");
    if (!S_ISREG(st.st_mode)) return CVQ_OK;
    if (m->num_licenses == MAX_LICENSES) {
        return cvq_fail(err, CVQ_UNSUPPORTED, path, "more than %d licence texts", MAX_LICENSES);
    }
    cvq_status status = cvq_text_read(&text, path, err);
    cvq_named_text *l = &m->licenses[m->num_licenses];
    if (status == CVQ_OK) status = copy_text(&l->name, name, strlen(name), err);
    if (status == CVQ_OK) status = copy_text(&l->text, (const char *)text.data, text.size, err);
    if (status == CVQ_OK) {
        m->num_licenses++;
    } else {
        free(l->name);
        *l = (cvq_named_text){0};
    }
    cvq_buffer_free(&text);
    return status;
}

static cvq_status read_licenses(cvq_metadata *m, const char *dir, cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, MAX_LICENSES, sizeof *m->licenses, "licences", err));
    m->licenses = p;
    DIR *d = opendir(dir);
    if (!d) return cvq_fail_errno(err, dir, "cannot list this folder");
    cvq_status status = CVQ_OK;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(d);
        if (!entry) {
            if (errno) status = cvq_fail_errno(err, dir, "cannot list this folder");
            break;
        }
        if (!is_license_name(entry->d_name)) continue;
        char *path = NULL;
        status = cvq_path_join(&path, dir, entry->d_name, err);
        if (status == CVQ_OK) status = add_license(m, path, entry->d_name, err);
        free(path);
        if (status != CVQ_OK) break;
    }
    closedir(d);
    if (m->num_licenses > 1) {
        qsort(m->licenses, m->num_licenses, sizeof *m->licenses, compare_texts);
    }
    return status;
}

/* ---------------------------------------------------------------- the list of files */

static int compare_files(const void *a, const void *b) {
    return strcmp(((const cvq_source_file *)a)->name, ((const cvq_source_file *)b)->name);
}

/* The names; sizes and hashes come later. */
static cvq_status list_files(cvq_metadata *m, const char *dir, const cvq_safetensors *checkpoint,
                             cvq_error *err) {
    size_t shards = cvq_safetensors_files(checkpoint);
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, SMALL_FILES + shards + m->num_licenses, sizeof *m->files, "files", err));
    m->files = p;
    const char *name;
    for (size_t i = 0; i < SMALL_FILES + shards + m->num_licenses; i++) {
        if (i < SMALL_FILES) {
            char *path = NULL;
            bool there;
            name = small_files[i];
            CVQ_TRY(cvq_path_join(&path, dir, name, err));
            const cvq_status status = cvq_file_there(&there, path, err);
            free(path);
            CVQ_TRY(status);
            if (!there) continue;
        } else if (i < SMALL_FILES + shards) {
            name = cvq_safetensors_file_name(checkpoint, i - SMALL_FILES);
        } else {
            name = m->licenses[i - SMALL_FILES - shards].name;
        }
        CVQ_TRY(copy_text(&m->files[m->num_files].name, name, strlen(name), err));
        m->num_files++;
    }
    qsort(m->files, m->num_files, sizeof *m->files, compare_files);
    return CVQ_OK;
}

static const cvq_file_map *shard_map(const cvq_safetensors *checkpoint, const char *name) {
    for (size_t i = 0; i < cvq_safetensors_files(checkpoint); i++) {
        if (strcmp(cvq_safetensors_file_name(checkpoint, i), name) == 0) {
            return cvq_safetensors_file_map(checkpoint, i);
        }
    }
    return NULL;
}

static cvq_status hash_small_file(cvq_source_file *f, const char *dir, cvq_error *err) {
    char *path = NULL;
    cvq_file_map map = {.fd = -1};
    uint8_t hash[CVQ_HASH_BYTES];
    CVQ_TRY(cvq_path_join(&path, dir, f->name, err));
    cvq_status status = cvq_file_map_open(&map, path, err);
    if (status == CVQ_OK) status = cvq_sha256(map.data, (size_t)map.size, hash, err);
    if (status == CVQ_OK) cvq_hash_hex(hash, f->sha256);
    f->size = map.size;
    cvq_file_map_close(&map);
    free(path);
    return status;
}

static cvq_status measure_files(cvq_metadata *m, const char *dir, const cvq_safetensors *checkpoint,
                                cvq_error *err) {
    static const uint8_t unknown[CVQ_HASH_BYTES];
    for (size_t i = 0; i < m->num_files; i++) {
        cvq_source_file *f = &m->files[i];
        const cvq_file_map *shard = shard_map(checkpoint, f->name);
        if (shard) {
            f->size = shard->size;
            cvq_hash_hex(unknown, f->sha256);
        } else {
            CVQ_TRY(hash_small_file(f, dir, err));
        }
    }
    return CVQ_OK;
}

void cvq_provenance_set_hash(cvq_metadata *m, const char *name,
                             const uint8_t hash[CVQ_HASH_BYTES]) {
    for (size_t i = 0; i < m->num_files; i++) {
        if (strcmp(m->files[i].name, name) == 0) cvq_hash_hex(hash, m->files[i].sha256);
    }
}

cvq_status cvq_revision_check(const char *revision, cvq_error *err) {
    size_t n = strlen(revision);
    bool good = n <= MAX_REVISION;
    for (size_t i = 0; i < n && good; i++) good = revision[i] > 0x20 && revision[i] < 0x7f;
    if (good) return CVQ_OK;
    return cvq_fail(err, CVQ_INVALID_ARGUMENT, "source revision",
                    "must be at most %d printable characters without spaces", MAX_REVISION);
}

cvq_status cvq_provenance_read(cvq_metadata *m, const char *dir, const cvq_safetensors *checkpoint,
                               const char *revision, cvq_error *err) {
    if (!revision) revision = "";
    CVQ_TRY(cvq_revision_check(revision, err));
    CVQ_TRY(copy_text(&m->revision, revision, strlen(revision), err));
    CVQ_TRY(read_licenses(m, dir, err));
    CVQ_TRY(list_files(m, dir, checkpoint, err));
    return measure_files(m, dir, checkpoint, err);
}
