/* formats/: every allocation, read, write and sync made to fail once, one after the other, and the
 * work done again: an error that says something, or the whole result; nothing is left allocated.
 * cvq-test: formats */
#undef _FORTIFY_SOURCE /* its inline functions are among those that have others here */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "formats/manifest.h"
#include "formats/metadata.h"
#include "formats/minisign.h"
#include "formats/safetensors.h"
#include "tests/unit/harness.h"
#include "tests/unit/packed_room.h"
#include "tests/unit/signed_text.h"
#include "tests/unit/small_file.h"
#include "tests/unit/temp_folder.h"

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&       \
    !HAS_FEATURE(address_sanitizer) && !HAS_FEATURE(thread_sanitizer)

/* ---------------------------------------------------------------- calls that fail */

static atomic_long left = -1; /* calls before the one that fails; below 0: none does */
static atomic_long allocated; /* blocks */

static bool fails(int code) {
    if (atomic_load(&left) < 0 || atomic_fetch_sub(&left, 1) != 0) return false;
    errno = code;
    return true;
}

/* These take the place of the C library's, in its own calls and in other libraries' too. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);
void ERR_clear_error(void); /* libcrypto's list of what went wrong is in memory, too */

static void *counted(void *p) {
    if (p) atomic_fetch_add(&allocated, 1);
    return p;
}
void *malloc(size_t size) {
    return fails(ENOMEM) ? NULL : counted(__libc_malloc(size));
}
void *calloc(size_t n, size_t size) {
    return fails(ENOMEM) ? NULL : counted(__libc_calloc(n, size));
}
void *realloc(void *p, size_t size) {
    if (fails(ENOMEM)) return NULL;
    void *q = __libc_realloc(p, size);
    return p ? q : counted(q);
}
void *aligned_alloc(size_t unit, size_t size) {
    return fails(ENOMEM) ? NULL : counted(__libc_memalign(unit, size));
}
int posix_memalign(void **p, size_t unit, size_t size) {
    if (fails(ENOMEM)) return ENOMEM;
    *p = counted(__libc_memalign(unit, size));
    return *p ? 0 : ENOMEM;
}
void free(void *p) {
    if (p) atomic_fetch_sub(&allocated, 1);
    __libc_free(p);
}
ssize_t pread(int fd, void *data, size_t size, off_t at) {
    return fails(EIO) ? -1 : syscall(SYS_pread64, fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails(ENOSPC) ? -1 : syscall(SYS_pwrite64, fd, data, size, at);
}
int fstat(int fd, struct stat *st) {
    return fails(EIO) ? -1 : fstatat(fd, "", st, AT_EMPTY_PATH);
}
int ftruncate(int fd, off_t size) {
    return fails(ENOSPC) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}
int fsync(int fd) {
    return fails(EIO) ? -1 : (int)syscall(SYS_fsync, fd);
}

/* ---------------------------------------------------------------- stepping */

typedef cvq_status (*work_fn)(cvq_error *err);

static void step(const char *name, work_fn work) {
    cvq_error err = {0};
    CHECK_SAY(work(&err) == CVQ_OK, "%s without faults: %s", name, err.message);
    CHECK_SAY(work(NULL) == CVQ_OK, "%s once more", name); /* libraries have their tables now */
    long failed = 0, number = 0;
    for (;; number++) {
        err = (cvq_error){0};
        const long before = atomic_load(&allocated);
        atomic_store(&left, number);
        const cvq_status status = work(&err);
        const bool reached = atomic_exchange(&left, -1) < 0;
        if (!reached) break;
        failed += status != CVQ_OK;
        CHECK_SAY(status == CVQ_OK || (err.code == status && err.message[0]),
                  "%s, call %ld: status %d without a message", name, number, (int)status);
        ERR_clear_error();
        const long more = atomic_load(&allocated) - before;
        CHECK_SAY(more <= 0, "%s, call %ld: %ld blocks are not free: %s", name, number, more,
                  err.message);
        if (harness_broken > 20) return;
    }
    CHECK_SAY(failed > 0 && number < 100000, "%s: of %ld calls %ld failed", name, number, failed);
}

/* ---------------------------------------------------------------- what is done */

static const char metadata[] =
    "{\"format\":\"cvq\",\"recipe\":{\"name\":\"custom\",\"types\":{\"*\":\"q8\",\"a\":\"q6\"},"
    "\"importance\":\"ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100\"},"
    "\"source\":{\"revision\":\"c0ffee\",\"files\":[{\"name\":\"config.json\",\"size\":1406,"
    "\"sha256\":\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}]},"
    "\"generation\":{\"temperature\":0.6,\"top_p\":0.9},"
    "\"licenses\":[{\"name\":\"LICENSE\",\"text\":\"a\"},{\"name\":\"USE\",\"text\":\"b\"}],"
    "\"card\":\"# Card\"}";

static cvq_status write_file(cvq_error *err) {
    const int fd = open(temp_path("written.cvq"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return cvq_fail_errno(err, "written.cvq", "cannot make it");
    const cvq_status status = small_write(fd, metadata, true, NULL, err);
    close(fd);
    return status;
}

static cvq_status read_file(cvq_error *err) {
    cvq_reader *r = NULL;
    cvq_buffer json = {0};
    cvq_metadata m = {0};
    CVQ_TRY(cvq_reader_open(&r, temp_path("small.cvq"), err));
    cvq_status status = cvq_reader_verify(r, 1, NULL, NULL, NULL, err);
    if (status == CVQ_OK) status = cvq_reader_metadata(r, &json, err);
    if (status == CVQ_OK)
        status = cvq_metadata_parse(&m, (const char *)json.data, json.size, "metadata", err);
    cvq_buffer_free(&json);
    if (status == CVQ_OK) status = cvq_metadata_print(&m, &json, err);
    cvq_metadata_free(&m);
    cvq_buffer_free(&json);
    cvq_reader_close(r);
    return status;
}

static cvq_status use_manifest(cvq_error *err) {
    cvq_reader *r = NULL;
    cvq_buffer text = {0};
    cvq_manifest m = {0};
    CVQ_TRY(cvq_reader_open(&r, temp_path("small.cvq"), err));
    cJSON *quality = cJSON_CreateObject();
    cvq_status status = cvq_manifest_print(r, quality, &text, err);
    if (status == CVQ_OK)
        status = cvq_manifest_parse(&m, (const char *)text.data, text.size, "manifest", err);
    cvq_manifest_free(&m);
    cvq_buffer_free(&text);
    cJSON_Delete(quality);
    cvq_reader_close(r);
    return status;
}

static cvq_status pack(cvq_error *err) {
    static uint8_t room[8 << 20];
    static const uint8_t id[CVQ_ID_BYTES];
    uint8_t found[CVQ_ID_BYTES];
    uint64_t size = 0;
    packed_room packed = {room, sizeof room, 0, SIZE_MAX};
    const int in = open(temp_path("small.cvq"), O_RDONLY | O_CLOEXEC);
    const int out = open(temp_path("unpacked"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const off_t end = lseek(in, 0, SEEK_END);
    cvq_status status =
        cvq_file_pack(in, (uint64_t)end, id, 2, packed_keep, &packed, NULL, NULL, "small.cvq", err);
    if (status == CVQ_OK) status = cvq_packed_header(room, &size, found, "packed", err);
    packed = (packed_room){room, packed.at, CVQ_PACKED_HEADER_BYTES, SIZE_MAX};
    if (status == CVQ_OK)
        status = cvq_file_unpack(out, size, 2, packed_take, &packed, NULL, NULL, "packed", err);
    close(in);
    close(out);
    return status;
}

static cvq_status use_safetensors(cvq_error *err) {
    static const float values[4] = {1, 2, 3, 4};
    const cvq_st_tensor tensors[] = {
        {.name = "a", .dtype = CVQ_ST_F32, .ndim = 1, .dims = {2}, .size = 8},
        {.name = "b", .dtype = CVQ_ST_F32, .ndim = 2, .dims = {2, 2}, .size = 16}};
    cvq_safetensors *s = NULL;
    cvq_st_writer *w = NULL;
    CVQ_TRY(cvq_safetensors_open(&s, "tests/checkpoints/small", err));
    cvq_safetensors_close(s);
    const int fd = open(temp_path("t.safetensors"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cvq_status status = cvq_st_writer_open(&w, fd, tensors, 2, "t.safetensors", err);
    if (status == CVQ_OK) {
        status = cvq_st_writer_append(w, values, sizeof values, err);
        if (status == CVQ_OK) status = cvq_st_writer_skip(w, 8, err);
        if (status == CVQ_OK)
            status = cvq_st_writer_finish(w, err);
        else
            cvq_st_writer_free(w);
    }
    close(fd);
    if (status == CVQ_OK) status = cvq_safetensors_open(&s, temp_path("t.safetensors"), err);
    if (status == CVQ_OK) cvq_safetensors_close(s);
    return status;
}

static cvq_status check_signature(cvq_error *err) {
    static const char key[] = SIGNED_KEY, signature[] = SIGNED_SIGNATURE;
    char comment[64];
    return cvq_minisign_verify(SIGNED_TEXT, 4, signature, strlen(signature), key, strlen(key),
                               comment, sizeof comment, "test", err);
}

static cvq_status hash_file(cvq_error *err) {
    cvq_file_map map;
    uint8_t hash[CVQ_HASH_BYTES];
    CVQ_TRY(cvq_file_map_open(&map, temp_path("small.cvq"), err));
    const cvq_status status = cvq_sha256_file(&map, hash, err);
    cvq_file_map_close(&map);
    return status;
}

static void every_call_fails(void) {
    cvq_error err = {0};
    CHECK_SAY(write_file(&err) == CVQ_OK, "%s", err.message);
    CHECK(rename(temp_path("written.cvq"), temp_path("small.cvq")) == 0);
    step("a file is written", write_file);
    step("a file is read", read_file);
    step("a manifest", use_manifest);
    step("packing", pack);
    step("safetensors", use_safetensors);
    step("a signature", check_signature);
    step("a file is hashed", hash_file);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(every_call_fails);
    temp_close();
    return REPORT();
}

#else

int main(void) {
    (void)harness_broken; /* of tests that ran */
    SKIP("every_call_fails", "the allocator is a sanitizer's, or not glibc's");
    return REPORT();
}

#endif
