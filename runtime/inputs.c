/* What goes into a session: pictures and prompts. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "runtime/image_prefix.h"
#include "runtime/prompt.h"
#include "runtime/resize.h"

/* ---------------------------------------------------------------- pictures */

cvq_status cvq_image_new(cvq_image **out, const cvq_model *model, cvq_error *err) {
    size_t size = model->info.image_size;
    void *p;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_image), "picture", err));
    cvq_image *image = p;
    image->model = model;
    atomic_init(&image->references, 1);
    pthread_mutex_init(&image->lock, NULL);
    cvq_status status = cvq_alloc(&p, size * size, 3, "picture", err);
    if (status != CVQ_OK) {
        cvq_image_free(image);
        return status;
    }
    image->rgb = p;
    *out = image;
    return CVQ_OK;
}

cvq_status cvq_image_create(cvq_image **out, const cvq_model *model, const uint8_t *rgb,
                            uint32_t width, uint32_t height, size_t stride, cvq_error *err) {
    if (!out || !model || !rgb || stride < 3 * (size_t)width)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_image_create",
                        "NULL, or a stride shorter than a row");
    size_t size = model->info.image_size;
    cvq_image *image;
    CVQ_TRY(cvq_image_new(&image, model, err));
    cvq_status status = cvq_resize_bicubic(rgb, width, height, stride, image->rgb, size, size, err);
    if (status == CVQ_OK) status = cvq_sha256(image->rgb, size * size * 3, image->hash, err);
    if (status != CVQ_OK) {
        cvq_image_free(image);
        return status;
    }
    *out = image;
    return CVQ_OK;
}

void cvq_image_retain(cvq_image *image) {
    atomic_fetch_add(&image->references, 1);
}

void cvq_image_free(cvq_image *image) {
    if (!image || atomic_fetch_sub(&image->references, 1) != 1) return;
    pthread_mutex_destroy(&image->lock);
    free(image->rgb);
    free(image->encodings[0]);
    free(image->encodings[1]);
    cvq_image_prefix_release(image->prefix);
    free(image);
}

/* ---------------------------------------------------------------- prompts */

/* bos and the picture's slots; room for n text ids behind them. */
static cvq_status start_prompt(cvq_prompt **out, const cvq_model *model, size_t n, cvq_image *image,
                               cvq_error *err) {
    const cvq_model_config *c = cvq_reader_config(model->reader);
    size_t slots = image ? model->info.image_slots : 0;
    void *p, *ids;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_prompt), "prompt", err));
    uint64_t all;
    cvq_status status = CVQ_OK;
    if (!cvq_add_u64(n, 1 + slots, &all))
        status = cvq_fail(err, CVQ_OUT_OF_MEMORY, "prompt", "too long");
    else
        status = cvq_alloc(&ids, all, sizeof(int32_t), "prompt", err);
    if (status != CVQ_OK) {
        free(p);
        return status;
    }
    cvq_prompt *prompt = p;
    *prompt = (cvq_prompt){.model = model, .image = image, .image_slots = slots, .ids = ids};
    prompt->ids[prompt->n++] = (int32_t)c->bos_id;
    while (prompt->n < 1 + slots) prompt->ids[prompt->n++] = (int32_t)c->pad_id;
    if (image) cvq_image_retain(image);
    *out = prompt;
    return CVQ_OK;
}

cvq_status cvq_prompt_from_ids(cvq_prompt **out, const cvq_model *model, const int32_t *ids,
                               size_t n, cvq_image *image, cvq_error *err) {
    if (!out || !model || (!ids && n) || (image && image->model != model))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_prompt_from_ids",
                        "NULL, or a picture of another model");
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= model->info.vocab_size)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_prompt_from_ids",
                            "id %d is not in the vocabulary of %u", ids[i], model->info.vocab_size);
    cvq_prompt *prompt;
    CVQ_TRY(start_prompt(&prompt, model, n, image, err));
    if (n) memcpy(prompt->ids + prompt->n, ids, n * sizeof *ids);
    prompt->n += n;
    *out = prompt;
    return CVQ_OK;
}

/* The template's text as ids. */
static cvq_status encode_text(cvq_prompt **out, const cvq_model *model, const cvq_buffer *text,
                              cvq_image *image, cvq_error *err) {
    const char *chars = text->size ? (const char *)text->data : "";
    size_t n = 0, again;
    cvq_status status = cvq_tokenize(model, chars, text->size, NULL, 0, &n, NULL);
    if (status != CVQ_OK && status != CVQ_TOO_SMALL)
        return cvq_tokenize(model, chars, text->size, NULL, 0, &n, err);
    cvq_prompt *prompt;
    CVQ_TRY(start_prompt(&prompt, model, n, image, err));
    status = cvq_tokenize(model, chars, text->size, prompt->ids + prompt->n, n, &again, err);
    if (status != CVQ_OK) {
        cvq_prompt_free(prompt);
        return status;
    }
    prompt->n += n;
    *out = prompt;
    return CVQ_OK;
}

cvq_status cvq_prompt_create(cvq_prompt **out, const cvq_model *model, cvq_prompt_kind kind,
                             const cvq_turn *turns, size_t num_turns, const char *question,
                             cvq_image *image, cvq_error *err) {
    if (!out || !model || !question || (!turns && num_turns) || (image && image->model != model))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_prompt_create",
                        "NULL, or a picture of another model");
    cvq_buffer text = {0};
    cvq_status status = cvq_prompt_text(&text, kind, turns, num_turns, question, err);
    if (status == CVQ_OK) status = encode_text(out, model, &text, image, err);
    cvq_buffer_free(&text);
    return status;
}

const int32_t *cvq_prompt_ids(const cvq_prompt *prompt, size_t *n) {
    *n = prompt->n;
    return prompt->ids;
}

void cvq_prompt_free(cvq_prompt *prompt) {
    if (!prompt) return;
    cvq_image_free(prompt->image);
    free(prompt->ids);
    free(prompt);
}
