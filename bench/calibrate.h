/* Calibration: prompts go through a session while an observer adds up the squares of every matrix's
 * inputs. bos and boi are left out: what they become does not depend on what follows them
 * (attention is causal), and their massive activations would drown the other tokens'. lm_head
 * counts language tokens alone. Second moments, where they are asked for, count a picture once
 * for the questions that follow one another about it. */
#ifndef CVQ_BENCH_CALIBRATE_H
#define CVQ_BENCH_CALIBRATE_H

#include "bench/channel_sums.h"
#include "bench/second_moments.h"
#include "cvq.h"

/* Done so far, as a number of text tokens that cost the same. Nonzero stops. */
typedef int (*cvq_calibrate_progress_fn)(void *context, double done);

/* Start with {0}. */
typedef struct cvq_calibrator {
    const cvq_model *model;
    cvq_session *session;
    cvq_calibration total;
    cvq_second_moments *moments; /* the pass of, or NULL: sums of squares only */
    bool moments_only;           /* a later pass: total is complete */

    cvq_calibration picture;    /* what the picture in the session adds to every prompt with it */
    cvq_prompt *picture_prompt; /* bos and that picture; NULL: none is there */
    const cvq_image *image;
    cvq_calibration *target; /* where the running prompt's rows go */
    size_t image_slots;      /* of the running prompt */
    double encode_cost;      /* of a picture, in text tokens */
    double done, piece, most;
    cvq_calibrate_progress_fn progress;
    void *progress_context;
    cvq_error error; /* of the observer, which cannot return one */
} cvq_calibrator;

/* The session's observer and progress are the calibrator's from now on. */
cvq_status cvq_calibrator_open(cvq_calibrator *c, const cvq_model *model,
                               const cvq_model_config *config, cvq_session *session,
                               cvq_calibrate_progress_fn progress, void *context, cvq_error *err);
/* Before the session is closed. */
void cvq_calibrator_close(cvq_calibrator *c);

/* What runs from now on adds to this pass of second moments, too; not_first: and to nothing else.
 */
void cvq_calibrate_moments(cvq_calibrator *c, cvq_second_moments *moments, bool not_first);

/* The cost of a picture that the prompt before does not have. */
double cvq_calibrate_picture_cost(const cvq_calibrator *c);
/* bos, the picture (may be NULL) and these ids. Each call counts in full, whatever it has in common
 * with the one before; a picture that the call before had is not computed again. */
cvq_status cvq_calibrate_ids(cvq_calibrator *c, cvq_image *image, const int32_t *ids, size_t n,
                             cvq_error *err);

/* The parts of a model, in the order of cvq_calibrate_parts. */
enum { CVQ_CALIBRATE_PARTS = 6 };
typedef struct cvq_calibrated_part {
    const char *name; /* "language expert" */
    const char *example;
    size_t matrices;
    uint64_t tokens; /* that the matrix with the fewest saw */
} cvq_calibrated_part;
void cvq_calibrate_parts(const cvq_calibration *c, cvq_calibrated_part parts[CVQ_CALIBRATE_PARTS]);
/* Fewer tokens than this make a poor mean: 2,048 for the released models, half of the hidden size
 * for others. */
uint64_t cvq_calibrate_enough(const cvq_calibration *c);

#endif
