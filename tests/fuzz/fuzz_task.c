/* TASK.jsonl and DATA.jsonl. Longer inputs are only more lines, each of which is read by itself.
 * fuzz-max-len: 4096 */
#include "cli/task_file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cvq_task task = {0};
    if (cvq_task_read_data(&task, fuzz_file(data, size, 0), NULL) != CVQ_OK) return 0;
    bool good = false;
    for (size_t i = 0; i < task.count; i++) {
        const cvq_task_line *line = &task.lines[i];
        good = good || !line->problem;
        if (!line->id || (!line->problem && !line->question && !line->text)) __builtin_trap();
    }
    if (good) fuzz_accepted();
    cvq_task_free(&task);
    return 0;
}
