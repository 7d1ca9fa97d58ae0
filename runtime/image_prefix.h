/* Keys and values of bos and a picture's slots, in every layer: they do not depend on the question,
 * so a picture keeps them, and a session that is asked about it takes them up instead of computing
 * them. They are of use only to a session of just the same settings. */
#ifndef CVQ_RUNTIME_IMAGE_PREFIX_H
#define CVQ_RUNTIME_IMAGE_PREFIX_H

#include "runtime/kv_prefix.h"
#include "runtime/model_internal.h"

/* Raised whenever the same model, input and level give other bits than before, be it in a kernel or
 * in what is made of them: pictures that were kept are then computed anew. tests/test_cache.py
 * notices. */
#define CVQ_ARITHMETIC_VERSION 4

/* What the bits of a picture's slots depend on, beside model, pixels and level. */
typedef struct cvq_slot_settings {
    bool fast, rope_bf16, rope_recomputed;
    cvq_kv_type kv;
} cvq_slot_settings;

bool cvq_slot_settings_equal(const cvq_slot_settings *a, const cvq_slot_settings *b);

/* Shared through the reference count; nobody changes it. */
typedef struct cvq_image_prefix {
    atomic_int references;
    cvq_slot_settings settings;
    size_t num_layers;
    cvq_kv_prefix layers[];
} cvq_image_prefix;

/* The slots that a prefix holds: bos and the picture's. */
size_t cvq_image_prefix_slots(const cvq_model *model);

/* Zeros, for a reader to fill. */
cvq_status cvq_image_prefix_alloc(cvq_image_prefix **out, const cvq_model *model,
                                  const cvq_slot_settings *settings, cvq_error *err);
/* Out of the caches of all layers, which hold these slots. */
cvq_status cvq_image_prefix_take(cvq_image_prefix **out, const cvq_model *model,
                                 const cvq_slot_settings *settings, const cvq_kv_cache *kv,
                                 cvq_error *err);
/* Into them. On failure they hold nothing of use. */
cvq_status cvq_image_prefix_give(const cvq_image_prefix *p, cvq_kv_cache *kv, cvq_error *err);
void cvq_image_prefix_release(cvq_image_prefix *p);

/* The picture's own, to be released; NULL if it has none. */
cvq_image_prefix *cvq_image_prefix_of(const cvq_image *image);
/* Becomes the picture's, instead of one before. */
void cvq_image_prefix_keep(cvq_image *image, cvq_image_prefix *p);

#endif
