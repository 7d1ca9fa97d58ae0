/* Values of a checkpoint, any that are finite, quantized to each type with any importance: scales
 * are finite, and the error that is weighed is not above that of zeros.
 * fuzz-max-len: 4096 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "quant/quantize.h"
#include "quant/type_errors.h"
#include "tests/fuzz/fuzz.h"

#define CHOICES 4 /* bytes: type, columns, rows, whether there is importance and where */
#define MOST_COLS 300
#define MOST_PANEL 65536

/* bf16 number i of the input, which begins anew where it ends, made finite. */
static float value_at(const uint8_t *data, size_t size, size_t i) {
    uint32_t bits = (uint32_t)cvq_load_le(data + i % (size / 2) * 2, 2) << 16;
    if ((bits & 0x7f800000u) == 0x7f800000u) bits &= ~0x40000000u;
    return cvq_bits_f32(bits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const cvq_type types[] = {CVQ_TYPE_Q8,  CVQ_TYPE_Q6,  CVQ_TYPE_Q4,  CVQ_TYPE_Q4T,
                                     CVQ_TYPE_Q4S, CVQ_TYPE_Q4H, CVQ_TYPE_BF16};
    static float rows[CVQ_PANEL_ROWS * MOST_COLS];
    static uint8_t panel[MOST_PANEL];
    float importance[MOST_COLS];
    if (size < CHOICES + 2) return 0;
    cvq_tensor t = {.type = types[data[0] % 7u], .panel_rows = CVQ_PANEL_ROWS};
    const size_t cols = t.spec.cols = 1 + data[1] + data[0] / 7u;
    const size_t count = t.spec.rows = 1 + data[2] % CVQ_PANEL_ROWS;
    const uint8_t *values = data + CHOICES;
    if (cvq_type_has_codebook(t.type)) t.codebook = cvq_codebook_default;
    memset(rows, 0, sizeof rows);
    for (size_t i = 0; i < count * cols; i++) rows[i] = value_at(values, size - CHOICES, i);
    for (size_t i = 0; i < cols; i++)
        importance[i] = fabsf(value_at(values, size - CHOICES, i + data[3]));
    const float *weighed = data[3] & 1 ? importance : NULL;
    if (cvq_panel_bytes(cvq_type_describe(t.type), t.panel_rows, cols) > MOST_PANEL) abort();
    fuzz_accepted();
    cvq_panel_quantize(&t, rows, count, weighed, panel);
    if (!cvq_panel_finite(t.type, t.panel_rows, panel, cols)) __builtin_trap();
    double error;
    if (cvq_panel_error(&t, rows, count, weighed, &error, NULL) != CVQ_OK) abort();
    if (!(error <= 1.0001 * cvq_weighted_square(rows, NULL, weighed, count, cols, 0)))
        __builtin_trap();
    return 0;
}
