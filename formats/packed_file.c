/* Packing and unpacking, a batch of pieces at a time with all threads: at most some 200 MB. */
#include "formats/packed_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/checked.h"
#include "base/file_map.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "formats/damage_internal.h"

#define PIECE 1048576u
#define BATCH 64
#define PIECE_HEADER 16u
#define VERSION 1u
#define LEVEL 1       /* exponents are a few symbols: higher levels find nothing more */
#define SAMPLE 65536u /* bytes by which a piece's planes are chosen */

static const uint8_t magic[8] = {0x89, 'C', 'V', 'Z', 0x0d, 0x0a, 0x1a, 0x0a};

/* One piece: raw [n], and packed [PIECE_HEADER + n] with its header in front; n: PIECE, or the
 * whole file where that is less. */
typedef struct piece {
    uint8_t *raw, *packed;
    uint64_t offset;
    size_t size, packed_size;
    cvq_error error; /* code CVQ_OK: none */
} piece;

typedef struct batch {
    piece pieces[BATCH];
    uint8_t *memory;
    int fd;
    const char *where;
    size_t most;            /* n of its pieces */
    uint8_t *planes;        /* [threads][most]: a piece taken apart */
    ZSTD_CCtx **compress;   /* [threads] */
    ZSTD_DCtx **decompress; /* [threads] */
    int threads;
} batch;

static void batch_free(batch *b) {
    for (int i = 0; i < b->threads; i++) {
        if (b->compress) ZSTD_freeCCtx(b->compress[i]);
        if (b->decompress) ZSTD_freeDCtx(b->decompress[i]);
    }
    free(b->compress);
    free(b->decompress);
    free(b->planes);
    free(b->memory);
    free(b);
}

static cvq_status batch_make(batch **out, int fd, uint64_t file_size, int threads, bool packing,
                             const char *where, cvq_error *err) {
    void *memory = NULL;
    const size_t most = file_size < PIECE ? (size_t)file_size : PIECE;
    const size_t each = 2 * most + 64; /* PIECE_HEADER fits in what is added */
    const uint64_t pieces = file_size / PIECE + 1, count = pieces < BATCH ? pieces : BATCH;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(batch), "packing", err));
    batch *b = memory;
    b->fd = fd;
    b->where = where;
    b->threads = threads;
    b->most = most;
    cvq_status status = cvq_alloc(&memory, count, each, "packing", err);
    if (status != CVQ_OK) goto done;
    b->memory = memory;
    for (size_t i = 0; i < count; i++) {
        b->pieces[i].raw = b->memory + i * each;
        b->pieces[i].packed = b->pieces[i].raw + most;
    }
    status = cvq_alloc(&memory, (uint64_t)threads, most, "packing", err);
    if (status != CVQ_OK) goto done;
    b->planes = memory;
    status = cvq_alloc(&memory, (uint64_t)threads, sizeof(void *), "packing", err);
    if (status != CVQ_OK) goto done;
    if (packing)
        b->compress = memory;
    else
        b->decompress = memory;
    for (int i = 0; i < threads; i++) {
        const bool made = packing ? (b->compress[i] = ZSTD_createCCtx()) != NULL
                                  : (b->decompress[i] = ZSTD_createDCtx()) != NULL;
        if (!made) status = cvq_fail(err, CVQ_OUT_OF_MEMORY, where, "no memory for zstd");
    }
done:
    if (status != CVQ_OK)
        batch_free(b);
    else
        *out = b;
    return status;
}

/* The first error of the batch's n pieces. */
static cvq_status batch_status(const batch *b, size_t n, cvq_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (b->pieces[i].error.code == CVQ_OK) continue;
        if (err) *err = b->pieces[i].error;
        return b->pieces[i].error.code;
    }
    return CVQ_OK;
}

/* The pieces of the next batch, from *offset on. */
static size_t batch_next(batch *b, uint64_t *offset, uint64_t file_size) {
    size_t n = 0;
    for (; n < BATCH && *offset < file_size; n++) {
        piece *p = &b->pieces[n];
        p->offset = *offset;
        p->size = file_size - *offset < PIECE ? (size_t)(file_size - *offset) : PIECE;
        p->error.code = CVQ_OK;
        *offset += p->size;
    }
    return n;
}

/* Even bytes to low[n / 2], odd ones to high: of little-endian 16-bit values the lower and upper.
 */
static void split_planes(const uint8_t *raw, size_t n, uint8_t *low, uint8_t *high) {
    for (size_t i = 0; i < n / 2; i++) {
        low[i] = raw[2 * i];
        high[i] = raw[2 * i + 1];
    }
}

static void join_planes(const uint8_t *low, const uint8_t *high, size_t n, uint8_t *raw) {
    for (size_t i = 0; i < n / 2; i++) {
        raw[2 * i] = low[i];
        raw[2 * i + 1] = high[i];
    }
}

/* ---------------------------------------------------------------- packing */

/* One plane of n bytes to out, at most n bytes; stored where it does not get smaller. */
static cvq_status pack_plane(ZSTD_CCtx *z, const uint8_t *plane, size_t n, uint8_t *out,
                             size_t *size) {
    *size = n;
    if (n > 1) {
        const size_t packed = ZSTD_compressCCtx(z, out, n - 1, plane, n, LEVEL);
        if (!ZSTD_isError(packed)) {
            *size = packed;
            return CVQ_OK;
        }
        if (ZSTD_getErrorCode(packed) != ZSTD_error_dstSize_tooSmall) return CVQ_OUT_OF_MEMORY;
    }
    memcpy(out, plane, n);
    return CVQ_OK;
}

static cvq_status pack_planes(ZSTD_CCtx *z, const uint8_t *raw, size_t n, uint8_t *planes,
                              uint8_t *out, size_t sizes[2]) {
    split_planes(raw, n, planes, planes + n / 2);
    const cvq_status status = pack_plane(z, planes, n / 2, out, &sizes[0]);
    if (status != CVQ_OK) return status;
    return pack_plane(z, planes + n / 2, n / 2, out + sizes[0], &sizes[1]);
}

/* Whether two planes pack better than the bytes as they are, judged by the piece's beginning. */
static cvq_status wants_planes(ZSTD_CCtx *z, const piece *p, uint8_t *planes, bool *wanted) {
    const size_t n = p->size < SAMPLE ? p->size / 2 * 2 : SAMPLE;
    size_t split[2], whole;
    *wanted = false;
    if (p->size % 2 != 0 || n == 0) return CVQ_OK;
    cvq_status status = pack_planes(z, p->raw, n, planes, p->packed, split);
    if (status == CVQ_OK) status = pack_plane(z, p->raw, n, p->packed, &whole);
    if (status == CVQ_OK) *wanted = split[0] + split[1] < whole;
    return status;
}

static cvq_status read_piece(const batch *b, piece *p) {
    for (size_t done = 0; done < p->size;) {
        const ssize_t n = pread(b->fd, p->raw + done, p->size - done, (off_t)(p->offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cvq_fail_errno(&p->error, b->where, "cannot read");
        if (n == 0) return cvq_fail(&p->error, CVQ_IO, b->where, "ends early: it was shortened");
        done += (size_t)n;
    }
    return CVQ_OK;
}

static void pack_unit(void *context, size_t index, int thread) {
    batch *b = context;
    piece *p = &b->pieces[index];
    uint8_t *planes = b->planes + (size_t)thread * b->most, *out = p->packed + PIECE_HEADER;
    ZSTD_CCtx *z = b->compress[thread];
    if (read_piece(b, p) != CVQ_OK) return;
    size_t sizes[2] = {0};
    bool split;
    cvq_status status = wants_planes(z, p, planes, &split);
    if (status == CVQ_OK)
        status = split ? pack_planes(z, p->raw, p->size, planes, out, sizes)
                       : pack_plane(z, p->raw, p->size, out, &sizes[0]);
    if (status != CVQ_OK) {
        cvq_fail(&p->error, status, b->where, "no memory for zstd");
        return;
    }
    cvq_store_le(p->packed, split ? 2 : 1, 4);
    cvq_store_le(p->packed + 4, sizes[0], 4);
    cvq_store_le(p->packed + 8, sizes[1], 4);
    cvq_store_le(p->packed + 12, 0, 4);
    p->packed_size = PIECE_HEADER + sizes[0] + sizes[1];
}

cvq_status cvq_file_pack(int fd, uint64_t file_size, const uint8_t id[CVQ_ID_BYTES], int threads,
                         cvq_pack_write_fn write, void *write_context,
                         cvq_pack_progress_fn progress, void *context, const char *where,
                         cvq_error *err) {
    batch *b = NULL;
    uint8_t header[CVQ_PACKED_HEADER_BYTES] = {0};
    uint64_t offset = 0;
    size_t n;
    memcpy(header, magic, sizeof magic);
    cvq_store_le(header + 8, VERSION, 4);
    cvq_store_le(header + 12, PIECE, 4);
    cvq_store_le(header + 16, file_size, 8);
    memcpy(header + 24, id, CVQ_ID_BYTES);
    CVQ_TRY(batch_make(&b, fd, file_size, threads, true, where, err));
    cvq_status status = write(write_context, header, sizeof header, err);
    while (status == CVQ_OK && (n = batch_next(b, &offset, file_size)) > 0) {
        cvq_parallel_for(threads, n, pack_unit, b);
        status = batch_status(b, n, err);
        for (size_t i = 0; status == CVQ_OK && i < n; i++)
            status = write(write_context, b->pieces[i].packed, b->pieces[i].packed_size, err);
        if (status == CVQ_OK && progress && progress(context, offset, file_size) != 0)
            status = cvq_fail(err, CVQ_CANCELLED, where, "packing was stopped");
    }
    batch_free(b);
    return status;
}

/* ---------------------------------------------------------------- unpacking */

cvq_status cvq_packed_header(const uint8_t *header, uint64_t *file_size, uint8_t id[CVQ_ID_BYTES],
                             const char *where, cvq_error *err) {
    cvq_cursor c = cvq_cursor_make(header, CVQ_PACKED_HEADER_BYTES);
    if (memcmp(cvq_cursor_bytes(&c, sizeof magic), magic, sizeof magic) != 0)
        return cvq_fail(err, CVQ_FORMAT, where,
                        "is neither a file that cvq-pack made nor its first part");
    const uint32_t version = cvq_cursor_u32(&c), piece_bytes = cvq_cursor_u32(&c);
    if (version != VERSION || piece_bytes != PIECE)
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "packed in version %u with pieces of %u bytes; this program reads version "
                        "%u with %u: get a newer cvq",
                        version, piece_bytes, VERSION, PIECE);
    const uint64_t size = cvq_cursor_u64(&c);
    const uint8_t *of = cvq_cursor_bytes(&c, CVQ_ID_BYTES);
    if (size == 0 || size > INT64_MAX || cvq_cursor_u64(&c) != 0)
        return cvq_fail(err, CVQ_FORMAT, where, "its header is malformed" CVQ_DAMAGED);
    *file_size = size;
    memcpy(id, of, CVQ_ID_BYTES);
    return CVQ_OK;
}

static cvq_status unpack_plane(ZSTD_DCtx *z, const uint8_t *packed, size_t size, uint8_t *out,
                               size_t n) {
    if (size == n) {
        memcpy(out, packed, n);
        return CVQ_OK;
    }
    /* Content size and length are checked: a frame gives n bytes, or nothing. */
    if (ZSTD_getFrameContentSize(packed, size) != n ||
        ZSTD_findFrameCompressedSize(packed, size) != size)
        return CVQ_FORMAT;
    return ZSTD_decompressDCtx(z, out, n, packed, size) == n ? CVQ_OK : CVQ_FORMAT;
}

static void unpack_unit(void *context, size_t index, int thread) {
    batch *b = context;
    piece *p = &b->pieces[index];
    uint8_t *planes = b->planes + (size_t)thread * b->most;
    ZSTD_DCtx *z = b->decompress[thread];
    const uint8_t *packed = p->packed + PIECE_HEADER;
    const size_t sizes[2] = {(size_t)cvq_load_le(p->packed + 4, 4),
                             (size_t)cvq_load_le(p->packed + 8, 4)};
    const size_t half = p->size / 2;
    cvq_status status;
    if (cvq_load_le(p->packed, 4) == 1) {
        status = unpack_plane(z, packed, sizes[0], p->raw, p->size);
    } else {
        status = unpack_plane(z, packed, sizes[0], planes, half);
        if (status == CVQ_OK)
            status = unpack_plane(z, packed + sizes[0], sizes[1], planes + half, half);
        if (status == CVQ_OK) join_planes(planes, planes + half, p->size, p->raw);
    }
    if (status != CVQ_OK)
        cvq_fail(&p->error, CVQ_FORMAT, b->where,
                 "the piece for bytes %llu to %llu cannot be unpacked" CVQ_DAMAGED,
                 (unsigned long long)p->offset, (unsigned long long)(p->offset + p->size - 1));
    else
        (void)cvq_write_all(b->fd, p->offset, p->raw, p->size, b->where, &p->error);
}

static cvq_status read_all(cvq_pack_read_fn read, void *context, void *data, size_t size,
                           const char *where, cvq_error *err) {
    size_t got = 0;
    CVQ_TRY(read(context, data, size, &got, err));
    if (got == size) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, where, "ends too early" CVQ_DAMAGED);
}

/* A piece's header and bytes into p->packed; its sizes are bounded before they are used. */
static cvq_status read_packed(piece *p, cvq_pack_read_fn read, void *context, const char *where,
                              cvq_error *err) {
    CVQ_TRY(read_all(read, context, p->packed, PIECE_HEADER, where, err));
    cvq_cursor c = cvq_cursor_make(p->packed, PIECE_HEADER);
    const uint32_t planes = cvq_cursor_u32(&c), first = cvq_cursor_u32(&c);
    const uint32_t second = cvq_cursor_u32(&c), zero = cvq_cursor_u32(&c);
    const size_t most = planes == 2 ? p->size / 2 : p->size;
    if ((planes != 1 && planes != 2) || zero != 0 || first == 0 || first > most ||
        (planes == 1 ? second != 0 : second == 0 || second > most || p->size % 2 != 0))
        return cvq_fail(err, CVQ_FORMAT, where,
                        "the piece for byte %llu has a malformed header" CVQ_DAMAGED,
                        (unsigned long long)p->offset);
    return read_all(read, context, p->packed + PIECE_HEADER, (size_t)first + second, where, err);
}

cvq_status cvq_file_unpack(int fd, uint64_t file_size, int threads, cvq_pack_read_fn read,
                           void *read_context, cvq_pack_progress_fn progress, void *context,
                           const char *where, cvq_error *err) {
    batch *b = NULL;
    uint64_t offset = 0;
    size_t n, got = 0;
    uint8_t more;
    CVQ_TRY(batch_make(&b, fd, file_size, threads, false, where, err));
    cvq_status status = CVQ_OK;
    while (status == CVQ_OK && (n = batch_next(b, &offset, file_size)) > 0) {
        for (size_t i = 0; status == CVQ_OK && i < n; i++)
            status = read_packed(&b->pieces[i], read, read_context, where, err);
        if (status != CVQ_OK) break;
        cvq_parallel_for(threads, n, unpack_unit, b);
        status = batch_status(b, n, err);
        if (status == CVQ_OK && progress && progress(context, offset, file_size) != 0)
            status = cvq_fail(err, CVQ_CANCELLED, where, "unpacking was stopped");
    }
    if (status == CVQ_OK) status = read(read_context, &more, 1, &got, err);
    if (status == CVQ_OK && got != 0)
        status = cvq_fail(err, CVQ_FORMAT, where, "has bytes behind its last piece" CVQ_DAMAGED);
    batch_free(b);
    return status;
}
