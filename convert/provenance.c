/* What a .cvq file tells about its source: base name, size and SHA-256 of every file of the
 * checkpoint, and the licence texts themselves. Nothing of this depends on where the checkpoint
 * lies, when it was converted or by how many threads. */
#include "convert/provenance.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file_map.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "formats/chunk_hash.h"

#define MAX_LICENSES 64
#define MAX_REVISION 100
#define PIECE (8u << 20) /* bytes hashed between two reports of progress */

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

/* ---------------------------------------------------------------- hashes */

typedef struct hash_job {
    cvq_metadata *m;
    cvq_file_map *maps; /* [m->num_files] */
    bool *borrowed;     /* [m->num_files] the checkpoint's own map */
    size_t *order;      /* [m->num_files], the largest first */
    uint64_t total;
    cvq_quant_progress_fn progress;
    void *context;
    atomic_uint_fast64_t done;
    atomic_bool stop, cancelled;
    atomic_flag reporting, failing;
    cvq_status status; /* of the first that failed */
    cvq_error error;
} hash_job;

/* One thread at a time; the others go on. */
static void report(hash_job *j) {
    if (!j->progress || atomic_flag_test_and_set(&j->reporting)) return;
    if (j->progress(j->context, atomic_load(&j->done), j->total) != 0) {
        atomic_store(&j->cancelled, true);
        atomic_store(&j->stop, true);
    }
    atomic_flag_clear(&j->reporting);
}

static cvq_status hash_file(hash_job *j, size_t file, cvq_hasher *h, cvq_error *err) {
    const cvq_file_map *map = &j->maps[file];
    uint8_t hash[CVQ_HASH_BYTES];
    for (uint64_t at = 0; at < map->size && !atomic_load(&j->stop); at += PIECE) {
        size_t n = map->size - at < PIECE ? (size_t)(map->size - at) : PIECE;
        cvq_file_map_advise(map, at + n, PIECE, CVQ_ADVICE_WILLNEED);
        CVQ_TRY(cvq_hasher_feed(h, map->data + at, n, err));
        cvq_file_map_advise(map, at, n, CVQ_ADVICE_DONTNEED);
        atomic_fetch_add(&j->done, n);
        report(j);
    }
    CVQ_TRY(cvq_hasher_take(h, hash, err));
    cvq_hash_hex(hash, j->m->files[file].sha256);
    return CVQ_OK;
}

static void hash_unit(void *context, size_t index, int thread) {
    (void)thread;
    hash_job *j = context;
    cvq_hasher *h = NULL;
    cvq_error error = {0};
    if (atomic_load(&j->stop)) return;
    cvq_status status = cvq_hasher_open(&h, &error);
    if (status == CVQ_OK) status = hash_file(j, j->order[index], h, &error);
    cvq_hasher_close(h);
    if (status == CVQ_OK || atomic_flag_test_and_set(&j->failing)) return;
    j->status =
        status; /* only the first comes here, and all threads have ended before it is read */
    j->error = error;
    atomic_store(&j->stop, true);
}

static cvq_status hash_all(hash_job *j, int threads, cvq_error *err) {
    cvq_parallel_for(threads, j->m->num_files, hash_unit, j);
    if (j->status != CVQ_OK) {
        return cvq_fail(err, j->status, j->error.where, "%s", j->error.message);
    }
    if (atomic_load(&j->cancelled)) return cvq_fail(err, CVQ_CANCELLED, NULL, "cancelled");
    return CVQ_OK;
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
            struct stat st;
            char *path = NULL;
            name = small_files[i];
            CVQ_TRY(cvq_path_join(&path, dir, name, err));
            bool there = stat(path, &st) == 0;
            free(path);
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

/* Maps every file (shards are mapped already) and puts the largest first, so that threads end
 * together. */
static cvq_status map_files(hash_job *j, const char *dir, const cvq_safetensors *checkpoint,
                            cvq_error *err) {
    for (size_t i = 0; i < j->m->num_files; i++) {
        cvq_source_file *f = &j->m->files[i];
        const cvq_file_map *shard = shard_map(checkpoint, f->name);
        if (shard) {
            j->maps[i] = *shard;
            j->borrowed[i] = true;
        } else {
            char *path = NULL;
            CVQ_TRY(cvq_path_join(&path, dir, f->name, err));
            cvq_status status = cvq_file_map_open(&j->maps[i], path, err);
            free(path);
            if (status != CVQ_OK) return status;
        }
        f->size = j->maps[i].size;
        j->total += f->size;
        size_t at = i;
        for (; at > 0 && j->maps[j->order[at - 1]].size < f->size; at--) {
            j->order[at] = j->order[at - 1];
        }
        j->order[at] = i;
    }
    return CVQ_OK;
}

static cvq_status hash_files(hash_job *j, const char *dir, const cvq_safetensors *checkpoint,
                             int threads, cvq_error *err) {
    void *maps = NULL, *borrowed = NULL, *order = NULL;
    size_t n = j->m->num_files;
    cvq_status status = cvq_alloc(&maps, n, sizeof *j->maps, "files", err);
    if (status == CVQ_OK) status = cvq_alloc(&borrowed, n, sizeof *j->borrowed, "files", err);
    if (status == CVQ_OK) status = cvq_alloc(&order, n, sizeof *j->order, "files", err);
    if (status != CVQ_OK) goto done;
    j->maps = maps;
    j->borrowed = borrowed;
    j->order = order;
    for (size_t i = 0; i < n; i++) j->maps[i].fd = -1;
    status = map_files(j, dir, checkpoint, err);
    if (status == CVQ_OK) status = hash_all(j, threads, err);
    for (size_t i = 0; i < n; i++) {
        if (!j->borrowed[i]) cvq_file_map_close(&j->maps[i]);
    }
done:
    free(maps);
    free(borrowed);
    free(order);
    return status;
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
                               const char *revision, int threads, cvq_quant_progress_fn progress,
                               void *context, cvq_error *err) {
    hash_job j = {.m = m, .progress = progress, .context = context};
    atomic_flag_clear(&j.reporting);
    atomic_flag_clear(&j.failing);
    if (!revision) revision = "";
    CVQ_TRY(cvq_revision_check(revision, err));
    CVQ_TRY(copy_text(&m->revision, revision, strlen(revision), err));
    CVQ_TRY(read_licenses(m, dir, err));
    CVQ_TRY(list_files(m, dir, checkpoint, err));
    return hash_files(&j, dir, checkpoint, threads, err);
}
