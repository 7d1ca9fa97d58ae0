/* cvq-pack: .cvq files for transport - 16-bit ones packed, any of them in parts - and back. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/messages.h"
#include "cli/parts.h"
#include "cli/progress.h"
#include "formats/cvq_reader.h"
#include "formats/packed_file.h"

#define COPY_BYTES (1u << 20)

typedef struct arguments {
    cvq_common common;
    bool unpack;
    uint64_t split;
} arguments;

static const cvq_option options[] = {
    {.name = "unpack",
     .letter = 'd',
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, unpack),
     .help = "the way back: IN is a packed file, or its first part (NAME.001), or - for standard "
             "input; OUT.cvq is verified before it gets its name"},
    {.name = "split",
     .kind = CVQ_OPTION_SIZE,
     .offset = offsetof(arguments, split),
     .value = "SIZE",
     .min = 1000,
     .max = (uint64_t)1 << 53,
     .help = "write parts of at most SIZE bytes, OUT.001, OUT.002, ..., which cat joins again: 2Gi "
             "suits GitHub releases, 4G FAT32"},
};

static const cvq_command command = {
    .name = "cvq-pack",
    .summary = "Pack a .cvq file for transport, or cut it into parts, and undo it.",
    .operands = "IN OUT",
    .min_operands = 2,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes = "Files of 16-bit weights become a third smaller. Quantized files have next to nothing "
             "to gain (2 to 7%), so they are not packed: hand them out as they are, or in parts "
             "with --split.",
};

/* ---------------------------------------------------------------- packing */

/* Whether most of the file is 16-bit weights. */
static bool mostly_bf16(const cvq_reader *r) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        if (t->type == CVQ_TYPE_BF16) bytes += t->size;
    }
    return bytes > cvq_reader_file_size(r) / 2;
}

/* The file as it is, in parts. */
static cvq_status copy_file(const cvq_reader *r, cvq_parts_writer *w, cvq_progress *progress,
                            cvq_error *err) {
    const cvq_file_map *map = cvq_reader_map(r);
    for (uint64_t at = 0; at < map->size;) {
        const size_t n = map->size - at < COPY_BYTES ? (size_t)(map->size - at) : COPY_BYTES;
        CVQ_TRY(cvq_parts_write(w, map->data + at, n, err));
        cvq_file_map_advise(map, at, n, CVQ_ADVICE_DONTNEED);
        at += n;
        if (cvq_progress_bytes(progress, at, map->size) != 0)
            return cvq_fail(err, CVQ_CANCELLED, cvq_reader_path(r), "copying was stopped");
    }
    return CVQ_OK;
}

static uint64_t written_bytes(const cvq_parts_writer *w) {
    return w->count ? (w->count - 1) * w->part_bytes + w->in_part : 0;
}

static void say_packed(const arguments *args, const cvq_reader *r, uint64_t bytes, size_t parts,
                       double seconds) {
    char from[32], to[32], in_parts[48] = "";
    const double all = (double)cvq_reader_file_size(r);
    if (args->common.quiet) return;
    if (args->split)
        snprintf(in_parts, sizeof in_parts, " in %zu part%s", parts, parts == 1 ? "" : "s");
    printf("%s: %s%s, %.1f%% of %s; %.2f GB/s\n", args->common.operands[1],
           cvq_human_bytes(bytes, to), in_parts, 100 * (double)bytes / all,
           cvq_human_bytes(cvq_reader_file_size(r), from), all / 1e9 / seconds);
}

static cvq_status pack(const arguments *args, cvq_error *err) {
    const char *in = args->common.operands[0], *const inputs[] = {in};
    cvq_reader *r = NULL;
    cvq_parts_writer w;
    cvq_progress progress;
    cvq_parts_begin(&w, args->common.operands[1], args->split, args->common.force, inputs, 1);
    cvq_status status = cvq_reader_open(&r, in, err);
    if (status != CVQ_OK) return status;
    const bool packed = mostly_bf16(r);
    if (!packed && !args->split) {
        status = cvq_fail(err, CVQ_INVALID_ARGUMENT, in,
                          "has no 16-bit weights to pack, and quantized ones gain 2 to 7%% at the "
                          "most: hand it out as it is, or in parts with --split");
        goto done;
    }
    cvq_progress_init(&progress, &args->common);
    cvq_progress_begin(&progress, packed ? "packing" : "copying", "bytes");
    if (packed)
        status = cvq_file_pack(cvq_reader_map(r)->fd, cvq_reader_file_size(r), cvq_reader_id(r),
                               args->common.threads, cvq_parts_write, &w, cvq_progress_bytes,
                               &progress, in, err);
    else
        status = copy_file(r, &w, &progress, err);
    const double seconds = cvq_progress_clock() - progress.started;
    cvq_progress_erase();
    const uint64_t bytes = written_bytes(&w);
    const size_t parts = w.count;
    if (status == CVQ_OK) status = cvq_parts_commit(&w, err);
    if (status == CVQ_OK) say_packed(args, r, bytes, parts, seconds);
done:
    cvq_parts_discard(&w);
    cvq_reader_close(r);
    return status;
}

/* ---------------------------------------------------------------- unpacking */

/* Parts of a file that was not packed: begin is what was read of it already. */
static cvq_status join(cvq_parts_reader *in, const uint8_t *begin, size_t size, cvq_output *out,
                       cvq_error *err) {
    void *memory = NULL;
    uint64_t at = size;
    size_t got;
    CVQ_TRY(cvq_alloc(&memory, COPY_BYTES, 1, "joining parts", err));
    cvq_status status = cvq_write_all(out->fd, 0, begin, size, out->path, err);
    do {
        if (status == CVQ_OK) status = cvq_parts_read(in, memory, COPY_BYTES, &got, err);
        if (status == CVQ_OK) status = cvq_write_all(out->fd, at, memory, got, out->path, err);
        if (status == CVQ_OK) at += got;
        if (status == CVQ_OK && cvq_interrupted())
            status = cvq_fail(err, CVQ_CANCELLED, out->path, "joining was stopped");
    } while (status == CVQ_OK && got == COPY_BYTES);
    free(memory);
    return status;
}

/* The first damage, and how to watch for it. */
typedef struct watch {
    cvq_progress progress;
    uint64_t offset, size; /* 0: none */
} watch;

static void note_damage(void *context, size_t owner, uint64_t offset, uint64_t size) {
    watch *w = context;
    (void)owner;
    if (w->size > 0) return;
    w->offset = offset;
    w->size = size;
}

static int show_progress(void *context, uint64_t done, uint64_t total) {
    return cvq_progress_bytes(&((watch *)context)->progress, done, total);
}

/* What to fetch again: of parts that were only cut, those that hold the damage. */
static cvq_status say_damaged(cvq_parts_reader *in, bool packed, const watch *w,
                              const cvq_error *bad, cvq_error *err) {
    char first[sizeof bad->where];
    const char *name = cvq_parts_name_at(in, packed ? 0 : w->offset);
    snprintf(first, sizeof first, "%s", name);
    if (!packed && w->size > 0) name = cvq_parts_name_at(in, w->offset + w->size - 1);
    if (strcmp(name, first) == 0)
        return cvq_fail(err, bad->code, first, "what it holds is damaged (%s); fetch it again",
                        bad->message);
    return cvq_fail(err, bad->code, first, "what it and %s hold is damaged (%s); fetch them again",
                    name, bad->message);
}

/* A whole .cvq file, every byte right, and with the id that was promised (if one was). */
static cvq_status check_result(const arguments *args, const char *temp, const uint8_t *promised,
                               cvq_parts_reader *parts, uint8_t id[CVQ_ID_BYTES], cvq_error *err) {
    const char *in = args->common.operands[0];
    cvq_reader *r = NULL;
    watch w = {.size = 0};
    cvq_error bad = {0};
    cvq_progress_init(&w.progress, &args->common);
    cvq_progress_begin(&w.progress, "verifying", "bytes");
    cvq_status status = cvq_reader_open(&r, temp, &bad);
    if (status == CVQ_OK)
        status = cvq_reader_verify(r, args->common.threads, note_damage, show_progress, &w, &bad);
    cvq_progress_erase();
    if (status == CVQ_CANCELLED) {
        cvq_fail(err, status, in, "verifying was stopped");
    } else if (status == CVQ_IO || status == CVQ_OUT_OF_MEMORY || status == CVQ_INTERNAL) {
        cvq_fail(err, status, bad.where, "%s", bad.message);
    } else if (status != CVQ_OK) {
        status = say_damaged(parts, promised != NULL, &w, &bad, err);
    } else {
        memcpy(id, cvq_reader_id(r), CVQ_ID_BYTES);
        if (promised && memcmp(id, promised, CVQ_ID_BYTES) != 0)
            status = cvq_fail(err, CVQ_MISMATCH, in,
                              "holds another file than its header says; fetch it again");
    }
    cvq_reader_close(r);
    return status;
}

static cvq_status unpack(const arguments *args, cvq_error *err) {
    const char *path = args->common.operands[0];
    cvq_parts_reader in;
    cvq_output out = CVQ_OUTPUT_NONE;
    cvq_progress progress;
    uint8_t header[CVQ_PACKED_HEADER_BYTES], promised[CVQ_ID_BYTES], id[CVQ_ID_BYTES];
    uint64_t size = 0;
    size_t got = 0;
    bool packed = false;
    cvq_status status = cvq_parts_open(&in, path, err);
    if (status == CVQ_OK) status = cvq_parts_check_output(&in, args->common.operands[1], err);
    if (status == CVQ_OK)
        status = cvq_output_open(&out, args->common.operands[1], args->common.force, NULL, 0, err);
    if (status == CVQ_OK) status = cvq_parts_read(&in, header, sizeof header, &got, err);
    if (status != CVQ_OK) goto done;
    if (got < sizeof header) {
        status = cvq_fail(err, CVQ_FORMAT, path,
                          "is too short to be a packed or a .cvq file; fetch it again");
        goto done;
    }
    packed = !cvq_is_model_file(header, got);
    if (packed) status = cvq_packed_header(header, &size, promised, path, err);
    if (status != CVQ_OK) goto done;
    cvq_progress_init(&progress, &args->common);
    cvq_progress_begin(&progress, "unpacking", "bytes");
    status = packed ? cvq_file_unpack(out.fd, size, args->common.threads, cvq_parts_read, &in,
                                      cvq_progress_bytes, &progress, path, err)
                    : join(&in, header, got, &out, err);
    cvq_progress_erase();
    if (status == CVQ_OK)
        status = check_result(args, out.temp, packed ? promised : NULL, &in, id, err);
    if (status == CVQ_OK) status = cvq_output_commit(&out, err);
    if (status == CVQ_OK && !args->common.quiet)
        cvq_say_written(stdout, args->common.operands[1], id);
done:
    cvq_output_discard(&out);
    cvq_parts_close(&in);
    return status;
}

int main(int argc, char **argv) {
    arguments args = {0};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    if (args.unpack && args.split)
        return cvq_say_usage(&command, "--split belongs to packing, not to --unpack");
    cvq_error err = {0};
    const cvq_status status = args.unpack ? unpack(&args, &err) : pack(&args, &err);
    if (status != CVQ_OK) exit_code = cvq_say_error(&command, &err);
    return cvq_finish_stdout(&command, exit_code);
}
