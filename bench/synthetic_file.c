/* Tensors with padding and vectors are made as values and go through the quantizer, all others,
 * nearly all bytes, are filled directly. */
#include "bench/synthetic_file.h"

#include <stdlib.h>

#include "base/memory.h"
#include "bench/synthetic_tokenizer.h"
#include "formats/cvq_writer.h"
#include "formats/metadata.h"
#include "quant/quantize.h"

#define PIECE_BYTES (32u << 20) /* filled and appended at once, about */
#define SEED_STEP 0x9e3779b97f4a7c15u

static bool is_norm(cvq_tensor_kind kind) {
    return kind == CVQ_T_INPUT_NORM || kind == CVQ_T_POST_NORM || kind == CVQ_T_FINAL_NORM ||
           kind == CVQ_T_ADAPTER_NORM || kind == CVQ_T_VIT_INPUT_NORM ||
           kind == CVQ_T_VIT_POST_NORM;
}

void cvq_synthetic_vector(const cvq_model_config *config, const cvq_tensor_spec *spec,
                          uint64_t seed, float *values) {
    const size_t n = (size_t)spec->cols;
    if (spec->role == CVQ_ROLE_INV_FREQ) {
        cvq_rotary_frequencies(CVQ_ROPE_THETA, cvq_head_dim(config) / 2, values);
        return;
    }
    cvq_synthetic_values(seed, values, n);
    for (size_t i = 0; i < n; i++)
        values[i] = is_norm(spec->kind) ? 1.0f + 0.1f * values[i] : 0.02f * values[i];
}

typedef struct maker {
    const cvq_model_config *config;
    const cvq_synthetic_options *options;
    cvq_writer *writer;
    uint8_t *piece; /* [PIECE_BYTES] */
    uint64_t done, total;
    cvq_error *err;
} maker;

static cvq_status append(maker *m, const void *data, size_t size) {
    const cvq_synthetic_options *o = m->options;
    CVQ_TRY(cvq_writer_append(m->writer, data, size, m->err));
    m->done += size;
    if (!o->progress || o->progress(o->progress_context, m->done, m->total) == 0) return CVQ_OK;
    return cvq_fail(m->err, CVQ_CANCELLED, NULL, "stopped");
}

/* Panel by panel from values: of a magnitude that makes no difference, 0.02. */
static cvq_status make_panels(maker *m, const cvq_tensor *t, uint64_t seed) {
    const size_t cols = (size_t)t->spec.cols, height = t->panel_rows;
    const size_t bytes = cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, cols);
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, height * cols, sizeof(float), "a panel", m->err));
    float *rows = memory;
    cvq_status status = CVQ_OK;
    for (size_t row = 0; status == CVQ_OK && row < t->spec.rows; row += height) {
        const size_t left = (size_t)t->spec.rows - row, count = left < height ? left : height;
        if (height == 1 && t->spec.role != CVQ_ROLE_TABLE) {
            cvq_synthetic_vector(m->config, &t->spec, seed, rows);
        } else {
            cvq_synthetic_values(seed + row, rows, count * cols);
            for (size_t i = 0; i < height * cols; i++)
                rows[i] = i < count * cols ? 0.02f * rows[i] : 0.0f;
        }
        cvq_panel_quantize(t, rows, count, NULL, m->piece);
        status = append(m, m->piece, bytes);
    }
    free(memory);
    return status;
}

static cvq_status fill_panels(maker *m, const cvq_tensor *t, uint64_t seed) {
    const size_t panel =
        cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, (size_t)t->spec.cols);
    const size_t most = PIECE_BYTES / panel * panel;
    for (uint64_t at = 0; at < t->size; at += most) {
        const size_t n = t->size - at < most ? (size_t)(t->size - at) : most;
        cvq_synthetic_fill(t->type, t->panel_rows, panel, seed + at, m->piece, n,
                           m->options->threads);
        CVQ_TRY(append(m, m->piece, n));
    }
    return CVQ_OK;
}

static cvq_status make_tensors(maker *m) {
    const size_t count = cvq_writer_tensor_count(m->writer);
    for (size_t i = 0; i < count; i++) m->total += cvq_writer_tensor(m->writer, i)->size;
    for (size_t i = 0; i < count; i++) {
        const cvq_tensor *t = cvq_writer_tensor(m->writer, i);
        const cvq_type_info *info = cvq_type_describe(t->type);
        const uint64_t seed = m->options->seed + (i + 1) * SEED_STEP;
        const bool whole = t->spec.rows % t->panel_rows == 0 && t->spec.cols % info->group == 0;
        CVQ_TRY(whole && t->type != CVQ_TYPE_F32 ? fill_panels(m, t, seed)
                                                 : make_panels(m, t, seed));
    }
    return CVQ_OK;
}

static cvq_status print_metadata(const cvq_recipe *recipe, cvq_buffer *json, cvq_error *err) {
    size_t num_rules;
    const cvq_type_rule *rules = cvq_recipe_rules(recipe, &num_rules);
    char card[] = "Noise, for measuring: this model knows nothing.", empty[] = "";
    cvq_metadata m = {.rules = (cvq_type_rule *)(uintptr_t)rules, /* only read */
                      .num_rules = num_rules,
                      .recipe = (char *)(uintptr_t)cvq_recipe_name(recipe),
                      .revision = empty,
                      .card = card,
                      .temperature = -1,
                      .top_p = -1};
    return cvq_metadata_print(&m, json, err);
}

cvq_status cvq_synthetic_file(const cvq_model_config *config, const cvq_recipe *recipe,
                              const cvq_synthetic_options *options, int fd, const char *where,
                              uint8_t *id, cvq_error *err) {
    maker m = {.config = config, .options = options, .err = err};
    cvq_synthetic_tokenizer tokenizer;
    cvq_buffer table = {0}, json = {0};
    void *types = NULL, *piece = NULL;
    CVQ_TRY(cvq_synthetic_tokenizer_open(&tokenizer, config, err));
    cvq_status status = cvq_tokenizer_table_build(&table, &tokenizer.source, err);
    cvq_synthetic_tokenizer_close(&tokenizer);
    if (status != CVQ_OK) goto done;
    status = print_metadata(recipe, &json, err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&types, cvq_model_tensor_count(config), sizeof(cvq_type), "types", err);
    if (status != CVQ_OK) goto done;
    status = cvq_recipe_types(recipe, config, CVQ_TYPE_F32, types, err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&piece, PIECE_BYTES, 1, "a piece of the file", err);
    if (status != CVQ_OK) goto done;
    m.piece = piece;
    const cvq_file_spec spec = {.config = config,
                                .types = types,
                                .tokenizer = table.data,
                                .tokenizer_size = table.size,
                                .metadata = (const char *)json.data,
                                .metadata_size = json.size};
    status = cvq_writer_plan(&m.writer, &spec, err);
    if (status == CVQ_OK) status = cvq_writer_begin(m.writer, fd, where, err);
    if (status == CVQ_OK) status = make_tensors(&m);
    if (status == CVQ_OK) status = cvq_writer_finish(m.writer, id, err);
done:
    cvq_writer_free(m.writer);
    free(piece);
    free(types);
    cvq_buffer_free(&json);
    cvq_buffer_free(&table);
    return status;
}
