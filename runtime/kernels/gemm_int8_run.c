/* The loops around the tiles of the int8 matrix kernels: panels, then chunks of 256 columns, which
 * are unpacked once, then rows. */
#include <string.h>

#include "runtime/kernels/gemm_int8.h"

/* All rows times one chunk of `panels` panels. */
static void multiply_chunk(const gemm_plan *plan, const gemm_chunk *chunks, size_t panels,
                           gemm_rows a, size_t m, float *c, size_t ldc, bool first) {
    for (size_t tiles = (m + plan->rows - 1) / plan->rows; tiles > 0; tiles--) {
        size_t rows = (m + tiles - 1) / tiles; /* no small tile at the end */
        plan->tile[panels - 1][rows - 1](chunks, &a, c, ldc, first);
        a.q += rows * a.stride;
        a.scale += rows * (a.stride / CVQ_ACT_BLOCK);
        a.sum += rows * (a.stride / CVQ_ACT_SUM);
        c += rows * ldc;
        m -= rows;
    }
}

void cvq_gemm_int8_run(const gemm_plan *plan, const cvq_panels *w, size_t panel0, size_t num_panels,
                       const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {
    gemm_chunk chunks[GEMM_MAX_PANELS];
    const cvq_type_info *info = cvq_type_describe(w->type);
    const size_t group_bytes = (size_t)info->row_bytes * CVQ_PANEL_ROWS;
    for (size_t p0 = 0; p0 < num_panels; p0 += plan->panels) {
        size_t panels = num_panels - p0 < plan->panels ? num_panels - p0 : plan->panels;
        for (size_t k0 = 0; k0 < w->k; k0 += GEMM_CHUNK) {
            size_t columns = w->k - k0 < GEMM_CHUNK ? w->k - k0 : GEMM_CHUNK;
            for (size_t p = 0; p < panels; p++) {
                chunks[p].columns = columns;
                plan->unpack(w,
                             w->data + (panel0 + p0 + p) * w->panel_stride +
                                 k0 / info->group * group_bytes,
                             &chunks[p]);
            }
            size_t at = row0 * a->stride + k0;
            gemm_rows rows = {a->q + at, a->scale + at / CVQ_ACT_BLOCK, a->sum + at / CVQ_ACT_SUM,
                              a->stride};
            multiply_chunk(plan, chunks, panels, rows, m, c + p0 * CVQ_PANEL_ROWS, ldc, k0 == 0);
        }
    }
}
