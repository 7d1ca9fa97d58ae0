/* Answers: sample, show, accept, until there is a reason to stop. */
#include "runtime/sampler.h"
#include "runtime/session_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct generation {
    cvq_session *s;
    cvq_sampler *sampler;
    cvq_token_fn fn;
    void *context;
    cvq_utf8_stream stream;
    cvq_buffer text; /* room for what one token's bytes become */
} generation;

static bool is_eos(const cvq_model_config *c, int32_t id) {
    for (uint32_t i = 0; i < c->num_eos; i++)
        if (c->eos_ids[i] == (uint32_t)id) return true;
    return false;
}

/* The prompt's own ids count for the penalty; the pad ids that stand for a picture do not. */
static void count_prompt(const generation *g) {
    const cvq_session *s = g->s;
    cvq_sampler_seen(g->sampler, s->ids, 1);
    cvq_sampler_seen(g->sampler, s->ids + 1 + s->image_slots, s->held - 1 - s->image_slots);
}

/* id < 0: the end, with what the stream still holds. */
static cvq_status show(generation *g, int32_t id, bool *stop, cvq_error *err) {
    if (!g->fn) return CVQ_OK;
    size_t length = 0;
    const uint8_t *piece = NULL;
    const cvq_tokenizer_table *table = cvq_reader_tokenizer(g->s->model->reader);
    if (id >= 0 && !cvq_tokenizer_is_special(table, (uint32_t)id))
        piece = cvq_tokenizer_piece(table, (uint32_t)id, &length);
    size_t need = 3 * (length + 4);
    g->text.size = 0;
    while (g->text.capacity < need)
        CVQ_TRY(cvq_buffer_append(&g->text, "                ", 16, err));
    size_t n = cvq_utf8_stream_feed(&g->stream, piece, length, id < 0, (char *)g->text.data);
    if (id < 0 && n == 0) return CVQ_OK;
    if (g->fn(g->context, id, (const char *)g->text.data, n)) *stop = true;
    return CVQ_OK;
}

static cvq_status answer(generation *g, size_t max_tokens, cvq_result *r, cvq_error *err) {
    bool stop = false;
    r->finish = CVQ_FINISH_LENGTH;
    while (r->tokens < max_tokens && !stop) {
        int32_t id = cvq_sampler_next(g->sampler, g->s->logits);
        if (is_eos(g->s->config, id)) {
            r->finish = CVQ_FINISH_STOP;
            break;
        }
        if (g->s->held == g->s->context) {
            r->finish = CVQ_FINISH_CONTEXT;
            break;
        }
        r->tokens++;
        CVQ_TRY(show(g, id, &stop, err));
        if (stop) r->finish = CVQ_FINISH_CALLER;
        cvq_sampler_seen(g->sampler, &id, 1);
        CVQ_TRY(cvq_session_accept(g->s, id, err));
        if (cvq_phase_step(g->s, r->tokens, max_tokens))
            return cvq_fail(err, CVQ_CANCELLED, NULL, "cancelled while answering");
    }
    return show(g, -1, &stop, err);
}

cvq_status cvq_session_generate(cvq_session *s, const cvq_sampling *sampling, size_t max_tokens,
                                cvq_token_fn fn, void *context, cvq_result *result,
                                cvq_error *err) {
    if (!s || !s->logits_ready)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_session_generate",
                        "the session holds no prompt yet");
    cvq_sampler_options options = {0};
    if (sampling)
        options = (cvq_sampler_options){sampling->temperature, sampling->top_k, sampling->top_p,
                                        sampling->repetition_penalty, sampling->seed};
    generation g = {.s = s, .fn = fn, .context = context};
    CVQ_TRY(cvq_sampler_open(&g.sampler, &options, s->config->vocab_size, err));
    cvq_result r = {.encode_s = s->encode_s, .prefill_s = s->prefill_s};
    count_prompt(&g);
    cvq_phase_begin(s, CVQ_PHASE_DECODE, max_tokens, 0);
    cvq_status status = answer(&g, max_tokens, &r, err);
    r.decode_s = cvq_now() - s->phase_start;
    cvq_sampler_close(g.sampler);
    cvq_buffer_free(&g.text);
    if (status == CVQ_OK && result) *result = r;
    return cvq_session_finish(s, status);
}
