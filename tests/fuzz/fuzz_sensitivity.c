/* --sensitivity: what cvq-sensitivity measured, for the small file's config; of what is accepted
 * rates are made. */
#include "quant/sensitivity.h"

#include <math.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/small_file.h"

#define MOST_TENSORS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const cvq_model_config config = small_config();
    const size_t n = cvq_model_tensor_count(&config);
    cvq_sensitivity s[MOST_TENSORS] = {{0}}, again[MOST_TENSORS] = {{0}};
    double rates[MOST_TENSORS];
    size_t whole;
    if (n > MOST_TENSORS) __builtin_trap();
    const char *path = fuzz_file(data, size, 0);
    const cvq_status status = cvq_sensitivity_read(s, &config, path, NULL, NULL, NULL);
    /* An unfinished file is good up to its last whole line. */
    if (cvq_sensitivity_read(again, &config, path, NULL, &whole, NULL) == CVQ_OK && whole > size)
        __builtin_trap();
    if (status != CVQ_OK) return 0;
    fuzz_accepted();
    /* What was not measured would be refused: half a table is a rare find for a fuzzer. */
    for (size_t i = 0; i < n; i++)
        if (!s[i].known) s[i] = (cvq_sensitivity){.error = 0.01, .kld = {0.001, -1}, .known = true};
    if (cvq_loss_rates(rates, &config, s, NULL) != CVQ_OK) __builtin_trap();
    for (size_t i = 0; i < n; i++)
        if (!isfinite(rates[i]) || rates[i] < 0) __builtin_trap();
    return 0;
}
