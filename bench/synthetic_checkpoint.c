/* Files are cut as the transformers library cuts them: tensors in the order of the model's modules
 * go into a file as long as it stays within 5 GB, and lie in it in order of name. */
#include "bench/synthetic_checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/file_map.h"
#include "base/half.h"
#include "base/parallel.h"
#include "bench/synthetic_tokenizer.h"
#include "formats/json.h"
#include "formats/safetensors.h"

#define MAX_FILE_BYTES 5000000000u
#define VALUE_BYTES 2 /* everything is bf16 */
#define MIB ((uint64_t)1 << 20)
#define SPARSE_BYTES ((size_t)64 << 10) /* of each MiB of a sparse tensor */
#define PIECE_BYTES (32 * MIB)          /* made and written at once */
#define RUN_VALUES ((size_t)1 << 15)    /* that one seed makes */
#define SEED_STEP 0x9e3779b97f4a7c15u

/* ---------------------------------------------------------------- which tensor where */

static const cvq_tensor_kind decoder_layer[] = {
    CVQ_T_INV_FREQ,      CVQ_T_VISION_QKV,     CVQ_T_VISION_QKV_BIAS, CVQ_T_VISION_DENSE,
    CVQ_T_LANGUAGE_QKV,  CVQ_T_LANGUAGE_DENSE, CVQ_T_LANGUAGE_GATE,   CVQ_T_LANGUAGE_UP,
    CVQ_T_LANGUAGE_DOWN, CVQ_T_VISION_GATE,    CVQ_T_VISION_UP,       CVQ_T_VISION_DOWN,
    CVQ_T_INPUT_NORM,    CVQ_T_POST_NORM,
};
static const cvq_tensor_kind vit_layer[] = {
    CVQ_T_VIT_INPUT_NORM, CVQ_T_VIT_INPUT_NORM_BIAS, CVQ_T_VIT_QKV,       CVQ_T_VIT_QKV_BIAS,
    CVQ_T_VIT_DENSE,      CVQ_T_VIT_DENSE_BIAS,      CVQ_T_VIT_FC1,       CVQ_T_VIT_FC1_BIAS,
    CVQ_T_VIT_FC2,        CVQ_T_VIT_FC2_BIAS,        CVQ_T_VIT_POST_NORM, CVQ_T_VIT_POST_NORM_BIAS,
};
static const cvq_tensor_kind before_decoder[] = {CVQ_T_EMBED_TOKENS};
static const cvq_tensor_kind before_vit[] = {CVQ_T_FINAL_NORM, CVQ_T_BOI,        CVQ_T_EOI,
                                             CVQ_T_CLS,        CVQ_T_PATCH_PROJ, CVQ_T_PATCH_BIAS,
                                             CVQ_T_POSITION};
static const cvq_tensor_kind after_vit[] = {
    CVQ_T_ADAPTER_PROJ, CVQ_T_ADAPTER_NORM, CVQ_T_ADAPTER_NORM_BIAS,
    CVQ_T_ADAPTER_GATE, CVQ_T_ADAPTER_UP,   CVQ_T_ADAPTER_DOWN,
    CVQ_T_CONV,         CVQ_T_CONV_BIAS,    CVQ_T_LM_HEAD,
};

typedef struct shards {
    const cvq_model_config *config;
    size_t *shard; /* of each tensor */
    size_t last;
    uint64_t bytes; /* in the last one */
} shards;

static void add_kinds(shards *s, const cvq_tensor_kind *kinds, size_t count, uint32_t layers) {
    for (uint32_t layer = 0; layer < layers; layer++)
        for (size_t k = 0; k < count; k++) {
            const size_t i = cvq_model_tensor_index(s->config, kinds[k], layer);
            cvq_tensor_spec spec;
            cvq_model_tensor_spec(s->config, i, &spec);
            const uint64_t bytes = spec.rows * spec.cols * VALUE_BYTES;
            if (s->bytes > 0 && s->bytes + bytes > MAX_FILE_BYTES) {
                s->last++;
                s->bytes = 0;
            }
            s->bytes += bytes;
            s->shard[i] = s->last;
        }
}

#define ADD(s, kinds, layers) add_kinds(s, kinds, sizeof(kinds) / sizeof *(kinds), layers)

size_t cvq_synthetic_shards(const cvq_model_config *config, size_t *shard) {
    shards s = {.config = config, .shard = shard};
    ADD(&s, before_decoder, 1);
    ADD(&s, decoder_layer, config->num_layers);
    ADD(&s, before_vit, 1);
    ADD(&s, vit_layer, config->vit_num_layers);
    ADD(&s, after_vit, 1);
    return s.last + 1;
}

/* ---------------------------------------------------------------- values */

/* Magnitudes of a heavy-tailed distribution: value i of DRAWS is its quantile. Half of all values
 * are below 0.013, one in 16,000 is beyond 1. */
#define DRAWS 65536
#define MOST_COLS 65536

typedef struct noise {
    uint16_t draws[DRAWS]; /* bf16 */
    /* Added to a bf16's exponent: 0, or 1 to 3 in one channel of 64. */
    uint16_t channel[MOST_COLS];
} noise;

/* splitmix64 */
static uint64_t next(uint64_t *state) {
    uint64_t z = (*state += SEED_STEP);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void fill_draws(noise *n) {
    for (size_t i = 0; i < DRAWS; i++) {
        /* The logistic distribution, with its tail drawn out. */
        const double p = ((double)i + 0.5) / DRAWS, x = log(p / (1 - p));
        n->draws[i] = cvq_f32_to_bf16((float)(0.0117 * x * (1 + 0.006 * x * x * x * x / 16)));
    }
}

static void fill_channels(noise *n, uint64_t seed, size_t cols) {
    for (size_t k = 0; k < cols; k++) {
        const uint64_t r = next(&seed);
        n->channel[k] = r % 64 == 0 ? (uint16_t)(1 + (r >> 32) % 3) : 0;
    }
}

typedef struct fill_job {
    const noise *noise;
    uint8_t *bytes;
    uint64_t first, count; /* values of the tensor */
    size_t cols;
    uint64_t seed;
} fill_job;

static void fill_run(void *context, size_t run, int thread) {
    const fill_job *job = context;
    const uint64_t begin = run * RUN_VALUES, left = job->count - begin;
    const size_t count = left < RUN_VALUES ? (size_t)left : RUN_VALUES;
    uint64_t state = job->seed + (job->first + begin) * SEED_STEP, r = 0;
    size_t col = (size_t)((job->first + begin) % job->cols);
    uint8_t *to = job->bytes + begin * VALUE_BYTES;
    (void)thread;
    for (size_t i = 0; i < count; i++, r >>= 16) {
        if (i % 4 == 0) r = next(&state);
        const unsigned value = job->noise->draws[r & 0xffff];
        cvq_store_le(to + i * VALUE_BYTES, value + (unsigned)(job->noise->channel[col] << 7),
                     VALUE_BYTES);
        if (++col == job->cols) col = 0;
    }
}

/* ---------------------------------------------------------------- files of weights */

typedef struct maker {
    const cvq_model_config *config;
    const cvq_synthetic_options *options;
    bool sparse;
    const char *dir;
    size_t count, files;
    size_t *shard;          /* [count] */
    cvq_tensor_spec *specs; /* [count] */
    noise *noise;
    uint8_t *piece; /* [PIECE_BYTES] */
    uint64_t done, total;
    cvq_error *err;
} maker;

static cvq_status report(maker *m, uint64_t bytes) {
    const cvq_synthetic_options *o = m->options;
    m->done += bytes;
    if (!o->progress || o->progress(o->progress_context, m->done, m->total) == 0) return CVQ_OK;
    return cvq_fail(m->err, CVQ_CANCELLED, NULL, "stopped");
}

static cvq_status write_vector(maker *m, cvq_st_writer *w, const cvq_tensor_spec *spec,
                               uint64_t seed) {
    const size_t n = (size_t)(spec->rows * spec->cols);
    void *values;
    CVQ_TRY(cvq_alloc(&values, n, sizeof(float), "a vector", m->err));
    cvq_synthetic_vector(m->config, spec, seed, values);
    for (size_t i = 0; i < n; i++)
        cvq_store_le(m->piece + i * VALUE_BYTES, cvq_f32_to_bf16(((const float *)values)[i]),
                     VALUE_BYTES);
    free(values);
    CVQ_TRY(cvq_st_writer_append(w, m->piece, n * VALUE_BYTES, m->err));
    return report(m, n * VALUE_BYTES);
}

static cvq_status write_matrix(maker *m, cvq_st_writer *w, const cvq_tensor_spec *spec,
                               uint64_t seed) {
    const uint64_t size = spec->rows * spec->cols * VALUE_BYTES;
    const uint64_t stride = m->sparse ? MIB : PIECE_BYTES;
    const uint64_t most = m->sparse ? SPARSE_BYTES : PIECE_BYTES;
    fill_channels(m->noise, seed, (size_t)spec->cols);
    for (uint64_t at = 0; at < size; at += stride) {
        const uint64_t step = size - at < stride ? size - at : stride;
        const uint64_t bytes = step < most ? step : most;
        fill_job job = {.noise = m->noise,
                        .bytes = m->piece,
                        .first = at / VALUE_BYTES,
                        .count = bytes / VALUE_BYTES,
                        .cols = (size_t)spec->cols,
                        .seed = seed};
        cvq_parallel_for(m->options->threads, (size_t)((job.count + RUN_VALUES - 1) / RUN_VALUES),
                         fill_run, &job);
        CVQ_TRY(cvq_st_writer_append(w, m->piece, (size_t)bytes, m->err));
        CVQ_TRY(cvq_st_writer_skip(w, step - bytes, m->err));
        CVQ_TRY(report(m, step));
    }
    return CVQ_OK;
}

static cvq_status write_tensor(maker *m, cvq_st_writer *w, const cvq_tensor_spec *spec) {
    const size_t number = cvq_model_tensor_index(m->config, spec->kind, spec->layer);
    const uint64_t seed = m->options->seed + (number + 1) * SEED_STEP;
    const bool matrix = spec->role == CVQ_ROLE_MATRIX || spec->role == CVQ_ROLE_TABLE;
    return matrix ? write_matrix(m, w, spec, seed) : write_vector(m, w, spec, seed);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const cvq_tensor_spec *const *)a)->name,
                  (*(const cvq_tensor_spec *const *)b)->name);
}

/* Writes what stands in a file; where names it in errors. */
typedef cvq_status (*fill_fn)(maker *m, int fd, const char *where, const void *content);

/* A file of the folder. */
static cvq_status write_file(maker *m, const char *name, fill_fn fill, const void *content) {
    char *path;
    CVQ_TRY(cvq_path_join(&path, m->dir, name, m->err));
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    cvq_status status =
        fd >= 0 ? fill(m, fd, path, content) : cvq_fail_errno(m->err, path, "cannot make it");
    if (fd >= 0 && close(fd) != 0 && status == CVQ_OK)
        status = cvq_fail_errno(m->err, path, "cannot write");
    free(path);
    return status;
}

static void shard_name(const maker *m, size_t shard, char name[64]) {
    snprintf(name, 64, "model-%05zu-of-%05zu.safetensors", shard + 1, m->files);
}

typedef struct tensor_list {
    const cvq_tensor_spec **specs; /* [count] */
    size_t count;
} tensor_list;

static cvq_status write_tensors(maker *m, int fd, const char *where, const void *content) {
    const tensor_list *list = content;
    const size_t count = list->count;
    void *tensors;
    cvq_st_writer *w = NULL;
    CVQ_TRY(cvq_alloc(&tensors, count, sizeof(cvq_st_tensor), "tensors", m->err));
    for (size_t i = 0; i < count; i++) {
        const cvq_tensor_spec *spec = list->specs[i];
        cvq_st_tensor *t = (cvq_st_tensor *)tensors + i;
        *t = (cvq_st_tensor){.name = spec->name, .dtype = CVQ_ST_BF16, .ndim = spec->ndim};
        memcpy(t->dims, spec->dims, sizeof spec->dims);
    }
    cvq_status status = cvq_st_writer_open(&w, fd, tensors, count, where, m->err);
    free(tensors);
    for (size_t i = 0; status == CVQ_OK && i < count; i++)
        status = write_tensor(m, w, list->specs[i]);
    if (status == CVQ_OK) return cvq_st_writer_finish(w, m->err);
    cvq_st_writer_free(w);
    return status;
}

static cvq_status write_shard(maker *m, size_t shard) {
    void *memory;
    char name[64];
    CVQ_TRY(cvq_alloc(&memory, m->count, sizeof(void *), "tensors of a file", m->err));
    tensor_list list = {.specs = memory};
    for (size_t i = 0; i < m->count; i++)
        if (m->shard[i] == shard) list.specs[list.count++] = &m->specs[i];
    if (list.count > 1) qsort(list.specs, list.count, sizeof *list.specs, compare_names);
    shard_name(m, shard, name);
    const cvq_status status = write_file(m, name, write_tensors, &list);
    free(memory);
    return status;
}

/* ---------------------------------------------------------------- files of text */

static cvq_status write_text(maker *m, int fd, const char *where, const void *content) {
    const cvq_buffer *text = content;
    return cvq_write_all(fd, 0, text->data, text->size, where, m->err);
}

/* Takes root, which may be NULL. */
static cvq_status write_json(maker *m, const char *name, cJSON *root) {
    cvq_buffer text = {0};
    if (!root) return cvq_fail(m->err, CVQ_OUT_OF_MEMORY, name, "no memory for it");
    cvq_status status = cvq_json_print(&text, root, m->err);
    cJSON_Delete(root);
    if (status == CVQ_OK) status = write_file(m, name, write_text, &text);
    cvq_buffer_free(&text);
    return status;
}

static cJSON *eos_ids(const cvq_model_config *c) {
    int ids[CVQ_MAX_EOS];
    for (uint32_t i = 0; i < c->num_eos; i++) ids[i] = (int)c->eos_ids[i];
    return cJSON_CreateIntArray(ids, (int)c->num_eos);
}

static cJSON *config_json(const cvq_model_config *c) {
    const char *const architecture = "CogVLMForCausalLM";
    cJSON *root = cJSON_CreateObject(), *vision = cJSON_AddObjectToObject(root, "vision_config");
    cJSON_AddItemToObject(root, "architectures", cJSON_CreateStringArray(&architecture, 1));
    cJSON_AddItemToObject(root, "eos_token_id", eos_ids(c));
    const struct {
        cJSON *object;
        const char *key;
        double value;
    } numbers[] = {
        {root, "hidden_size", c->hidden_size},
        {root, "intermediate_size", c->intermediate_size},
        {root, "num_attention_heads", c->num_heads},
        {root, "num_multi_query_heads", c->num_kv_heads},
        {root, "num_hidden_layers", c->num_layers},
        {root, "max_position_embeddings", c->max_positions},
        {root, "rms_norm_eps", 1e-5},
        {root, "bos_token_id", c->bos_id},
        {root, "pad_token_id", c->pad_id},
        {root, "vocab_size", c->vocab_size},
        {vision, "hidden_size", c->vit_hidden_size},
        {vision, "intermediate_size", c->vit_intermediate_size},
        {vision, "num_heads", c->vit_num_heads},
        {vision, "num_hidden_layers", c->vit_num_layers},
        {vision, "num_positions", c->vit_num_positions},
        {vision, "image_size", c->image_size},
        {vision, "patch_size", c->patch_size},
        {vision, "in_channels", c->in_channels},
        {vision, "layer_norm_eps", 1e-6},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(numbers[i].object, numbers[i].key, numbers[i].value);
    cJSON_AddStringToObject(root, "template_version", "chat");
    cJSON_AddStringToObject(root, "hidden_act", "silu");
    cJSON_AddStringToObject(vision, "hidden_act", "gelu");
    cJSON_AddStringToObject(root, "torch_dtype", "bfloat16");
    return root;
}

static cJSON *index_json(const maker *m) {
    char name[64];
    cJSON *root = cJSON_CreateObject(), *metadata = cJSON_AddObjectToObject(root, "metadata");
    cJSON_AddNumberToObject(metadata, "total_size", (double)m->total);
    cJSON *map = cJSON_AddObjectToObject(root, "weight_map");
    for (size_t i = 0; i < m->count; i++) {
        shard_name(m, m->shard[i], name);
        cJSON_AddStringToObject(map, m->specs[i].name, name);
    }
    return root;
}

static cvq_status write_tokenizer(maker *m) {
    cvq_synthetic_tokenizer tokenizer;
    CVQ_TRY(cvq_synthetic_tokenizer_open(&tokenizer, m->config, m->err));
    cJSON *root = cvq_synthetic_tokenizer_json(&tokenizer);
    cvq_synthetic_tokenizer_close(&tokenizer);
    return write_json(m, "tokenizer.json", root);
}

/* ---------------------------------------------------------------- the whole */

static cvq_status plan(maker *m) {
    void *p;
    m->count = cvq_model_tensor_count(m->config);
    CVQ_TRY(cvq_alloc(&p, m->count, sizeof *m->shard, "tensors", m->err));
    m->shard = p;
    CVQ_TRY(cvq_alloc(&p, m->count, sizeof *m->specs, "tensors", m->err));
    m->specs = p;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof *m->noise, "noise", m->err));
    m->noise = p;
    CVQ_TRY(cvq_alloc(&p, PIECE_BYTES, 1, "a piece of a file", m->err));
    m->piece = p;
    m->files = cvq_synthetic_shards(m->config, m->shard);
    for (size_t i = 0; i < m->count; i++) {
        cvq_model_tensor_spec(m->config, i, &m->specs[i]);
        m->total += m->specs[i].rows * m->specs[i].cols * VALUE_BYTES;
        if (m->specs[i].cols > MOST_COLS)
            return cvq_fail(m->err, CVQ_INVALID_ARGUMENT, m->specs[i].name, "is too wide");
    }
    fill_draws(m->noise);
    return CVQ_OK;
}

static cvq_status write_all(maker *m) {
    CVQ_TRY(write_json(m, "config.json", config_json(m->config)));
    CVQ_TRY(write_json(m, "model.safetensors.index.json", index_json(m)));
    CVQ_TRY(write_tokenizer(m));
    for (size_t shard = 0; shard < m->files; shard++) CVQ_TRY(write_shard(m, shard));
    return CVQ_OK;
}

cvq_status cvq_synthetic_checkpoint(const cvq_model_config *config,
                                    const cvq_synthetic_options *options, bool sparse,
                                    const char *dir, cvq_error *err) {
    maker m = {.config = config, .options = options, .sparse = sparse, .dir = dir, .err = err};
    cvq_status status = plan(&m);
    if (status == CVQ_OK) status = write_all(&m);
    free(m.shard);
    free(m.specs);
    free(m.noise);
    free(m.piece);
    return status;
}
