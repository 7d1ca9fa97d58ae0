#include "cli/calibration_files.h"

#include "cli/messages.h"

static void note_what_saw_little(const cvq_importance *importance, const cvq_model_config *config,
                                 const cvq_common *common) {
    size_t few = 0, of = 0;
    for (size_t i = 0; i < cvq_model_tensor_count(config); i++) {
        uint64_t tokens;
        if (!cvq_importance_has(importance, i, &tokens)) continue;
        of++;
        few += tokens < cvq_feedback_enough(config);
    }
    if (few > 0)
        cvq_say_note(common,
                     "--imatrix: %zu of %zu matrices saw fewer than %llu tokens; calibrate with "
                     "more data",
                     few, of, (unsigned long long)cvq_feedback_enough(config));
}

static void note_what_goes_without(const cvq_second_moments_file *moments,
                                   const cvq_model_config *config, const cvq_common *common) {
    size_t few = 0, of = 0;
    for (size_t i = 0; i < cvq_model_tensor_count(config); i++) {
        uint64_t tokens;
        if (!cvq_second_moments_file_has(moments, i, &tokens)) continue;
        of++;
        few += tokens < cvq_feedback_enough(config);
    }
    if (few > 0)
        cvq_say_note(common,
                     "--feedback: %zu of %zu matrices saw fewer than %llu tokens and go without; "
                     "calibrate with more data",
                     few, of, (unsigned long long)cvq_feedback_enough(config));
}

cvq_status cvq_calibration_files_open(cvq_calibration_files *c, const cvq_calibration_paths *paths,
                                      const cvq_model_config *config, const cvq_common *common,
                                      cvq_error *err) {
    if (paths->imatrix) {
        CVQ_TRY(cvq_importance_open(&c->importance, paths->imatrix, config, err));
        note_what_saw_little(c->importance, config, common);
    }
    if (!paths->feedback) return CVQ_OK;
    CVQ_TRY(cvq_second_moments_file_open(&c->moments, paths->feedback, config, err));
    note_what_goes_without(c->moments, config, common);
    return CVQ_OK;
}

void cvq_calibration_files_close(cvq_calibration_files *c) {
    cvq_importance_free(c->importance);
    cvq_second_moments_file_close(c->moments);
}
