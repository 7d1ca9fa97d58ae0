/* Tiles of f32 matrices, what the vector levels share: rows of activations shared out evenly over
 * tiles, each with its number of rows as a constant. The level brings tile_rows. Read only inside
 * this folder. */
#ifndef CVQ_RUNTIME_KERNELS_GEMM_F32_TILES_H
#define CVQ_RUNTIME_KERNELS_GEMM_F32_TILES_H

#define GEMM_F32_ROWS(n)                                                                           \
    case n:                                                                                        \
        tile_rows(n, w, k, a, lda, c, ldc, accumulate);                                            \
        break;
#define GEMM_F32_1_TO_6                                                                            \
    GEMM_F32_ROWS(1)                                                                               \
    GEMM_F32_ROWS(2) GEMM_F32_ROWS(3) GEMM_F32_ROWS(4) GEMM_F32_ROWS(5) GEMM_F32_ROWS(6)
#define GEMM_F32_1_TO_12                                                                           \
    GEMM_F32_1_TO_6                                                                                \
    GEMM_F32_ROWS(7)                                                                               \
    GEMM_F32_ROWS(8)                                                                               \
    GEMM_F32_ROWS(9) GEMM_F32_ROWS(10) GEMM_F32_ROWS(11) GEMM_F32_ROWS(12)

/* The kernel `name` (cvq_tile_f32_fn) of tiles of at most `most` rows; no small tile is left for
 * the end. */
#define GEMM_F32_TILES(name, most, cases)                                                          \
    void name(const float *w, size_t k, const float *a, size_t lda, size_t m, float *c,            \
              size_t ldc, bool accumulate) {                                                       \
        for (size_t tiles = (m + (most)-1) / (most); tiles > 0; tiles--) {                         \
            size_t rows = (m + tiles - 1) / tiles;                                                 \
            switch (rows) { cases }                                                                \
            a += rows * lda;                                                                       \
            c += rows * ldc;                                                                       \
            m -= rows;                                                                             \
        }                                                                                          \
    }

#endif
