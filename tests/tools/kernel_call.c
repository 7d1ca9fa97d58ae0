/* Calls one kernel once, between two marks, for whoever follows its instructions one by one:
 *
 *   kernel_call LEVEL gemm|gemv TYPE ROWS COLUMNS PANELS
 *   kernel_call LEVEL attend DIMENSIONS ROWS
 *
 * scripts/arm_cycles.py lets qemu write down what is executed from kernel_call_begin to
 * kernel_call_end. Values are of no importance; all that is read is there. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "runtime/kernels/kernels.h"

void kernel_call_begin(void);
void kernel_call_end(void);
__attribute__((noinline)) void kernel_call_begin(void) {
    __asm__ volatile("" ::: "memory");
}
__attribute__((noinline)) void kernel_call_end(void) {
    __asm__ volatile("" ::: "memory");
}

static void *filled(size_t bytes) {
    void *p;
    if (cvq_alloc(&p, bytes, 1, "memory", NULL) != CVQ_OK) exit(1);
    memset(p, 17, bytes);
    return p;
}

static int call_matrix(const cvq_kernels *t, bool few, cvq_type type, const size_t *n) {
    const cvq_type_info *info = cvq_type_describe(type);
    const size_t m = n[0], k = n[1], panels = n[2], ld = k + 256;
    if (!info->block || k % 256 || !m || !panels) return 2;
    cvq_panels w = {NULL, &cvq_codebook_default, cvq_panel_bytes(info, CVQ_PANEL_ROWS, k), k, type};
    void *data = filled(w.panel_stride * panels);
    w.data = data;
    cvq_act8 a = {filled(m * ld), filled(m * ld / 32), filled(m * ld / 8), ld};
    float *c = filled(m * panels * CVQ_PANEL_ROWS * sizeof *c);
    cvq_gemm_int8_fn *kernel = (few ? t->gemv_int8 : t->gemm_int8)[type];
    kernel_call_begin();
    kernel(&w, 0, panels, &a, 0, m, c, panels * CVQ_PANEL_ROWS);
    kernel_call_end();
    free(data);
    free(a.q);
    free(a.scale);
    free(a.sum);
    free(c);
    return 0;
}

static int call_attention(const cvq_kernels *t, size_t d, size_t rows) {
    const size_t steps = (d + 3) / 4, panels = (d + 15) / 16;
    if (!rows || rows % CVQ_ATTENTION_ROWS || !steps || steps > CVQ_ATTENTION_STEPS) return 2;
    int8_t *lines = filled(1024 * steps + 4096 * panels);
    float *scale = filled(sizeof *scale * (CVQ_ATTENTION_KEYS + 16 * panels));
    int32_t *start = filled(sizeof *start * CVQ_ATTENTION_KEYS);
    cvq_attention_block kv = {lines, scale, start, lines + 1024 * steps, scale, steps, panels};
    size_t *seen = filled(rows * sizeof *seen);
    for (size_t i = 0; i < rows; i++) seen[i] = CVQ_ATTENTION_KEYS;
    uint8_t *q = filled(rows * 4 * steps);
    float *row = filled(3 * rows * sizeof *row), *out = filled(rows * 64 * panels);
    cvq_attention_rows r = {q, row, seen, row + rows, row + 2 * rows, out};
    kernel_call_begin();
    t->attend_int8(&kv, &r, rows);
    kernel_call_end();
    free(lines);
    free(scale);
    free(start);
    free(seen);
    free(q);
    free(row);
    free(out);
    return 0;
}

static int usage(void) {
    fprintf(stderr, "usage: kernel_call LEVEL gemm|gemv TYPE ROWS COLUMNS PANELS\n"
                    "       kernel_call LEVEL attend DIMENSIONS ROWS\n");
    return 2;
}

int main(int argc, char **argv) {
    cvq_cpu_level level;
    cvq_type type;
    cvq_error err = {0};
    size_t n[3] = {0};
    if (argc < 5) return usage();
    if (cvq_cpu_level_find(&level, argv[1], &err) != CVQ_OK) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        return 2;
    }
    const cvq_kernels *t = cvq_kernels_for(level);
    const bool attend = strcmp(argv[2], "attend") == 0, few = strcmp(argv[2], "gemv") == 0;
    for (int i = 0, first = attend ? 3 : 4; i < 3 && first + i < argc; i++)
        n[i] = (size_t)strtoul(argv[first + i], NULL, 10);
    if (attend) return call_attention(t, n[0], n[1]) ? usage() : 0;
    if (!few && strcmp(argv[2], "gemm") != 0) return usage();
    if (!cvq_type_find(&type, argv[3])) return usage();
    return call_matrix(t, few, type, n) ? usage() : 0;
}
