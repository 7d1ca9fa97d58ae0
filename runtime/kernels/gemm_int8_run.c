/* The loops around the tiles of the int8 matrix kernels. Chunks of 256 columns are outermost: those
 * of all panels are unpacked once and stay in the second-level cache; rows pass by in groups,
 * packed side by side, which stay in the first while they meet each panel. */
#include <string.h>

#include "runtime/kernels/gemm_int8.h"

/* A chunk's columns of a group of rows. */
typedef struct gemm_packed {
    _Alignas(64) int8_t q[GEMM_PACKED_ROWS * GEMM_CHUNK * 2];
    float scale[GEMM_PACKED_ROWS * (GEMM_CHUNK / CVQ_ACT_BLOCK)];
    int32_t sum[GEMM_PACKED_ROWS * (GEMM_CHUNK / CVQ_ACT_SUM)];
} gemm_packed;

/* at: the place of the first row's first column. */
static gemm_rows pack(const gemm_plan *plan, const cvq_act8 *a, size_t at, size_t rows,
                      gemm_packed *out) {
    const size_t bytes = GEMM_CHUNK * plan->activation_bytes;
    const size_t scales = GEMM_CHUNK / CVQ_ACT_BLOCK, sums = GEMM_CHUNK / CVQ_ACT_SUM;
    for (size_t i = 0; i < rows; i++, at += a->stride) {
        if (plan->pack)
            plan->pack(a->q + at, out->q + i * bytes);
        else
            memcpy(out->q + i * bytes, a->q + at, GEMM_CHUNK);
        memcpy(out->scale + i * scales, a->scale + at / CVQ_ACT_BLOCK, scales * sizeof(float));
        memcpy(out->sum + i * sums, a->sum + at / CVQ_ACT_SUM, sums * sizeof(int32_t));
    }
    gemm_rows packed = {out->q, out->scale, out->sum, GEMM_CHUNK};
    return packed;
}

/* Packed rows times one chunk of `panels` panels. */
static void multiply_chunk(const gemm_plan *plan, const gemm_chunk *chunks, size_t panels,
                           gemm_rows a, size_t m, float *c, size_t ldc, bool first) {
    for (size_t tiles = (m + plan->rows - 1) / plan->rows; tiles > 0; tiles--) {
        size_t rows = (m + tiles - 1) / tiles; /* no small tile at the end */
        plan->tile[panels - 1][rows - 1](chunks, &a, c, ldc, first);
        a.q += rows * a.stride * plan->activation_bytes;
        a.scale += rows * (a.stride / CVQ_ACT_BLOCK);
        a.sum += rows * (a.stride / CVQ_ACT_SUM);
        c += rows * ldc;
        m -= rows;
    }
}

/* Columns [k0, k0 + 256) of at most GEMM_RUN_PANELS panels. */
static void run_chunk(const gemm_plan *plan, const cvq_panels *w, size_t panel0, size_t num_panels,
                      const cvq_act8 *a, size_t row0, size_t m, size_t k0, float *c, size_t ldc) {
    gemm_chunk chunks[GEMM_RUN_PANELS];
    gemm_packed packed;
    const cvq_type_info *info = cvq_type_describe(w->type);
    for (size_t p = 0; p < num_panels; p++) {
        chunks[p].columns = w->k - k0 < GEMM_CHUNK ? w->k - k0 : GEMM_CHUNK;
        chunks[p].head = w->data + (panel0 + p) * w->panel_stride;
        plan->unpack(w, chunks[p].head + cvq_group_offset(info, CVQ_PANEL_ROWS, k0 / info->group),
                     &chunks[p]);
    }
    for (size_t i = 0, rows; i < m; i += rows) {
        rows = m - i < GEMM_PACKED_ROWS ? m - i : GEMM_PACKED_ROWS;
        gemm_rows part = pack(plan, a, (row0 + i) * a->stride + k0, rows, &packed);
        for (size_t p = 0, panels; p < num_panels; p += panels) {
            panels = num_panels - p < plan->panels ? num_panels - p : plan->panels;
            multiply_chunk(plan, chunks + p, panels, part, rows, c + i * ldc + p * CVQ_PANEL_ROWS,
                           ldc, k0 == 0);
        }
    }
}

void cvq_gemm_int8_run(const gemm_plan *plan, const cvq_panels *w, size_t panel0, size_t num_panels,
                       const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {
    for (size_t p = 0; p < num_panels; p += GEMM_RUN_PANELS) {
        size_t panels = num_panels - p < GEMM_RUN_PANELS ? num_panels - p : GEMM_RUN_PANELS;
        for (size_t k0 = 0; k0 < w->k; k0 += GEMM_CHUNK)
            run_chunk(plan, w, panel0 + p, panels, a, row0, m, k0, c + p * CVQ_PANEL_ROWS, ldc);
    }
}
