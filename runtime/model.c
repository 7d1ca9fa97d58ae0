/* Opening a model, and the level of instructions that all models use. */
#include <stdlib.h>
#include <string.h>

#include "formats/metadata.h"
#include "runtime/attention.h"
#include "runtime/model_internal.h"

unsigned cvq_version(void) {
    return CVQ_VERSION;
}

/* ---------------------------------------------------------------- the level */

#define NOT_SELECTED (-1)
static atomic_int selected_level = NOT_SELECTED;

static cvq_cpu_level level(void) {
    int l = atomic_load(&selected_level);
    return l == NOT_SELECTED ? cvq_cpu_best() : (cvq_cpu_level)l;
}

cvq_status cvq_cpu_select(const char *level, cvq_error *err) {
    cvq_cpu_level found;
    CVQ_TRY(cvq_cpu_level_find(&found, level, err));
    atomic_store(&selected_level, (int)found);
    return CVQ_OK;
}

const char *cvq_cpu_selected(void) {
    return cvq_cpu_level_name(level());
}

const cvq_kernels *cvq_selected_kernels(void) {
    return cvq_kernels_for(level());
}

/* ---------------------------------------------------------------- models */

static cvq_status read_recipe(cvq_model *m, cvq_error *err) {
    cvq_buffer json = {0};
    cvq_metadata metadata = {0};
    cvq_status status = cvq_reader_metadata(m->reader, &json, err);
    if (status == CVQ_OK)
        status = cvq_metadata_parse(&metadata, (const char *)json.data, json.size,
                                    cvq_reader_path(m->reader), err);
    if (status == CVQ_OK) {
        m->recipe = metadata.recipe;
        metadata.recipe = NULL;
    }
    cvq_metadata_free(&metadata);
    cvq_buffer_free(&json);
    return status;
}

static void describe(cvq_model *m) {
    const cvq_model_config *c = cvq_reader_config(m->reader);
    cvq_hash_hex(cvq_reader_id(m->reader), m->id);
    m->info = (cvq_model_info){.id = m->id,
                               .recipe = m->recipe,
                               .file_bytes = cvq_reader_file_size(m->reader),
                               .vocab_size = c->vocab_size,
                               .hidden_size = c->hidden_size,
                               .num_layers = c->num_layers,
                               .vit_num_layers = c->vit_num_layers,
                               .max_context = (uint32_t)cvq_max_context(c),
                               .image_size = c->image_size,
                               .image_slots = (uint32_t)cvq_image_slots(c),
                               .quantized = m->weights.quantized,
                               .default_template = (int)c->template_version};
}

static cvq_status open_parts(cvq_model *m, const char *path, cvq_error *err) {
    CVQ_TRY(cvq_reader_open(&m->reader, path, err));
    const cvq_model_config *c = cvq_reader_config(m->reader);
    if (!cvq_attention_fits(cvq_head_dim(c)) || !cvq_attention_fits(cvq_vit_head_dim(c)))
        return cvq_fail(err, CVQ_UNSUPPORTED, path, "attention heads of %zu and %zu are too large",
                        cvq_head_dim(c), cvq_vit_head_dim(c));
    if (cvq_reader_tokenizer(m->reader)->num_tokens > c->vocab_size)
        return cvq_fail(err, CVQ_FORMAT, path, "its tokenizer has more tokens than vocab_size %u",
                        c->vocab_size);
    CVQ_TRY(cvq_weights_open(&m->weights, m->reader, err));
    CVQ_TRY(cvq_tokenizer_open(&m->tokenizer, cvq_reader_tokenizer(m->reader), err));
    CVQ_TRY(read_recipe(m, err));
    m->kernels = cvq_selected_kernels();
    describe(m);
    return CVQ_OK;
}

cvq_status cvq_model_open(cvq_model **out, const char *path, const cvq_model_options *options,
                          cvq_error *err) {
    if (!out || !path) return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_model_open", "NULL given");
    void *p;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_model), "model", err));
    cvq_model *m = p;
    cvq_status status = open_parts(m, path, err);
    if (status == CVQ_OK && options && options->verify_weights)
        status = cvq_weight_check_open(&m->check, m->reader, err);
    if (status != CVQ_OK) {
        cvq_model_close(m);
        return status;
    }
    *out = m;
    return CVQ_OK;
}

void cvq_model_close(cvq_model *m) {
    if (!m) return;
    cvq_weight_check_close(m->check);
    cvq_tokenizer_close(m->tokenizer);
    cvq_weights_close(&m->weights);
    cvq_reader_close(m->reader);
    free(m->recipe);
    free(m);
}

cvq_status cvq_model_verified(const cvq_model *m, uint8_t *bits, size_t cap, size_t *size,
                              cvq_error *err) {
    if (!m->check)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_model_verified",
                        "the model was opened without verify_weights");
    *size = cvq_weight_check_size(m->check);
    if (cap < *size) return cvq_fail(err, CVQ_TOO_SMALL, "cvq_model_verified", "needs more room");
    cvq_weight_check_save(m->check, bits);
    return CVQ_OK;
}

cvq_status cvq_model_trust(cvq_model *m, const uint8_t *bits, size_t size, cvq_error *err) {
    if (!m->check || size != cvq_weight_check_size(m->check))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_model_trust",
                        "these bytes are not what cvq_model_verified gives for this model");
    cvq_weight_check_load(m->check, bits);
    return CVQ_OK;
}

const cvq_model_info *cvq_model_describe(const cvq_model *m) {
    return &m->info;
}

/* ---------------------------------------------------------------- text */

cvq_status cvq_tokenize(const cvq_model *m, const char *text, size_t length, int32_t *ids,
                        size_t cap, size_t *n, cvq_error *err) {
    return cvq_tokenizer_encode(m->tokenizer, text, length, ids, cap, n, err);
}

cvq_status cvq_detokenize(const cvq_model *m, const int32_t *ids, size_t n, char *text, size_t cap,
                          size_t *length, cvq_error *err) {
    return cvq_tokenizer_decode(m->tokenizer, ids, n, text, cap, length, err);
}
