/* The table of kernels: one entry per operation, filled once per level, scalar first, each level
 * overriding what it does better. The scalar kernel defines correctness.
 *
 * Every matrix kernel has one output row of the matrix in one vector lane and walks k in ascending
 * order, so that the order of additions, and with it every bit of the result, is the same at every
 * level (fused multiply-add throughout; the scalar code calls fmaf). A result does not depend on
 * how many rows are computed together either: prefill and decode agree. */
#ifndef CVQ_RUNTIME_KERNELS_KERNELS_H
#define CVQ_RUNTIME_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "formats/block_types.h"

/* Panels of one matrix as they lie in the file. */
typedef struct cvq_panels {
    const uint8_t *data;
    const cvq_codebook *codebook; /* q4t, q4s */
    size_t panel_stride;          /* bytes from one panel of 16 rows to the next */
    size_t k;                     /* padded columns: a multiple of the type's group */
    cvq_type type;                /* bf16 or a block type */
} cvq_panels;

/* Activations as the integer kernels read them. Rows are padded with zeros to a multiple of 256
 * columns. */
#define CVQ_ACT_BLOCK 128 /* columns that share a scale */
#define CVQ_ACT_SUM 32    /* columns that share a sum */
typedef struct cvq_act8 {
    int8_t *q;     /* [rows][stride], -127 .. 127 */
    float *scale;  /* [rows][stride / 128] */
    int32_t *sum;  /* [rows][stride / 32]: sums of q, for the weights' zero points */
    size_t stride; /* padded columns, a multiple of 256 */
} cvq_act8;

/* exact: 16 rows of a panel, columns [k0, k1) (multiples of the type's group, at most 256 apart),
 * to f32: out[k - k0][16]. Bit-exact. value = scale x (code - zero), in f32 with one rounding,
 * where for types with tables code is the table's entry; all as cvq_scale_decode gives it. */
typedef void cvq_unpack_f32_fn(const cvq_panels *w, size_t panel, size_t k0, size_t k1, float *out);

/* c[i][0..15] (+)= sum over kk < k of a[i][kk] x w[kk][0..15] for i < m, by fused multiply-add in
 * ascending kk starting from 0, then (accumulate) added to what c holds, or stored. w is 64-byte
 * aligned; a and c are not. lda and ldc count floats. Bit-exact. */
typedef void cvq_tile_f32_fn(const float *w, size_t k, const float *a, size_t lda, size_t m,
                             float *c, size_t ldc, bool accumulate);

/* Keys or values as a cache holds them: panels of [k][16] elements. */
typedef struct cvq_kv_panels {
    const void *data; /* f16, or int8: without their scales */
    size_t stride;    /* elements from one panel to the next */
    size_t k;
    const void *next; /* what will be read after them: 16 KiB may be asked for, there or not */
} cvq_kv_panels;

/* What tile_f32 gives for panel after panel, c[i][p x 16 ..], once their elements are f32; made for
 * m of 1 to 4, and for panels that come from memory. Bit-exact. */
typedef void cvq_tile_kv_fn(const cvq_kv_panels *w, size_t panels, const float *a, size_t lda,
                            size_t m, float *c, size_t ldc, bool accumulate);

/* fast: x [rows][ldx] f32, columns [0, k), to int8 with one scale for 128: scale = max |x| / 127, q
 * = round to nearest even of x x (1 / scale) (127 / max, computed as 127.0f / max). Zeros up to
 * out->stride. A block of nothing larger than 2^-100 becomes zeros with scale 0; one that holds a
 * NaN or an infinity zeros with scale NaN, so that the result is NaN and not a plausible number.
 * Bit-exact. */
typedef void cvq_quantize_rows_fn(const float *x, size_t ldx, size_t rows, size_t k,
                                  const cvq_act8 *out);

/* fast: c[i][p x 16 + r] for activation rows i in [row0, row0 + m) and panels [panel0, panel0 +
 * num_panels): starting from 0, for each 128 columns in ascending order (at the end maybe fewer) c
 * = fmaf(t, activation_scale, c), where t starts from 0 and for each of their blocks (32 or 128
 * columns) t = fmaf(weight_scale, (float)(sum of code x q - zero x sum of q), t). weight_scale and
 * zero are those of cvq_scale_decode and for types with tables code is the table's entry; q4h has a
 * table and a zero for each half of a block. The integer is exact. c[0] is for (row0, panel0).
 * Bit-exact. */
typedef void cvq_gemm_int8_fn(const cvq_panels *w, size_t panel0, size_t num_panels,
                              const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc);

/* Rows. Float results within the bound stated by tests/unit/test_kernels.c; n any. in and out may
 * be the same where both are named. */
typedef void cvq_rms_norm_fn(const float *x, const float *weight, float eps, size_t n, float *out);
typedef void cvq_layer_norm_fn(const float *x, const float *weight, const float *bias, float eps,
                               size_t n, float *out);
/* x/2 (1 + erf(x / sqrt 2)), exact erf */
typedef void cvq_gelu_fn(float *x, size_t n);
/* gate = gate / (1 + exp(-gate)) x up */
typedef void cvq_silu_mul_fn(float *gate, const float *up, size_t n);
typedef void cvq_add_fn(float *x, const float *y, size_t n); /* x += y */
typedef void cvq_mul_fn(float *x, const float *y, size_t n); /* x *= y */
typedef void cvq_scale_fn(float *x, float s, size_t n);      /* x *= s */
typedef float cvq_max_fn(const float *x, size_t n);          /* n >= 1 */
/* x = exp(x - max); returns their sum. x - max <= 0, may be -inf (0); below -87.3 the result may be
 * 0. */
typedef float cvq_exp_sum_fn(float *x, float max, size_t n);
/* NeoX: (x[i], x[half + i]) by the angle i */
typedef void cvq_rotate_fn(float *x, const float *cos, const float *sin, size_t half);
/* 16 rows (n <= 16; the others count as 0) of d columns, row stride ld floats, to out[d][16]: keys
 * as a panel for tile_f32. Bit-exact. */
typedef void cvq_transpose16_fn(const float *x, size_t ld, size_t n, size_t d, float *out);
/* As base/half.h: nearest even, bit-exact (of a NaN only that it stays one). */
typedef void cvq_f32_to_f16_fn(const float *x, size_t n, uint16_t *out);
typedef void cvq_f16_to_f32_fn(const uint16_t *x, size_t n, float *out);

/* Where 16 lanes go in int8: a line is 64 bytes, 16 lanes x 4 rows. */
typedef struct cvq_lane_codes {
    int8_t *lines;     /* [n / 4, rounded up] */
    size_t line_bytes; /* from one line to the next */
    float *scale;      /* [16] */
    int32_t *start;    /* [16] -128 x the sum of a lane's codes; or NULL */
} cvq_lane_codes;

/* fast: n rows of 16 lanes (row stride ld floats), less mean ([n] if it is one of rows, else [16]),
 * to int8 with one scale a lane: scale = max / 127, code = the integer nearest to (x - mean) x (127
 * / max), 0 for rows that fill up the last line. A lane of nothing larger than 2^-100 becomes zeros
 * with scale 0; one that holds a NaN or an infinity zeros with scale NaN. Bit-exact. */
typedef void cvq_quantize_lanes_fn(const float *x, size_t ld, size_t n, const float *mean,
                                   bool mean_of_rows, const cvq_lane_codes *out);

/* A block of keys and values of one head in int8, as fast attention reads it. A line is 64 bytes:
 * 16 lanes x 4. What places without a key hold is of no importance, but it is there. */
#define CVQ_ATTENTION_KEYS 256
#define CVQ_ATTENTION_ROWS 6    /* rows come in multiples of this */
#define CVQ_ATTENTION_STEPS 192 /* at most */
typedef struct cvq_attention_block {
    const int8_t *keys;       /* [16 panels][steps] lines: lane = key, 4 dimensions; -127 .. 127 */
    const float *key_scale;   /* [256] */
    const int32_t *key_start; /* [256] -128 x the sum of the key's bytes */
    const int8_t *values;     /* [64][panels] lines: lane = dimension, 4 keys; -127 .. 127 */
    const float *value_scale; /* [panels x 16] */
    size_t steps, panels;     /* dimensions of keys / 4, of values / 16, rounded up */
} cvq_attention_block;

/* Rows (a query of one head each) and what they have gathered so far. */
typedef struct cvq_attention_rows {
    const uint8_t *q;     /* [rows][4 steps] 128 + the query in -127 .. 127 */
    const float *q_scale; /* [rows] so that scale x scale of the key x product is a power of 2 */
    const size_t *seen;   /* [rows] the first keys of the block, 0 .. 256, that the row sees */
    float *max, *sum;     /* [rows] of weights; at first -1e30 and 0 */
    float *out;           /* [rows][16 panels] not yet divided by the sum */
} cvq_attention_rows;

/* fast: add a block to the softmax of the rows. Scores are c[j] = (float)(integer product) x
 * key_scale[j]; m is the largest that the row sees, and a key's weight is the integer nearest to
 * 2^(fmaf(c[j], q_scale, fmaf(-m, q_scale, log2 255))), by a polynomial of degree 3, 0 for those
 * not seen. With new = the larger of max and m x q_scale, a = 2^(max - new), b = 2^(m x q_scale -
 * new) by degree 5: out = fmaf((float)(sum of weight x value), value_scale x b, out x a), the sum
 * of weights likewise. Bit-exact; a row does not depend on the others. */
typedef void cvq_attend_int8_fn(const cvq_attention_block *kv, const cvq_attention_rows *r,
                                size_t rows);

typedef struct cvq_kernels {
    cvq_cpu_level level;
    cvq_unpack_f32_fn *unpack_f32[CVQ_TYPES]; /* bf16 and block types; others NULL */
    cvq_tile_f32_fn *tile_f32;
    cvq_tile_kv_fn *tile_kv_f16, *tile_kv_int8;
    cvq_quantize_rows_fn *quantize_rows;
    cvq_gemm_int8_fn *gemm_int8[CVQ_TYPES]; /* block types: any m, made for many rows */
    cvq_gemm_int8_fn *gemv_int8[CVQ_TYPES]; /* the same contract, made for m of 1 to 4 */

    cvq_rms_norm_fn *rms_norm;
    cvq_layer_norm_fn *layer_norm;
    cvq_gelu_fn *gelu;
    cvq_silu_mul_fn *silu_mul;
    cvq_add_fn *add;
    cvq_mul_fn *mul;
    cvq_scale_fn *scale;
    cvq_max_fn *max;
    cvq_exp_sum_fn *exp_sum;
    cvq_rotate_fn *rotate;
    cvq_transpose16_fn *transpose16;
    cvq_f32_to_f16_fn *f32_to_f16;
    cvq_f16_to_f32_fn *f16_to_f32;
    cvq_quantize_lanes_fn *quantize_lanes;
    cvq_attend_int8_fn *attend_int8;
} cvq_kernels;

/* The filled table of a level that cvq_cpu_has; static, immutable, every entry that the comment
 * promises is there. */
const cvq_kernels *cvq_kernels_for(cvq_cpu_level level);

#endif
