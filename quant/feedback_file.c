/* The file of second moments, as formats/moment_layout.h has it: a stranger's, so every shape is
 * checked when it is opened and every value when it is used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "formats/moment_layout.h"
#include "formats/safetensors.h"
#include "quant/calibration_hash.h"
#include "quant/feedback_internal.h"

struct cvq_second_moments_file {
    const char *path; /* borrowed */
    cvq_safetensors *file;
    uint8_t hash[CVQ_HASH_BYTES];
    size_t count;
    cvq_moment_view *views; /* [count] of the model's tensors; tokens 0: none */
};

static const cvq_st_tensor *find(const cvq_safetensors *file, const char *tensor,
                                 const char *ending) {
    char name[CVQ_MAX_TENSOR_NAME + 16];
    snprintf(name, sizeof name, "%s%s", tensor, ending);
    return cvq_safetensors_find(file, name);
}

static bool is_list(const cvq_st_tensor *t, cvq_st_dtype dtype, uint64_t n) {
    return t && t->dtype == dtype && t->ndim == 1 && t->dims[0] == n;
}

static cvq_status view_of(cvq_moment_view *view, const cvq_safetensors *file,
                          const cvq_tensor_spec *spec, uint64_t enough, cvq_error *err) {
    const cvq_st_tensor *count = find(file, spec->name, ".count");
    const cvq_st_tensor *sums = find(file, spec->name, ".sum_sq");
    const cvq_st_tensor *correlation = find(file, spec->name, ".correlation");
    if (!count && !sums && !correlation) return CVQ_OK;
    const size_t cols = (size_t)spec->cols;
    if (!is_list(count, CVQ_ST_I64, 1) || !is_list(sums, CVQ_ST_F32, cols) ||
        !is_list(correlation, CVQ_ST_F16, cvq_moment_values(cols)))
        return cvq_fail(err, CVQ_FORMAT, spec->name,
                        "does not have .count, .sum_sq and .correlation as this model's matrix "
                        "needs them");
    const uint64_t tokens = cvq_load_le(count->data, 8);
    *view = (cvq_moment_view){tokens, tokens < enough, sums->data, correlation->data};
    if (view->tokens > INT64_MAX) return cvq_fail(err, CVQ_FORMAT, count->name, "is negative");
    return CVQ_OK;
}

static cvq_status read_views(cvq_second_moments_file *f, const cvq_model_config *config,
                             cvq_error *err) {
    size_t found = 0;
    for (size_t i = 0; i < f->count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        const bool up = spec.kind == CVQ_T_LANGUAGE_UP || spec.kind == CVQ_T_VISION_UP;
        if (up) f->views[i] = f->views[i - 1]; /* gate_proj comes before it: the same input */
        if (!cvq_moment_measured(spec.kind)) continue;
        CVQ_TRY(view_of(&f->views[i], f->file, &spec, cvq_feedback_enough(config), err));
        found += f->views[i].sums ? 3 : 0;
    }
    if (found == cvq_safetensors_count(f->file)) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, cvq_safetensors_file_name(f->file, 0),
                    "holds something that belongs to no matrix of this model");
}

cvq_status cvq_second_moments_file_open(cvq_second_moments_file **out, const char *path,
                                        const cvq_model_config *config, cvq_error *err) {
    void *memory = NULL, *views = NULL;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof **out, path, err));
    cvq_second_moments_file *f = memory;
    f->path = path;
    f->count = cvq_model_tensor_count(config);
    cvq_error problem = {0};
    cvq_status status = cvq_safetensors_open(&f->file, path, &problem);
    if (status == CVQ_OK) status = cvq_alloc(&views, f->count, sizeof *f->views, path, &problem);
    f->views = views;
    if (status == CVQ_OK) status = read_views(f, config, &problem);
    if (status != CVQ_OK)
        (void)cvq_fail_advising(err, path, &problem,
                                "; take what cvq-calibrate --second-moments wrote for this model");
    if (status == CVQ_OK) status = cvq_calibration_hash(f->file, f->hash, err);
    if (status == CVQ_OK)
        *out = f;
    else
        cvq_second_moments_file_close(f);
    return status;
}

void cvq_second_moments_file_close(cvq_second_moments_file *f) {
    if (!f) return;
    cvq_safetensors_close(f->file);
    free(f->views);
    free(f);
}

cvq_moment_view cvq_second_moments_file_view(const cvq_second_moments_file *f, size_t tensor) {
    return tensor < f->count ? f->views[tensor] : (cvq_moment_view){0};
}

bool cvq_second_moments_file_has(const cvq_second_moments_file *f, size_t tensor,
                                 uint64_t *tokens) {
    const cvq_moment_view view = cvq_second_moments_file_view(f, tensor);
    *tokens = view.tokens;
    return view.sums != NULL;
}

const char *cvq_second_moments_file_path(const cvq_second_moments_file *f) {
    return f->path;
}

const uint8_t *cvq_second_moments_file_hash(const cvq_second_moments_file *f) {
    return f->hash;
}
