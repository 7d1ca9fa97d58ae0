/* OUT.jsonl of an earlier run, which cvq-run --batch and cvq-eval go on with. */
#include "cli/batch_results.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_results r = CVQ_RESULTS_NONE;
    if (cvq_results_read(&r, fuzz_file(data, size, 0), NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    if (r.size > size) __builtin_trap();
    /* Each line is found once, however many have its id. */
    for (size_t i = 0; i < r.num_known; i++)
        if (!cvq_results_take(&r, r.known[i].id)) __builtin_trap();
    for (size_t i = 0; i < r.num_known; i++)
        if (cvq_results_take(&r, r.known[i].id)) __builtin_trap();
    cvq_results_close(&r);
    return 0;
}
