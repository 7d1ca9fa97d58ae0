/* A prefix is a cvq_kv_prefix for each layer. */
#include "runtime/image_prefix.h"

#include <stdlib.h>

#include "base/memory.h"

bool cvq_slot_settings_equal(const cvq_slot_settings *a, const cvq_slot_settings *b) {
    return a->fast == b->fast && a->rope_bf16 == b->rope_bf16 &&
           a->rope_recomputed == b->rope_recomputed && a->kv == b->kv;
}

size_t cvq_image_prefix_slots(const cvq_model *model) {
    return 1 + (size_t)model->info.image_slots;
}

/* With layers that are {0}. */
static cvq_status create(cvq_image_prefix **out, const cvq_model *model,
                         const cvq_slot_settings *settings, cvq_error *err) {
    void *memory;
    uint64_t layers = model->info.num_layers;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_image_prefix) + layers * sizeof(cvq_kv_prefix),
                      "a picture's keys and values", err));
    cvq_image_prefix *p = memory;
    atomic_init(&p->references, 1);
    p->settings = *settings;
    p->num_layers = (size_t)layers;
    *out = p;
    return CVQ_OK;
}

cvq_status cvq_image_prefix_alloc(cvq_image_prefix **out, const cvq_model *model,
                                  const cvq_slot_settings *settings, cvq_error *err) {
    const cvq_model_config *c = cvq_reader_config(model->reader);
    cvq_image_prefix *p;
    CVQ_TRY(create(&p, model, settings, err));
    cvq_status status = CVQ_OK;
    for (size_t n = 0; status == CVQ_OK && n < p->num_layers; n++)
        status = cvq_kv_prefix_alloc(&p->layers[n], settings->kv, c->num_kv_heads, cvq_head_dim(c),
                                     cvq_image_prefix_slots(model), err);
    if (status == CVQ_OK)
        *out = p;
    else
        cvq_image_prefix_release(p);
    return status;
}

cvq_status cvq_image_prefix_take(cvq_image_prefix **out, const cvq_model *model,
                                 const cvq_slot_settings *settings, const cvq_kv_cache *kv,
                                 cvq_error *err) {
    cvq_image_prefix *p;
    CVQ_TRY(create(&p, model, settings, err));
    cvq_status status = CVQ_OK;
    for (size_t n = 0; status == CVQ_OK && n < p->num_layers; n++)
        status = cvq_kv_prefix_take(&p->layers[n], &kv[n], cvq_image_prefix_slots(model), err);
    if (status == CVQ_OK)
        *out = p;
    else
        cvq_image_prefix_release(p);
    return status;
}

cvq_status cvq_image_prefix_give(const cvq_image_prefix *p, cvq_kv_cache *kv, cvq_error *err) {
    for (size_t n = 0; n < p->num_layers; n++)
        CVQ_TRY(cvq_kv_prefix_give(&p->layers[n], &kv[n], err));
    return CVQ_OK;
}

void cvq_image_prefix_release(cvq_image_prefix *p) {
    if (!p || atomic_fetch_sub(&p->references, 1) != 1) return;
    for (size_t n = 0; n < p->num_layers; n++) cvq_kv_prefix_free(&p->layers[n]);
    free(p);
}

cvq_image_prefix *cvq_image_prefix_of(const cvq_image *image) {
    cvq_image *i = (cvq_image *)image; /* the lock is not part of what the picture is */
    pthread_mutex_lock(&i->lock);
    cvq_image_prefix *p = i->prefix;
    if (p) atomic_fetch_add(&p->references, 1);
    pthread_mutex_unlock(&i->lock);
    return p;
}

void cvq_image_prefix_keep(cvq_image *image, cvq_image_prefix *p) {
    pthread_mutex_lock(&image->lock);
    cvq_image_prefix *before = image->prefix;
    image->prefix = p;
    pthread_mutex_unlock(&image->lock);
    cvq_image_prefix_release(before);
}
