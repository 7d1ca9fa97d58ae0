/* The checkpoint's tensors in the order of the model's list. Both lists must hold the same names,
 * with the same shapes. */
#include "convert/tensor_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct cvq_tensor_map {
    const cvq_safetensors *checkpoint;
    const cvq_model_config *config;
    size_t count;
    const cvq_st_tensor **sources; /* [count] */
    cvq_type inv_freq_type;
};

/* ---------------------------------------------------------------- finding */

/* What bitsandbytes puts beside a weight. */
static bool is_quantizer_name(const char *name) {
    static const char *const marks[] = {".absmax",      ".nested_absmax",    ".quant_map",
                                        ".quant_state", ".nested_quant_map", ".SCB"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (strstr(name, marks[i])) return true;
    }
    return false;
}

static cvq_status refuse_quantized(const cvq_safetensors *s, cvq_error *err) {
    for (size_t i = 0; i < cvq_safetensors_count(s); i++) {
        const char *name = cvq_safetensors_at(s, i)->name;
        if (!is_quantizer_name(name)) continue;
        return cvq_fail(err, CVQ_UNSUPPORTED, name,
                        "this checkpoint is quantized already (bitsandbytes); take the one "
                        "without -int4 in its name");
    }
    return CVQ_OK;
}

static void print_shape(char *out, size_t size, const uint64_t *dims, uint32_t ndim) {
    size_t at = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < ndim && at < size; i++) {
        int n =
            snprintf(out + at, size - at, "%s%llu", i ? " x " : "", (unsigned long long)dims[i]);
        at += (size_t)n;
    }
}

static cvq_status check_shape(const cvq_st_tensor *t, const cvq_tensor_spec *spec, cvq_error *err) {
    bool same =
        t->ndim == spec->ndim && memcmp(t->dims, spec->dims, t->ndim * sizeof *t->dims) == 0;
    if (same) return CVQ_OK;
    char is[192], should[96];
    print_shape(is, sizeof is, t->dims, t->ndim);
    print_shape(should, sizeof should, spec->dims, spec->ndim);
    return cvq_fail(err, CVQ_FORMAT, t->name, "its shape is [%s], config.json makes it [%s]", is,
                    should);
}

static cvq_status check_dtype(const cvq_st_tensor *t, const cvq_tensor_spec *spec, cvq_error *err) {
    if (t->dtype == CVQ_ST_F16 && spec->role == CVQ_ROLE_INV_FREQ) {
        return cvq_fail(err, CVQ_UNSUPPORTED, t->name,
                        "F16 values: the rotary tables are known for BF16 and F32 only");
    }
    if (t->dtype == CVQ_ST_F32 || t->dtype == CVQ_ST_F16 || t->dtype == CVQ_ST_BF16) return CVQ_OK;
    return cvq_fail(err, CVQ_UNSUPPORTED, t->name,
                    "%s values: only F32, F16 and BF16 are converted", cvq_st_dtype_name(t->dtype));
}

/* Fills sources, and counts what is not there. */
static cvq_status find_all(cvq_tensor_map *m, cvq_error *err) {
    size_t missing = 0;
    char first[CVQ_MAX_TENSOR_NAME];
    for (size_t i = 0; i < m->count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(m->config, i, &spec);
        const cvq_st_tensor *t = cvq_safetensors_find(m->checkpoint, spec.name);
        if (!t) {
            if (missing++ == 0) memcpy(first, spec.name, sizeof first);
            continue;
        }
        CVQ_TRY(check_shape(t, &spec, err));
        CVQ_TRY(check_dtype(t, &spec, err));
        m->sources[i] = t;
    }
    if (missing == 0) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, first,
                    "missing in the checkpoint (%zu of the model's %zu tensors are)", missing,
                    m->count);
}

static bool is_model_tensor(const cvq_tensor_map *m, const char *name) {
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->sources[i]->name, name) == 0) return true;
    }
    return false;
}

/* Every tensor of the model was found and names differ, so a surplus is what the model has not. */
static cvq_status refuse_unexpected(const cvq_tensor_map *m, cvq_error *err) {
    size_t surplus = cvq_safetensors_count(m->checkpoint) - m->count;
    for (size_t i = 0; surplus > 0; i++) {
        const char *name = cvq_safetensors_at(m->checkpoint, i)->name;
        if (is_model_tensor(m, name)) continue;
        return cvq_fail(err, CVQ_FORMAT, name,
                        "not a tensor of the model that config.json describes (%zu such in all)",
                        surplus);
    }
    return CVQ_OK;
}

static cvq_status check_inv_freq(cvq_tensor_map *m, cvq_error *err) {
    const cvq_st_tensor *first = m->sources[cvq_model_tensor_index(m->config, CVQ_T_INV_FREQ, 0)];
    for (uint32_t layer = 1; layer < m->config->num_layers; layer++) {
        const cvq_st_tensor *t =
            m->sources[cvq_model_tensor_index(m->config, CVQ_T_INV_FREQ, layer)];
        if (t->dtype != first->dtype || memcmp(t->data, first->data, (size_t)t->size) != 0) {
            return cvq_fail(err, CVQ_UNSUPPORTED, t->name,
                            "differs from layer 0's; one rotary table serves all layers");
        }
    }
    m->inv_freq_type = first->dtype == CVQ_ST_F32 ? CVQ_TYPE_F32 : CVQ_TYPE_BF16;
    return CVQ_OK;
}

cvq_status cvq_tensor_map_open(cvq_tensor_map **out, const cvq_safetensors *checkpoint,
                               const cvq_model_config *config, cvq_error *err) {
    void *p = NULL, *sources = NULL;
    CVQ_TRY(refuse_quantized(checkpoint, err));
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_tensor_map), "tensor map", err));
    cvq_tensor_map *m = p;
    m->checkpoint = checkpoint;
    m->config = config;
    m->count = cvq_model_tensor_count(config);
    cvq_status status = cvq_alloc(&sources, m->count, sizeof *m->sources, "tensor map", err);
    m->sources = sources;
    if (status == CVQ_OK) status = find_all(m, err);
    if (status == CVQ_OK) status = refuse_unexpected(m, err);
    if (status == CVQ_OK) status = check_inv_freq(m, err);
    if (status != CVQ_OK) {
        cvq_tensor_map_free(m);
        return status;
    }
    *out = m;
    return CVQ_OK;
}

void cvq_tensor_map_free(cvq_tensor_map *m) {
    if (!m) return;
    free(m->sources);
    free(m);
}

const cvq_st_tensor *cvq_tensor_map_source(const cvq_tensor_map *m, size_t i) {
    return m->sources[i];
}

cvq_type cvq_tensor_map_inv_freq_type(const cvq_tensor_map *m) {
    return m->inv_freq_type;
}
