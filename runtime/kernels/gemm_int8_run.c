/* The loops around the tiles of the int8 matrix kernels. Chunks of columns are outermost, then
 * the panels of a tile: unpacked, they stay in the first-level cache while all rows pass by. Where
 * activations are packed, so that they take more room, it is the other way round: the chunks of all
 * panels stay in the second-level cache, and a group of rows in the first while it meets each. */
#include <string.h>

#include "runtime/kernels/gemm_int8.h"

/* At most GEMM_RUN_ROWS rows and GEMM_RUN_PANELS panels. */
typedef struct gemm_run {
    const gemm_plan *plan;
    const cvq_type_info *info;
    const cvq_panels *w;
    size_t panel0, panels, chunk; /* chunk: columns */
    const cvq_act8 *a;
    size_t row0, m;
    float *c;
    size_t ldc;
} gemm_run;

/* Weights to be unpacked next, asked for a few lines at a time: a panel's part of a chunk is a few
 * KiB in one piece, too short for the hardware to see it coming. */
typedef struct gemm_ahead {
    const uint8_t *data; /* of the first panel */
    size_t stride, bytes, panels;
    size_t panel, at; /* what to ask for next */
} gemm_ahead;

static size_t chunk_columns(const gemm_run *r, size_t k0) {
    return r->w->k - k0 < r->chunk ? r->w->k - k0 : r->chunk;
}

static const uint8_t *chunk_data(const gemm_run *r, size_t p, size_t k0) {
    return r->w->data + (r->panel0 + p) * r->w->panel_stride +
           cvq_group_offset(r->info, CVQ_PANEL_ROWS, k0 / r->info->group);
}

/* The chunk from column k0 on, if there is one, of so many panels from p on. */
static gemm_ahead ahead_at(const gemm_run *r, size_t p, size_t panels, size_t k0) {
    if (k0 >= r->w->k) return (gemm_ahead){0};
    const size_t groups = chunk_columns(r, k0) / r->info->group;
    return (gemm_ahead){.data = chunk_data(r, p, k0),
                        .stride = r->w->panel_stride,
                        .bytes = groups * GEMM_GROUP_BYTES(r->info->row_bytes),
                        .panels = r->panels - p < panels ? r->panels - p : panels};
}

/* What follows after `panels` panels from p on. */
static gemm_ahead ahead_of(const gemm_run *r, size_t p, size_t panels, size_t k0) {
    return p + panels < r->panels ? ahead_at(r, p + panels, panels, k0)
                                  : ahead_at(r, 0, panels, k0 + r->chunk);
}

static void ask_for_lines(gemm_ahead *next, size_t lines) {
    for (; lines > 0 && next->panel < next->panels; lines--) {
        __builtin_prefetch(next->data + next->panel * next->stride + next->at);
        next->at += 64;
        if (next->at < next->bytes) continue;
        next->at = 0;
        next->panel++;
    }
}

/* The chunk from column k0 on of `rows` rows; zero: of the weights; start: memory for what sums
 * start from. */
static gemm_tile_rows rows_of(const gemm_run *r, size_t row0, size_t rows, size_t k0, int32_t zero,
                              int32_t *start) {
    const cvq_act8 *a = r->a;
    const size_t at = row0 * a->stride + k0;
    r->plan->start(a->sum + at / CVQ_ACT_SUM, a->stride / CVQ_ACT_SUM, rows, chunk_columns(r, k0),
                   zero, start);
    return (gemm_tile_rows){.q = a->q + at,
                            .stride = a->stride,
                            .scale = a->scale + at / CVQ_ACT_BLOCK,
                            .scale_stride = a->stride / CVQ_ACT_BLOCK,
                            .start = start};
}

/* Into memory for an even number of rows, 2 bytes a column at most. */
static void pack_rows(const gemm_plan *plan, gemm_tile_rows *a, size_t rows, int8_t *memory) {
    const size_t stride = GEMM_CHUNK_Q8 * plan->activation_bytes;
    for (size_t i = 0; i < rows + (plan->pairs && rows % 2); i++) {
        int8_t *to = memory + (plan->pairs ? (i - i % 2) * stride + i % 2 * 8 : i * stride);
        plan->pack(a->q + (i < rows ? i : rows - 1) * a->stride, to);
    }
    a->q = memory;
    a->stride = stride;
}

/* Rows times one chunk of `panels` panels. */
static void multiply_chunk(const gemm_plan *plan, const gemm_chunk *chunks, size_t panels,
                           gemm_tile_rows a, size_t m, float *c, size_t ldc, bool first,
                           gemm_ahead next) {
    size_t tiles = (m + plan->rows - 1) / plan->rows;
    const size_t lines = (next.panels * (next.bytes / 64 + 1) + tiles - 1) / tiles;
    for (; tiles > 0; tiles--) {
        size_t rows = (m + tiles - 1) / tiles; /* no small tile at the end */
        if (plan->pairs && rows % 2 && rows < m) rows++;
        ask_for_lines(&next, lines);
        plan->tile[panels - 1][rows - 1](chunks, &a, c, ldc, first);
        a.q += rows * a.stride;
        a.scale += rows * a.scale_stride;
        a.start += rows * GEMM_CHUNK_BLOCKS * plan->start_lanes;
        c += rows * ldc;
        m -= rows;
    }
}

static void unpack_chunks(const gemm_run *r, size_t p, size_t panels, size_t k0,
                          gemm_chunk *chunks) {
    size_t i = 0;
    do { /* there is one at least */
        chunks[i].columns = chunk_columns(r, k0);
        chunks[i].head = r->w->data + (r->panel0 + p + i) * r->w->panel_stride;
        r->plan->unpack(r->w, chunk_data(r, p + i, k0), &chunks[i]);
    } while (++i < panels);
}

/* How many of the panels from p on a tile takes. */
static size_t tile_panels(const gemm_run *r, size_t p) {
    return r->panels - p < r->plan->panels ? r->panels - p : r->plan->panels;
}

/* The chunk from column k0 on. */
static void run_chunk(const gemm_run *r, size_t k0) {
    gemm_chunk chunks[GEMM_MAX_PANELS];
    _Alignas(16) int32_t start[GEMM_RUN_ROWS * GEMM_CHUNK_BLOCKS * GEMM_MAX_START_LANES];
    gemm_tile_rows rows = {0};
    for (size_t p = 0, panels; p < r->panels; p += panels) {
        panels = tile_panels(r, p);
        unpack_chunks(r, p, panels, k0, chunks);
        if (p == 0) rows = rows_of(r, r->row0, r->m, k0, chunks[0].zero, start);
        multiply_chunk(r->plan, chunks, panels, rows, r->m, r->c + p * CVQ_PANEL_ROWS, r->ldc,
                       k0 == 0, ahead_of(r, p, panels, k0));
    }
}

/* The same with packed activations. */
static void run_packed_chunk(const gemm_run *r, size_t k0) {
    gemm_chunk chunks[GEMM_RUN_PANELS];
    _Alignas(64) int8_t q[GEMM_PACKED_ROWS * GEMM_CHUNK_Q8 * 2];
    _Alignas(16) int32_t start[GEMM_PACKED_ROWS * GEMM_CHUNK_BLOCKS * GEMM_MAX_START_LANES];
    unpack_chunks(r, 0, r->panels, k0, chunks);
    for (size_t i = 0, m; i < r->m; i += m) {
        m = r->m - i < GEMM_PACKED_ROWS ? r->m - i : GEMM_PACKED_ROWS;
        gemm_tile_rows rows = rows_of(r, r->row0 + i, m, k0, chunks[0].zero, start);
        pack_rows(r->plan, &rows, m, q);
        for (size_t p = 0, panels; p < r->panels; p += panels) {
            panels = tile_panels(r, p);
            const bool last = i + m == r->m; /* the next chunk is unpacked soon */
            multiply_chunk(r->plan, chunks + p, panels, rows, m,
                           r->c + i * r->ldc + p * CVQ_PANEL_ROWS, r->ldc, k0 == 0,
                           last ? ahead_at(r, p, panels, k0 + r->chunk) : (gemm_ahead){0});
        }
    }
}

void cvq_gemm_int8_run(const gemm_plan *plan, const cvq_panels *w, size_t panel0, size_t num_panels,
                       const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc) {
    gemm_run r = {.plan = plan, .info = cvq_type_describe(w->type), .w = w, .a = a, .ldc = ldc};
    r.chunk = w->type == CVQ_TYPE_Q8 || plan->pack ? GEMM_CHUNK_Q8 : GEMM_CHUNK;
    for (size_t i = 0; i < m; i += GEMM_RUN_ROWS)
        for (size_t p = 0; p < num_panels; p += GEMM_RUN_PANELS) {
            r.row0 = row0 + i;
            r.m = m - i < GEMM_RUN_ROWS ? m - i : GEMM_RUN_ROWS;
            r.panel0 = panel0 + p;
            r.panels = num_panels - p < GEMM_RUN_PANELS ? num_panels - p : GEMM_RUN_PANELS;
            r.c = c + i * ldc + p * CVQ_PANEL_ROWS;
            for (size_t k0 = 0; k0 < w->k; k0 += r.chunk)
                (plan->pack ? run_packed_chunk : run_chunk)(&r, k0);
        }
}
