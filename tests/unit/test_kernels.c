/* Every kernel of every level of this machine against the scalar kernels, in the manner of dav1d's
 * checkasm: random and adversarial inputs, odd sizes, unaligned pointers, guard values around every
 * output. Matrix kernels, quantization and conversions must agree in every bit, the others within
 * the bounds written at the top. `test_kernels LEVEL` tries that level alone (`--in-bochs` behind
 * it: without what that emulator does otherwise), `test_kernels --bench` times them instead.
 * cvq-test: processor */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/half.h"
#include "base/memory.h"
#include "runtime/kernels/kernels.h"
#include "tests/unit/harness.h"
#include "tests/unit/kernels_bench.h"

/* Bounds of the kernels that are not bit-exact, against double. */
#define BOUND_EXP 3e-7     /* relative, above the smallest normal number */
#define BOUND_GELU 1e-6    /* of max(|x|, 1) */
#define BOUND_SILU 1e-6    /* relative to |gate x up|, plus 1e-30 */
#define BOUND_NORM 2e-6    /* of the largest result of the row */
#define BOUND_EXP_SUM 1e-6 /* relative */
#define BOUND_ROTATE 2e-7  /* of |a| + |b| */

static const cvq_kernels *scalar, *tested;
static uint64_t seed;

static uint32_t random_bits(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}
static size_t random_below(size_t n) {
    return random_bits() % n;
}
/* Roughly normal, deviation 1. */
static float random_float(void) {
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += (float)random_bits() * 0x1p-32f - 0.5f;
    return sum * 1.7320508f;
}
/* 2^-60 to 2^60: products and their sums stay finite. */
static float wide_float(void) {
    return ldexpf(random_float(), (int)random_below(121) - 60);
}

static void *allocate(size_t bytes) {
    void *p;
    if (cvq_alloc(&p, bytes, 1, "test memory", NULL) != CVQ_OK) {
        printf("out of memory\n");
        exit(1);
    }
    return p;
}

/* Outputs lie between guards. */
#define GUARD 64
typedef struct output {
    uint8_t *base, *data;
    size_t size;
} output;

static output output_new(size_t bytes, size_t misalign) {
    output o = {allocate(bytes + 2 * GUARD + misalign), NULL, bytes};
    memset(o.base, 0xa5, bytes + 2 * GUARD + misalign);
    o.data = o.base + GUARD + misalign;
    return o;
}
static bool output_guarded(const output *o) {
    for (const uint8_t *p = o->base; p < o->data; p++)
        if (*p != 0xa5) return false;
    for (size_t i = 0; i < GUARD; i++)
        if (o->data[o->size + i] != 0xa5) return false;
    return true;
}
static float *floats(const output *o) {
    return (float *)(void *)o->data;
}
/* Both have the same bytes and whole guards; frees both. */
static bool outputs_equal(output *a, output *b) {
    bool same = memcmp(a->data, b->data, a->size) == 0 && output_guarded(a) && output_guarded(b);
    free(a->base);
    free(b->base);
    return same;
}

/* Weights ----------------------------------------------------------------------------------------
 */

/* Every type that the table has an entry for: what is added there is tested. */
#define EACH_TYPE(type, entry)                                                                     \
    for (cvq_type type = 0; type < CVQ_TYPES; type++)                                              \
        if (scalar->entry[type])
enum { MODE_RANDOM, MODE_ALL_ONES, MODE_ALL_ZERO, MODES };

/* An f16 scale; ones and zeros: with q4t's largest or smallest offset. */
static uint16_t random_half(int mode) {
    const unsigned kind = (unsigned)random_below(16), bits = random_bits();
    unsigned scale = cvq_f32_to_f16(random_float() * 0.01f);
    if (kind == 0) scale = bits & 0x83ff; /* subnormal */
    if (kind == 1) scale = bits & 0x8000;
    if (mode == MODE_ALL_ONES) scale |= 31;
    if (mode == MODE_ALL_ZERO) scale &= ~31u;
    return (uint16_t)scale;
}

/* A word of q4h, of which any is valid; ones and zeros: with either table in each half, and the
 * largest or smallest offset, so that under code 15 the wide table comes to 127. */
static uint16_t random_word(int mode) {
    const unsigned bits = random_bits();
    return (uint16_t)(mode == MODE_ALL_ONES   ? bits | 0x77
                      : mode == MODE_ALL_ZERO ? bits & ~0x77u
                                              : bits);
}

static const cvq_codebook codebooks[] = {
    {.table = {0, 13, 24, 33, 42, 49, 56, 62, 68, 74, 80, 87, 94, 103, 112, 127}, .zero = 67},
    {.table = {0, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127},
     .zero = 0},
    {.table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, .zero = 127},
};

static cvq_panels weights_new(cvq_type type, size_t panels, size_t k, int mode) {
    const cvq_type_info *info = cvq_type_describe(type);
    size_t stride = cvq_panel_bytes(info, CVQ_PANEL_ROWS, k);
    uint8_t *data = allocate(panels * stride);
    size_t group_bytes = (size_t)info->row_bytes * CVQ_PANEL_ROWS;
    for (size_t i = 0; i < panels * stride; i++)
        data[i] = mode == MODE_RANDOM     ? (uint8_t)random_bits()
                  : mode == MODE_ALL_ONES ? (uint8_t)255
                                          : (uint8_t)0;
    for (size_t p = 0; p < panels && info->head_bytes; p++) {
        float row_scales[CVQ_PANEL_ROWS]; /* bytes of a group's scales may be any */
        for (size_t r = 0; r < CVQ_PANEL_ROWS; r++)
            row_scales[r] = random_below(16) ? random_float() * 0.01f : random_float() * 1e-38f;
        cvq_row_scales_pack(type, CVQ_PANEL_ROWS, row_scales, data + p * stride);
    }
    for (size_t g = 0; !info->head_bytes && g < panels * stride / group_bytes; g++) {
        uint8_t *group = data + g * group_bytes;
        if (type == CVQ_TYPE_BF16) {
            for (size_t i = 0; i < group_bytes; i += 2) {
                uint16_t v = cvq_f32_to_bf16(random_float());
                memcpy(group + i, &v, 2);
            }
        } else {
            for (size_t i = 0; i < 2 * CVQ_PANEL_ROWS; i++) {
                uint16_t scale = type == CVQ_TYPE_Q4H ? random_word(mode) : random_half(mode);
                memcpy(group + 2 * i, &scale, 2);
            }
        }
    }
    return (cvq_panels){data, &codebooks[random_below(3)], stride, k, type};
}
static void weights_free(cvq_panels *w) {
    free((void *)(uintptr_t)w->data);
}

static void test_unpack(void) {
    EACH_TYPE(type, unpack_f32) {
        size_t group = cvq_type_describe(type)->group;
        for (int round = 0; round < 8; round++) {
            cvq_panels w = weights_new(type, 3, 1024, round % MODES);
            size_t panel = random_below(3), k0 = random_below(1024 / group) * group;
            size_t n = (1 + random_below(256 / group)) * group;
            if (n > 1024 - k0) n = 1024 - k0;
            output a = output_new(n * 64, 0), b = output_new(n * 64, 0);
            scalar->unpack_f32[type](&w, panel, k0, k0 + n, floats(&a));
            tested->unpack_f32[type](&w, panel, k0, k0 + n, floats(&b));
            CHECK_SAY(outputs_equal(&a, &b), "%s", cvq_type_describe(type)->name);
            weights_free(&w);
        }
    }
}

static void test_tile_f32(void) {
    static const size_t ks[] = {1, 3, 64, 65, 200};
    for (size_t t = 0; t < sizeof ks / sizeof *ks; t++)
        for (size_t m = 0; m <= 26; m++) {
            size_t k = ks[t], lda = k + random_below(5), ldc = 16 + random_below(20);
            float *w = allocate(k * 64), *x = allocate((m * lda + 1) * 4);
            bool wide = random_below(3) == 0; /* magnitudes far apart: any other order shows */
            for (size_t i = 0; i < k * 16; i++) w[i] = wide ? wide_float() : random_float();
            for (size_t i = 0; i < m * lda + 1; i++) x[i] = wide ? wide_float() : random_float();
            size_t bytes = m ? ((m - 1) * ldc + 16) * 4 : 0;
            output a = output_new(bytes, 4), b = output_new(bytes, 4);
            bool accumulate = random_below(2) != 0;
            for (size_t i = 0; accumulate && i < bytes / 4; i++)
                floats(&a)[i] = floats(&b)[i] = random_float();
            scalar->tile_f32(w, k, x + 1, lda, m, floats(&a), ldc, accumulate);
            tested->tile_f32(w, k, x + 1, lda, m, floats(&b), ldc, accumulate);
            CHECK_SAY(outputs_equal(&a, &b), "k %zu, m %zu", k, m);
            free(w);
            free(x);
        }
}

/* int8 -------------------------------------------------------------------------------------------
 */

static size_t act_bytes(size_t rows, size_t stride) {
    return rows * (stride + stride / CVQ_ACT_BLOCK * 4 + stride / CVQ_ACT_SUM * 4);
}
/* The three arrays one behind the other, the largest alignment first. */
static cvq_act8 act_in(uint8_t *memory, size_t rows, size_t stride) {
    cvq_act8 a = {.stride = stride};
    a.scale = (float *)(void *)memory;
    a.sum = (int32_t *)(void *)(memory + rows * (stride / CVQ_ACT_BLOCK) * 4);
    a.q = (int8_t *)(a.sum + rows * (stride / CVQ_ACT_SUM));
    return a;
}

static float awkward_float(size_t kind) {
    switch (kind) {
    case 0:
        return 0;
    case 1:
        return random_float() * 1e-31f; /* below the smallest block */
    case 2:
        return random_float() * 1e-38f; /* subnormal */
    case 3:
        return random_below(40) ? random_float() : NAN;
    case 4:
        return random_below(40) ? random_float() : -INFINITY;
    case 5:
        return (float)((int)random_below(255) - 127) / 2; /* ties */
    case 6:
        return random_float() * 1e37f;
    default:
        return random_float() * (random_below(30) ? 1.0f : 40.0f);
    }
}

static void test_quantize_rows(void) {
    static const size_t ks[] = {1, 31, 128, 129, 255, 256, 300, 588, 1792};
    for (size_t t = 0; t < sizeof ks / sizeof *ks; t++)
        for (int round = 0; round < 12; round++) {
            size_t k = ks[t], rows = 1 + random_below(3), ldx = k + random_below(3);
            size_t stride = (k + 255) / 256 * 256 + 256 * random_below(2);
            float *x = allocate((rows * ldx + 1) * 4);
            for (size_t i = 0; i < rows * ldx; i += 64) {
                size_t kind = random_below(10);
                for (size_t j = i; j < i + 64 && j < rows * ldx; j++)
                    x[j + 1] = awkward_float(kind);
            }
            if (round == 0) x[1] = 63.5f; /* the block's largest: halves become exact ties */
            output a = output_new(act_bytes(rows, stride), 0),
                   b = output_new(act_bytes(rows, stride), 4);
            cvq_act8 qa = act_in(a.data, rows, stride), qb = act_in(b.data, rows, stride);
            scalar->quantize_rows(x + 1, ldx, rows, k, &qa);
            tested->quantize_rows(x + 1, ldx, rows, k, &qb);
            CHECK_SAY(outputs_equal(&a, &b), "k %zu, %zu rows", k, rows);
            free(x);
        }
}

static cvq_act8 activations_new(size_t rows, size_t k, int mode) {
    size_t stride = (k + 255) / 256 * 256;
    cvq_act8 a = act_in(allocate(act_bytes(rows, stride)), rows, stride);
    for (size_t i = 0; i < rows * stride; i++) {
        bool pad = i % stride >= k;
        int extreme = mode == MODE_ALL_ONES ? 127 : -127;
        int8_t value = (int8_t)(mode == MODE_RANDOM ? (int)random_below(255) - 127 : extreme);
        a.q[i] = pad ? 0 : value;
    }
    for (size_t i = 0; i < rows * stride / CVQ_ACT_SUM; i++) {
        int32_t sum = 0;
        for (size_t j = 0; j < CVQ_ACT_SUM; j++) sum += a.q[i * CVQ_ACT_SUM + j];
        a.sum[i] = sum;
    }
    for (size_t i = 0; i < rows * stride / CVQ_ACT_BLOCK; i++) a.scale[i] = random_float() * 0.1f;
    return a;
}

static void compare_gemm(cvq_type type, size_t k, size_t m, bool gemv) {
    size_t all = 9, panels = 1 + random_below(9), panel0 = random_below(all - panels + 1);
    int mode = (int)random_below(MODES);
    cvq_panels w = weights_new(type, all, k, mode);
    cvq_act8 act = activations_new(m + 3, k, (int)random_below(MODES));
    size_t row0 = random_below(3), ldc = panels * 16 + random_below(9);
    size_t bytes = ((m - 1) * ldc + panels * 16) * 4;
    output a = output_new(bytes, 4), b = output_new(bytes, 4);
    (gemv ? scalar->gemv_int8 : scalar->gemm_int8)[type](&w, panel0, panels, &act, row0, m,
                                                         floats(&a), ldc);
    (gemv ? tested->gemv_int8 : tested->gemm_int8)[type](&w, panel0, panels, &act, row0, m,
                                                         floats(&b), ldc);
    CHECK_SAY(outputs_equal(&a, &b), "%s %s: k %zu, m %zu, %zu panels, codes %d",
              gemv ? "gemv" : "gemm", cvq_type_describe(type)->name, k, m, panels, mode);
    weights_free(&w);
    free(act.scale);
}

static void test_gemm_int8(void) {
    EACH_TYPE(type, gemm_int8) {
        size_t group = cvq_type_describe(type)->group;
        for (size_t m = 1; m <= 14; m++)
            for (int round = 0; round < 6; round++)
                compare_gemm(type, (1 + random_below(1024 / group)) * group, m, false);
        compare_gemm(type, 1024, 77, false);
        /* Several chunks, and part of one; more rows than the kernels take at a time. */
        compare_gemm(type, 1792, 13, false);
        compare_gemm(type, group, 270, false);
    }
}

static void test_gemv_int8(void) {
    EACH_TYPE(type, gemv_int8) {
        size_t group = cvq_type_describe(type)->group;
        for (size_t m = 1; m <= 4; m++)
            for (int round = 0; round < 8; round++)
                compare_gemm(type, (1 + random_below(1024 / group)) * group, m, true);
        for (size_t k = 16640; k <= 16896; k += 256) compare_gemm(type, k, 1, true); /* q4h's end */
    }
}

/* Attention --------------------------------------------------------------------------------------
 */

enum { FLAT, SPIKE, EXTREME_HIGH, EXTREME_LOW, WIDE, ATTENTION_MODES };

static int8_t attention_byte(int mode) {
    if (mode == EXTREME_HIGH) return 127;
    if (mode == EXTREME_LOW) return -127;
    return (int8_t)((int)random_below(255) - 127);
}

/* A block whose scores are of every sort: alike, one spike of +9, all bytes at their ends, wide. */
static cvq_attention_block attention_block_new(size_t d, size_t keys, int mode) {
    size_t steps = (d + 3) / 4, panels = (d + 15) / 16;
    int8_t *k = allocate(CVQ_ATTENTION_KEYS * 4 * steps), *v = allocate(panels * 64 * 64);
    float *key_scale = allocate(CVQ_ATTENTION_KEYS * 4), *value_scale = allocate(panels * 64);
    int32_t *start = allocate(CVQ_ATTENTION_KEYS * 4);
    float reach = mode == WIDE ? 40.0f : mode == FLAT ? 0.01f : 1.0f;
    for (size_t j = 0; j < keys; j++) {
        int32_t sum = 0;
        for (size_t i = 0; i < d; i++) {
            int8_t x = attention_byte(mode);
            k[j / 16 * steps * 64 + i / 4 * 64 + j % 16 * 4 + i % 4] = x;
            v[j / 4 * panels * 64 + i / 16 * 64 + i % 16 * 4 + j % 4] = attention_byte(mode);
            sum += x;
        }
        start[j] = -128 * sum;
        key_scale[j] = reach / (float)(d * 127) * (1 + random_float() * 0.1f);
        if (mode == SPIKE && j == keys / 3) key_scale[j] *= 300;
    }
    for (size_t i = 0; i < d; i++) value_scale[i] = 0.01f + random_float() * 0.001f;
    return (cvq_attention_block){k, key_scale, start, v, value_scale, steps, panels};
}
static void attention_block_free(const cvq_attention_block *b) {
    free((void *)(uintptr_t)b->keys);
    free((void *)(uintptr_t)b->values);
    free((void *)(uintptr_t)b->key_scale);
    free((void *)(uintptr_t)b->value_scale);
    free((void *)(uintptr_t)b->key_start);
}

static void compare_attention(size_t d, size_t rows, int mode) {
    size_t steps = (d + 3) / 4, panels = (d + 15) / 16, state = rows * (2 + panels * 16) * 4;
    uint8_t *q = allocate(rows * 4 * steps);
    float *scale = allocate(rows * 4);
    size_t *seen = allocate(rows * sizeof *seen);
    output a = output_new(state, 4), b = output_new(state, 4);
    for (size_t i = 0; i < rows; i++) {
        scale[i] = random_below(9) ? 0.01f * (1.5f + random_float() * 0.3f) : 0;
        for (size_t j = 0; j < 4 * steps; j++)
            q[i * 4 * steps + j] = (uint8_t)(128 + attention_byte(j % 2 ? FLAT : mode));
        floats(&a)[i] = floats(&b)[i] = -1e30f;
    }
    for (size_t i = rows; i < state / 4; i++) floats(&a)[i] = floats(&b)[i] = 0;
    for (int block = 0; block < 3; block++) {
        size_t keys = block < 2 ? CVQ_ATTENTION_KEYS : 1 + random_below(CVQ_ATTENTION_KEYS);
        cvq_attention_block kv = attention_block_new(d, keys, mode);
        for (size_t i = 0; i < rows; i++) seen[i] = random_below(2) ? keys : random_below(keys + 1);
        for (int which = 0; which < 2; which++) {
            float *f = floats(which ? &b : &a);
            cvq_attention_rows r = {q, scale, seen, f, f + rows, f + 2 * rows};
            (which ? tested : scalar)->attend_int8(&kv, &r, rows);
        }
        attention_block_free(&kv);
    }
    for (size_t i = 0; i < state / 4; i++) {
        CHECK(isfinite(floats(&a)[i]));
        floats(&a)[i] += 0.0f; /* a zero's sign is of no importance */
        floats(&b)[i] += 0.0f;
    }
    CHECK_SAY(outputs_equal(&a, &b), "d %zu, %zu rows, scores %d", d, rows, mode);
    free(q);
    free(scale);
    free(seen);
}

static void test_attend_int8(void) {
    static const size_t sizes[] = {112, 128, 32, 40, 7, 80, 200};
    for (size_t t = 0; t < sizeof sizes / sizeof *sizes; t++)
        for (int mode = 0; mode < ATTENTION_MODES; mode++)
            for (size_t rows = CVQ_ATTENTION_ROWS; rows <= 5 * CVQ_ATTENTION_ROWS;
                 rows += 2 * CVQ_ATTENTION_ROWS)
                compare_attention(sizes[t], rows, mode);
}

/* Against the elements as f32 and tile_f32, which is what it stands for. */
static void compare_tile_kv(size_t k, size_t panels, size_t m, bool half, bool accumulate) {
    size_t stride = k * 16 + 16 * random_below(3), elements = panels * stride;
    size_t lda = k + random_below(5), ldc = panels * 16 + random_below(5);
    uint8_t *data = allocate(elements * 2 + 2);
    float *wide = allocate(k * 64), *a = allocate((m * lda + 1) * 4);
    cvq_kv_panels w = {data + 2, stride, k, NULL};
    const uint16_t *halves = (const uint16_t *)w.data;
    for (size_t i = 0; i < elements * 2; i++) data[i + 2] = (uint8_t)random_bits();
    for (size_t i = 0; i < elements && half; i++) /* finite */
        ((uint16_t *)(void *)data)[i + 1] = cvq_f32_to_f16(random_float());
    for (size_t i = 0; i < m * lda + 1; i++) a[i] = random_float();
    output got = output_new(((m - 1) * ldc + panels * 16) * 4, 4);
    output want = output_new(((m - 1) * ldc + panels * 16) * 4, 4);
    for (size_t i = 0; i < got.size / 4; i++) floats(&got)[i] = floats(&want)[i] = 0.5f;
    (half ? tested->tile_kv_f16 : tested->tile_kv_int8)(&w, panels, a + 1, lda, m, floats(&got),
                                                        ldc, accumulate);
    for (size_t p = 0; p < panels; p++) {
        for (size_t i = 0; i < k * 16; i++)
            wide[i] = half ? cvq_f16_to_f32(halves[p * stride + i])
                           : (float)((const int8_t *)w.data)[p * stride + i];
        scalar->tile_f32(wide, k, a + 1, lda, m, floats(&want) + p * 16, ldc, accumulate);
    }
    CHECK_SAY(outputs_equal(&got, &want), "%s: k %zu, %zu panels, m %zu", half ? "f16" : "int8", k,
              panels, m);
    free(data);
    free(wide);
    free(a);
}

static void test_tile_kv(void) {
    static const size_t depths[] = {1, 7, 112, 128, 256};
    for (size_t t = 0; t < sizeof depths / sizeof *depths; t++)
        for (size_t m = 1; m <= 9; m++)
            for (int round = 0; round < 4; round++)
                compare_tile_kv(depths[t], 1 + random_below(9), m, round % 2, round / 2);
}

/* Lanes of all sorts: a spike, nothing at all, what is too small to count, what is not finite. */
static void spoil_lane(float *x, size_t ld, size_t n, float factor) {
    for (size_t i = 0; i < n; i++) x[i * ld] *= factor;
    if (random_below(5) == 0) x[random_below(n) * ld] = random_below(2) ? NAN : -INFINITY;
    if (random_below(5) == 0) x[random_below(n) * ld] *= 1e6f;
}

static void compare_quantize_lanes(size_t n, bool mean_of_rows) {
    static const float factors[] = {1, 0, 1e-32f, 1e30f};
    size_t ld = 16 + random_below(9), lines = (n + 3) / 4, line_bytes = 64 + 64 * random_below(2);
    size_t means = mean_of_rows ? n : 16;
    float *x = allocate((n * ld + 1) * 4), *mean = allocate(means * 4);
    bool centred = random_below(2);
    for (size_t i = 0; i < n * ld + 1; i++) x[i] = random_float();
    for (size_t i = 0; i < means; i++) mean[i] = centred ? 3 * random_float() : 0;
    for (size_t lane = 0; lane < 16 && !centred; lane++)
        spoil_lane(x + 1 + lane, ld, n, factors[random_below(4)]);
    output got[2][3];
    for (int which = 0; which < 2; which++) {
        output *o = got[which];
        o[0] = output_new((lines - 1) * line_bytes + 64, 0);
        o[1] = output_new(64, 4);
        o[2] = output_new(64, 4);
        cvq_lane_codes out = {(int8_t *)o[0].data, line_bytes, floats(&o[1]),
                              mean_of_rows ? (int32_t *)(void *)o[2].data : NULL};
        (which ? tested : scalar)->quantize_lanes(x + 1, ld, n, mean, mean_of_rows, &out);
        for (size_t lane = 0; lane < 16; lane++) /* a NaN is a NaN */
            if (isnan(floats(&o[1])[lane])) floats(&o[1])[lane] = -1;
    }
    for (int i = 0; i < 3; i++)
        CHECK_SAY(outputs_equal(&got[0][i], &got[1][i]), "n %zu, %s, output %d", n,
                  mean_of_rows ? "keys" : "values", i);
    free(x);
    free(mean);
}

static void test_quantize_lanes(void) {
    static const size_t rows[] = {1, 2, 3, 4, 7, 40, 112, 128, 255, 256};
    for (size_t t = 0; t < sizeof rows / sizeof *rows; t++)
        for (int round = 0; round < 20; round++) compare_quantize_lanes(rows[t], round % 2);
}

/* Rows -------------------------------------------------------------------------------------------
 */

static const size_t lengths[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 100, 577, 1792, 4096};
#define EACH_LENGTH(n)                                                                             \
    for (size_t li_ = 0, n; li_ < sizeof lengths / sizeof *lengths && (n = lengths[li_], true);    \
         li_++)

static double largest_of(const double *x, size_t n) {
    double max = 0;
    for (size_t i = 0; i < n; i++) max = fmax(max, fabs(x[i]));
    return max;
}

static void test_norms(void) {
    static const float sizes[] = {1, 1, 1e-4f, 1e15f}; /* of what is normalized */
    EACH_LENGTH(n) for (int round = 0; round < 8; round++) {
        bool layer = round % 2;
        float size = sizes[round / 2];
        float *x = allocate(4 * n), *weight = allocate(4 * n), *bias = allocate(4 * n);
        double *want = allocate(8 * n), mean = 0, squares = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = size * (random_float() + (layer ? 3.0f : 0.0f));
            weight[i] = random_float();
            bias[i] = random_float();
            mean += (double)x[i] / (double)n;
        }
        if (!layer) mean = 0;
        for (size_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
        for (size_t i = 0; i < n; i++)
            want[i] = ((double)x[i] - mean) / sqrt(squares / (double)n + 1e-5) * (double)weight[i] +
                      (layer ? (double)bias[i] : 0);
        output o = output_new(4 * n, 4);
        if (layer)
            tested->layer_norm(x, weight, bias, 1e-5f, n, floats(&o));
        else
            tested->rms_norm(x, weight, 1e-5f, n, floats(&o));
        /* Values that differ little, far from 0, lose digits with their mean. */
        double digits = fabs(mean) / sqrt(squares / (double)n + 1e-5) / 16;
        double bound = BOUND_NORM * fmax(largest_of(want, n), 1) * fmax(digits, 1);
        size_t wrong = 0;
        for (size_t i = 0; i < n; i++) {
            if (!(fabs((double)floats(&o)[i] - want[i]) <= bound)) wrong++; /* a NaN too */
        }
        CHECK_SAY(wrong == 0, "n %zu, layer %d, size %g: %zu wrong", n, layer, (double)size, wrong);
        CHECK(output_guarded(&o));
        if (layer) /* in place */
            tested->layer_norm(x, weight, bias, 1e-5f, n, x);
        else
            tested->rms_norm(x, weight, 1e-5f, n, x);
        CHECK(memcmp(x, floats(&o), 4 * n) == 0);
        x[n / 2] = NAN; /* is nowhere lost */
        if (layer)
            tested->layer_norm(x, weight, bias, 1e-5f, n, x);
        else
            tested->rms_norm(x, weight, 1e-5f, n, x);
        for (size_t i = 0; i < n; i++) wrong += isnan(x[i]) ? 0 : 1;
        CHECK_SAY(wrong == 0, "n %zu, layer %d: NaN lost in %zu", n, layer, wrong);
        free(o.base);
        free(x);
        free(weight);
        free(bias);
        free(want);
    }
}

/* A spread of magnitudes, with the ends. */
static float spread_float(size_t i) {
    static const float ends[] = {0, -0.0f, 1e-30f, -1e-30f, 88, -88, 100, -100, 1e30f, -1e30f};
    if (i < sizeof ends / sizeof *ends) return ends[i];
    return random_float() * exp2f((float)random_below(12) - 6);
}

static void test_activations(void) {
    EACH_LENGTH(n) {
        output g = output_new(4 * n, 4), s = output_new(4 * n, 4);
        float *x = allocate(4 * n), *up = allocate(4 * n);
        for (size_t i = 0; i < n; i++) {
            x[i] = floats(&g)[i] = floats(&s)[i] = spread_float(i);
            up[i] = random_float();
        }
        tested->gelu(floats(&g), n);
        tested->silu_mul(floats(&s), up, n);
        for (size_t i = 0; i < n; i++) {
            double v = (double)x[i], gelu = v / 2 * erfc(-v / sqrt(2)),
                   silu = v / (1 + exp(-v)) * (double)up[i];
            CHECK_SAY(fabs((double)floats(&g)[i] - gelu) <= BOUND_GELU * fmax(fabs(v), 1),
                      "gelu(%g) = %g, not %g", v, (double)floats(&g)[i], gelu);
            CHECK_SAY(fabs((double)floats(&s)[i] - silu) <=
                          BOUND_SILU * fabs(silu) + 1e-30 + 1e-35 * fabs(v),
                      "silu(%g) x %g = %g, not %g", v, (double)up[i], (double)floats(&s)[i], silu);
        }
        CHECK(output_guarded(&g) && output_guarded(&s));
        free(g.base);
        free(s.base);
        free(x);
        free(up);
    }
    float nan2[2] = {NAN, NAN}, one[2] = {1, 1};
    tested->gelu(nan2, 1);
    tested->silu_mul(nan2 + 1, one, 1);
    CHECK(isnan(nan2[0]) && isnan(nan2[1]));
}

static void test_exp_sum(void) {
    EACH_LENGTH(n) {
        output o = output_new(4 * n, 4);
        float *x = allocate(4 * n);
        for (size_t i = 0; i < n; i++) x[i] = floats(&o)[i] = random_float() * 20;
        if (n > 16) x[9] = floats(&o)[9] = -INFINITY;
        float max = tested->max(floats(&o), n), real_max = x[0];
        for (size_t i = 0; i < n; i++) real_max = fmaxf(real_max, x[i]);
        CHECK(max == real_max);
        double sum = 0, got = (double)tested->exp_sum(floats(&o), max, n);
        for (size_t i = 0; i < n; i++) {
            double e = exp((double)(x[i] - max));
            sum += e;
            CHECK_SAY(fabs((double)floats(&o)[i] - e) <= BOUND_EXP * e + 2e-38, "exp(%g) = %g",
                      (double)(x[i] - max), (double)floats(&o)[i]);
        }
        if (n > 16) CHECK(floats(&o)[9] == 0);
        CHECK_SAY(fabs(got - sum) <= BOUND_EXP_SUM * sum, "n %zu: %g, not %g", n, got, sum);
        CHECK(output_guarded(&o));
        free(o.base);
        free(x);
    }
}

static void test_add_mul_scale_rotate(void) {
    EACH_LENGTH(n) {
        output a = output_new(4 * n, 4), b = output_new(4 * n, 4);
        float *y = allocate(4 * n);
        for (size_t i = 0; i < n; i++) {
            floats(&a)[i] = floats(&b)[i] = random_float();
            y[i] = random_float();
        }
        scalar->add(floats(&a), y, n);
        scalar->mul(floats(&a), y, n);
        scalar->scale(floats(&a), 1.7f, n);
        tested->add(floats(&b), y, n);
        tested->mul(floats(&b), y, n);
        tested->scale(floats(&b), 1.7f, n);
        CHECK_SAY(outputs_equal(&a, &b), "n %zu", n);
        float *x = allocate(8 * n), *sin = allocate(4 * n);
        output o = output_new(8 * n, 4);
        for (size_t i = 0; i < n; i++) {
            y[i] = random_float();
            sin[i] = random_float();
        }
        for (size_t i = 0; i < 2 * n; i++) x[i] = floats(&o)[i] = random_float();
        tested->rotate(floats(&o), y, sin, n);
        for (size_t i = 0; i < n; i++) {
            double p = (double)x[i], q = (double)x[n + i], c = (double)y[i], s = (double)sin[i];
            double bound = BOUND_ROTATE * (fabs(p) + fabs(q)) * (fabs(c) + fabs(s));
            CHECK(fabs((double)floats(&o)[i] - (p * c - q * s)) <= bound);
            CHECK(fabs((double)floats(&o)[n + i] - (q * c + p * s)) <= bound);
        }
        CHECK(output_guarded(&o));
        free(o.base);
        free(x);
        free(y);
        free(sin);
    }
}

static void test_transpose16(void) {
    for (size_t n = 0; n <= 16; n++) {
        static const size_t depths[] = {1, 5, 16, 28, 112, 128};
        for (size_t t = 0; t < sizeof depths / sizeof *depths; t++) {
            size_t d = depths[t], ld = d + random_below(4);
            float *x = allocate((16 * ld + 1) * 4);
            for (size_t i = 0; i < 16 * ld + 1; i++) x[i] = random_float();
            output a = output_new(64 * d, 0), b = output_new(64 * d, 0);
            scalar->transpose16(x + 1, ld, n, d, floats(&a));
            tested->transpose16(x + 1, ld, n, d, floats(&b));
            CHECK_SAY(outputs_equal(&a, &b), "n %zu, d %zu", n, d);
            free(x);
        }
    }
}

static void test_f16_to_f32(void) {
    size_t n = 65536;
    uint16_t *halves = allocate(2 * n + 2);
    output f = output_new(4 * n, 4);
    for (size_t i = 0; i < n; i++) halves[i + 1] = (uint16_t)i;
    tested->f16_to_f32(halves + 1, n, floats(&f));
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        float want = cvq_f16_to_f32((uint16_t)i), got = floats(&f)[i];
        if (isnan(want) ? !isnan(got) : cvq_f32_bits(want) != cvq_f32_bits(got)) wrong++;
    }
    CHECK_SAY(wrong == 0 && output_guarded(&f), "%zu wrong", wrong);
    free(f.base);
    free(halves);
}

static void test_f32_to_f16(void) {
    size_t n = 65536, wrong = 0;
    float *x = allocate(4 * n + 4);
    for (int round = 0; round < 4; round++) { /* all exponents; ties in rounds 2 and 3 */
        uint32_t mask = round < 2 ? 0xffffffffu : 0xfffff000u;
        size_t some = n - (size_t)round * 3;
        for (size_t i = 0; i < some; i++) x[i + 1] = cvq_bits_f32(random_bits() & mask);
        output h = output_new(2 * some, 2);
        uint16_t *out = (uint16_t *)(void *)h.data;
        tested->f32_to_f16(x + 1, some, out);
        for (size_t i = 0; i < some; i++) {
            uint16_t want = cvq_f32_to_f16(x[i + 1]);
            if (isnan(x[i + 1]) ? (out[i] & 0x7fff) <= 0x7c00 : out[i] != want) wrong++;
        }
        CHECK_SAY(wrong == 0 && output_guarded(&h), "%zu wrong", wrong);
        free(h.base);
    }
    free(x);
}

int main(int argc, char **argv) {
    scalar = cvq_kernels_for(CVQ_CPU_SCALAR);
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) return bench(argc > 2 ? argv[2] : NULL);
    cvq_cpu_level only = CVQ_CPU_LEVELS;
    cvq_error err = {0};
    bool emulated = argc > 2 && strcmp(argv[2], "--in-bochs") == 0;
    if (argc > 1 && cvq_cpu_level_find(&only, argv[1], &err) != CVQ_OK) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        return 2;
    }
    for (int level = 0; level < CVQ_CPU_LEVELS; level++) {
        if (argc > 1 ? level != (int)only : !cvq_cpu_has((cvq_cpu_level)level)) continue;
        printf("%s\n", cvq_cpu_level_name((cvq_cpu_level)level));
        tested = cvq_kernels_for((cvq_cpu_level)level);
        seed = 0x9e3779b97f4a7c15u;
        CHECK(tested->level == (cvq_cpu_level)level);
        RUN(test_unpack);
        RUN(test_tile_f32);
        RUN(test_quantize_rows);
        RUN(test_gemm_int8);
        RUN(test_gemv_int8);
        RUN(test_attend_int8);
        RUN(test_quantize_lanes);
        RUN(test_tile_kv);
        RUN(test_norms);
        RUN(test_activations);
        RUN(test_exp_sum);
        RUN(test_add_mul_scale_rotate);
        RUN(test_transpose16);
        RUN(test_f16_to_f32);
        if (emulated)
            SKIP("test_f32_to_f16", "Bochs rounds vcvtps2ph otherwise than processors do");
        else
            RUN(test_f32_to_f16);
    }
    return REPORT();
}
