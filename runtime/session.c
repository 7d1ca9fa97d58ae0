/* A session: one sequence in a KV cache, synced to whole prompts, with the logits of its last slot.
 */
#include "runtime/session_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "runtime/residency.h"

/* A prompt's text goes through the layers so many slots at a time: bounds the work buffers. The
 * picture goes in one stretch. */
#define TEXT_ROWS 1024

/* ---------------------------------------------------------------- options */

cvq_status cvq_session_resolve(cvq_resolved_options *r, const cvq_model *m,
                               const cvq_session_options *o, cvq_error *err) {
    static const cvq_session_options defaults = {0};
    if (!o) o = &defaults;
    const cvq_model_info *info = &m->info;
    if (o->context > info->max_context)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "context",
                        "%u slots asked for, the model has at most %u", o->context,
                        info->max_context);
    if (o->threads < 0 || o->threads > CVQ_MAX_THREADS)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "threads", "%d is not in 0 .. %d", o->threads,
                        CVQ_MAX_THREADS);
    if ((unsigned)o->kv > CVQ_KV_Q8 || (unsigned)o->precision > CVQ_PRECISION_FAST ||
        (unsigned)o->rope > CVQ_ROPE_F32)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_session_options", "unknown value");
    r->context = o->context ? o->context : info->max_context;
    cvq_slot_settings *slots = &r->settings;
    slots->fast = o->precision == CVQ_PRECISION_DEFAULT ? info->quantized != 0
                                                        : o->precision == CVQ_PRECISION_FAST;
    slots->kv = o->kv != CVQ_KV_DEFAULT ? o->kv : slots->fast ? CVQ_KV_F16 : CVQ_KV_F32;
    bool stored_bf16 = m->weights.inv_freq_bf16;
    slots->rope_bf16 = o->rope == CVQ_ROPE_DEFAULT ? stored_bf16 : o->rope == CVQ_ROPE_BF16;
    /* bf16 angles from f32 frequencies, or the reverse: stored values of the other precision are of
     * no use. */
    slots->rope_recomputed = o->rope == CVQ_ROPE_F32 || slots->rope_bf16 != stored_bf16;
    r->threads = o->threads ? o->threads : cvq_default_threads();
    return CVQ_OK;
}

size_t cvq_most_rows(const cvq_model *m, size_t context) {
    size_t rows = 1 + m->info.image_slots + TEXT_ROWS;
    return rows < context ? rows : context;
}

/* ---------------------------------------------------------------- opening */

static cvq_status make_rotary(cvq_session *s, const cvq_resolved_options *r, cvq_rotary *rotary,
                              cvq_error *err) {
    size_t half = cvq_head_dim(s->config) / 2;
    *rotary = (cvq_rotary){half, s->model->weights.inv_freq, r->settings.rope_bf16};
    if (!r->settings.rope_recomputed) return CVQ_OK;
    void *p;
    CVQ_TRY(cvq_alloc(&p, half, sizeof(float), "rotary frequencies", err));
    s->inv_freq = p;
    cvq_rotary_frequencies(CVQ_ROPE_THETA, half, s->inv_freq);
    for (size_t i = 0; r->settings.rope_bf16 && i < half; i++)
        s->inv_freq[i] = cvq_bf16_to_f32(cvq_f32_to_bf16(s->inv_freq[i]));
    rotary->inv_freq = s->inv_freq;
    return CVQ_OK;
}

static cvq_status open_parts(cvq_session *s, const cvq_resolved_options *r, cvq_error *err) {
    cvq_rotary rotary;
    void *p;
    CVQ_TRY(make_rotary(s, r, &rotary, err));
    CVQ_TRY(cvq_alloc(&p, s->config->vocab_size, sizeof(float), "logits", err));
    s->logits = p;
    CVQ_TRY(cvq_alloc(&p, r->context, sizeof(int32_t), "sequence", err));
    s->ids = p;
    CVQ_TRY(cvq_engine_open(&s->engine, s->model->kernels, r->threads, r->settings.fast,
                            &s->cancelled, err));
    cvq_memory plan;
    s->kept = cvq_memory_plan_make(s->model, r, &plan);
    CVQ_TRY(cvq_residency_open(&s->residency, s->model->reader, s->model->check, r->threads,
                               &s->cancelled, err));
    s->engine.residency = s->residency;
    s->engine.worked = cvq_phase_worked;
    s->engine.worked_context = s;
    return cvq_decoder_open(&s->decoder, &s->engine, &s->model->weights, r->settings.kv, &rotary,
                            err);
}

cvq_status cvq_session_open(cvq_session **out, cvq_model *model, const cvq_session_options *options,
                            cvq_error *err) {
    if (!out || !model)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_session_open", "NULL given");
    cvq_resolved_options r = {0};
    CVQ_TRY(cvq_session_resolve(&r, model, options, err));
    void *p;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_session), "session", err));
    cvq_session *s = p;
    s->model = model;
    s->config = cvq_reader_config(model->reader);
    s->context = r.context;
    s->settings = r.settings;
    atomic_init(&s->cancelled, 0);
    cvq_status status = open_parts(s, &r, err);
    if (status != CVQ_OK) {
        cvq_session_close(s);
        return status;
    }
    *out = s;
    return CVQ_OK;
}

void cvq_session_close(cvq_session *s) {
    if (!s) return;
    cvq_residency_close(s->residency);
    cvq_decoder_close(&s->decoder);
    cvq_engine_close(&s->engine);
    cvq_image_free(s->image);
    free(s->inv_freq);
    free(s->logits);
    free(s->ids);
    free(s);
}

void cvq_session_set_progress(cvq_session *s, cvq_progress_fn fn, void *context) {
    s->progress = fn;
    s->progress_context = context;
}

void cvq_session_cancel(cvq_session *s) {
    atomic_store(&s->cancelled, 1);
}

cvq_status cvq_session_finish(cvq_session *s, cvq_status status) {
    if (status == CVQ_CANCELLED) atomic_store(&s->cancelled, 0);
    return status;
}

cvq_status cvq_session_observe(cvq_session *s, cvq_wants_fn wants, cvq_sees_fn sees, void *context,
                               cvq_error *err) {
    (void)err;
    bool on = wants && sees;
    s->engine.observer = (cvq_observer){on ? wants : NULL, on ? sees : NULL, context};
    return CVQ_OK;
}

void cvq_session_rewind(cvq_session *s, size_t slots) {
    s->anew = true;
    if (slots >= s->held) return;
    s->held = slots;
    s->logits_ready = false;
}

/* ---------------------------------------------------------------- pictures */

static cvq_status encode_locked(cvq_image *image, cvq_session *s, cvq_error *err) {
    /* An observer wants to see the encoder at work, whatever is there already. */
    float **kept = &image->encodings[s->engine.fast];
    if (*kept && !s->engine.observer.wants) return CVQ_OK;
    void *p;
    CVQ_TRY(cvq_alloc(&p, s->model->info.image_slots, s->config->hidden_size * sizeof(float),
                      "picture encoding", err));
    cvq_phase_begin(s, CVQ_PHASE_ENCODE, cvq_vision_steps(s->config), cvq_vision_work(s->config));
    cvq_residency_begin(s->residency, s->kept.encode);
    cvq_status status =
        cvq_vision_encode(&s->engine, &s->model->weights, image->rgb, p, cvq_phase_step, s, err);
    s->encode_s += cvq_now() - s->phase_start;
    if (status == CVQ_OK && !*kept)
        *kept = p;
    else
        free(p);
    return status;
}

static cvq_status encode(cvq_image *image, cvq_session *s, cvq_error *err) {
    pthread_mutex_lock(&image->lock);
    cvq_status status = encode_locked(image, s, err);
    pthread_mutex_unlock(&image->lock);
    return status;
}

cvq_status cvq_image_encode(cvq_image *image, cvq_session *s, cvq_error *err) {
    if (!image || !s || image->model != s->model)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_image_encode",
                        "NULL, or a picture of another model");
    s->encode_s = 0;
    return cvq_session_finish(s, encode(image, s, err));
}

/* ---------------------------------------------------------------- syncing */

static bool same_image(const cvq_image *a, const cvq_image *b) {
    return a == b || (a && b && memcmp(a->hash, b->hash, sizeof a->hash) == 0);
}

/* How many slots of what the session holds can stay. A picture's slots count only if all of them
 * are there. */
static size_t common_prefix(const cvq_session *s, const cvq_prompt *p) {
    size_t n = 0, most = s->held < p->n ? s->held : p->n;
    if (s->image_slots != p->image_slots || !same_image(s->image, p->image)) {
        most = most < 1 ? most : 1;
        if (s->image_slots || p->image_slots) return most && s->ids[0] == p->ids[0] ? 1 : 0;
    }
    while (n < most && s->ids[n] == p->ids[n]) n++;
    return n;
}

static cvq_status run_stretch(cvq_session *s, const cvq_prompt *p, size_t first, size_t count,
                              bool every, const float **hidden, cvq_error *err) {
    cvq_stretch stretch = {first, count, p->ids + first, p->image_slots,
                           p->image ? p->image->encodings[s->engine.fast] : NULL};
    s->held = first; /* until it is through, later slots are not valid */
    CVQ_TRY(cvq_decoder_run(&s->decoder, &stretch, every, hidden, cvq_phase_step, s, err));
    s->pace.before += s->config->num_layers;
    memcpy(s->ids + first, p->ids + first, count * sizeof *s->ids);
    s->held = first + count;
    return CVQ_OK;
}

/* Whatever happens, the session holds nothing in front of what it is given. */
static cvq_status take_up(cvq_session *s, const cvq_prompt *p, const cvq_image_prefix *prefix,
                          cvq_error *err) {
    size_t slots = cvq_image_prefix_slots(s->model);
    s->held = 0;
    CVQ_TRY(cvq_image_prefix_give(prefix, s->decoder.kv, err));
    memcpy(s->ids, p->ids, slots * sizeof *s->ids);
    s->held = slots;
    return CVQ_OK;
}

/* The picture's slots, if it has them and they are just what this session would compute. *kept: the
 * slots that need not be computed. They leave at least one slot to be computed, for its logits. */
static cvq_status reuse_prefix(cvq_session *s, const cvq_prompt *p, size_t *kept, cvq_error *err) {
    size_t slots = cvq_image_prefix_slots(s->model);
    if (!p->image || *kept >= slots || p->n <= slots || s->anew || s->engine.observer.wants)
        return CVQ_OK;
    cvq_image_prefix *prefix = cvq_image_prefix_of(p->image);
    cvq_status status = CVQ_OK;
    if (prefix && cvq_slot_settings_equal(&prefix->settings, &s->settings)) {
        s->logits_ready = false;
        status = take_up(s, p, prefix, err);
        if (status == CVQ_OK) *kept = slots;
    }
    cvq_image_prefix_release(prefix);
    return status;
}

/* The picture gets what was just computed. Without memory for that it stays as it is: it costs time
 * later, no more. */
static void keep_prefix(cvq_session *s, cvq_image *image) {
    cvq_image_prefix *prefix;
    if (cvq_image_prefix_take(&prefix, s->model, &s->settings, s->decoder.kv, NULL) == CVQ_OK)
        cvq_image_prefix_keep(image, prefix);
}

static void hold_image(cvq_session *s, const cvq_prompt *p) {
    if (p->image) cvq_image_retain(p->image);
    cvq_image_free(s->image);
    s->image = p->image;
    s->image_slots = p->image_slots;
}

/* The end of the stretch that begins at slot first: bos and the picture stay together. */
static size_t stretch_end(const cvq_prompt *p, size_t first) {
    size_t end = first + TEXT_ROWS;
    if (first <= p->image_slots && p->image_slots) end = 1 + p->image_slots + TEXT_ROWS;
    return end < p->n ? end : p->n;
}

static void begin_prefill(cvq_session *s, const cvq_prompt *p, size_t first) {
    uint64_t stretches = 0;
    for (size_t slot = first; slot < p->n; slot = stretch_end(p, slot)) stretches++;
    cvq_phase_begin(s, CVQ_PHASE_PREFILL, stretches * s->config->num_layers,
                    cvq_decoder_work(s->config, first, p->n - first));
}

/* Computes slots [first, n). rows: where the logits of every slot go, or NULL: only the last one's
 * are made. */
static cvq_status prefill(cvq_session *s, const cvq_prompt *p, size_t first, cvq_logits_fn rows,
                          void *context, cvq_error *err) {
    const float *hidden = NULL;
    bool every = rows != NULL || s->engine.observer.wants != NULL;
    size_t count = 0, h = s->config->hidden_size;
    begin_prefill(s, p, first);
    cvq_residency_begin(s->residency, s->kept.decoder);
    s->logits_ready = false;
    for (; first < p->n; first += count) {
        count = stretch_end(p, first) - first;
        CVQ_TRY(run_stretch(s, p, first, count, every, &hidden, err));
        if (first <= p->image_slots && p->image) keep_prefix(s, p->image);
        for (size_t i = 0; rows && i < count; i++) {
            CVQ_TRY(cvq_decoder_logits(&s->decoder, hidden + i * h, 1, s->logits, err));
            if (rows(context, first + i, s->logits))
                return cvq_fail(err, CVQ_CANCELLED, NULL, "cancelled");
        }
    }
    if (!rows) {
        const float *last = every ? hidden + (count - 1) * h : hidden;
        CVQ_TRY(cvq_decoder_logits(&s->decoder, last, 1, s->logits, err));
    }
    s->logits_ready = true;
    return CVQ_OK;
}

static cvq_status sync_to(cvq_session *s, const cvq_prompt *p, bool from_scratch,
                          cvq_logits_fn rows, void *context, cvq_error *err) {
    if (!p || p->model != s->model)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_session_sync",
                        "NULL, or a prompt of another model");
    s->encode_s = s->prefill_s = 0;
    if (p->n > s->context)
        return cvq_fail(err, CVQ_CONTEXT_FULL, "prompt",
                        "%zu slots (a picture takes %zu of them), the context has %zu%s", p->n,
                        p->image_slots, s->context,
                        s->context < s->model->info.max_context
                            ? "; shorten it or raise the context"
                            : ", which is the most that the model takes; shorten it");
    size_t kept = from_scratch ? 0 : common_prefix(s, p);
    if (kept == p->n && s->held == p->n && s->logits_ready) return CVQ_OK;
    if (kept == p->n) kept--;                         /* the last slot once more, for its logits */
    if (kept > 0 && kept <= p->image_slots) kept = 1; /* a picture is computed as a whole */
    if (!from_scratch) CVQ_TRY(reuse_prefix(s, p, &kept, err));
    s->anew = false;
    if (p->image && kept <= p->image_slots) CVQ_TRY(encode(p->image, s, err));
    hold_image(s, p);
    cvq_status status = prefill(s, p, kept, rows, context, err);
    s->prefill_s = cvq_now() - s->phase_start;
    return status;
}

cvq_status cvq_session_sync(cvq_session *s, const cvq_prompt *prompt, cvq_error *err) {
    return cvq_session_finish(s, sync_to(s, prompt, false, NULL, NULL, err));
}

cvq_status cvq_session_score(cvq_session *s, const cvq_prompt *prompt, cvq_logits_fn fn,
                             void *context, cvq_error *err) {
    if (!fn) return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_session_score", "NULL given");
    return cvq_session_finish(s, sync_to(s, prompt, true, fn, context, err));
}

const float *cvq_session_logits(const cvq_session *s) {
    return s->logits_ready ? s->logits : NULL;
}

static cvq_status decode_one(cvq_session *s, int32_t id, cvq_error *err) {
    const float *hidden;
    cvq_stretch stretch = {s->held, 1, &id, s->image_slots, NULL};
    s->logits_ready = false;
    CVQ_TRY(cvq_decoder_run(&s->decoder, &stretch, false, &hidden, NULL, NULL, err));
    CVQ_TRY(cvq_decoder_logits(&s->decoder, hidden, 1, s->logits, err));
    s->ids[s->held++] = id;
    s->logits_ready = true;
    return CVQ_OK;
}

cvq_status cvq_session_accept(cvq_session *s, int32_t id, cvq_error *err) {
    if (!s->logits_ready)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_session_accept",
                        "the session holds no prompt yet");
    if (id < 0 || (uint32_t)id >= s->config->vocab_size)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_session_accept",
                        "id %d is not in the vocabulary of %u", id, s->config->vocab_size);
    if (s->held == s->context)
        return cvq_fail(err, CVQ_CONTEXT_FULL, "answer", "all %zu slots of the context are used",
                        s->context);
    return cvq_session_finish(s, decode_one(s, id, err));
}
