/* The decoder: slots of a sequence to logits, with both experts and a KV cache. */
#ifndef CVQ_RUNTIME_LANGUAGE_H
#define CVQ_RUNTIME_LANGUAGE_H

#include "runtime/kv_cache.h"
#include "runtime/kv_int8.h"
#include "runtime/vision.h"
#include "runtime/weights.h"

/* A stretch of a sequence to be computed: slots [first, first + count). */
typedef struct cvq_stretch {
    size_t first, count;
    const int32_t *ids;     /* [count]; those of image slots are not read */
    size_t image_slots;     /* of the whole sequence, starting at slot 1; 0: no picture */
    const float *embedding; /* [image_slots][hidden_size]; NULL if the stretch has none of them */
} cvq_stretch;

typedef struct cvq_decoder {
    const cvq_engine *engine;
    const cvq_weights *weights;
    cvq_rotary rotary;
    cvq_kv_cache *kv; /* [num_layers] */
    /* Work buffers for up to max_rows rows; see cvq_decoder_work_bytes. */
    size_t max_rows;
    float *x, *qkv, *y, *hidden, *cos, *sin;
    void *act;
    size_t *slots, *visible;
    cvq_kv_int8 kv_int8; /* fast: what the vision rows of a layer attend to */
} cvq_decoder;

/* inv_freq must outlive the decoder. */
cvq_status cvq_decoder_open(cvq_decoder *d, const cvq_engine *e, const cvq_weights *w,
                            cvq_kv_type kv, const cvq_rotary *rotary, cvq_error *err);
void cvq_decoder_close(cvq_decoder *d);
/* Multiplications of so many slots, lm_head left out. */
double cvq_decoder_work(const cvq_model_config *c, size_t first, size_t count);
uint64_t cvq_decoder_work_bytes(const cvq_model_config *c, size_t rows, bool fast);

/* Runs the stretch through all layers (step is called after each); its keys and values are in the
 * cache afterwards (those of earlier slots must be there). With `every` false only the last slot's
 * final hidden state is computed (the last layer does no more than it needs); it is returned in
 * *hidden [hidden_size], normalised, borrowed. With `every`, hidden states of all slots in order of
 * slots: [count][hidden_size]. */
cvq_status cvq_decoder_run(cvq_decoder *d, const cvq_stretch *s, bool every, const float **hidden,
                           cvq_step_fn step, void *context, cvq_error *err);
/* hidden [rows][hidden_size] to logits [rows][vocab_size]. */
cvq_status cvq_decoder_logits(cvq_decoder *d, const float *hidden, size_t rows, float *logits,
                              cvq_error *err);

#endif
