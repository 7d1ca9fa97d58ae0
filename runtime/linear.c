/* The driver of the matrix kernels: cuts y into tiles of rows x panels, computes each in a thread's
 * scratch memory while it is hot in cache, then adds the bias and does what follows on the way out.
 */
#include "runtime/linear.h"

#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"

#define PANELS 8 /* of 16 outputs in a tile */
#define TILE_COLS (PANELS * CVQ_PANEL_ROWS)
#define MAX_TILE_ROWS 264 /* whole tiles of 4, 6 and 12 rows */
#define BLOCK_K 256       /* decoded to f32 at once in exact mode: 16 KiB */
#define FEW_ROWS 4        /* gemv kernels take up to this many */
/* One row: panels of a unit, but for the last ones. Where a unit's weights begin, memory is waited
 * for, and where they end, the other threads are. */
#define LONG_UNIT 32
/* exact: a tile's activations stay in the second-level cache while its panels pass by. (The int8
 * kernels see to that themselves.) */
#define TILE_ACTIVATION_BYTES (1u << 20)

cvq_matrix cvq_matrix_rows(const cvq_matrix *w, size_t first, size_t count) {
    cvq_matrix part = *w;
    part.panels.data += first / CVQ_PANEL_ROWS * w->panels.panel_stride;
    part.rows = count;
    if (w->bias) part.bias += first;
    return part;
}

/* Padded columns of int8 activations: an odd number of groups, for a multiple of a large power of 2
 * would put the same columns of all rows into few cache sets. */
static size_t act_stride(size_t cols) {
    size_t stride = cvq_round_up(cols, CVQ_MAX_GROUP);
    return stride / CVQ_MAX_GROUP % 2 ? stride : stride + CVQ_MAX_GROUP;
}

/* q [rows][stride] | scale [rows][stride / 128] | sum [rows][stride / 32] */
size_t cvq_input_bytes(size_t rows, size_t cols) {
    size_t stride = act_stride(cols);
    return rows * (stride + stride / CVQ_ACT_BLOCK * sizeof(float) +
                   stride / CVQ_ACT_SUM * sizeof(int32_t));
}

static cvq_act8 act_view(void *memory, size_t rows, size_t cols) {
    size_t stride = act_stride(cols);
    uint8_t *p = memory;
    cvq_act8 a = {.q = (int8_t *)p, .stride = stride};
    p += rows * stride;
    a.scale = (float *)(void *)p;
    p += rows * (stride / CVQ_ACT_BLOCK) * sizeof(float);
    a.sum = (int32_t *)(void *)p;
    return a;
}

static cvq_act8 act_row(const cvq_act8 *a, size_t row) {
    cvq_act8 r = *a;
    r.q += row * a->stride;
    r.scale += row * (a->stride / CVQ_ACT_BLOCK);
    r.sum += row * (a->stride / CVQ_ACT_SUM);
    return r;
}

static void quantize_row(void *context, const cvq_engine *e, size_t row) {
    const cvq_input *in = context;
    cvq_act8 out = act_row(&in->act, row);
    e->k->quantize_rows(in->x + row * in->ld, in->ld, 1, in->cols, &out);
}

void cvq_input_quantize(const cvq_engine *e, cvq_input *in) {
    if (in->quantized) return;
    in->act = act_view(in->memory, in->rows, in->cols);
    cvq_engine_rows(e, in->rows, quantize_row, in);
    in->quantized = true;
}

typedef struct factor {
    const cvq_matrix *matrix;
    cvq_gemm_int8_fn *int8; /* NULL: exact */
} factor;

typedef struct linear_job {
    const cvq_engine *e;
    factor w, gate; /* gate: as large as w; its matrix NULL: none */
    const cvq_input *in;
    cvq_then then;
    float *y;
    size_t ldy, tile_rows, row_tiles, panels;
    size_t long_units;    /* that come first; of one row */
    const cvq_act8 *next; /* where y goes in int8, and nowhere else; or NULL */
} linear_job;

/* What a unit computes: so many rows and columns from the first ones on. */
typedef struct linear_tile {
    size_t row, rows, panel, panels, column, columns;
    size_t at; /* the first one's place in a thread's memory */
} linear_tile;

/* A thread's scratch memory. */
typedef struct tile_memory {
    float products[MAX_TILE_ROWS * TILE_COLS], gate[MAX_TILE_ROWS * TILE_COLS];
    float decoded[BLOCK_K * CVQ_PANEL_ROWS];
} tile_memory;
_Static_assert(LONG_UNIT <= MAX_TILE_ROWS * PANELS, "a unit's products fit");
_Static_assert(sizeof(tile_memory) <= CVQ_SCRATCH_FLOATS * sizeof(float),
               "two tiles and a decoded block fit in a thread's scratch memory");

/* exact: decode 256 columns of a panel, multiply, add; 256 columns at a time in ascending order. */
static void tile_exact(const linear_job *job, const cvq_panels *w, const linear_tile *t, float *c,
                       float *decoded) {
    const cvq_kernels *k = job->e->k;
    for (size_t k0 = 0; k0 < job->in->cols; k0 += BLOCK_K) {
        size_t left = job->in->cols - k0, n = left < BLOCK_K ? left : BLOCK_K;
        size_t k1 = k0 + BLOCK_K < w->k ? k0 + BLOCK_K : w->k;
        for (size_t p = 0; p < t->panels; p++) {
            k->unpack_f32[w->type](w, t->panel + p, k0, k1, decoded);
            k->tile_f32(decoded, n, job->in->x + t->row * job->in->ld + k0, job->in->ld, t->rows,
                        c + p * CVQ_PANEL_ROWS, TILE_COLS, k0 > 0);
        }
    }
}

static void multiply(const linear_job *job, const factor *f, const linear_tile *t, float *c,
                     float *decoded) {
    const cvq_panels *w = &f->matrix->panels;
    if (f->int8)
        f->int8(w, t->panel, t->panels, &job->in->act, t->row, t->rows, c, TILE_COLS);
    else
        tile_exact(job, w, t, c, decoded);
}

static void add_bias(const linear_job *job, const factor *f, const linear_tile *t, float *v) {
    if (f->matrix->bias) job->e->k->add(v, f->matrix->bias + t->column, t->columns);
}

/* Row i of the tile; y: what is there before, and where the result goes. */
static void finish_row(const linear_job *job, const linear_tile *t, tile_memory *m, size_t i,
                       float *y) {
    const cvq_kernels *k = job->e->k;
    float *v = m->products + t->at + i * TILE_COLS, *gate = m->gate + t->at + i * TILE_COLS;
    add_bias(job, &job->w, t, v);
    if (job->gate.matrix) {
        add_bias(job, &job->gate, t, gate);
        k->silu_mul(gate, v, t->columns);
        v = gate;
    } else if (job->then == CVQ_THEN_GELU) {
        k->gelu(v, t->columns);
    } else if (job->then == CVQ_THEN_ADD) {
        k->add(y, v, t->columns);
        return;
    }
    memcpy(y, v, t->columns * sizeof *y);
}

/* The same with the result in int8, a block of it or what there is of one; y is left as it was. The
 * last columns' unit fills up the padding. */
static void finish_row_int8(const linear_job *job, const linear_tile *t, tile_memory *m, size_t i) {
    const cvq_act8 *next = job->next;
    const size_t row = t->row + i, n = t->columns;
    float result[TILE_COLS];
    size_t at = row * next->stride + t->column, end = (row + 1) * next->stride;
    if (job->then == CVQ_THEN_ADD)
        memcpy(result, job->y + row * job->ldy + t->column, n * sizeof *result);
    finish_row(job, t, m, i, result);
    cvq_act8 out = {next->q + at, next->scale + at / CVQ_ACT_BLOCK, next->sum + at / CVQ_ACT_SUM,
                    t->column + n == job->w.matrix->rows ? end - at : TILE_COLS};
    job->e->k->quantize_rows(result, n, 1, n, &out);
}
_Static_assert(TILE_COLS == CVQ_ACT_BLOCK, "a tile's columns are a block of the next input");

/* Without columns. */
static linear_tile tile_of(const linear_job *job, size_t unit) {
    if (unit < job->long_units)
        return (linear_tile){.rows = 1, .panel = unit * LONG_UNIT, .panels = LONG_UNIT};
    /* Row tiles outside: the activations of one stay in cache while all panels pass. */
    size_t panel0 = job->long_units * LONG_UNIT;
    size_t panel_tiles = (job->panels - panel0 + PANELS - 1) / PANELS;
    unit -= job->long_units;
    linear_tile t = {.row = unit / panel_tiles * job->tile_rows,
                     .panel = panel0 + unit % panel_tiles * PANELS};
    t.rows = job->in->rows - t.row < job->tile_rows ? job->in->rows - t.row : job->tile_rows;
    t.panels = job->panels - t.panel < PANELS ? job->panels - t.panel : PANELS;
    return t;
}

/* t: 8 panels or what there is of them. */
static void finish(const linear_job *job, linear_tile t, tile_memory *m) {
    t.column = t.panel * CVQ_PANEL_ROWS;
    t.columns = job->w.matrix->rows - t.column;
    if (t.columns > t.panels * CVQ_PANEL_ROWS) t.columns = t.panels * CVQ_PANEL_ROWS;
    for (size_t i = 0; i < t.rows; i++)
        if (job->next)
            finish_row_int8(job, &t, m, i);
        else
            finish_row(job, &t, m, i, job->y + (t.row + i) * job->ldy + t.column);
}

static void tile_unit(void *context, size_t unit, int thread) {
    const linear_job *job = context;
    if (cvq_engine_stopped(job->e)) return;
    linear_tile t = tile_of(job, unit);
    tile_memory *m = (void *)cvq_engine_scratch(job->e, thread);
    if (job->gate.matrix) multiply(job, &job->gate, &t, m->gate, m->decoded);
    multiply(job, &job->w, &t, m->products, m->decoded);
    for (const size_t end = t.panel + t.panels; t.panel < end; t.panel += PANELS) {
        t.panels = end - t.panel < PANELS ? end - t.panel : PANELS;
        finish(job, t, m);
        t.at += TILE_COLS;
    }
}

/* Rows of a tile: all alike, so that no small tile at the end costs its share of unpacking. */
static size_t tile_rows(size_t rows, size_t cols, bool int8) {
    size_t most = int8 ? MAX_TILE_ROWS : TILE_ACTIVATION_BYTES / (cols * sizeof(float)) / 12 * 12;
    if (most < 36) most = 36;
    if (most > MAX_TILE_ROWS) most = MAX_TILE_ROWS;
    size_t tiles = (rows + most - 1) / most;
    return cvq_round_up((rows + tiles - 1) / tiles, 12);
}

static cvq_gemm_int8_fn *int8_kernel(const cvq_engine *e, const cvq_matrix *w, size_t rows) {
    if (!e->fast) return NULL;
    return (rows <= FEW_ROWS ? e->k->gemv_int8 : e->k->gemm_int8)[w->panels.type];
}

/* As many for each thread, of three quarters of the panels at most. */
static size_t long_units(const cvq_engine *e, size_t panels) {
    size_t threads = (size_t)e->threads;
    return panels * 3 / 4 / LONG_UNIT / threads * threads;
}

/* Its kernel, and whether that takes int8. */
static bool prepare(const linear_job *job, factor *f, const cvq_input *in) {
    cvq_engine_show(job->e, f->matrix->name, in->place, in->rows, in->cols, in->x, in->ld);
    f->int8 = int8_kernel(job->e, f->matrix, in->rows);
    return f->int8 != NULL;
}

/* job: with w, gate, in and what follows. */
static void run(linear_job *job, cvq_input *in) {
    const cvq_engine *e = job->e;
    if (in->rows == 0) return;
    bool int8 = job->gate.matrix && prepare(job, &job->gate, in);
    if (prepare(job, &job->w, in)) int8 = true;
    if (int8) cvq_input_quantize(e, in);
    job->in = in;
    job->tile_rows = tile_rows(in->rows, in->cols, int8);
    job->row_tiles = (in->rows + job->tile_rows - 1) / job->tile_rows;
    job->panels = (job->w.matrix->rows + CVQ_PANEL_ROWS - 1) / CVQ_PANEL_ROWS;
    job->long_units = in->rows == 1 ? long_units(e, job->panels) : 0;
    size_t panel_tiles = (job->panels - job->long_units * LONG_UNIT + PANELS - 1) / PANELS;
    cvq_parallel_for(e->threads, job->long_units + job->row_tiles * panel_tiles, tile_unit, job);
    double products = job->gate.matrix ? 2 : 1;
    cvq_engine_worked(e,
                      products * (double)in->rows * (double)in->cols * (double)job->w.matrix->rows);
}

void cvq_linear(const cvq_engine *e, const cvq_matrix *w, cvq_input *in, cvq_then then, float *y,
                size_t ldy) {
    linear_job job = {.e = e, .w = {.matrix = w}, .then = then, .y = y, .ldy = ldy};
    run(&job, in);
}

/* y in the form that the reader wants. */
static void run_chain(linear_job *job, cvq_input *in, const cvq_matrix *reader, cvq_input *out) {
    const cvq_engine *e = job->e;
    bool whole = !int8_kernel(e, reader, out->rows) || cvq_engine_wants(e, reader->name);
    if (!whole) out->act = act_view(out->memory, out->rows, out->cols);
    job->next = whole ? NULL : &out->act;
    job->ldy = out->ld;
    run(job, in);
    out->quantized = !whole;
}

void cvq_linear_chain(const cvq_engine *e, const cvq_matrix *w, cvq_input *in, cvq_then then,
                      float *y, const cvq_matrix *reader, cvq_input *out) {
    linear_job job = {.e = e, .w = {.matrix = w}, .then = then, .y = y};
    run_chain(&job, in, reader, out);
}

void cvq_linear_gated(const cvq_engine *e, const cvq_matrix *gate, const cvq_matrix *up,
                      cvq_input *in, float *y, const cvq_matrix *reader, cvq_input *out) {
    linear_job job = {
        .e = e, .w = {.matrix = up}, .gate = {.matrix = gate}, .then = CVQ_THEN_STORE, .y = y};
    run_chain(&job, in, reader, out);
}
