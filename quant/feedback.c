/* The solver behind cvq-quantize --feedback: the factorisation of a matrix's second moments, in
 * double precision, and the panel that is quantized with it.
 *
 * Everything is written so that vectors take neighbouring results, never parts of one sum, and that
 * each result is one thread's: the bytes depend neither on the number of threads nor on the
 * instruction set. */
#include "quant/feedback.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "formats/moment_layout.h"
#include "quant/feedback_internal.h"
#include "quant/scale_search.h"

#define BLOCK CVQ_FEEDBACK_COLS
/* Added to the diagonal, as a share of its mean: what the correlations' 16 bits and the sample
 * leave open. */
#define DAMPING 0.01

/* How often a block's scale moves on to a better neighbour. */
#define ROUNDS 2

/* The loader chooses the clone, before a thread sanitizer is ready to run in what it calls. */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define CLONES
#endif

uint64_t cvq_feedback_enough(const cvq_model_config *config) {
    return config->hidden_size / 2;
}

/* ---------------------------------------------------------------- the factorisation */

typedef struct factor_job {
    double *a;     /* lower triangle, row by row: C, then L below the pivots, D on the diagonal */
    double *pivot; /* [BLOCK][n] the rows of the pivot columns, before division by D */
    size_t n, k0;
} factor_job;

static double *row_of(const factor_job *j, size_t i) {
    return j->a + cvq_triangle(i);
}

/* The 32 pivots from k0 on and L within them; serial, 32 x 32. D is at least `least`. */
static void factor_pivots(const factor_job *j, double least) {
    for (size_t k = j->k0; k < j->k0 + BLOCK; k++) {
        double *d = &row_of(j, k)[k];
        if (!(*d > least)) *d = least;
        for (size_t i = k + 1; i < j->k0 + BLOCK; i++) {
            const double l = row_of(j, i)[k] / *d;
            for (size_t c = k + 1; c <= i; c++) row_of(j, i)[c] -= l * row_of(j, c)[k];
        }
        for (size_t i = k + 1; i < j->k0 + BLOCK; i++) row_of(j, i)[k] /= *d;
    }
}

/* L of one row below the pivots, and its undivided form into j->pivot. */
static void solve_row(void *context, size_t index, int thread) {
    const factor_job *j = context;
    const size_t i = j->k0 + BLOCK + index;
    double *row = row_of(j, i) + j->k0;
    (void)thread;
    for (size_t k = 0; k < BLOCK; k++) {
        double v = row[k]; /* undivided */
        for (size_t c = 0; c < k; c++)
            v -= row_of(j, j->k0 + k)[j->k0 + c] * j->pivot[c * j->n + i];
        j->pivot[k * j->n + i] = v;
    }
    for (size_t k = 0; k < BLOCK; k++)
        row[k] = j->pivot[k * j->n + i] / row_of(j, j->k0 + k)[j->k0 + k];
}

/* out[c] -= sum over the 32 pivots, in their order, of l[k] x pivot[k][c]. */
CLONES static void subtract_pivots(double *out, const double *l, const double *pivot, size_t ld,
                                   size_t n) {
    size_t c = 0;
    for (; c + 16 <= n; c += 16) {
        double sum[16];
        memcpy(sum, out + c, sizeof sum);
        for (size_t k = 0; k < BLOCK; k++)
            for (size_t i = 0; i < 16; i++) sum[i] -= l[k] * pivot[k * ld + c + i];
        memcpy(out + c, sum, sizeof sum);
    }
    for (; c < n; c++)
        for (size_t k = 0; k < BLOCK; k++) out[c] -= l[k] * pivot[k * ld + c];
}

static void update_row(void *context, size_t index, int thread) {
    const factor_job *j = context;
    const size_t first = j->k0 + BLOCK, i = j->n - 1 - index; /* long rows first */
    double *row = row_of(j, i);
    (void)thread;
    subtract_pivots(row + first, row + j->k0, j->pivot + first, j->n, i - first + 1);
}

/* In place; n a multiple of 32. */
static void factor(double *a, double *pivot, size_t n, double least, int threads) {
    factor_job j = {.a = a, .pivot = pivot, .n = n};
    for (j.k0 = 0; j.k0 < n; j.k0 += BLOCK) {
        const size_t below = n - j.k0 - BLOCK;
        factor_pivots(&j, least);
        cvq_parallel_for(threads, below, solve_row, &j);
        cvq_parallel_for(threads, below, update_row, &j);
    }
}

/* ---------------------------------------------------------------- one matrix */

typedef struct block_power {
    double power;
    uint32_t block;
} block_power;

static int by_power(const void *a, const void *b) {
    const block_power *x = a, *y = b;
    if (x->power != y->power) return x->power < y->power ? -1 : 1;
    return (x->block > y->block) - (x->block < y->block);
}

static cvq_status read_diagonal(cvq_feedback *f, const cvq_moment_view *view, const char *name,
                                cvq_error *err) {
    for (size_t k = 0; k < f->cols; k++) {
        const float v = cvq_bits_f32((uint32_t)cvq_load_le(view->sums + 4 * k, 4));
        if (!(v >= 0.0f && v <= 0x1.fffffep127f))
            return cvq_fail(err, CVQ_FORMAT, name, ".sum_sq: value %zu is negative or not finite",
                            k);
        f->diagonal[k] = (float)((double)v / (double)view->tokens);
    }
    return CVQ_OK;
}

/* The places of one triangle's blocks, least power first; returns the mean of the diagonal. */
static cvq_status order_blocks(cvq_feedback *f, size_t first, size_t width, double *mean,
                               cvq_error *err) {
    void *memory = NULL;
    const size_t blocks = width / BLOCK;
    CVQ_TRY(cvq_alloc(&memory, blocks, sizeof(block_power), "the order of columns", err));
    block_power *powers = memory;
    *mean = 0.0;
    for (size_t b = 0; b < blocks; b++) {
        powers[b] = (block_power){0.0, (uint32_t)b};
        for (size_t k = 0; k < BLOCK; k++)
            powers[b].power += (double)f->diagonal[first + b * BLOCK + k];
        *mean += powers[b].power / (double)width;
    }
    qsort(powers, blocks, sizeof *powers, by_power);
    for (size_t b = 0; b < blocks; b++) f->order[first / BLOCK + b] = powers[b].block;
    free(memory);
    return CVQ_OK;
}

/* Column of the triangle that stands at this place. */
static size_t column_at(const uint32_t *order, size_t place) {
    return order[place / BLOCK] * BLOCK + place % BLOCK;
}

static cvq_status fill_triangle(double *a, const uint8_t *correlation, const float *diagonal,
                                const uint32_t *order, size_t width, double damping,
                                const char *name, cvq_error *err) {
    for (size_t i = 0; i < width; i++) {
        const size_t ci = column_at(order, i);
        for (size_t j = 0; j <= i; j++) {
            const size_t cj = column_at(order, j), high = ci > cj ? ci : cj, low = ci + cj - high;
            const uint8_t *p = correlation + 2 * (cvq_triangle(high) + low);
            const double r = (double)cvq_f16_to_f32((uint16_t)cvq_load_le(p, 2));
            if (!(r >= -1.01 && r <= 1.01))
                return cvq_fail(err, CVQ_FORMAT, name, ".correlation holds a value that is none");
            *a++ = i == j ? (double)diagonal[ci] + damping
                          : r * sqrt((double)diagonal[ci] * (double)diagonal[cj]);
        }
    }
    return CVQ_OK;
}

static bool all_finite(const float *x, size_t n) {
    bool finite = true;
    for (size_t i = 0; i < n; i++) finite = finite && isfinite(x[i]);
    return finite;
}

/* The triangle of columns [first, first + width). */
static cvq_status solve_triangle(cvq_feedback *f, const cvq_moment_view *view, size_t first,
                                 size_t width, int threads, const char *name, cvq_error *err) {
    void *a = NULL, *pivot = NULL;
    double mean;
    const uint64_t start = first / f->block * cvq_triangle(f->block);
    const uint32_t *order = f->order + first / BLOCK;
    cvq_status status = order_blocks(f, first, width, &mean, err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&a, cvq_triangle(width), sizeof(double), "second moments", err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&pivot, BLOCK * width, sizeof(double), "second moments", err);
    if (status != CVQ_OK) goto done;
    /* Inputs that are always zero leave nothing to choose. */
    const double damping = mean > 0.0 ? DAMPING * mean : 1.0;
    status = fill_triangle(a, view->correlation + 2 * start, f->diagonal + first, order, width,
                           damping, name, err);
    if (status != CVQ_OK) goto done;
    factor(a, pivot, width, damping, threads);
    const double *from = a;
    float *to = f->lower + start;
    for (size_t i = 0; i < width; i++)
        for (size_t j = 0; j <= i; j++, from++, to++) {
            *to = i == j ? 1.0f : (float)*from;
            if (i == j) f->weight[first + column_at(order, i)] = (float)*from;
        }
    if (!all_finite(f->weight + first, width) || !all_finite(f->lower + start, cvq_triangle(width)))
        status = cvq_fail(err, CVQ_FORMAT, name, ".correlation and .sum_sq are of no inputs");
done:
    free(a);
    free(pivot);
    return status;
}

static cvq_status solve(cvq_feedback *f, const cvq_moment_view *view, const char *name, int threads,
                        cvq_error *err) {
    void *order = NULL, *lower = NULL, *weight = NULL, *diagonal = NULL;
    cvq_status status = cvq_alloc(&order, f->cols / BLOCK, sizeof *f->order, name, err);
    f->order = order;
    if (status == CVQ_OK)
        status = cvq_alloc(&lower, cvq_moment_values(f->cols), sizeof(float), name, err);
    f->lower = lower;
    if (status == CVQ_OK) status = cvq_alloc(&weight, f->cols, sizeof(float), name, err);
    f->weight = weight;
    if (status == CVQ_OK) status = cvq_alloc(&diagonal, f->cols, sizeof(float), name, err);
    f->diagonal = diagonal;
    if (status == CVQ_OK) status = read_diagonal(f, view, name, err);
    for (size_t first = 0; status == CVQ_OK && first < f->cols; first += f->block)
        status =
            solve_triangle(f, view, first, cvq_moment_width(f->cols, first), threads, name, err);
    return status;
}

cvq_status cvq_feedback_open(cvq_feedback *f, const cvq_second_moments_file *file,
                             const cvq_tensor *t, size_t tensor, int threads, bool *usable,
                             cvq_error *err) {
    const cvq_moment_view view = cvq_second_moments_file_view(file, tensor);
    const size_t cols = (size_t)t->spec.cols;
    *usable = view.sums && view.tokens > 0 && !view.few && t->panel_rows > 1 &&
              cvq_type_describe(t->type)->block == BLOCK && cols % BLOCK == 0;
    if (!*usable || f->source == view.sums) return CVQ_OK;
    cvq_feedback_close(f);
    *f = (cvq_feedback){.cols = cols, .block = cvq_moment_block(cols), .source = view.sums};
    cvq_error problem = {0};
    const cvq_status status = solve(f, &view, t->spec.name, threads, &problem);
    if (status == CVQ_OK) return CVQ_OK;
    cvq_feedback_close(f);
    return cvq_fail_advising(err, cvq_second_moments_file_path(file), &problem,
                             status == CVQ_FORMAT ? "; calibrate again" : "");
}

void cvq_feedback_close(cvq_feedback *f) {
    if (!f) return;
    free(f->order);
    free(f->lower);
    free(f->weight);
    free(f->diagonal);
    *f = (cvq_feedback){0};
}

/* ---------------------------------------------------------------- a panel */

/* Scratch memory, one behind the other. */
typedef struct scratch {
    float *errors;    /* [16][cols] what a column lost, in the order of the solver */
    float *columns;   /* [16][32] the block as it is to be quantized */
    uint16_t *scales; /* [padded cols / 32][16] */
    uint8_t *codes;   /* [16][padded cols] */
} scratch;

static size_t padded_cols(const cvq_tensor *t) {
    return cvq_padded_cols(cvq_type_describe(t->type), (size_t)t->spec.cols);
}

size_t cvq_feedback_scratch(const cvq_tensor *t) {
    const size_t cols = padded_cols(t);
    return CVQ_PANEL_ROWS *
           (cols * sizeof(float) + BLOCK * sizeof(float) + cols / BLOCK * sizeof(uint16_t) + cols);
}

static scratch cut_scratch(const cvq_tensor *t, void *memory) {
    const size_t cols = padded_cols(t);
    scratch s = {.errors = memory};
    s.columns = s.errors + CVQ_PANEL_ROWS * cols;
    s.scales = (uint16_t *)(void *)(s.columns + CVQ_PANEL_ROWS * BLOCK);
    s.codes = (uint8_t *)(s.scales + CVQ_PANEL_ROWS * cols / BLOCK);
    return s;
}

/* columns[r][0..31] += the sum over places p in [place + 32, width), in their order, of
 * errors[r][p] x L[p][place ..], four rows at a time. */
CLONES static void add_errors(const float *lower, size_t place, size_t width, const float *errors,
                              size_t ld, float *columns) {
    for (size_t r = 0; r < CVQ_PANEL_ROWS; r += 4) {
        float sum[4][BLOCK];
        memcpy(sum, columns + r * BLOCK, sizeof sum);
        for (size_t p = place + BLOCK; p < width; p++) {
            const float *l = lower + p * (p + 1) / 2 + place;
            for (size_t i = 0; i < 4; i++) {
                const float e = errors[(r + i) * ld + p];
                for (size_t c = 0; c < BLOCK; c++) sum[i][c] += e * l[c];
            }
        }
        memcpy(columns + r * BLOCK, sum, sizeof sum);
    }
}

/* A row of a block that is to be quantized. */
typedef struct block_row {
    const cvq_tensor *t;
    float row_scale;
    const float *lower;  /* of the triangle */
    size_t place;        /* of the block in it */
    const float *row;    /* what the block holds */
    const float *column; /* the same with the others' errors in it */
    const float *weight;
} block_row;

/* What comes of a scale. */
typedef struct attempt {
    double error; /* what the block adds to tr(E C E^T) */
    uint16_t scale;
    uint8_t codes[BLOCK];
    float errors[BLOCK];
} attempt;

/* Columns from the last to the first. In q4h each half has its table and offset chosen when its
 * turn comes. With a `limit` it gives up, its error as it is, where that is no longer below it. */
static void attempt_scale(const block_row *b, uint16_t scale, const double *limit, attempt *out) {
    const cvq_tensor *t = b->t;
    float column[BLOCK];
    cvq_block_scale s = cvq_scale_decode(t->type, &t->codebook, b->row_scale, scale);
    memcpy(column, b->column, sizeof column);
    out->error = 0.0;
    for (size_t k = BLOCK; k-- > 0 && (!limit || out->error < *limit);) {
        const float *l = b->lower + cvq_triangle(b->place + k) + b->place;
        const size_t half = k / (BLOCK / 2);
        if (t->type == CVQ_TYPE_Q4H && k % (BLOCK / 2) == BLOCK / 2 - 1) {
            scale = cvq_search_half(column, b->weight, scale, half);
            s = cvq_scale_decode(t->type, &t->codebook, b->row_scale, scale);
        }
        out->codes[k] = cvq_nearest_code(t->type, &s, half, column[k]);
        const float value = s.d * (float)cvq_code_integer(&s, half, out->codes[k]);
        const float e = b->row[k] - value;
        const double lost = (double)column[k] - (double)value;
        out->error += (double)b->weight[k] * (lost * lost);
        out->errors[k] = e;
        for (size_t c = 0; c < k; c++) column[c] += e * l[c];
    }
    out->scale = scale;
}

/* The scale that suits the block as it is, then its neighbours, since the columns still move while
 * they are quantized. */
static void quantize_row(const block_row *b, float *errors, uint8_t *codes, uint16_t *scale) {
    uint16_t near[CVQ_SEARCH_NEAR];
    attempt best, other;
    cvq_search_block(b->t->type, &b->t->codebook, b->row_scale, b->column, b->weight, codes, scale);
    attempt_scale(b, *scale, NULL, &best);
    for (int round = 0; round < ROUNDS; round++) {
        const uint16_t before = best.scale;
        const size_t count = cvq_search_near(b->t->type, before, near);
        for (size_t i = 0; i < count; i++) {
            attempt_scale(b, near[i], &best.error, &other);
            if (other.error < best.error) best = other;
        }
        if (best.scale == before) break;
    }
    *scale = best.scale;
    memcpy(codes, best.codes, sizeof best.codes);
    memcpy(errors + b->place, best.errors, sizeof best.errors);
}

static void quantize_triangle(const cvq_feedback *f, const cvq_tensor *t, const float *rows,
                              size_t count, const float *row_scales, size_t first,
                              const scratch *s) {
    const size_t cols = f->cols, ld = padded_cols(t), width = cvq_moment_width(cols, first);
    const float *lower = f->lower + first / f->block * cvq_triangle(f->block);
    for (size_t place = width; place > 0;) {
        place -= BLOCK;
        const size_t col = first + f->order[(first + place) / BLOCK] * BLOCK;
        for (size_t r = 0; r < count; r++)
            memcpy(s->columns + r * BLOCK, rows + r * cols + col, BLOCK * sizeof(float));
        add_errors(lower, place, width, s->errors, ld, s->columns);
        for (size_t r = 0; r < count; r++) {
            float *column = s->columns + r * BLOCK;
            const float *row = rows + r * cols + col;
            /* Correlations that no inputs have can make errors grow without end. */
            if (!all_finite(column, BLOCK)) memcpy(column, row, BLOCK * sizeof(float));
            const block_row b = {.t = t,
                                 .row_scale = row_scales[r],
                                 .lower = lower,
                                 .place = place,
                                 .row = row,
                                 .column = column,
                                 .weight = f->weight + col};
            quantize_row(&b, s->errors + r * ld, s->codes + r * ld + col,
                         &s->scales[col / BLOCK * CVQ_PANEL_ROWS + r]);
        }
    }
}

/* Pad rows and pad columns have scale 0. */
static void pack(const cvq_tensor *t, size_t count, const float *row_scales, const scratch *s,
                 uint8_t *panel) {
    const cvq_type_info *info = cvq_type_describe(t->type);
    const size_t ld = padded_cols(t), group = info->group;
    uint8_t codes[CVQ_PANEL_ROWS * CVQ_MAX_GROUP];
    for (size_t r = 0; r < CVQ_PANEL_ROWS; r++) {
        const size_t from = r < count ? (size_t)t->spec.cols : 0;
        for (size_t b = from / BLOCK; b < ld / BLOCK; b++) {
            s->scales[b * CVQ_PANEL_ROWS + r] = 0;
            cvq_pad_codes(t->type, &t->codebook, 0, 0, s->codes + r * ld + b * BLOCK);
        }
    }
    cvq_row_scales_pack(t->type, CVQ_PANEL_ROWS, row_scales, panel);
    for (size_t g = 0; g < ld / group; g++) {
        for (size_t r = 0; r < CVQ_PANEL_ROWS; r++)
            memcpy(codes + r * group, s->codes + r * ld + g * group, group);
        cvq_group_pack(t->type, CVQ_PANEL_ROWS, codes,
                       s->scales + g * group / BLOCK * CVQ_PANEL_ROWS,
                       panel + cvq_group_offset(info, CVQ_PANEL_ROWS, g));
    }
}

void cvq_feedback_panel(const cvq_feedback *f, const cvq_tensor *t, const float *rows, size_t count,
                        void *memory, uint8_t *panel) {
    const scratch s = cut_scratch(t, memory);
    float row_scales[CVQ_PANEL_ROWS] = {0};
    memset(memory, 0, cvq_feedback_scratch(t));
    for (size_t r = 0; r < count && cvq_type_describe(t->type)->head_bytes; r++)
        row_scales[r] =
            cvq_search_row_scale(&t->codebook, rows + r * f->cols, f->diagonal, f->cols);
    for (size_t first = 0; first < f->cols; first += f->block)
        quantize_triangle(f, t, rows, count, row_scales, first, &s);
    pack(t, count, row_scales, &s, panel);
}
