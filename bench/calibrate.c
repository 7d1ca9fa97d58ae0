/* Prompts through a session, and what its observer sees to sums. */
#define CVQ_UNSTABLE /* observer and rewinding */
#include "bench/calibrate.h"

#include <math.h>
#include <string.h>

#define DECODER "model.layers."
#define LM_HEAD "lm_head.weight"

/* ---------------------------------------------------------------- the observer */

/* lm_head itself runs for the last slot only; its input at every slot is the tap "hidden". */
static cvq_channel_sums *sums_of(const cvq_calibrator *c, const char *name) {
    if (strcmp(name, LM_HEAD) == 0) return NULL;
    return cvq_calibration_find(c->target, strcmp(name, "hidden") == 0 ? LM_HEAD : name);
}

/* How many rows at the start of the sequence do not count: the decoder's row 0 is bos or boi; of
 * all slots only eoi and text are ever followed by a prediction. */
static size_t rows_left_out(const cvq_calibrator *c, const char *name) {
    if (strcmp(name, "hidden") == 0) return c->image_slots > 1 ? c->image_slots : 1;
    return strncmp(name, DECODER, strlen(DECODER)) == 0 ? 1 : 0;
}

static cvq_second_moment *moment_of(const cvq_calibrator *c, const char *name) {
    return c->moments ? cvq_second_moments_find(c->moments, name) : NULL;
}

static int on_wants(void *context, const char *name) {
    return sums_of(context, name) != NULL;
}

static void on_sees(void *context, const char *name, size_t first, size_t rows, size_t cols,
                    const float *values) {
    cvq_calibrator *c = context;
    cvq_channel_sums *s = sums_of(c, name);
    size_t out = rows_left_out(c, name), skip = first < out ? out - first : 0;
    if (!s || skip >= rows || c->error.code != CVQ_OK) return;
    if (cols != s->cols) {
        cvq_fail(&c->error, CVQ_INTERNAL, name, "rows of another length than the matrix");
    } else {
        cvq_second_moment *moment = moment_of(c, name);
        if (moment) cvq_second_moments_add(c->moments, moment, values + skip * cols, rows - skip);
        if (c->moments_only) return;
        cvq_channel_sums_add(s, values + skip * cols, rows - skip);
        for (size_t k = 0; k < cols && c->error.code == CVQ_OK; k++)
            if (!isfinite(s->sum_sq[k]))
                cvq_fail(&c->error, CVQ_UNSUPPORTED, name,
                         "input channel %zu is not finite; is the model damaged?", k);
    }
    if (c->error.code != CVQ_OK) cvq_session_cancel(c->session);
}

/* ---------------------------------------------------------------- progress */

static int on_progress(void *context, cvq_phase phase, uint64_t done, uint64_t total,
                       double seconds_left) {
    cvq_calibrator *c = context;
    (void)seconds_left;
    double cost = phase == CVQ_PHASE_ENCODE ? c->encode_cost : c->piece;
    double now = c->done + cost * (double)done / (double)total;
    if (phase == CVQ_PHASE_ENCODE && done == total) c->done += c->encode_cost;
    if (now > c->most) c->most = now; /* a long prompt goes through the layers several times */
    return c->progress ? c->progress(c->progress_context, c->most) : 0;
}

double cvq_calibrate_picture_cost(const cvq_calibrator *c) {
    return c->encode_cost + cvq_model_describe(c->model)->image_slots + 1.0;
}

/* ---------------------------------------------------------------- opening */

/* What the encoder computes for a picture, by the sizes of the weights that go over each token. */
static cvq_status estimate_costs(cvq_calibrator *c, cvq_error *err) {
    cvq_memory memory;
    CVQ_TRY(cvq_memory_plan(c->model, NULL, &memory, err));
    double patches = 4.0 * ((double)cvq_model_describe(c->model)->image_slots - 2);
    c->encode_cost = patches * (double)memory.weights_encode / (double)memory.weights_decode;
    return CVQ_OK;
}

cvq_status cvq_calibrator_open(cvq_calibrator *c, const cvq_model *model,
                               const cvq_model_config *config, cvq_session *session,
                               cvq_calibrate_progress_fn progress, void *context, cvq_error *err) {
    *c = (cvq_calibrator){
        .model = model, .session = session, .progress = progress, .progress_context = context};
    c->target = &c->total;
    CVQ_TRY(estimate_costs(c, err));
    CVQ_TRY(cvq_calibration_open(&c->total, config, err));
    CVQ_TRY(cvq_calibration_open(&c->picture, config, err));
    cvq_session_set_progress(session, on_progress, c);
    return cvq_session_observe(session, on_wants, on_sees, c, err);
}

void cvq_calibrator_close(cvq_calibrator *c) {
    if (!c || !c->session) return;
    (void)cvq_session_observe(c->session, NULL, NULL, NULL, NULL);
    cvq_session_set_progress(c->session, NULL, NULL);
    cvq_prompt_free(c->picture_prompt);
    cvq_calibration_free(&c->total);
    cvq_calibration_free(&c->picture);
    *c = (cvq_calibrator){0};
}

/* ---------------------------------------------------------------- running */

static cvq_status sync(cvq_calibrator *c, const cvq_prompt *prompt, size_t slots, cvq_error *err) {
    cvq_error problem = {0};
    c->piece = (double)slots;
    cvq_status status = cvq_session_sync(c->session, prompt, &problem);
    c->done += c->piece;
    if (c->error.code != CVQ_OK) problem = c->error;
    if (problem.code == CVQ_OK && status == CVQ_OK) return CVQ_OK;
    return cvq_fail(err, problem.code, problem.where, "%s", problem.message);
}

static void drop_picture(cvq_calibrator *c) {
    cvq_prompt_free(c->picture_prompt);
    c->picture_prompt = NULL;
    c->image = NULL;
    c->image_slots = 0;
    cvq_session_rewind(c->session, 0);
}

/* bos and the picture into the session, and their sums into c->picture. The prompt holds the image,
 * so that no other can come to stand at its address. */
static cvq_status take_picture(cvq_calibrator *c, cvq_image *image, cvq_error *err) {
    drop_picture(c);
    CVQ_TRY(cvq_prompt_from_ids(&c->picture_prompt, c->model, NULL, 0, image, err));
    c->image_slots = cvq_model_describe(c->model)->image_slots;
    cvq_calibration_clear(&c->picture);
    c->target = &c->picture;
    cvq_status status = sync(c, c->picture_prompt, 1 + c->image_slots, err);
    c->target = &c->total;
    if (status != CVQ_OK)
        drop_picture(c);
    else
        c->image = image;
    return status;
}

void cvq_calibrate_moments(cvq_calibrator *c, cvq_second_moments *moments, bool not_first) {
    drop_picture(c);
    c->moments = moments;
    c->moments_only = not_first;
}

cvq_status cvq_calibrate_ids(cvq_calibrator *c, cvq_image *image, const int32_t *ids, size_t n,
                             cvq_error *err) {
    cvq_prompt *prompt = NULL;
    if (!image)
        drop_picture(c);
    else if (image != c->image)
        CVQ_TRY(take_picture(c, image, err));
    CVQ_TRY(cvq_prompt_from_ids(&prompt, c->model, ids, n, image, err));
    cvq_session_rewind(c->session, image ? 1 + c->image_slots : 0);
    cvq_status status = sync(c, prompt, n, err);
    cvq_prompt_free(prompt);
    if (status == CVQ_OK && image && !c->moments_only)
        status = cvq_calibration_add(&c->total, &c->picture, "the picture", err);
    return status;
}

/* ---------------------------------------------------------------- what was seen */

static bool begins(const char *name, const char *with) {
    return strncmp(name, with, strlen(with)) == 0;
}

static size_t part_of(const char *name) {
    if (begins(name, DECODER))
        return strstr(name, "vision_expert") || strstr(name, "vision_mlp") ? 1 : 0;
    if (begins(name, "model.vision.transformer.")) return 4;
    if (begins(name, "model.vision.patch_embedding.")) return 5;
    return begins(name, "model.vision.") ? 3 : 2;
}

void cvq_calibrate_parts(const cvq_calibration *c, cvq_calibrated_part parts[CVQ_CALIBRATE_PARTS]) {
    static const char *const names[CVQ_CALIBRATE_PARTS] = {
        "language expert", "vision expert",           "lm_head",
        "adapter",         "vision encoder's layers", "patch embedding"};
    for (size_t i = 0; i < CVQ_CALIBRATE_PARTS; i++)
        parts[i] = (cvq_calibrated_part){.name = names[i]};
    for (size_t i = 0; i < c->count; i++) {
        const cvq_channel_sums *s = &c->matrices[i];
        cvq_calibrated_part *p = &parts[part_of(s->name)];
        if (p->matrices == 0 || s->tokens < p->tokens) {
            p->example = s->name;
            p->tokens = s->tokens;
        }
        p->matrices++;
    }
}

uint64_t cvq_calibrate_enough(const cvq_calibration *c) {
    const cvq_channel_sums *head = cvq_calibration_find(c, LM_HEAD);
    return head ? head->cols / 2 : 2048;
}
