/* --feedback: second moments, for the small file's config with whole blocks. With those that are
 * accepted a panel of every matrix is quantized, in the types that take them by turns: twice, since
 * its bytes may depend on nothing else. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "quant/feedback.h"
#include "quant/quantize.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/small_file.h"

#define MOST_COLS 64
#define MOST_PANEL 4096

static void quantize_panel(const cvq_feedback *f, const cvq_tensor *t) {
    const size_t size = cvq_panel_bytes(cvq_type_describe(t->type), 16, f->cols);
    float rows[CVQ_PANEL_ROWS * MOST_COLS];
    uint8_t panels[2][MOST_PANEL] = {{0}};
    uint64_t state = 1;
    void *scratch = malloc(cvq_feedback_scratch(t));
    if (!scratch || f->cols > MOST_COLS || size > MOST_PANEL) abort();
    for (size_t i = 0; i < CVQ_PANEL_ROWS * f->cols; i++)
        rows[i] = (float)small_random(&state) * 0x1p-31f - 1.0f;
    for (int i = 0; i < 2; i++) {
        memset(scratch, i ? 0xff : 0, cvq_feedback_scratch(t));
        cvq_feedback_panel(f, t, rows, CVQ_PANEL_ROWS, scratch, panels[i]);
    }
    if (memcmp(panels[0], panels[1], size) != 0) __builtin_trap();
    if (!cvq_tensor_finite(t, panels[0], 0, size)) __builtin_trap();
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const cvq_type types[] = {CVQ_TYPE_Q4, CVQ_TYPE_Q4T, CVQ_TYPE_Q4S, CVQ_TYPE_Q4H,
                                     CVQ_TYPE_Q6};
    const cvq_model_config config = small_block_config();
    cvq_second_moments_file *file = NULL;
    cvq_feedback f = {0};
    if (cvq_second_moments_file_open(&file, fuzz_file(data, size, 0), &config, NULL) != CVQ_OK)
        return 0;
    fuzz_accepted();
    for (size_t i = 0; i < cvq_model_tensor_count(&config); i++) {
        bool usable = false;
        cvq_tensor t = {.type = types[i % (sizeof types / sizeof *types)],
                        .panel_rows = CVQ_PANEL_ROWS};
        cvq_model_tensor_spec(&config, i, &t.spec);
        if (t.spec.role != CVQ_ROLE_MATRIX) continue;
        if (cvq_type_has_codebook(t.type)) t.codebook = cvq_codebook_default;
        if (cvq_feedback_open(&f, file, &t, i, 1, &usable, NULL) == CVQ_OK && usable)
            quantize_panel(&f, &t);
    }
    cvq_feedback_close(&f);
    cvq_second_moments_file_close(file);
    return 0;
}
