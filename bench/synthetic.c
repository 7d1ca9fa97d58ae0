/* Noise in the layout of the file, and weights bound to it as runtime/weights.c binds a file's. */
#include "bench/synthetic.h"

#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"

#define RUN_GROUPS 64 /* groups that one seed makes */

cvq_model_config cvq_scaled_config(uint32_t scale) {
    cvq_model_config c = cvq_real_config;
    c.hidden_size /= scale;
    c.num_heads /= scale;
    c.num_kv_heads = c.num_kv_heads > scale ? c.num_kv_heads / scale : 1;
    c.intermediate_size /= scale;
    c.vocab_size /= scale;
    c.bos_id /= scale;
    c.pad_id /= scale;
    for (uint32_t i = 0; i < c.num_eos; i++) c.eos_ids[i] /= scale;
    c.vit_hidden_size /= scale;
    c.vit_num_heads /= scale;
    c.vit_intermediate_size /= scale;
    c.image_size /= scale;
    c.vit_num_positions = (uint32_t)(cvq_patch_grid(&c) * cvq_patch_grid(&c)) + 1;
    return c;
}

/* ---------------------------------------------------------------- noise */

/* splitmix64 */
static uint64_t next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The bits of a 16-bit scale or of a bf16 value that are noise, and those that are set: magnitudes
 * that make weights of about 0.02. q4s: of all its 16-bit numbers, so that wherever a panel is
 * taken to start its row scales are finite and no product is subnormal. */
typedef struct number_bits {
    uint16_t noise, set;
} number_bits;

static const number_bits bits_of[CVQ_TYPES] = {
    [CVQ_TYPE_BF16] = {0x80ff, 0x3c00}, /* both signs, 2^-7 .. 2^-5 */
    [CVQ_TYPE_Q8] = {0x03ff, 0x0c00},   /* 2^-12 .. 2^-11 */
    [CVQ_TYPE_Q6] = {0x03ff, 0x1400},   /* 2^-10 .. 2^-9 */
    [CVQ_TYPE_Q4T] = {0x83ff, 0x1000},  /* both signs, 2^-11 .. 2^-10 */
    [CVQ_TYPE_Q4] = {0x03ff, 0x1c00},   /* 2^-8 .. 2^-7 */
    [CVQ_TYPE_Q4S] = {0x9fff, 0x2000},  /* 2^-63 .. 2 */
    [CVQ_TYPE_Q4H] = {0x0fff, 0x8000},  /* 2^-10 .. 2^-9 */
};

typedef struct fill_job {
    uint8_t *bytes;
    size_t group_bytes, groups;
    size_t number_bytes; /* 16-bit numbers at a group's start: scales; all of a bf16 or q4s group */
    number_bits bits;
    uint64_t seed;
} fill_job;

static void fill_run(void *context, size_t run, int thread) {
    const fill_job *job = context;
    (void)thread;
    size_t first = run * RUN_GROUPS, left = job->groups - first;
    size_t count = left < RUN_GROUPS ? left : RUN_GROUPS;
    uint64_t state = job->seed + run * 0x632be59bd9b4e019u;
    const uint64_t four = 0x0001000100010001u;
    for (size_t g = 0; g < count; g++) {
        uint8_t *group = job->bytes + (first + g) * job->group_bytes;
        for (size_t i = 0; i < job->group_bytes; i += 8) { /* group sizes: multiples of 4 */
            uint64_t r = next(&state);
            if (i < job->number_bytes) r = (r & (four * job->bits.noise)) | (four * job->bits.set);
            memcpy(group + i, &r, job->group_bytes - i < 8 ? job->group_bytes - i : 8);
        }
    }
}

void cvq_synthetic_fill(cvq_type type, uint32_t panel_rows, size_t panel_bytes, uint64_t seed,
                        uint8_t *bytes, size_t size, int threads) {
    const cvq_type_info *info = cvq_type_describe(type);
    fill_job job = {.bytes = bytes, .bits = bits_of[type], .seed = seed};
    const bool scales_first = info->block && info->head_bytes == 0;
    /* Heads count as part of groups here. */
    job.group_bytes = (size_t)(info->head_bytes ? info->head_bytes : info->row_bytes) * panel_rows;
    job.groups = size / job.group_bytes;
    job.number_bytes = scales_first ? 2 * sizeof(uint16_t) * panel_rows : job.group_bytes;
    cvq_parallel_for(threads, (job.groups + RUN_GROUPS - 1) / RUN_GROUPS, fill_run, &job);
    float row_scales[CVQ_PANEL_ROWS];
    for (size_t r = 0; r < CVQ_PANEL_ROWS; r++) row_scales[r] = 0x1p-18f;
    for (size_t at = 0; at + panel_bytes <= size && info->head_bytes; at += panel_bytes)
        cvq_row_scales_pack(type, panel_rows, row_scales, bytes + at);
}

void cvq_synthetic_values(uint64_t seed, float *values, size_t n) {
    for (size_t i = 0; i < n; i++) values[i] = (float)(next(&seed) >> 40) * 0x1p-23f - 1.0f;
}

/* ---------------------------------------------------------------- weights */

/* The first failure stays in `status`; what comes after it is empty. */
typedef struct builder {
    cvq_synthetic *s;
    const cvq_model_config *config; /* of the whole model */
    const cvq_type *types;
    int threads;
    uint64_t seed;
    cvq_status status;
    cvq_error *err;
} builder;

static void *memory(builder *b, uint64_t bytes) {
    void *p = NULL;
    if (b->status == CVQ_OK) b->status = cvq_alloc(&p, bytes, 1, "synthetic weights", b->err);
    if (b->status == CVQ_OK) b->s->memory[b->s->count++] = p;
    return p;
}

static size_t index_of(const builder *b, cvq_tensor_kind kind, cvq_tensor_spec *spec) {
    /* The middle layer: a recipe may treat the first and the last differently. */
    cvq_model_tensor_spec(b->config, cvq_model_tensor_index(b->config, kind, 0), spec);
    uint32_t layers = spec->part == CVQ_PART_VIT ? b->config->vit_num_layers
                      : spec->part == CVQ_PART_LANGUAGE || spec->part == CVQ_PART_VISION
                          ? b->config->num_layers
                          : 1;
    size_t i = cvq_model_tensor_index(b->config, kind, layers / 2);
    cvq_model_tensor_spec(b->config, i, spec);
    return i;
}

static const float *vector(builder *b, cvq_tensor_kind kind) {
    cvq_tensor_spec spec;
    index_of(b, kind, &spec);
    float *v = memory(b, spec.cols * sizeof *v);
    if (v) cvq_synthetic_values(b->seed++, v, (size_t)spec.cols);
    return v;
}

static cvq_matrix matrix(builder *b, cvq_tensor_kind kind) {
    cvq_tensor_spec spec;
    cvq_type type = b->types[index_of(b, kind, &spec)];
    const cvq_type_info *info = cvq_type_describe(type);
    uint64_t bytes = 0;
    cvq_tensor_bytes(type, CVQ_PANEL_ROWS, spec.rows, spec.cols, &bytes);
    if (type != CVQ_TYPE_BF16) b->s->weights.quantized = true;
    uint8_t *data = memory(b, bytes);
    if (data)
        cvq_synthetic_fill(type, CVQ_PANEL_ROWS,
                           cvq_panel_bytes(info, CVQ_PANEL_ROWS, (size_t)spec.cols), b->seed++,
                           data, (size_t)bytes, b->threads);
    cvq_matrix m = {.rows = (size_t)spec.rows, .cols = (size_t)spec.cols, .name = "synthetic"};
    m.panels = (cvq_panels){.data = data,
                            .codebook = &cvq_codebook_default,
                            .panel_stride = cvq_panel_bytes(info, CVQ_PANEL_ROWS, m.cols),
                            .k = cvq_padded_cols(info, m.cols),
                            .type = type};
    return m;
}

static cvq_matrix matrix_with_bias(builder *b, cvq_tensor_kind kind, cvq_tensor_kind bias) {
    cvq_matrix m = matrix(b, kind);
    m.bias = vector(b, bias);
    return m;
}

/* The first `rows` rows of a table, 16 bits each: of no weight in any time. */
static cvq_table table(builder *b, cvq_tensor_kind kind, size_t rows, cvq_tensor *tensor) {
    *tensor = (cvq_tensor){.type = CVQ_TYPE_BF16, .panel_rows = 1};
    index_of(b, kind, &tensor->spec);
    uint64_t bytes = 0;
    cvq_tensor_bytes(CVQ_TYPE_BF16, 1, rows, tensor->spec.cols, &bytes);
    uint8_t *data = memory(b, bytes);
    if (data)
        cvq_synthetic_fill(CVQ_TYPE_BF16, 1, (size_t)bytes, b->seed++, data, (size_t)bytes,
                           b->threads);
    return (cvq_table){tensor, data};
}

static cvq_expert language_expert(builder *b) {
    return (cvq_expert){.qkv = matrix(b, CVQ_T_LANGUAGE_QKV),
                        .dense = matrix(b, CVQ_T_LANGUAGE_DENSE),
                        .gate = matrix(b, CVQ_T_LANGUAGE_GATE),
                        .up = matrix(b, CVQ_T_LANGUAGE_UP),
                        .down = matrix(b, CVQ_T_LANGUAGE_DOWN)};
}

static cvq_expert vision_expert(builder *b) {
    return (cvq_expert){.qkv = matrix_with_bias(b, CVQ_T_VISION_QKV, CVQ_T_VISION_QKV_BIAS),
                        .dense = matrix(b, CVQ_T_VISION_DENSE),
                        .gate = matrix(b, CVQ_T_VISION_GATE),
                        .up = matrix(b, CVQ_T_VISION_UP),
                        .down = matrix(b, CVQ_T_VISION_DOWN)};
}

static void build_decoder(builder *b, bool language) {
    cvq_weights *w = &b->s->weights;
    float eps = b->config->rms_norm_eps;
    w->layers = memory(b, b->s->config.num_layers * sizeof *w->layers);
    for (uint32_t n = 0; b->status == CVQ_OK && n < b->s->config.num_layers; n++) {
        cvq_decoder_layer *l = &w->layers[n];
        l->input_norm = (cvq_norm){vector(b, CVQ_T_INPUT_NORM), NULL, eps};
        l->post_norm = (cvq_norm){vector(b, CVQ_T_POST_NORM), NULL, eps};
        if (language)
            l->language = language_expert(b);
        else
            l->vision = vision_expert(b);
    }
    w->final_norm = (cvq_norm){vector(b, CVQ_T_FINAL_NORM), NULL, eps};
    size_t half = cvq_head_dim(b->config) / 2;
    w->inv_freq = memory(b, half * sizeof *w->inv_freq);
    if (w->inv_freq) cvq_rotary_frequencies(CVQ_ROPE_THETA, half, w->inv_freq);
    if (!language) return;
    w->lm_head = matrix(b, CVQ_T_LM_HEAD);
    w->embed_tokens = table(b, CVQ_T_EMBED_TOKENS, 1, &b->s->embed_tokens);
}

static void build_vit_layer(builder *b, cvq_vit_layer *l) {
    float eps = b->config->vit_layer_norm_eps;
    l->qkv = matrix_with_bias(b, CVQ_T_VIT_QKV, CVQ_T_VIT_QKV_BIAS);
    l->dense = matrix_with_bias(b, CVQ_T_VIT_DENSE, CVQ_T_VIT_DENSE_BIAS);
    l->input_norm =
        (cvq_norm){vector(b, CVQ_T_VIT_INPUT_NORM), vector(b, CVQ_T_VIT_INPUT_NORM_BIAS), eps};
    l->post_norm =
        (cvq_norm){vector(b, CVQ_T_VIT_POST_NORM), vector(b, CVQ_T_VIT_POST_NORM_BIAS), eps};
    l->fc1 = matrix_with_bias(b, CVQ_T_VIT_FC1, CVQ_T_VIT_FC1_BIAS);
    l->fc2 = matrix_with_bias(b, CVQ_T_VIT_FC2, CVQ_T_VIT_FC2_BIAS);
}

static void build_vit(builder *b) {
    cvq_weights *w = &b->s->weights;
    w->patch_proj = matrix_with_bias(b, CVQ_T_PATCH_PROJ, CVQ_T_PATCH_BIAS);
    w->cls = vector(b, CVQ_T_CLS);
    w->position = table(b, CVQ_T_POSITION, b->config->vit_num_positions, &b->s->position);
    w->vit_layers = memory(b, b->s->config.vit_num_layers * sizeof *w->vit_layers);
    for (uint32_t n = 0; b->status == CVQ_OK && n < b->s->config.vit_num_layers; n++)
        build_vit_layer(b, &w->vit_layers[n]);
    w->conv = matrix_with_bias(b, CVQ_T_CONV, CVQ_T_CONV_BIAS);
    w->adapter_proj = matrix(b, CVQ_T_ADAPTER_PROJ);
    w->adapter_norm = (cvq_norm){vector(b, CVQ_T_ADAPTER_NORM), vector(b, CVQ_T_ADAPTER_NORM_BIAS),
                                 CVQ_ADAPTER_NORM_EPS};
    w->adapter_gate = matrix(b, CVQ_T_ADAPTER_GATE);
    w->adapter_up = matrix(b, CVQ_T_ADAPTER_UP);
    w->adapter_down = matrix(b, CVQ_T_ADAPTER_DOWN);
    w->boi = vector(b, CVQ_T_BOI);
    w->eoi = vector(b, CVQ_T_EOI);
}

#define MOST_TENSORS_A_LAYER 16
#define MOST_OTHER_TENSORS 32

cvq_status cvq_synthetic_open(cvq_synthetic *s, const cvq_model_config *c, const cvq_type *types,
                              cvq_synthetic_part part, uint32_t layers, int threads,
                              cvq_error *err) {
    *s = (cvq_synthetic){.config = *c};
    void *list;
    CVQ_TRY(cvq_alloc(&list, (uint64_t)layers * MOST_TENSORS_A_LAYER + MOST_OTHER_TENSORS,
                      sizeof(void *), "synthetic weights", err));
    s->memory = list;
    s->config.num_layers = part == CVQ_SYNTHETIC_VIT ? 0 : layers;
    s->config.vit_num_layers = part == CVQ_SYNTHETIC_VIT ? layers : 0;
    s->weights.config = &s->config;
    builder b = {.s = s, .config = c, .types = types, .threads = threads, .seed = 1, .err = err};
    if (part == CVQ_SYNTHETIC_VIT)
        build_vit(&b);
    else
        build_decoder(&b, part == CVQ_SYNTHETIC_LANGUAGE);
    if (b.status != CVQ_OK) cvq_synthetic_close(s);
    return b.status;
}

void cvq_synthetic_close(cvq_synthetic *s) {
    if (!s) return;
    for (size_t i = 0; i < s->count; i++) free(s->memory[i]);
    free(s->memory);
    *s = (cvq_synthetic){0};
}
