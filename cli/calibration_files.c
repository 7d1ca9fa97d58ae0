#include "cli/calibration_files.h"

#include "cli/messages.h"

/* What was measured of too few tokens does harm (--imatrix) or is left out (--feedback). */
static void note_few_tokens(const cvq_calibration_files *c, bool feedback,
                            const cvq_model_config *config, const cvq_common *common) {
    const uint64_t enough = cvq_feedback_enough(config);
    size_t few = 0, of = 0;
    for (size_t i = 0; i < cvq_model_tensor_count(config); i++) {
        uint64_t tokens;
        if (feedback ? !cvq_second_moments_file_has(c->moments, i, &tokens)
                     : !cvq_importance_has(c->importance, i, &tokens))
            continue;
        of++;
        few += tokens < enough;
    }
    if (few > 0)
        cvq_say_note(common,
                     "%s: %zu of %zu matrices saw fewer than %llu tokens%s; calibrate with more "
                     "data",
                     feedback ? "--feedback" : "--imatrix", few, of, (unsigned long long)enough,
                     feedback ? " and go without" : "");
}

cvq_status cvq_calibration_files_open(cvq_calibration_files *c, const cvq_calibration_paths *paths,
                                      const cvq_model_config *config, const cvq_common *common,
                                      cvq_error *err) {
    if (paths->imatrix) {
        CVQ_TRY(cvq_importance_open(&c->importance, paths->imatrix, config, err));
        note_few_tokens(c, false, config, common);
    }
    if (!paths->feedback) return CVQ_OK;
    CVQ_TRY(cvq_second_moments_file_open(&c->moments, paths->feedback, config, err));
    note_few_tokens(c, true, config, common);
    return CVQ_OK;
}

void cvq_calibration_files_close(cvq_calibration_files *c) {
    cvq_importance_free(c->importance);
    cvq_second_moments_file_close(c->moments);
}
