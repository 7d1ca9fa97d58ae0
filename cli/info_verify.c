/* Verifying a file against its own head or a manifest, and repairing it from a second copy. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "cli/info.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"

/* ---------------------------------------------------------------- opening */

/* The file that a manifest names, in the manifest's folder. */
static cvq_status beside(const char *manifest, const char *name, char **out, cvq_error *err) {
    const char *slash = strrchr(manifest, '/');
    char *folder = slash ? strndup(manifest, (size_t)(slash - manifest) + 1) : strdup(".");
    if (!folder) return cvq_fail(err, CVQ_OUT_OF_MEMORY, manifest, "no memory for a name");
    cvq_status status = cvq_path_join(out, folder, name, err);
    free(folder);
    return status;
}

/* Whether a file whose head is not as it should be can still be looked at, byte by byte; it may be
 * any file at all. Else *problem, such as want of memory, has nothing to do with its bytes. */
static bool has_bad_head(const cvq_error *problem) {
    return problem->code == CVQ_FORMAT || problem->code == CVQ_MISMATCH ||
           problem->code == CVQ_UNSUPPORTED;
}

static cvq_status say_again(cvq_error *err, const cvq_error *problem) {
    return cvq_fail(err, problem->code, problem->where, "%s", problem->message);
}

static cvq_status open_with_manifest(const info_arguments *args, info_file *f, cvq_error *err) {
    cvq_error unreadable = {0};
    CVQ_TRY(info_manifest_read(args, args->manifest, &f->manifest, err));
    f->has_manifest = true;
    if (args->common.num_operands == 0)
        CVQ_TRY(beside(args->manifest, f->manifest.file, &f->path, err));
    else if (!(f->path = strdup(args->common.operands[0])))
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, args->manifest, "no memory for a name");
    /* NOLINTBEGIN(clang-analyzer-unix.Malloc): info_file_close frees it */
    if (cvq_reader_open(&f->reader, f->path, &unreadable) == CVQ_OK) return CVQ_OK;
    if (!has_bad_head(&unreadable)) return say_again(err, &unreadable);
    return cvq_file_map_open(&f->raw, f->path, err);
    /* NOLINTEND(clang-analyzer-unix.Malloc) */
}

cvq_status info_file_open(const info_arguments *args, info_file *f, cvq_error *err) {
    if (args->manifest) return open_with_manifest(args, f, err);
    f->path = strdup(args->common.operands[0]);
    if (!f->path) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "cvq-info", "no memory for a name");
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): as above */
    return cvq_reader_open(&f->reader, f->path, err);
}

void info_file_close(info_file *f) {
    cvq_reader_close(f->reader);
    cvq_file_map_close(&f->raw);
    cvq_manifest_free(&f->manifest);
    free(f->path);
}

static const cvq_file_map *file_map(const info_file *f) {
    return f->reader ? cvq_reader_map(f->reader) : &f->raw;
}

/* ---------------------------------------------------------------- verifying */

typedef struct collector {
    const info_file *file;
    info_damage *damage;
    bool no_memory;
} collector;

static const char *owner_name(const info_file *f, size_t owner) {
    if (owner == CVQ_OWNER_PADDING) return "(padding)";
    if (f->has_manifest) return cvq_manifest_owner(&f->manifest, owner);
    return cvq_reader_tensor(f->reader, owner)->spec.name;
}

static void collect(void *context, size_t owner, uint64_t offset, uint64_t size) {
    collector *c = context;
    info_damage *d = c->damage;
    if (d->count == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 16;
        info_range *ranges = realloc(d->ranges, capacity * sizeof *ranges);
        if (!ranges) {
            c->no_memory = true;
            return;
        }
        d->ranges = ranges;
        d->capacity = capacity;
    }
    d->ranges[d->count++] = (info_range){owner_name(c->file, owner), offset, size};
}

/* Everything that the extents cannot tell: the file's length, and that an undamaged file is the one
 * that the manifest names. */
static cvq_status check_against_manifest(const info_file *f, const info_damage *d, cvq_error *err) {
    const cvq_manifest *m = &f->manifest;
    if (file_map(f)->size > m->file_bytes)
        return cvq_fail(err, CVQ_MISMATCH, f->path,
                        "has %" PRIu64 " bytes, %" PRIu64 " more than its manifest says: it is "
                        "another file, or something was added; fetch it again or --repair it",
                        file_map(f)->size, file_map(f)->size - m->file_bytes);
    if (d->count > 0) return CVQ_OK;
    if (!f->reader || memcmp(cvq_reader_id(f->reader), m->id, CVQ_ID_BYTES) != 0)
        return cvq_fail(err, CVQ_MISMATCH, f->path,
                        "has the hashes of its manifest, but not its id: the manifest is wrong");
    return CVQ_OK;
}

/* Right by their hashes, but nothing to compute with: tensors with a scale or value that is
 * infinite or not a number. */
typedef struct soundness {
    const cvq_reader *reader;
    atomic_size_t unsound; /* the first such tensor, or SIZE_MAX */
} soundness;

static void look(void *context, const cvq_extent *x) {
    soundness *s = context;
    if (x->owner >= cvq_reader_tensor_count(s->reader)) return; /* the head, or padding */
    const cvq_tensor *t = cvq_reader_tensor(s->reader, x->owner);
    if (cvq_tensor_finite(t, cvq_reader_data(s->reader, x->owner), x->offset - t->offset, x->size))
        return;
    size_t first = s->unsound;
    while (x->owner < first && !atomic_compare_exchange_weak(&s->unsound, &first, x->owner)) {}
}

static cvq_status check_soundness(const soundness *s, cvq_error *err) {
    if (s->unsound == SIZE_MAX) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, cvq_reader_path(s->reader),
                    "tensor %s: a scale or value is infinite or not a number; whoever made this "
                    "file has to make it again",
                    cvq_reader_tensor(s->reader, s->unsound)->spec.name);
}

/* Whether the extents are those of the file's own tensors, too. */
static bool is_described(const info_file *f) {
    return f->reader && (!f->has_manifest ||
                         memcmp(cvq_reader_id(f->reader), f->manifest.id, CVQ_ID_BYTES) == 0);
}

cvq_status info_verify(const info_arguments *args, const info_file *f, info_damage *out,
                       cvq_error *err) {
    cvq_extents own = {0};
    void *good = NULL;
    cvq_progress progress;
    collector c = {f, out, false};
    soundness sound = {.reader = f->reader, .unsound = SIZE_MAX};
    const cvq_extents_watch watch = {.progress = cvq_progress_bytes,
                                     .progress_context = &progress,
                                     .look = is_described(f) ? look : NULL,
                                     .look_context = &sound};
    cvq_status status = f->has_manifest ? CVQ_OK : cvq_reader_extents(f->reader, &own, err);
    const cvq_extents *e = f->has_manifest ? &f->manifest.extents : &own;
    if (status == CVQ_OK) status = cvq_alloc(&good, e->count, sizeof(bool), "verifying", err);
    if (status != CVQ_OK) goto done;
    cvq_progress_init(&progress, &args->common);
    cvq_progress_begin(&progress, "verifying", "bytes");
    status = cvq_extents_check(e, file_map(f), args->common.threads, good, &watch, f->path, err);
    cvq_progress_erase();
    if (status != CVQ_OK) goto done;
    cvq_say_more(&args->common, "every hash computed in %.2f s with %d threads",
                 cvq_progress_clock() - progress.started, args->common.threads);
    cvq_extents_damage(e, good, collect, &c);
    if (c.no_memory)
        status = cvq_fail(err, CVQ_OUT_OF_MEMORY, f->path, "too many damaged ranges");
    else if (f->has_manifest)
        status = check_against_manifest(f, out, err);
    if (status == CVQ_OK && out->count == 0) status = check_soundness(&sound, err);
    out->known = status == CVQ_OK;
done:
    free(good);
    cvq_extents_free(&own);
    return status;
}

/* " and 3 more ranges", or nothing. */
static const char *and_more(char text[64], size_t n, const char *of_what) {
    text[0] = 0;
    if (n > 0) snprintf(text, 64, " and %zu more %s%s", n, of_what, n == 1 ? "" : "s");
    return text;
}

int info_say_damage(const info_arguments *args, const info_file *f, const info_damage *d) {
    const info_range *first = &d->ranges[0];
    cvq_error err = {0};
    char more[64];
    cvq_fail(&err, CVQ_MISMATCH, f->path,
             "%s: bytes %" PRIu64 " to %" PRIu64 "%s are damaged; fetch the file again, or only "
             "what --bad-ranges lists, or --repair it from a second copy",
             first->owner, first->offset, first->offset + first->size - 1,
             and_more(more, d->count - 1, "range"));
    return cvq_say_error(args->common.command, &err);
}

/* ---------------------------------------------------------------- repairing */

#define BATCH 64 /* extents between two looks at progress and Ctrl-C */

typedef struct repair {
    info_file damaged, copy;
    cvq_extents own;             /* without a manifest */
    const cvq_extents *extents;  /* what the file should be */
    const cvq_reader *reference; /* without a manifest: whose head is used */
    cvq_extents by_hash;         /* the copy's extents in order of their hashes */
    size_t first;                /* of the batch */
    int fd;
    enum { REPAIR_KEPT, REPAIR_TAKEN, REPAIR_MISSING } * fate; /* [extents] */
    atomic_bool failed;
    cvq_error error; /* of the first unit that failed */
    const char *out_path;
} repair;

/* False also where it cannot be told, with the cause in err. */
static bool has_at(const cvq_file_map *map, uint64_t offset, const cvq_extent *x, cvq_error *err) {
    bool matches = false;
    return cvq_range_within(offset, x->size, map->size) &&
           cvq_extent_match(x, map->data + offset, &matches, err) == CVQ_OK && matches;
}

/* The extent's bytes in the copy: at the same place, or wherever its chunk table says. */
static const uint8_t *find_in_copy(const repair *r, const cvq_extent *x, cvq_error *err) {
    const cvq_file_map *map = file_map(&r->copy);
    if (has_at(map, x->offset, x, err)) return map->data + x->offset;
    const cvq_extent *other = cvq_extents_find(&r->by_hash, x);
    if (other && has_at(map, other->offset, x, err)) return map->data + other->offset;
    return NULL;
}

static void repair_unit(void *context, size_t index, int thread) {
    repair *r = context;
    const size_t number = r->first + index;
    const cvq_extent *x = &r->extents->items[number];
    const cvq_file_map *map = file_map(&r->damaged);
    const uint8_t *data = NULL;
    cvq_error err = {0};
    (void)thread;
    if (!x->hash) return; /* padding: the output is zero where nothing is written */
    if (has_at(map, x->offset, x, &err))
        data = map->data + x->offset;
    else if ((data = find_in_copy(r, x, &err)))
        r->fate[number] = REPAIR_TAKEN;
    else
        r->fate[number] = REPAIR_MISSING;
    if (data && err.code == CVQ_OK)
        (void)cvq_write_all(r->fd, x->offset, data, (size_t)x->size, r->out_path, &err);
    if (err.code != CVQ_OK && !atomic_exchange(&r->failed, true)) r->error = err;
}

/* What the file should be: by the manifest, else by whichever of the two has a whole head. */
static cvq_status repair_open(const info_arguments *args, repair *r, cvq_error *err) {
    cvq_error unreadable = {0};
    info_arguments first = *args, second = *args;
    second.manifest = NULL;
    char *copy = (char *)(uintptr_t)args->repair;
    second.common.operands = &copy;
    if (info_file_open(&second, &r->copy, &unreadable) != CVQ_OK) {
        if (!has_bad_head(&unreadable)) return say_again(err, &unreadable);
        CVQ_TRY(cvq_file_map_open(&r->copy.raw, args->repair, err));
    }
    if (args->manifest) {
        CVQ_TRY(info_file_open(&first, &r->damaged, err));
        r->extents = &r->damaged.manifest.extents;
    } else {
        unreadable = (cvq_error){0};
        if (info_file_open(&first, &r->damaged, &unreadable) != CVQ_OK) {
            if (!has_bad_head(&unreadable)) return say_again(err, &unreadable);
            if (!r->copy.reader)
                return cvq_fail(err, CVQ_MISMATCH, args->common.operands[0],
                                "its head is damaged, and that of %s, too; give the manifest, "
                                "which has their hashes, with --manifest",
                                args->repair);
            CVQ_TRY(cvq_file_map_open(&r->damaged.raw, args->common.operands[0], err));
        }
        r->reference = r->damaged.reader ? r->damaged.reader : r->copy.reader;
        CVQ_TRY(cvq_reader_extents(r->reference, &r->own, err));
        r->extents = &r->own;
    }
    if (r->copy.reader) {
        CVQ_TRY(cvq_reader_extents(r->copy.reader, &r->by_hash, err));
        cvq_extents_sort_by_hash(&r->by_hash);
    }
    return CVQ_OK;
}

/* What neither file has. */
static cvq_status repair_result(const repair *r, cvq_error *err) {
    const cvq_extent *first = NULL;
    char more[64];
    size_t missing = 0;
    for (size_t i = 0; i < r->extents->count; i++) {
        if (r->fate[i] != REPAIR_MISSING) continue;
        if (missing++ == 0) first = &r->extents->items[i];
    }
    if (missing == 0) return CVQ_OK;
    const info_file *names = r->damaged.has_manifest || r->damaged.reader ? &r->damaged : &r->copy;
    return cvq_fail(err, CVQ_MISMATCH, r->damaged.path,
                    "%s: bytes %" PRIu64 " to %" PRIu64 "%s are damaged in both files; a third "
                    "copy is needed: repair the better one from that first",
                    owner_name(names, first->owner), first->offset, first->offset + first->size - 1,
                    and_more(more, missing - 1, "chunk"));
}

static cvq_status repair_write(const info_arguments *args, repair *r, cvq_output *out,
                               cvq_error *err) {
    cvq_progress progress;
    const cvq_extents *e = r->extents;
    r->fd = out->fd;
    r->out_path = out->path;
    if (ftruncate(out->fd, (off_t)e->end) != 0)
        return cvq_fail_errno(err, out->path, "cannot make the output as large as the file");
    if (r->reference)
        CVQ_TRY(cvq_write_all(out->fd, 0, cvq_reader_map(r->reference)->data, (size_t)e->start,
                              out->path, err));
    cvq_progress_init(&progress, &args->common);
    cvq_progress_begin(&progress, "repairing", "bytes");
    for (r->first = 0; r->first < e->count; r->first += BATCH) {
        const size_t n = e->count - r->first < BATCH ? e->count - r->first : BATCH;
        const cvq_extent *last = &e->items[r->first + n - 1];
        cvq_parallel_for(args->common.threads, n, repair_unit, r);
        if (r->failed) {
            if (err) *err = r->error;
            return r->error.code;
        }
        if (cvq_progress_bytes(&progress, last->offset + last->size - e->start, e->end - e->start))
            return cvq_fail(err, CVQ_CANCELLED, out->path, "repairing was stopped");
    }
    return repair_result(r, err);
}

static void say_repaired(const info_arguments *args, const repair *r, const char *path) {
    uint64_t bytes = 0;
    char human[32];
    for (size_t i = 0; i < r->extents->count; i++)
        if (r->fate[i] == REPAIR_TAKEN) bytes += r->extents->items[i].size;
    if (r->reference && r->reference == r->copy.reader) {
        bytes += r->extents->start;
        cvq_say_note(&args->common,
                     "the head of %s is damaged, so that of %s said what the file should be; "
                     "--manifest would be surer",
                     r->damaged.path, args->repair);
    }
    const uint8_t *id =
        r->damaged.has_manifest ? r->damaged.manifest.id : cvq_reader_id(r->reference);
    if (args->common.quiet) return;
    cvq_say_written(stdout, path, id);
    printf("taken from %s: %s\n", args->repair, cvq_human_bytes(bytes, human));
}

cvq_status info_repair(const info_arguments *args, cvq_error *err) {
    repair r = {.damaged.raw.fd = -1, .copy.raw.fd = -1};
    cvq_output out = CVQ_OUTPUT_NONE;
    void *fate = NULL;
    const char *path = args->common.operands[1];
    char signature[4096] = "";
    if (args->pubkey && args->manifest)
        (void)info_signature_name(signature, sizeof signature, args->manifest);
    const char *inputs[] = {args->common.operands[0], args->repair, args->manifest, args->pubkey,
                            *signature ? signature : NULL};
    info_arguments one = *args; /* the operand OUT.cvq is not the file's */
    one.common.num_operands = 1;
    cvq_status status = repair_open(&one, &r, err);
    if (status == CVQ_OK)
        status = cvq_alloc(&fate, r.extents->count, sizeof *r.fate, "repairing", err);
    r.fate = fate;
    if (status == CVQ_OK)
        status = cvq_output_open(&out, path, args->common.force, inputs,
                                 sizeof inputs / sizeof *inputs, err);
    if (status == CVQ_OK) status = repair_write(args, &r, &out, err);
    cvq_progress_erase();
    if (status == CVQ_OK) status = cvq_output_commit(&out, err);
    if (status == CVQ_OK) say_repaired(args, &r, path);
    cvq_output_discard(&out);
    free(fate);
    cvq_extents_free(&r.own);
    cvq_extents_free(&r.by_hash);
    info_file_close(&r.damaged);
    info_file_close(&r.copy);
    return status;
}
