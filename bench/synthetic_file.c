/* Tensors with padding and vectors are made as values and go through the quantizer, all others,
 * nearly all bytes, are filled directly. */
#include "bench/synthetic_file.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "bench/synthetic_tokenizer.h"
#include "formats/cvq_writer.h"
#include "formats/metadata.h"
#include "quant/quantize.h"

#define PIECE_BYTES (32u << 20) /* filled and written at once, at most */
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
    uint64_t done, total;
    cvq_error *err;
} maker;

/* Bytes of a tensor from `offset` on, chunk by chunk on all threads. */
typedef struct piece {
    cvq_writer *writer;
    size_t tensor;
    uint64_t offset;
    const uint8_t *data;
    size_t size;
    atomic_flag failing;
    cvq_status status; /* of the first that failed */
    cvq_error error;
} piece;

static void put_chunk(void *context, size_t chunk, int thread) {
    piece *p = context;
    cvq_error error = {0};
    const size_t at = chunk * CVQ_CHUNK_BYTES, left = p->size - at;
    (void)thread;
    const cvq_status status =
        cvq_writer_put(p->writer, p->tensor, p->offset + at, p->data + at,
                       left < CVQ_CHUNK_BYTES ? left : CVQ_CHUNK_BYTES, &error);
    if (status == CVQ_OK || atomic_flag_test_and_set(&p->failing)) return;
    p->status = status;
    p->error = error;
}

static cvq_status put(maker *m, size_t tensor, uint64_t offset, const void *data, size_t size) {
    const cvq_synthetic_options *o = m->options;
    piece p = {m->writer, tensor, offset, data, size, ATOMIC_FLAG_INIT, CVQ_OK, {0}};
    cvq_parallel_for(o->threads, (size + CVQ_CHUNK_BYTES - 1) / CVQ_CHUNK_BYTES, put_chunk, &p);
    if (p.status != CVQ_OK) return cvq_fail(m->err, p.status, p.error.where, "%s", p.error.message);
    m->done += size;
    if (!o->progress || o->progress(o->progress_context, m->done, m->total) == 0) return CVQ_OK;
    return cvq_fail(m->err, CVQ_CANCELLED, NULL, "stopped");
}

/* Panel by panel from values: of a magnitude that makes no difference, 0.02. */
static void make_panels(const maker *m, const cvq_tensor *t, uint64_t seed, float *rows,
                        uint8_t *out) {
    const size_t cols = (size_t)t->spec.cols, height = t->panel_rows;
    const size_t bytes = cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, cols);
    for (size_t row = 0; row < t->spec.rows; row += height, out += bytes) {
        const size_t left = (size_t)t->spec.rows - row, count = left < height ? left : height;
        if (height == 1 && t->spec.role != CVQ_ROLE_TABLE) {
            cvq_synthetic_vector(m->config, &t->spec, seed, rows);
        } else {
            cvq_synthetic_values(seed + row, rows, count * cols);
            for (size_t i = 0; i < height * cols; i++)
                rows[i] = i < count * cols ? 0.02f * rows[i] : 0.0f;
        }
        cvq_panel_quantize(t, rows, count, NULL, out);
    }
}

/* A vector, or a matrix with padding: both small. */
static cvq_status make_small(maker *m, size_t tensor, uint64_t seed) {
    const cvq_tensor *t = cvq_writer_tensor(m->writer, tensor);
    void *rows = NULL, *out = NULL;
    cvq_status status =
        cvq_alloc(&rows, t->panel_rows * t->spec.cols, sizeof(float), "a panel", m->err);
    if (status == CVQ_OK) status = cvq_alloc(&out, t->size, 1, "a tensor", m->err);
    if (status == CVQ_OK) {
        make_panels(m, t, seed, rows, out);
        status = put(m, tensor, 0, out, (size_t)t->size);
    }
    free(rows);
    free(out);
    return status;
}

/* What fills no chunk at a piece's end goes in front of the next. */
static cvq_status fill_large(maker *m, size_t tensor, uint64_t seed) {
    const cvq_tensor *t = cvq_writer_tensor(m->writer, tensor);
    const size_t panel =
        cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, (size_t)t->spec.cols);
    const size_t most = PIECE_BYTES / panel * panel;
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, most + CVQ_CHUNK_BYTES, 1, "a piece of the file", m->err));
    uint8_t *bytes = memory;
    cvq_status status = CVQ_OK;
    size_t carry = 0;
    for (uint64_t at = 0; status == CVQ_OK && at < t->size; at += most) {
        const bool last = t->size - at <= most;
        const size_t n = last ? (size_t)(t->size - at) : most, size = carry + n;
        const size_t whole = last ? size : size / CVQ_CHUNK_BYTES * CVQ_CHUNK_BYTES;
        cvq_synthetic_fill(t->type, t->panel_rows, panel, seed + at, bytes + carry, n,
                           m->options->threads);
        status = put(m, tensor, at - carry, bytes, whole);
        carry = size - whole;
        memmove(bytes, bytes + whole, carry);
    }
    free(memory);
    return status;
}

static cvq_status make_tensors(maker *m) {
    const size_t count = cvq_writer_tensor_count(m->writer);
    for (size_t i = 0; i < count; i++) m->total += cvq_writer_tensor(m->writer, i)->size;
    for (size_t i = 0; i < count; i++) {
        const cvq_tensor *t = cvq_writer_tensor(m->writer, i);
        const cvq_type_info *info = cvq_type_describe(t->type);
        const uint64_t seed = m->options->seed + (i + 1) * SEED_STEP;
        const bool whole = t->spec.rows % t->panel_rows == 0 && t->spec.cols % info->group == 0;
        CVQ_TRY(whole && t->type != CVQ_TYPE_F32 ? fill_large(m, i, seed) : make_small(m, i, seed));
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
    void *types = NULL;
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
    const cvq_file_spec spec = {.config = config,
                                .types = types,
                                .tokenizer = table.data,
                                .tokenizer_size = table.size,
                                .metadata = (const char *)json.data,
                                .metadata_size = json.size};
    status = cvq_writer_plan(&m.writer, &spec, err);
    if (status == CVQ_OK) status = cvq_writer_begin(m.writer, fd, where, false, err);
    if (status == CVQ_OK) status = make_tensors(&m);
    if (status == CVQ_OK) status = cvq_writer_finish(m.writer, id, err);
done:
    cvq_writer_free(m.writer);
    free(types);
    cvq_buffer_free(&json);
    cvq_buffer_free(&table);
    return status;
}
