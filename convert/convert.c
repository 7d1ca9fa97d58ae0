/* The two ways to a .cvq file: from a checkpoint, and from a bf16 file. Both put the same things
 * into cvq_write_model, which is why their files agree byte for byte. */
#include "convert/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/checkpoint_config.h"
#include "convert/provenance.h"
#include "convert/tokenizer_import.h"
#include "convert/write_model.h"

struct cvq_checkpoint {
    char *dir;
    cvq_model_config config;
    cvq_generation_defaults generation;
    cvq_safetensors *tensors;
    cvq_tensor_map *map;
};

static cvq_status copy_text(char **out, const char *text, cvq_error *err) {
    size_t size = strlen(text) + 1;
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, size, 1, "text", err));
    memcpy(p, text, size);
    *out = p;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- checkpoints */

/* What is wrong with one of its files, and what to do about that. */
static cvq_status refuse(const cvq_error *problem, cvq_error *err) {
    const char *advice = "; download it again";
    if (problem->code == CVQ_UNSUPPORTED)
        advice = "; convert zai-org/cogvlm2-llama3-chat-19B or "
                 "zai-org/cogvlm2-llama3-chinese-chat-19B as they are published";
    if (problem->code == CVQ_NOT_FOUND)
        advice = "; a checkpoint is the folder of config.json, tokenizer.json and all of its "
                 "safetensors files";
    return cvq_fail_advising(err, problem->where, problem, advice);
}

cvq_status cvq_checkpoint_open(cvq_checkpoint **out, const char *dir, cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_checkpoint), "checkpoint", err));
    cvq_checkpoint *c = p;
    cvq_error problem = {0};
    cvq_status status = copy_text(&c->dir, dir, &problem);
    if (status == CVQ_OK) status = cvq_checkpoint_config_read(&c->config, dir, &problem);
    if (status == CVQ_OK) {
        status = cvq_generation_config_read(&c->generation, &c->config, dir, &problem);
    }
    if (status == CVQ_OK) status = cvq_safetensors_open(&c->tensors, dir, &problem);
    if (status == CVQ_OK) status = cvq_tensor_map_open(&c->map, c->tensors, &c->config, &problem);
    if (status != CVQ_OK) {
        cvq_checkpoint_close(c);
        return refuse(&problem, err);
    }
    *out = c;
    return CVQ_OK;
}

void cvq_checkpoint_close(cvq_checkpoint *c) {
    if (!c) return;
    cvq_tensor_map_free(c->map);
    cvq_safetensors_close(c->tensors);
    free(c->dir);
    free(c);
}

const cvq_model_config *cvq_checkpoint_config(const cvq_checkpoint *c) {
    return &c->config;
}

const cvq_tensor_map *cvq_checkpoint_tensors(const cvq_checkpoint *c) {
    return c->map;
}

/* ---------------------------------------------------------------- the plan */

/* [tensor count]; released with free(). */
static cvq_status choose_types(cvq_type **types, const cvq_recipe *recipe,
                               const cvq_model_config *config, cvq_type inv_freq_type,
                               cvq_error *err) {
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, cvq_model_tensor_count(config), sizeof **types, "types", err));
    cvq_status status = cvq_recipe_types(recipe, config, inv_freq_type, p, err);
    if (status != CVQ_OK) {
        free(p);
        return status;
    }
    *types = p;
    return CVQ_OK;
}

static cvq_status stored_bytes(const cvq_tensor_spec *spec, cvq_type type, uint64_t *bytes,
                               cvq_error *err) {
    if (cvq_tensor_bytes(type, cvq_panel_rows_for(spec->role), spec->rows, spec->cols, bytes)) {
        return CVQ_OK;
    }
    return cvq_fail(err, CVQ_FORMAT, spec->name, "too large");
}

static const char plan_header[] = "name\tshape\tsource_type\ttype\tbytes\n";

/* A row of that. */
static cvq_status print_plan_row(cvq_buffer *out, const cvq_tensor_spec *spec,
                                 const char *source_type, cvq_type type, cvq_error *err) {
    char shape[CVQ_MAX_DIMS * 21], line[CVQ_MAX_TENSOR_NAME + sizeof shape + 80];
    uint64_t bytes = 0;
    int n = 0;
    CVQ_TRY(stored_bytes(spec, type, &bytes, err));
    for (uint32_t d = 0; d < spec->ndim; d++) {
        n += snprintf(shape + n, sizeof shape - (size_t)n, "%s%llu", d ? "x" : "",
                      (unsigned long long)spec->dims[d]);
    }
    n = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\t%llu\n", spec->name, shape, source_type,
                 cvq_type_describe(type)->name, (unsigned long long)bytes);
    return cvq_buffer_append(out, line, (size_t)n, err);
}

cvq_status cvq_convert_dry_run(cvq_buffer *out, const cvq_checkpoint *c, const cvq_recipe *recipe,
                               cvq_error *err) {
    cvq_type *types = NULL;
    CVQ_TRY(choose_types(&types, recipe, &c->config, cvq_tensor_map_inv_freq_type(c->map), err));
    cvq_status status = cvq_buffer_append(out, plan_header, sizeof plan_header - 1, err);
    size_t count = cvq_model_tensor_count(&c->config);
    for (size_t i = 0; i < count && status == CVQ_OK; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&c->config, i, &spec);
        const cvq_st_tensor *source = cvq_tensor_map_source(c->map, i);
        status = print_plan_row(out, &spec, cvq_st_dtype_name(source->dtype), types[i], err);
    }
    free(types);
    return status;
}

/* ---------------------------------------------------------------- metadata */

/* Replaces what m has. */
static cvq_status set_recipe(cvq_metadata *m, const cvq_recipe *recipe, cvq_error *err) {
    size_t n = 0;
    const cvq_type_rule *rules = cvq_recipe_rules(recipe, &n);
    for (size_t i = 0; i < m->num_rules; i++) {
        free(m->rules[i].pattern);
        free(m->rules[i].type);
    }
    free(m->rules);
    free(m->recipe);
    m->rules = NULL;
    m->recipe = NULL;
    m->num_rules = 0;
    void *p = NULL;
    CVQ_TRY(cvq_alloc(&p, n, sizeof *m->rules, "rules", err));
    m->rules = p;
    for (; m->num_rules < n; m->num_rules++) {
        cvq_type_rule *r = &m->rules[m->num_rules];
        CVQ_TRY(copy_text(&r->pattern, rules[m->num_rules].pattern, err));
        cvq_status status = copy_text(&r->type, rules[m->num_rules].type, err);
        if (status != CVQ_OK) {
            free(r->pattern);
            return status;
        }
    }
    return copy_text(&m->recipe, cvq_recipe_name(recipe), err);
}

/* Replaces what m has; without one an absent card becomes "". */
static cvq_status set_card(cvq_metadata *m, const char *card, cvq_error *err) {
    if (!card && m->card) return CVQ_OK;
    free(m->card);
    m->card = NULL;
    return copy_text(&m->card, card ? card : "", err);
}

static void set_calibration(cvq_metadata *m, const cvq_quantize_options *o) {
    m->importance[0] = m->second_moments[0] = '\0';
    if (o->importance) cvq_hash_hex(cvq_importance_hash(o->importance), m->importance);
    if (o->moments) cvq_hash_hex(cvq_second_moments_file_hash(o->moments), m->second_moments);
}

static cvq_status set_revision(cvq_metadata *m, const char *revision, cvq_error *err) {
    if (!revision) return CVQ_OK;
    CVQ_TRY(cvq_revision_check(revision, err));
    free(m->revision);
    m->revision = NULL;
    return copy_text(&m->revision, revision, err);
}

/* ---------------------------------------------------------------- one step */

static cvq_status import_tokenizer(cvq_buffer *table, const cvq_checkpoint *c, cvq_error *err) {
    char *path = NULL;
    CVQ_TRY(cvq_path_join(&path, c->dir, "tokenizer.json", err));
    cvq_error problem = {0};
    const cvq_status status = cvq_tokenizer_import(table, path, c->config.vocab_size, &problem);
    free(path);
    return status == CVQ_OK ? CVQ_OK : refuse(&problem, err);
}

/* Of a fresh conversion, but for the hashes of the files that hold the weights. */
static cvq_status make_metadata(cvq_metadata *m, const cvq_checkpoint *c, const cvq_recipe *recipe,
                                const cvq_convert_options *options, cvq_error *err) {
    m->temperature = c->generation.temperature;
    m->top_p = c->generation.top_p;
    CVQ_TRY(set_recipe(m, recipe, err));
    CVQ_TRY(set_card(m, options->card, err));
    set_calibration(m, &options->quantize);
    return cvq_provenance_read(m, c->dir, c->tensors, options->revision, err);
}

cvq_status cvq_convert(const cvq_checkpoint *c, const cvq_recipe *recipe,
                       const cvq_convert_options *options, const cvq_convert_target *target,
                       cvq_convert_result *result, cvq_error *err) {
    cvq_metadata metadata = {0};
    cvq_buffer tokenizer = {0};
    cvq_type *types = NULL;
    cvq_checkpoint_rows *rows = NULL;
    cvq_model_parts parts = {.config = &c->config, .checkpoint = c->tensors};
    /* What can fail at once comes first. */
    cvq_status status =
        choose_types(&types, recipe, &c->config, cvq_tensor_map_inv_freq_type(c->map), err);
    if (status == CVQ_OK) status = make_metadata(&metadata, c, recipe, options, err);
    if (status == CVQ_OK) status = import_tokenizer(&tokenizer, c, err);
    if (status == CVQ_OK) status = cvq_checkpoint_identity(c->tensors, parts.source, err);
    if (status == CVQ_OK)
        status = cvq_checkpoint_rows_open(&rows, c->map, c->tensors, &c->config, err);
    if (status != CVQ_OK) goto done;
    parts.types = types;
    parts.tokenizer = tokenizer.data;
    parts.tokenizer_size = tokenizer.size;
    parts.metadata = &metadata;
    parts.rows = cvq_checkpoint_rows_source(rows);
    parts.checkpoint_rows = rows;
    status = cvq_write_model(&parts, options, target, result, err);
    result->licenses = metadata.num_licenses;
done:
    cvq_checkpoint_rows_close(rows);
    cvq_metadata_free(&metadata);
    cvq_buffer_free(&tokenizer);
    free(types);
    return status;
}

/* ---------------------------------------------------------------- the second step */

/* Every tensor must still have the values of the original in bf16. */
static cvq_status refuse_quantized(const cvq_reader *in, cvq_error *err) {
    for (size_t i = 0; i < cvq_reader_tensor_count(in); i++) {
        const cvq_tensor *t = cvq_reader_tensor(in, i);
        if (t->type == CVQ_TYPE_F32 || t->type == CVQ_TYPE_BF16) continue;
        return cvq_fail(err, CVQ_UNSUPPORTED, cvq_reader_path(in),
                        "quantized already (%s is %s), errors would add up: start from a file of "
                        "recipe bf16 or from the checkpoint",
                        t->spec.name, cvq_type_describe(t->type)->name);
    }
    return CVQ_OK;
}

static cvq_status carry_metadata(cvq_metadata *m, const cvq_reader *in, const cvq_recipe *recipe,
                                 const cvq_convert_options *options, cvq_error *err) {
    cvq_buffer json = {0};
    cvq_status status = cvq_reader_metadata(in, &json, err);
    if (status == CVQ_OK) {
        status =
            cvq_metadata_parse(m, (const char *)json.data, json.size, cvq_reader_path(in), err);
    }
    cvq_buffer_free(&json);
    if (status == CVQ_OK) status = set_recipe(m, recipe, err);
    if (status == CVQ_OK) status = set_revision(m, options->revision, err);
    if (status == CVQ_OK) status = set_card(m, options->card, err);
    set_calibration(m, &options->quantize);
    return status;
}

static cvq_status types_of(cvq_type **types, const cvq_reader *in, const cvq_recipe *recipe,
                           cvq_error *err) {
    const cvq_model_config *config = cvq_reader_config(in);
    const size_t inv_freq = cvq_model_tensor_index(config, CVQ_T_INV_FREQ, 0);
    return choose_types(types, recipe, config, cvq_reader_tensor(in, inv_freq)->type, err);
}

cvq_status cvq_requantize(const cvq_reader *in, const cvq_recipe *recipe,
                          const cvq_convert_options *options, const cvq_convert_target *target,
                          cvq_convert_result *result, cvq_error *err) {
    cvq_metadata metadata = {0};
    cvq_type *types = NULL;
    cvq_reader_rows *rows = NULL;
    cvq_model_parts parts = {.config = cvq_reader_config(in)};
    const uint8_t *tokenizer = NULL;
    CVQ_TRY(refuse_quantized(in, err));
    cvq_status status = types_of(&types, in, recipe, err);
    if (status == CVQ_OK) status = carry_metadata(&metadata, in, recipe, options, err);
    if (status == CVQ_OK) status = cvq_reader_rows_open(&rows, in, err);
    if (status != CVQ_OK) goto done;
    cvq_reader_tokenizer_bytes(in, &tokenizer, &parts.tokenizer_size);
    parts.tokenizer = tokenizer;
    parts.types = types;
    parts.metadata = &metadata;
    parts.rows = cvq_reader_rows_source(rows);
    memcpy(parts.source, cvq_reader_id(in), sizeof parts.source);
    status = cvq_write_model(&parts, options, target, result, err);
done:
    cvq_reader_rows_close(rows);
    cvq_metadata_free(&metadata);
    free(types);
    return status;
}

/* ---------------------------------------------------------------- the second step's plan */

cvq_status cvq_requantized_size(const cvq_reader *in, const cvq_recipe *recipe,
                                const cvq_convert_options *options, uint64_t *bytes,
                                cvq_error *err) {
    cvq_metadata metadata = {0};
    cvq_buffer json = {0};
    cvq_type *types = NULL;
    cvq_writer *plan = NULL;
    const uint8_t *tokenizer = NULL;
    cvq_file_spec spec = {.config = cvq_reader_config(in)};
    cvq_status status = types_of(&types, in, recipe, err);
    if (status == CVQ_OK) status = carry_metadata(&metadata, in, recipe, options, err);
    if (status == CVQ_OK) status = cvq_metadata_print(&metadata, &json, err);
    if (status != CVQ_OK) goto done;
    cvq_reader_tokenizer_bytes(in, &tokenizer, &spec.tokenizer_size);
    spec.tokenizer = tokenizer;
    spec.types = types;
    spec.metadata = (const char *)json.data;
    spec.metadata_size = json.size;
    status = cvq_writer_plan(&plan, &spec, err);
    if (status == CVQ_OK) *bytes = cvq_writer_file_size(plan);
done:
    cvq_writer_free(plan);
    cvq_buffer_free(&json);
    cvq_metadata_free(&metadata);
    free(types);
    return status;
}

cvq_status cvq_requantize_dry_run(cvq_buffer *out, const cvq_reader *in, const cvq_recipe *recipe,
                                  cvq_error *err) {
    cvq_type *types = NULL;
    CVQ_TRY(types_of(&types, in, recipe, err));
    cvq_status status = cvq_buffer_append(out, plan_header, sizeof plan_header - 1, err);
    for (size_t i = 0; status == CVQ_OK && i < cvq_reader_tensor_count(in); i++) {
        const cvq_tensor *t = cvq_reader_tensor(in, i);
        status = print_plan_row(out, &t->spec, cvq_type_describe(t->type)->name, types[i], err);
    }
    free(types);
    return status;
}
