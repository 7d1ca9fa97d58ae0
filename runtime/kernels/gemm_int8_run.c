/* The loops around the tiles of the int8 matrix kernels. Chunks of 256 columns are outermost: those
 * of all panels are unpacked once and stay in the second-level cache; rows pass by in groups, which
 * stay in the first while they meet each panel. */
#include <string.h>

#include "runtime/kernels/gemm_int8.h"

/* What is made of a chunk's columns of a group of rows. */
typedef struct gemm_packed {
    _Alignas(64) int8_t q[GEMM_PACKED_ROWS * GEMM_CHUNK * 2];
    int32_t start[GEMM_PACKED_ROWS * GEMM_CHUNK_BLOCKS];
} gemm_packed;

/* One call: at most GEMM_RUN_PANELS panels. */
typedef struct gemm_run {
    const gemm_plan *plan;
    const cvq_type_info *info;
    const cvq_panels *w;
    size_t panel0, panels;
    const cvq_act8 *a;
    size_t row0, m;
    float *c;
    size_t ldc;
} gemm_run;

static void start_values(const int32_t *sums, size_t stride, size_t rows, size_t block,
                         int32_t zero, int32_t *out) {
    const size_t each = block / CVQ_ACT_SUM;
    for (size_t i = 0; i < rows; i++, sums += stride, out += GEMM_CHUNK_BLOCKS)
        for (size_t b = 0; b < GEMM_CHUNK / block; b++) {
            int32_t sum = 0;
            for (size_t j = 0; j < each; j++) sum += sums[b * each + j];
            out[b] = -zero * sum;
        }
}
void cvq_gemm_start_32(const int32_t *sums, size_t stride, size_t rows, int32_t zero,
                       int32_t *out) {
    start_values(sums, stride, rows, 32, zero, out);
}
void cvq_gemm_start_128(const int32_t *sums, size_t stride, size_t rows, int32_t zero,
                        int32_t *out) {
    start_values(sums, stride, rows, 128, zero, out);
}

/* at: the place of the first row's first column; zero: of the weights. */
static gemm_tile_rows rows_of(const gemm_run *r, size_t at, size_t rows, int32_t zero,
                              gemm_packed *memory) {
    const cvq_act8 *a = r->a;
    gemm_tile_rows out = {.q = a->q + at,
                          .stride = a->stride,
                          .scale = a->scale + at / CVQ_ACT_BLOCK,
                          .scale_stride = a->stride / CVQ_ACT_BLOCK,
                          .start = memory->start};
    r->plan->start(a->sum + at / CVQ_ACT_SUM, a->stride / CVQ_ACT_SUM, rows, zero, memory->start);
    if (r->plan->pack) {
        out.q = memory->q;
        out.stride = GEMM_CHUNK * r->plan->activation_bytes;
        for (size_t i = 0; i < rows; i++)
            r->plan->pack(a->q + at + i * a->stride, memory->q + i * out.stride);
    }
    return out;
}

/* Rows times one chunk of `panels` panels. */
static void multiply_chunk(const gemm_plan *plan, const gemm_chunk *chunks, size_t panels,
                           gemm_tile_rows a, size_t m, float *c, size_t ldc, bool first) {
    for (size_t tiles = (m + plan->rows - 1) / plan->rows; tiles > 0; tiles--) {
        size_t rows = (m + tiles - 1) / tiles; /* no small tile at the end */
        plan->tile[panels - 1][rows - 1](chunks, &a, c, ldc, first);
        a.q += rows * a.stride;
        a.scale += rows * a.scale_stride;
        a.start += rows * GEMM_CHUNK_BLOCKS;
        c += rows * ldc;
        m -= rows;
    }
}

/* Columns [k0, k0 + 256). */
static void run_chunk(const gemm_run *r, size_t k0) {
    gemm_chunk chunks[GEMM_RUN_PANELS];
    gemm_packed packed;
    for (size_t p = 0; p < r->panels; p++) {
        chunks[p].columns = r->w->k - k0 < GEMM_CHUNK ? r->w->k - k0 : GEMM_CHUNK;
        chunks[p].head = r->w->data + (r->panel0 + p) * r->w->panel_stride;
        r->plan->unpack(
            r->w, chunks[p].head + cvq_group_offset(r->info, CVQ_PANEL_ROWS, k0 / r->info->group),
            &chunks[p]);
    }
    for (size_t i = 0, rows; i < r->m; i += rows) {
        rows = r->m - i < GEMM_PACKED_ROWS ? r->m - i : GEMM_PACKED_ROWS;
        gemm_tile_rows part =
            rows_of(r, (r->row0 + i) * r->a->stride + k0, rows, chunks[0].zero, &packed);
        for (size_t p = 0, panels; p < r->panels; p += panels) {
            panels = r->panels - p < r->plan->panels ? r->panels - p : r->plan->panels;
            multiply_chunk(r->plan, chunks + p, panels, part, rows,
                           r->c + i * r->ldc + p * CVQ_PANEL_ROWS, r->ldc, k0 == 0);
        }
    }
}

void cvq_gemm_int8_run(const gemm_plan *plan, const cvq_panels *w, size_t panel0, size_t num_panels,
                       const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {
    gemm_run r = {plan, cvq_type_describe(w->type), w, 0, 0, a, row0, m, NULL, ldc};
    for (size_t p = 0; p < num_panels; p += GEMM_RUN_PANELS) {
        r.panel0 = panel0 + p;
        r.panels = num_panels - p < GEMM_RUN_PANELS ? num_panels - p : GEMM_RUN_PANELS;
        r.c = c + p * CVQ_PANEL_ROWS;
        for (size_t k0 = 0; k0 < w->k; k0 += GEMM_CHUNK) run_chunk(&r, k0);
    }
}
