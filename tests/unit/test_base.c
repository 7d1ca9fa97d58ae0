/* base/: size arithmetic, half precision, buffers, files, threads, levels.
 * cvq-test: threads */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cpu.h"
#include "base/file_map.h"
#include "base/half.h"
#include "base/machine_memory.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "tests/unit/harness.h"
#include "tests/unit/temp_folder.h"

static void sizes_do_not_wrap(void) {
    uint64_t out = 7;
    CHECK(!cvq_add_u64(UINT64_MAX, 1, &out) && out == 7);
    CHECK(cvq_add_u64(UINT64_MAX, 0, &out) && out == UINT64_MAX);
    CHECK(!cvq_mul_u64(1ull << 32, 1ull << 32, &out));
    CHECK(cvq_mul_u64(1ull << 32, (1ull << 32) - 1, &out) && out == 0xffffffff00000000ull);
    CHECK(cvq_mul_u64(UINT64_MAX, 0, &out) && out == 0);
    CHECK(!cvq_round_up_u64(UINT64_MAX, 2, &out));
    CHECK(cvq_round_up_u64(65537, 65536, &out) && out == 131072);
    CHECK(cvq_range_within(10, 0, 10) && !cvq_range_within(10, 1, 10));
    CHECK(!cvq_range_within(1, UINT64_MAX, 10) && !cvq_range_within(11, 0, 10));
}

static void cursor_stays_inside(void) {
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6};
    cvq_cursor c = cvq_cursor_make(bytes, sizeof bytes);
    CHECK(cvq_cursor_u32(&c) == 0x04030201 && !c.failed && c.left == 2);
    CHECK(cvq_cursor_u64(&c) == 0 && c.failed);
    CHECK(cvq_cursor_u32(&c) == 0 && cvq_cursor_bytes(&c, 0) == NULL);
    CHECK(c.left == 2); /* nothing is taken after a failure */
}

static void half_precision_round_trips(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = cvq_f16_to_f32((uint16_t)h), b = cvq_bf16_to_f32((uint16_t)h);
        if (!isnan(f)) CHECK_SAY(cvq_f32_to_f16(f) == h, "f16 %x", h);
        if (!isnan(b)) CHECK_SAY(cvq_f32_to_bf16(b) == h, "bf16 %x", h);
    }
    CHECK(cvq_f32_to_f16(65519.0f) == 0x7bff && cvq_f32_to_f16(65520.0f) == 0x7c00);
    CHECK(cvq_f32_to_f16(0x1p-25f) == 0 && cvq_f32_to_f16(0x1.8p-25f) == 1); /* ties to even */
    CHECK(cvq_f32_to_f16(1.0f + 0x1p-11f) == 0x3c00);
    CHECK(cvq_f32_to_f16(1.0f + 0x1.8p-10f) == 0x3c02);
    CHECK(cvq_f32_to_bf16(1.0f + 0x1p-8f) == 0x3f80);
    CHECK(cvq_f32_to_bf16(1.0f + 0x1.8p-7f) == 0x3f82);
    CHECK((cvq_f32_to_f16(NAN) & 0x7fff) > 0x7c00 && (cvq_f32_to_bf16(NAN) & 0x7fff) > 0x7f80);
    CHECK(cvq_f32_to_bf16(cvq_bits_f32(0x7f800001u)) !=
          0x7f80); /* a NaN does not become infinity */
}

static void first_error_wins(void) {
    cvq_error err = {0};
    CHECK(cvq_fail(&err, CVQ_FORMAT, "here", "number %d", 1) == CVQ_FORMAT);
    CHECK(cvq_fail(&err, CVQ_IO, "there", "number %d", 2) == CVQ_IO);
    CHECK(err.code == CVQ_FORMAT && strcmp(err.where, "here") == 0);
    CHECK(strcmp(err.message, "number 1") == 0);
    CHECK(cvq_fail(NULL, CVQ_IO, NULL, "nobody listens") == CVQ_IO);
    CHECK(strcmp(cvq_status_name(CVQ_CANCELLED), "CVQ_CANCELLED") == 0);
    CHECK(cvq_status_name((cvq_status)1000) != NULL && cvq_status_name((cvq_status)-1) != NULL);
}

static void advice_follows_what_is_wrong(void) {
    cvq_error problem = {CVQ_FORMAT, "file", "cut"}, err = {0};
    CHECK(cvq_fail_advising(&err, "file", &problem, "; fetch it") == CVQ_FORMAT);
    CHECK(strcmp(err.where, "file") == 0 && strcmp(err.message, "cut; fetch it") == 0);
    err = (cvq_error){0};
    CHECK(cvq_fail_advising(&err, "folder", &problem, "; fetch it") == CVQ_FORMAT);
    CHECK(strcmp(err.where, "folder") == 0 && strcmp(err.message, "file: cut; fetch it") == 0);
    err = (cvq_error){0};
    problem.code = CVQ_OUT_OF_MEMORY; /* the file is not at fault */
    CHECK(cvq_fail_advising(&err, "file", &problem, "; fetch it") == CVQ_OUT_OF_MEMORY);
    CHECK(strcmp(err.message, "cut") == 0);
}

static void allocation_is_checked(void) {
    void *p = NULL;
    cvq_error err = {0};
    CHECK(cvq_alloc(&p, UINT64_MAX, 2, "a thing", &err) == CVQ_OUT_OF_MEMORY && p == NULL);
    CHECK(strcmp(err.where, "a thing") == 0);
    CHECK(cvq_alloc(&p, 0, 8, "nothing", NULL) == CVQ_OK && p != NULL);
    free(p);
    CHECK(cvq_alloc(&p, 3, 5, "fifteen", NULL) == CVQ_OK && (uintptr_t)p % 64 == 0);
    CHECK(cvq_all_zero(p, 15));
    free(p);
    cvq_buffer b = {0};
    for (int i = 0; i < 1000; i++) CHECK(cvq_buffer_append_le(&b, (uint64_t)i, 3, NULL) == CVQ_OK);
    CHECK(cvq_buffer_pad(&b, 64, NULL) == CVQ_OK && b.size == 3008);
    CHECK(b.data[3 * 999] == 0xe7 && b.data[3 * 999 + 1] == 3 && b.data[3007] == 0);
    cvq_buffer_free(&b);
    CHECK(b.data == NULL && b.size == 0);
}

static void files_are_read_and_mapped(void) {
    char folder[] = "/tmp/cvq-base-XXXXXX", path[64];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/file", folder);
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    CHECK(cvq_write_all(fd, 3, "abc", 3, path, NULL) == CVQ_OK);
    close(fd);
    cvq_file_map map = {0};
    CHECK(cvq_file_map_open(&map, path, NULL) == CVQ_OK && map.size == 6);
    CHECK(memcmp(map.data, "\0\0\0abc", 6) == 0);
    cvq_file_map_advise(&map, 2, UINT64_MAX, CVQ_ADVICE_WILLNEED); /* clipped */
    cvq_file_map_close(&map);
    cvq_file_map_close(&map);
    cvq_buffer b = {0};
    cvq_error err = {0};
    CHECK(cvq_read_file(&b, path, 6, NULL) == CVQ_OK && b.size == 6 && b.data[6] == 0);
    CHECK(cvq_read_file(&b, path, 5, &err) == CVQ_FORMAT && strcmp(err.where, path) == 0);
    cvq_buffer_free(&b);
    err = (cvq_error){0};
    CHECK(cvq_file_map_open(&map, folder, &err) == CVQ_IO); /* a folder */
    unlink(path);
    err = (cvq_error){0};
    CHECK(cvq_file_map_open(&map, path, &err) == CVQ_NOT_FOUND);
    CHECK(mkfifo(path, 0600) == 0); /* must not wait for a writer */
    CHECK(cvq_file_map_open(&map, path, NULL) == CVQ_IO);
    unlink(path);
    rmdir(folder);
}

static void count_unit(void *context, size_t index, int thread) {
    int *counts = context;
    (void)thread;
    counts[index]++; /* each index is one unit's own */
}

static void every_unit_runs_once(void) {
    int counts[1000] = {0};
    for (int threads = 1; threads <= 4; threads++)
        cvq_parallel_for(threads, 1000, count_unit, counts);
    for (int i = 0; i < 1000; i++) CHECK(counts[i] == 4);
    cvq_parallel_for(4, 0, count_unit, counts);
    CHECK(cvq_default_threads() >= 1 && cvq_default_threads() <= CVQ_MAX_THREADS);
}

static void loop_within(void *context, size_t index, int thread) {
    int *counts = context;
    (void)thread;
    cvq_parallel_for(4, 10, count_unit, counts + 10 * index); /* finds the pool taken */
}

static void loops_within_loops(void) {
    int counts[1000] = {0};
    cvq_parallel_for(3, 100, loop_within, counts);
    for (int i = 0; i < 1000; i++) CHECK(counts[i] == 1);
}

static void loops_in_children(void) {
    int counts[1000] = {0}, status = 0;
    cvq_parallel_for(3, 100, loop_within, counts);
    pid_t child = fork(); /* has no workers */
    if (child == 0) {
        cvq_parallel_for(3, 100, loop_within, counts);
        _exit(counts[999] == 2 ? 7 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* What a group of 8,000 bytes leaves of 10,000 of which 9,000 are available. */
static cvq_machine_memory limited(const char *const (*files)[2], size_t n) {
    cvq_machine_memory m = {.total = 10000, .available = 9000};
    for (size_t i = 0; i < n; i++) temp_write_text(files[i][0], files[i][1]);
    cvq_machine_memory_limit(&m, temp_folder);
    for (size_t i = 0; i < n; i++) unlink(temp_path(files[i][0]));
    return m;
}

static void groups_limit_memory(void) {
    if (!temp_open()) exit(1);
    cvq_machine_memory m = cvq_machine_memory_now();
    CHECK(m.total > 0 && m.available > 0 && m.available <= m.total);
    const char *const first[][2] = {
        {"memory.limit_in_bytes", "8000\n"},
        {"memory.usage_in_bytes", "7000\n"},
        {"memory.stat", "inactive_file 1\ntotal_inactive_file 3000\ntotal_active_file 500\n"}};
    m = limited(first, 3);
    CHECK(m.limited && m.total == 8000 && m.available == 4500);
    const char *const second[][2] = {{"memory.max", "8000\n"},
                                     {"memory.high", "max\n"},
                                     {"memory.current", "7000\n"},
                                     {"memory.stat", "inactive_file 3000\nactive_file 500\n"}};
    m = limited(second, 4);
    CHECK(m.limited && m.total == 8000 && m.available == 4500);
    const char *const slowed[][2] = {
        {"memory.max", "max\n"}, {"memory.high", "6000\n"}, {"memory.current", "6500\n"}};
    m = limited(slowed, 3);
    CHECK(m.limited && m.total == 6000 && m.available == 0);
    const char *const none[][2] = {{"memory.max", "max\n"}, {"memory.current", "6500\n"}};
    m = limited(none, 2);
    CHECK(!m.limited && m.total == 10000 && m.available == 9000);
    m = limited(NULL, 0);
    CHECK(!m.limited);
    temp_close();
}

static void levels_are_found_by_name(void) {
    cvq_cpu_level level = CVQ_CPU_LEVELS;
    cvq_error err = {0};
    CHECK(cvq_cpu_level_find(&level, "scalar", NULL) == CVQ_OK && level == CVQ_CPU_SCALAR);
    CHECK(cvq_cpu_level_find(&level, NULL, NULL) == CVQ_OK && cvq_cpu_has(level));
    CHECK(cvq_cpu_level_find(&level, "mmx", &err) == CVQ_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "avx2") != NULL);
    err = (cvq_error){0};
#if defined(__x86_64__)
    CHECK(cvq_cpu_level_find(&level, "neon", &err) == CVQ_UNSUPPORTED);
#else
    CHECK(cvq_cpu_level_find(&level, "avx2", &err) == CVQ_UNSUPPORTED);
#endif
    const char *had = strstr(err.message, "scalar"); /* named once: only those it has */
    CHECK(had != NULL && strstr(had + 1, "scalar") == NULL);
    CHECK(cvq_cpu_model()[0] != 0);
}

int main(void) {
    RUN(sizes_do_not_wrap);
    RUN(cursor_stays_inside);
    RUN(half_precision_round_trips);
    RUN(first_error_wins);
    RUN(advice_follows_what_is_wrong);
    RUN(allocation_is_checked);
    RUN(files_are_read_and_mapped);
    RUN(every_unit_runs_once);
    RUN(loops_within_loops);
    const char *runner = getenv("CVQ_RUNNER");
    if (runner && *runner)
        SKIP("loops_in_children", "the emulator cannot start threads in a child");
    else
        RUN(loops_in_children);
    RUN(groups_limit_memory);
    RUN(levels_are_found_by_name);
    return REPORT();
}
