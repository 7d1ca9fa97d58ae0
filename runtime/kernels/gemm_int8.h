/* What the int8 matrix kernels of all vector levels share: the loops over panels, columns and rows.
 * A level brings two things: how a chunk of a panel is unpacked into lines (16 rows x 4
 * columns), and tiles of a few rows of activations that multiply them. The sums of a block are
 * integers and blocks follow one another in ascending order, so neither the size of a tile nor that
 * of a chunk shows in the result. Read only inside this folder. */
#ifndef CVQ_RUNTIME_KERNELS_GEMM_INT8_H
#define CVQ_RUNTIME_KERNELS_GEMM_INT8_H

#include "runtime/kernels/kernels_internal.h"

#define GEMM_CHUNK 512    /* columns unpacked at a time, at most */
#define GEMM_CHUNK_Q8 256 /* the same of q8: a group; or where activations are packed */
#define GEMM_CHUNK_BLOCKS (GEMM_CHUNK / 32)              /* at most */
#define GEMM_GROUP_BYTES(bytes) (CVQ_PANEL_ROWS * bytes) /* of cvq_type_info.row_bytes */
#define GEMM_MAX_ROWS 8
#define GEMM_MAX_PANELS 2
#define GEMM_MAX_START_LANES 4
#define GEMM_RUN_ROWS 264   /* for each time that panels are unpacked */
#define GEMM_RUN_PANELS 8   /* for each time that start values are made */
#define GEMM_PACKED_ROWS 24 /* of packed activations at a time, for the first-level cache; even */

/* A panel's part of a chunk, unpacked. */
typedef struct gemm_chunk {
    _Alignas(64) uint8_t storage[GEMM_CHUNK * CVQ_PANEL_ROWS]; /* or 16 bits for each of q8 */
    float scale[GEMM_CHUNK_BLOCKS][CVQ_PANEL_ROWS];
    int32_t zeros[GEMM_CHUNK_BLOCKS][CVQ_PANEL_ROWS]; /* where they differ by row; a 16-bit value */
    const uint8_t *lines;                             /* storage, or in the file */
    const uint8_t *head;                              /* q4s: the panel's row scales */
    size_t columns;                                   /* a multiple of 64, at most GEMM_CHUNK */
    int32_t zero;                                     /* to be subtracted from every code */
} gemm_chunk;

/* Activations from a row and column on. */
typedef struct gemm_rows {
    const int8_t *q;    /* row stride: stride */
    const float *scale; /* stride / 128 */
    const int32_t *sum; /* stride / 32 */
    size_t stride;
} gemm_rows;

/* A tile's activations: the columns of its chunk. */
typedef struct gemm_tile_rows {
    const int8_t *q; /* as they are, or as the plan packs them */
    size_t stride;   /* of q's rows */
    const float *scale;
    size_t scale_stride;
    const int32_t *start; /* what a block's sums start from: -zero x (sum of the activations); row
                             stride GEMM_CHUNK_BLOCKS x start_lanes */
} gemm_tile_rows;

/* Brings one row's activations of a chunk into another form: GEMM_CHUNK_Q8 x activation_bytes. */
typedef void gemm_pack_fn(const int8_t *q, int8_t *out);
/* The start values of so many rows and columns; sums: of 32 columns each, and for all of 256. */
typedef void gemm_start_fn(const int32_t *sums, size_t stride, size_t rows, size_t columns,
                           int32_t zero, int32_t *out);

/* data: the panel's groups from the chunk's first column on; w for the codebook. columns and head
 * are set. */
typedef void gemm_unpack_fn(const cvq_panels *w, const uint8_t *data, gemm_chunk *out);
/* first: c starts from 0. w: as many chunks, side by side, as the tile has panels. */
typedef void gemm_tile_fn(const gemm_chunk *w, const gemm_tile_rows *a, float *c, size_t ldc,
                          bool first);

typedef struct gemm_plan {
    gemm_unpack_fn *unpack;
    gemm_start_fn *start;
    size_t start_lanes; /* that each start value fills: 1, or a vector where a broadcast takes a
                           unit of the products */
    gemm_pack_fn *pack; /* NULL: activations are read in place */
    size_t activation_bytes;                            /* of a packed one */
    size_t rows, panels;                                /* of the largest tile */
    gemm_tile_fn *tile[GEMM_MAX_PANELS][GEMM_MAX_ROWS]; /* [panels - 1][rows - 1] */
    /* Rows are packed two by two, 8 columns of each in turn (an odd one with itself), and no pair
     * is parted by tiles. */
    bool pairs;
} gemm_plan;

void cvq_gemm_int8_run(const gemm_plan *plan, const cvq_panels *w, size_t panel0, size_t num_panels,
                       const cvq_act8 *a, size_t row0, size_t m, float *c, size_t ldc);

#define GEMM_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define GEMM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GEMM_UNROLL _Pragma("GCC unroll 16")
#endif
/* Nothing, but a value that the compiler cannot take apart: sums stay in the order written, which
 * bounds the registers in use. */
#define GEMM_KEEP(v) __asm__("" : "+x"(v))

#endif
