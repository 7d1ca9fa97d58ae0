/* The public handles from the inside: models, pictures, prompts. */
#ifndef CVQ_RUNTIME_MODEL_INTERNAL_H
#define CVQ_RUNTIME_MODEL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cvq.h"
#include "formats/chunk_hash.h"
#include "runtime/tokenizer.h"
#include "runtime/weight_check.h"
#include "runtime/weights.h"

struct cvq_model {
    cvq_reader *reader;
    cvq_weights weights;
    cvq_tokenizer *tokenizer;
    cvq_weight_check *check;    /* NULL: weights are not verified */
    const cvq_kernels *kernels; /* of the level selected when the model was opened */
    char id[2 * CVQ_ID_BYTES + 1];
    char *recipe;
    cvq_model_info info;
};

/* A resized picture and, once some session has made them, its encoding and its slots' keys and
 * values. Shared by prompts through the
 * reference count. */
struct cvq_image {
    const cvq_model *model;
    atomic_int references;
    uint8_t *rgb;                 /* [image_size][image_size][3] */
    uint8_t hash[CVQ_HASH_BYTES]; /* of rgb: what makes two pictures the same */
    pthread_mutex_t lock;         /* of what follows */
    /* [image slots][hidden_size] by precision, exact and fast; NULL until made. Never replaced, so
     * that it may be read without the lock once it is there. */
    float *encodings[2];
    struct cvq_image_prefix *prefix; /* of the session that computed it last, or NULL */
};

/* A picture without pixels yet. */
cvq_status cvq_image_new(cvq_image **out, const cvq_model *model, cvq_error *err);
void cvq_image_retain(cvq_image *image);

struct cvq_prompt {
    const cvq_model *model;
    cvq_image *image;   /* or NULL */
    size_t image_slots; /* 0 without a picture */
    int32_t *ids;       /* [n], image slots as the pad id */
    size_t n;
};

/* The process-wide level's kernels. */
const cvq_kernels *cvq_selected_kernels(void);

#endif
