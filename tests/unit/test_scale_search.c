/* The search for scales and codes: how small its errors are, that nothing simple beats it, that
 * hard blocks come out right, and that its bytes are the same everywhere. */
#include "quant/scale_search.h"

#include <math.h>
#include <stdlib.h>

#include "base/half.h"
#include "quant/scale_search_internal.h"
#include "tests/unit/harness.h"

#define MAX_BLOCK 128

static const cvq_type block_types[] = {CVQ_TYPE_Q8, CVQ_TYPE_Q6,  CVQ_TYPE_Q4T,
                                       CVQ_TYPE_Q4, CVQ_TYPE_Q4S, CVQ_TYPE_Q4H};
#define EACH_BLOCK_TYPE(i) for (int i = 0; i < 6; i++)

static uint64_t state = 88172645463325252u;
static uint32_t random32(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}
/* Nearly Gaussian, by integers, so that every machine makes the same. */
static float random_weight(void) {
    int64_t sum = 0;
    for (int i = 0; i < 12; i++) sum += random32() >> 8;
    return cvq_bf16_to_f32(cvq_f32_to_bf16((float)(sum - 6 * (1 << 24)) * 0x1p-30f));
}
static float random_importance(void) {
    uint32_t u = random32();
    return (float)(1 + (u & 255)) * (float)(1u << (u >> 8 & 7));
}

typedef struct block {
    cvq_type type;
    const cvq_type_info *info;
    uint32_t n;
    float x[MAX_BLOCK], w[MAX_BLOCK];
    uint8_t codes[MAX_BLOCK];
    uint16_t scale;
    float row_scale;
} block;

static void start(block *b, cvq_type type) {
    b->type = type;
    b->info = cvq_type_describe(type);
    b->n = b->info->block;
    for (uint32_t i = 0; i < MAX_BLOCK; i++) b->w[i] = 1.0f;
}
static void fill(block *b) {
    for (uint32_t i = 0; i < b->n; i++) b->x[i] = random_weight();
}
static void search(block *b) {
    memset(b->codes, 255, sizeof b->codes);
    if (b->type == CVQ_TYPE_Q4S)
        b->row_scale = cvq_search_row_scale(&cvq_codebook_default, b->x, b->w, b->n);
    cvq_search_block(b->type, &cvq_codebook_default, b->row_scale, b->x, b->w, b->codes, &b->scale);
}
/* What a reader makes of the code of column i. */
static double value(const block *b, uint32_t i, uint8_t code, uint16_t scale) {
    const cvq_codebook *c = &cvq_codebook_default;
    const cvq_block_scale s = cvq_scale_decode(b->type, c, b->row_scale, scale);
    return (double)s.d * (double)cvq_code_integer(&s, i / (b->n / 2), code);
}
static uint32_t code_count(const block *b) {
    return b->type == CVQ_TYPE_Q8 ? 256 : b->type == CVQ_TYPE_Q6 ? 64 : 16;
}
static double error_of(const block *b) {
    double sum = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        double e = (double)b->x[i] - value(b, i, b->codes[i], b->scale);
        sum += (double)b->w[i] * e * e;
    }
    return sum;
}
static double power_of(const block *b) {
    double sum = 0;
    for (uint32_t i = 0; i < b->n; i++) sum += (double)b->w[i] * (double)b->x[i] * (double)b->x[i];
    return sum;
}
/* The least error with this scale: the nearest of all codes for each weight. */
static double least_error(const block *b, uint16_t scale) {
    double sum = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        double least = HUGE_VAL;
        for (uint32_t c = 0; c < code_count(b); c++) {
            double e = (double)b->x[i] - value(b, i, (uint8_t)c, scale);
            if (e * e < least) least = e * e;
        }
        sum += (double)b->w[i] * least;
    }
    return sum;
}
/* The scale that maps the largest magnitude to the last code. */
static uint16_t plain_scale(const block *b) {
    float peak = 0;
    for (uint32_t i = 0; i < b->n; i++)
        if (fabsf(b->x[i]) > fabsf(peak)) peak = b->x[i];
    if (b->type == CVQ_TYPE_Q4S || b->type == CVQ_TYPE_Q4H) return 0; /* they have no such scale */
    if (b->type != CVQ_TYPE_Q4T)
        return cvq_f32_to_f16(fabsf(peak) / (float)(b->info->zero_point - 1));
    return (uint16_t)((cvq_f32_to_f16(peak / -67.0f) + 16u) & ~31u);
}

static bool finite_scale(const block *b, uint16_t scale) {
    return b->type == CVQ_TYPE_Q4H || (scale & 0x7c00u) != 0x7c00u;
}

static void errors_are_small(void) {
    /* relative RMSE on Gaussian weights; docs/quantization.md has these and others' */
    static const double limits[6] = {0.00620, 0.0198, 0.0656, 0.0802, 0.0700, 0.0612};
    EACH_BLOCK_TYPE(i) {
        block b;
        double error = 0, power = 0;
        start(&b, block_types[i]);
        for (uint32_t n = 0; n < 40000; n += b.n) {
            fill(&b);
            search(&b);
            error += error_of(&b);
            power += power_of(&b);
        }
        const double rmse = sqrt(error / power);
        CHECK_SAY(rmse < limits[i] && rmse > 0.9 * limits[i], "%s: %f", b.info->name, rmse);
    }
}

/* Blocks of every unpleasant kind; kind < HARD_KINDS. */
#define HARD_KINDS 12
static void fill_hard(block *b, int kind) {
    fill(b);
    for (uint32_t i = 0; i < b->n; i++) {
        float *x = &b->x[i];
        switch (kind) {
        case 0: /* one spike, at either sign */
            if (i == b->n / 2) *x = random32() & 1 ? 3.0f : -3.0f;
            break;
        case 1: /* all alike */
            *x = 0.37f;
            break;
        case 2: /* all of one sign */
            *x = -fabsf(*x);
            break;
        case 3: /* two values */
            *x = i & 1 ? 1.0f : -1.0f;
            break;
        case 4: /* one weight only */
            *x = i == 5 ? -0.02f : 0.0f;
            break;
        case 5: /* far from zero */
            *x += 10.0f;
            break;
        case 6: /* scales are subnormal f16 */
            *x *= 0x1p-12f;
            break;
        case 7: /* at the edge of all zeros */
            *x *= 0x1p-19f;
            break;
        case 8: /* beyond what an f16 scale can reach */
            *x *= 0x1p127f;
            break;
        case 9: /* the largest bf16, and nothing */
            *x = i == 3 ? 0x1.fep127f : 0.0f;
            break;
        case 10: /* subnormal numbers */
            *x *= 0x1p-130f;
            break;
        default: /* a wide range in one block */
            *x = ldexpf(*x, -(int)(random32() % 30));
        }
    }
}

static void nothing_simple_is_better(void) {
    EACH_BLOCK_TYPE(i) for (int kind = -1; kind < HARD_KINDS; kind++) {
        for (int weighted = 0; weighted < 2; weighted++) {
            block b;
            start(&b, block_types[i]);
            for (int n = 0; n < 12; n++) {
                if (kind < 0)
                    fill(&b);
                else
                    fill_hard(&b, kind);
                for (uint32_t k = 0; weighted && k < b.n; k++) b.w[k] = random_importance();
                search(&b);
                const double error = error_of(&b), tolerance = 1e-9 * power_of(&b);
                const uint16_t plain = plain_scale(&b);
                CHECK_SAY(finite_scale(&b, b.scale), "%s kind %d", b.info->name, kind);
                CHECK_SAY(error <= power_of(&b) + tolerance, "%s kind %d", b.info->name, kind);
                CHECK_SAY(!finite_scale(&b, plain) || error <= least_error(&b, plain) + tolerance,
                          "%s kind %d: %g, plainly %g", b.info->name, kind, error,
                          least_error(&b, plain));
                /* every code is the nearest one */
                CHECK_SAY(error <= least_error(&b, b.scale) + tolerance, "%s kind %d: %g, not %g",
                          b.info->name, kind, error, least_error(&b, b.scale));
            }
        }
    }
}

static void hard_blocks_come_out_right(void) {
    static const double limits[6] = {0.004, 0.01, 0.02, 0.04, 0.025, 0.02};
    EACH_BLOCK_TYPE(i) {
        block b;
        start(&b, block_types[i]);
        for (int kind = 1; kind < 5; kind++) {
            if (kind == 2) continue;
            fill_hard(&b, kind);
            search(&b);
            const double rmse = sqrt(error_of(&b) / power_of(&b));
            CHECK_SAY(rmse < limits[i], "%s kind %d: %f", b.info->name, kind, rmse);
        }
    }
}

static void zeros_are_zeros(void) {
    EACH_BLOCK_TYPE(i) {
        block b;
        start(&b, block_types[i]);
        for (int tiny = 0; tiny < 2; tiny++) {
            for (uint32_t k = 0; k < b.n; k++) b.x[k] = tiny ? (k & 1 ? 1e-9f : -1e-12f) : -0.0f;
            search(&b);
            CHECK(b.scale == 0);
            for (uint32_t k = 0; k < b.n; k++)
                CHECK(b.codes[k] == cvq_zero_code(b.type, &cvq_codebook_default, 0, 0));
        }
    }
}

/* q4t against every scale that could be good. */
static void table_search_is_nearly_exhaustive(void) {
    double ours = 0, best = 0;
    for (int n = 0; n < 16; n++) {
        block b;
        start(&b, CVQ_TYPE_Q4T);
        fill(&b);
        search(&b);
        ours += error_of(&b);
        float peak = 0;
        for (uint32_t k = 0; k < b.n; k++) peak = fabsf(b.x[k]) > peak ? fabsf(b.x[k]) : peak;
        const uint16_t low = cvq_f32_to_f16(peak / 110), high = cvq_f32_to_f16(peak / 40);
        double least = HUGE_VAL;
        for (uint32_t s = low; s <= high; s++) {
            double up = least_error(&b, (uint16_t)s),
                   down = least_error(&b, (uint16_t)(s | 0x8000));
            if (up < least) least = up;
            if (down < least) least = down;
        }
        CHECK(error_of(&b) >= least * 0.999999);
        best += least;
    }
    CHECK_SAY(ours < 1.06 * best, "%f of the best error", ours / best);
}

/* q4s: a row of blocks of different size shares one scale. */
static void rows_share_a_scale(void) {
    enum { BLOCKS = 64 };
    static float x[32 * BLOCKS];
    for (int spread = 0; spread < 3; spread++) {
        double error = 0, power = 0;
        for (int row = 0; row < 12; row++) {
            for (int k = 0; k < 32 * BLOCKS; k++)
                x[k] = random_weight() * (float)(1 + spread * (k / 32 % 4));
            block b;
            start(&b, CVQ_TYPE_Q4S);
            b.row_scale = cvq_search_row_scale(&cvq_codebook_default, x, NULL, 32 * BLOCKS);
            CHECK((cvq_f32_bits(b.row_scale) & 0xffu) == 0 && b.row_scale > 0.0f);
            for (int k = 0; k < BLOCKS; k++) {
                memcpy(b.x, x + 32 * k, 32 * sizeof *x);
                cvq_search_block(b.type, &cvq_codebook_default, b.row_scale, b.x, NULL, b.codes,
                                 &b.scale);
                CHECK(b.scale < 256);
                error += error_of(&b);
                power += power_of(&b);
            }
        }
        const double rmse = sqrt(error / power);
        CHECK_SAY(rmse < 0.0725 && rmse > 0.06, "spread %d: %f", spread, rmse);
    }
}

/* q4s: where blocks differ much in size, as with heavy tails, no multiple of the row's scale serves
 * the row much better. */
static void rows_choose_their_scale(void) {
    enum { BLOCKS = 448, FACTORS = 6 };
    static const float factors[FACTORS] = {1.0f, 0.6f, 0.8f, 1.25f, 1.5f, 1.8f};
    static float x[32 * BLOCKS];
    double error[FACTORS] = {0};
    for (int row = 0; row < 8; row++) {
        for (int k = 0; k < 32 * BLOCKS; k++) {
            x[k] = random_weight();
            if (k % 2000 == 7) x[k] *= 12.0f;
        }
        block b;
        start(&b, CVQ_TYPE_Q4S);
        const float scale = cvq_search_row_scale(&cvq_codebook_default, x, NULL, 32 * BLOCKS);
        for (int i = 0; i < FACTORS * BLOCKS; i++) {
            memcpy(b.x, x + i % BLOCKS * 32, 32 * sizeof *x);
            b.row_scale = scale * factors[i / BLOCKS];
            cvq_search_block(b.type, &cvq_codebook_default, b.row_scale, b.x, NULL, b.codes,
                             &b.scale);
            error[i / BLOCKS] += error_of(&b);
        }
    }
    for (int f = 1; f < FACTORS; f++)
        CHECK_SAY(error[0] < 1.02 * error[f], "times %g: %g, not %g", (double)factors[f], error[f],
                  error[0]);
}

/* q4s against every level, offset and sign. */
static void level_search_is_nearly_exhaustive(void) {
    double ours = 0, best = 0;
    for (int n = 0; n < 60; n++) {
        block b;
        start(&b, CVQ_TYPE_Q4S);
        fill(&b);
        for (uint32_t k = 0; n & 1 && k < b.n; k++) b.w[k] = random_importance();
        b.row_scale = 0.0625f / 64.0f / (float)cvq_q4s_levels[6 + n % 26];
        cvq_search_block(b.type, &cvq_codebook_default, b.row_scale, b.x, b.w, b.codes, &b.scale);
        double least = HUGE_VAL;
        for (uint16_t s = 0; s < 256; s++) {
            const double error = least_error(&b, s);
            if (error < least) least = error;
        }
        CHECK(error_of(&b) >= least * 0.999999);
        ours += error_of(&b) / power_of(&b);
        best += least / power_of(&b);
    }
    CHECK_SAY(ours < 1.04 * best, "%f of the best error", ours / best);
}

static double error_of_half(const block *b, uint16_t scale, size_t half) {
    const cvq_block_scale s = cvq_scale_decode(b->type, NULL, 1.0f, scale);
    double sum = 0;
    for (uint32_t k = 0; k < 16; k++) {
        const uint32_t i = (uint32_t)half * 16 + k;
        const double e =
            (double)b->x[i] - value(b, i, cvq_nearest_code(b->type, &s, half, b->x[i]), scale);
        sum += (double)b->w[i] * e * e;
    }
    return sum;
}

/* q4h: of the 16 choices of a half the best at the scale's level; the other half keeps its own. */
static void halves_are_chosen_apart(void) {
    block b;
    start(&b, CVQ_TYPE_Q4H);
    for (int n = 0; n < 60; n++) {
        fill(&b);
        for (uint32_t k = 0; k < b.n; k++) b.w[k] = random_importance();
        search(&b);
        for (size_t half = 0; half < 2; half++) {
            const int shift = half ? 4 : 0;
            const uint16_t from = (uint16_t)(b.scale + ((unsigned)(n % 5) << 8) - 512u);
            const uint16_t chosen = cvq_search_half(b.x, b.w, from, half);
            CHECK((chosen & ~(15 << shift)) == (from & ~(15 << shift)));
            const double error = error_of_half(&b, chosen, half);
            for (int o = 0; o < 16; o++) {
                const uint16_t other = (uint16_t)((from & ~(15 << shift)) | o << shift);
                CHECK(error <= 1.00001 * error_of_half(&b, other, half));
            }
        }
    }
}

/* Neighbours are scales of the type: finite, of the same sign, and one step away. */
static void neighbours_are_near(void) {
    static const cvq_type types[] = {CVQ_TYPE_Q6, CVQ_TYPE_Q4, CVQ_TYPE_Q4T, CVQ_TYPE_Q4S,
                                     CVQ_TYPE_Q4H};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const cvq_type type = types[i];
        const cvq_codebook *c = &cvq_codebook_default;
        for (unsigned scale = 0; scale < (type == CVQ_TYPE_Q4S ? 256u : 65536u); scale++) {
            uint16_t near[CVQ_SEARCH_NEAR];
            const float d = cvq_scale_decode(type, c, 1.0f, (uint16_t)scale).d;
            if (!(fabsf(d) <= 65504.0f)) continue; /* not what a search gives */
            const size_t count = cvq_search_near(type, (uint16_t)scale, near);
            CHECK(count <= CVQ_SEARCH_NEAR);
            for (size_t k = 0; k < count; k++) {
                const float other = cvq_scale_decode(type, c, 1.0f, near[k]).d;
                CHECK(near[k] != scale && fabsf(other) <= 65504.0f && d * other >= 0.0f);
                if (fabsf(d) > 0x1p-10f && type != CVQ_TYPE_Q4S)
                    CHECK(fabsf(other / d - 1.0f) < 0.07f);
            }
        }
    }
}

static void importance_matters(void) {
    EACH_BLOCK_TYPE(i) {
        block a, b;
        double weighted = 0, plain = 0;
        start(&a, block_types[i]);
        for (int n = 0; n < 60; n++) {
            fill(&a);
            for (uint32_t k = 0; k < a.n; k++) a.w[k] = random_importance();
            b = a;
            search(&a);
            weighted += error_of(&a);
            for (uint32_t k = 0; k < b.n; k++) b.w[k] = 1.0f;
            search(&b);
            for (uint32_t k = 0; k < b.n; k++) b.w[k] = a.w[k];
            plain += error_of(&b);
            /* all zero: as if all were 1 */
            memset(a.w, 0, sizeof a.w);
            search(&a);
            CHECK(a.scale == b.scale && memcmp(a.codes, b.codes, a.n) == 0);
            /* only ratios count */
            for (uint32_t k = 0; k < a.n; k++) a.w[k] = 0x1p-100f;
            search(&a);
            CHECK(a.scale == b.scale && memcmp(a.codes, b.codes, a.n) == 0);
        }
        CHECK_SAY(weighted < 0.97 * plain, "%s: %g of %g", a.info->name, weighted, plain);
    }
}

/* The same block mirrored (but for q4h, which has no sign), or times a power of two, has the same
 * codes. */
static void search_is_even_handed(void) {
    EACH_BLOCK_TYPE(i) {
        block a, b;
        start(&a, block_types[i]);
        for (int n = 0; n < 20; n++) {
            fill(&a);
            search(&a);
            b = a;
            const float by = a.type == CVQ_TYPE_Q4H ? 16.0f : -16.0f;
            for (uint32_t k = 0; k < a.n; k++) b.x[k] = by * a.x[k];
            search(&b);
            CHECK(memcmp(a.codes, b.codes, a.n) == 0);
            if (a.type == CVQ_TYPE_Q4S)
                CHECK(b.scale == (a.scale ^ 0x80) && b.row_scale == 16.0f * a.row_scale);
            else if (a.type == CVQ_TYPE_Q4H)
                CHECK(b.scale == a.scale + (64u << 8));
            else
                CHECK(b.scale == (uint16_t)((a.scale ^ 0x8000) + (4u << 10)));
        }
    }
}

static void other_tables_work(void) {
    const cvq_codebook tables[] = {
        {{0, 12, 23, 33, 41, 48, 55, 62, 68, 74, 80, 87, 95, 104, 114, 127}, 67, {0}},
        {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 8, {0}},
        {{0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 127}, 0, {0}},
        {{0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 127}, 127, {0}}};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        CHECK(cvq_codebook_valid(&tables[t], CVQ_TYPE_Q4T));
        block b;
        double error = 0, power = 0;
        start(&b, CVQ_TYPE_Q4T);
        for (int n = 0; n < 40; n++) {
            fill(&b);
            cvq_search_block(b.type, &tables[t], 1.0f, b.x, NULL, b.codes, &b.scale);
            for (uint32_t k = 0; k < b.n; k++) {
                double q = tables[t].table[b.codes[k]] + (b.scale & 31) - tables[t].zero;
                double e = (double)b.x[k] - (double)cvq_f16_to_f32(b.scale) * q;
                error += e * e;
            }
            power += power_of(&b);
            CHECK(finite_scale(&b, b.scale));
        }
        CHECK_SAY(error < (t < 2 ? 0.011 : 0.9) * power, "table %zu: %f", t, error / power);
    }
}

/* Scales and shifts that a search may come to, and some that it had better not. */
static void fill_trials(cvq_search_trial *trials, size_t count) {
    static const float odd[] = {0x1p-149f, -0x1p-140f, 0x1p127f, 0x1p-126f, -1e-8f, 1e8f};
    for (size_t i = 0; i < count; i++) {
        const float d = ldexpf((float)(1 + random32() % 1000), -(int)(random32() % 16));
        trials[i] = (cvq_search_trial){.d = random32() & 1 ? d : -d,
                                       .shift = (float)((int)(random32() % 160) - 127)};
        if (random32() % 8 == 0) trials[i].d = odd[random32() % 6];
    }
}

/* Every set of loops gives the same bits, whatever the block. */
static void loops_agree(void) {
    const cvq_search_loops *plain = &cvq_search_loops_plain, *tested = cvq_search_loops_best();
    const cvq_codebook *book = &cvq_codebook_default;
    cvq_search_midpoints table = {.entry = {0}};
    memcpy(table.entry, book->table, 16);
    for (int j = 0; j < 15; j++)
        table.below[j] = (int8_t)(book->table[j] + book->table[j + 1] - 129);
    EACH_BLOCK_TYPE(i) for (int n = 0; n < 40 * HARD_KINDS; n++) {
        block b;
        cvq_search s, other;
        start(&b, block_types[i]);
        fill_hard(&b, n % HARD_KINDS);
        for (uint32_t k = 0; n & 1 && k < b.n; k++) b.w[k] = random_importance();
        const float *w = n % 3 ? b.w : NULL;
        const bool some = plain->prepare(&s, b.n, b.x, w);
        CHECK(tested->prepare(&other, b.n, b.x, w) == some);
        if (!some) continue;
        CHECK(memcmp(s.x, other.x, b.n * 4) == 0 && memcmp(s.w, other.w, b.n * 4) == 0 &&
              memcmp(s.wx, other.wx, b.n * 4) == 0 &&
              memcmp(&s.sum_wxx, &other.sum_wxx, 4 * sizeof(float)) == 0);
        const bool tabled = b.info->zero_point == 0;
        const float zero = (float)b.info->zero_point;
        cvq_search_trial ours[9], theirs[9];
        fill_trials(ours, 9);
        memcpy(theirs, ours, sizeof ours);
        for (size_t count = 0; tabled && count < 10; count++) {
            plain->try_table(&s, &table, ours, count);
            tested->try_table(&s, &table, theirs, count);
            CHECK_SAY(memcmp(ours, theirs, sizeof ours) == 0, "%zu trials", count);
        }
        for (int k = 0; k < 18 && b.type == CVQ_TYPE_Q4H; k++) {
            cvq_search_halves a = {.d = ours[k / 2].d, .first = k % 2}, c = a;
            plain->try_halves(&s, &a);
            tested->try_halves(&s, &c);
            CHECK(memcmp(&a, &c, sizeof a) == 0);
        }
        for (int k = 0; k < 9 && b.type == CVQ_TYPE_Q4S; k++) {
            cvq_search_offsets a = {.d = fmaxf(fabsf(ours[k].d), 0x1p-59f),
                                    .zero = (float)(random32() % 128)};
            cvq_search_offsets c = a;
            plain->try_offsets(&s, &table, &a);
            tested->try_offsets(&s, &table, &c);
            CHECK(memcmp(&a, &c, sizeof a) == 0);
        }
        for (int k = 0; k < 9; k++) {
            cvq_choice a = {s.sum_wxx, 0}, c = a;
            plain->try_even(&s, zero, ours[k].d, &a);
            tested->try_even(&s, zero, ours[k].d, &c);
            CHECK(tabled || (a.scale == c.scale && memcmp(&a.error, &c.error, 4) == 0));
            uint8_t codes[MAX_BLOCK], same[MAX_BLOCK];
            const uint16_t scale = (uint16_t)(random32() % (b.type == CVQ_TYPE_Q4S ? 256 : 0x7c00));
            const cvq_code_values v = {b.type, (int)code_count(&b), book, 0.01f};
            const double x = plain->assign(&s, &v, scale, codes);
            const double y = tested->assign(&s, &v, scale, same);
            CHECK(memcmp(codes, same, b.n) == 0 && memcmp(&x, &y, sizeof x) == 0);
        }
    }
}

/* Codes and scales of fixed blocks, hashed: a change of any byte on any machine shows. */
static void bytes_are_pinned(void) {
    static const uint64_t wanted[6] = {0xbd61a3800b1ae99au, 0x9e02ffb0e8330d6au,
                                       0x4931d24c8e8af7a1u, 0xbbf9d73468da1638u,
                                       0xa09eca4c594b4fbfu, 0x1be5242ebfe27a43u};
    state = 12345;
    EACH_BLOCK_TYPE(i) {
        uint64_t hash = 1469598103934665603u;
        block b;
        start(&b, block_types[i]);
        for (int n = 0; n < 300; n++) {
            if (n % 3 == 2)
                fill_hard(&b, n / 3 % HARD_KINDS);
            else
                fill(&b);
            for (uint32_t k = 0; k < b.n; k++) b.w[k] = n & 1 ? random_importance() : 1.0f;
            search(&b);
            for (uint32_t k = 0; k < b.n; k++) hash = (hash ^ b.codes[k]) * 1099511628211u;
            hash = (hash ^ b.scale) * 1099511628211u;
            if (b.type == CVQ_TYPE_Q4S) hash = (hash ^ cvq_f32_bits(b.row_scale)) * 1099511628211u;
        }
        CHECK_SAY(hash == wanted[i], "%s: 0x%016llx", b.info->name, (unsigned long long)hash);
    }
}

/* q4s: the scales of rows whose blocks differ, of which some are tried. */
static void row_scales_are_pinned(void) {
    enum { COLS = 70 * 32 + 9 };
    static float x[COLS], w[COLS];
    uint64_t hash = 1469598103934665603u;
    state = 54321;
    for (int row = 0; row < 24; row++) {
        for (int k = 0; k < COLS; k++) {
            x[k] = random_weight() * (random32() % 512 == 0 ? 9.0f : 1.0f);
            w[k] = random_importance() * (random32() % 512 == 0 ? 1000.0f : 1.0f);
        }
        const size_t n = (size_t)(COLS - row * 71);
        const float scale = cvq_search_row_scale(&cvq_codebook_default, x, row % 3 ? w : NULL, n);
        hash = (hash ^ cvq_f32_bits(scale)) * 1099511628211u;
    }
    CHECK_SAY(hash == 0xcf9009b1a62d67a3u, "0x%016llx", (unsigned long long)hash);
}

int main(void) {
    RUN(errors_are_small);
    RUN(nothing_simple_is_better);
    RUN(hard_blocks_come_out_right);
    RUN(zeros_are_zeros);
    RUN(table_search_is_nearly_exhaustive);
    RUN(level_search_is_nearly_exhaustive);
    RUN(rows_share_a_scale);
    RUN(rows_choose_their_scale);
    RUN(halves_are_chosen_apart);
    RUN(neighbours_are_near);
    RUN(importance_matters);
    RUN(search_is_even_handed);
    RUN(other_tables_work);
    RUN(loops_agree);
    RUN(bytes_are_pinned);
    RUN(row_scales_are_pinned);
    return REPORT();
}
