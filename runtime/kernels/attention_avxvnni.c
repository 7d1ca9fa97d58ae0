/* Attention in int8 with AVX-VNNI: 12 integer sums, a line in two registers, one of codes. */
#include "runtime/kernels/attention_ymm.h"
#include "runtime/kernels/vnni_ymm.h"

#define ATTEND attend_int8_6x16__avxvnni
#define tile_codes attention_codes
#define load_codes attention_codes_load
#define key_dots dots
#define value_dots dots

/* Four codes by the two halves of a line. In assembly for the reasons given in
 * gemm_int8_avxvnni.c. */
GEMM_INLINE void multiply_line(__m256i dot[2], __m256i top, __m256i bottom, const uint8_t *codes) {
    __m256i four;
    __asm__("vpbroadcastd %3, %2\n\t" VPDPBUSD " %4, %2, %0\n\t" VPDPBUSD " %5, %2, %1"
            : "+x"(dot[0]), "+x"(dot[1]), "=&x"(four)
            : "m"(*(const uint8_t(*)[4])codes), "x"(top), "x"(bottom));
}

GEMM_INLINE void dots(size_t steps, const attention_codes *rows, const int8_t *lines,
                      size_t step_bytes, __m256i dot[CVQ_ATTENTION_ROWS][2]) {
    const uint8_t *codes = rows->first;
    const size_t ld = rows->ld;
    for (size_t s = 0; s < steps; s++, codes += 4, lines += step_bytes) {
        __m256i top = i_load(lines), bottom = i_load(lines + 32);
        GEMM_UNROLL for (int i = 0; i < CVQ_ATTENTION_ROWS; i++)
            multiply_line(dot[i], top, bottom, codes + (size_t)i * ld);
    }
}

#include "runtime/kernels/attention_template.h"
