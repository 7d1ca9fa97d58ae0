/* Reads what cvq-calibrate wrote: sums of squares of every input channel and how many tokens they
 * are of, turned into mean squares. The file is a stranger's: every name, shape and value is
 * checked. */
#include "quant/importance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "formats/safetensors.h"
#include "quant/calibration_hash.h"

/* One of the model's tensors. */
typedef struct measured {
    float *mean; /* [cols], or NULL */
    bool found;
    uint64_t tokens;
} measured;

struct cvq_importance {
    size_t count;
    measured *tensors; /* [count] */
    uint8_t hash[CVQ_HASH_BYTES];
};

#define ADVICE "; take a file that cvq-calibrate wrote for this model"
#define SUFFIX_MAX 8 /* ".sum_sq" with its NUL */

static const cvq_st_tensor *find(const cvq_safetensors *file, const char *tensor,
                                 const char *suffix) {
    char name[CVQ_MAX_TENSOR_NAME + SUFFIX_MAX];
    snprintf(name, sizeof name, "%s%s", tensor, suffix);
    return cvq_safetensors_find(file, name);
}

/* One matrix: both its tensors are there. */
static cvq_status read_mean(measured *out, const cvq_tensor_spec *spec, const cvq_st_tensor *sum,
                            const cvq_st_tensor *tokens, cvq_error *err) {
    if (sum->dtype != CVQ_ST_F32 || sum->ndim != 1 || sum->dims[0] != spec->cols)
        return cvq_fail(err, CVQ_FORMAT, sum->name,
                        "must be F32 [%llu], as this model's matrix has that many inputs",
                        (unsigned long long)spec->cols);
    if (tokens->dtype != CVQ_ST_I64 || tokens->ndim != 1 || tokens->dims[0] != 1)
        return cvq_fail(err, CVQ_FORMAT, tokens->name, "must be I64 [1]");
    const uint64_t count = cvq_load_le(tokens->data, 8);
    if (count > INT64_MAX) return cvq_fail(err, CVQ_FORMAT, tokens->name, "is negative");
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, spec->cols, sizeof(float), sum->name, err));
    float *mean = memory;
    for (uint64_t k = 0; k < spec->cols; k++) {
        const float v = cvq_bits_f32((uint32_t)cvq_load_le(sum->data + 4 * k, 4));
        if (!(v >= 0.0f && v <= 0x1.fffffep127f)) {
            free(mean);
            return cvq_fail(err, CVQ_FORMAT, sum->name, "value %llu is negative or not finite",
                            (unsigned long long)k);
        }
        mean[k] = count ? (float)((double)v / (double)count) : 0.0f;
    }
    *out = (measured){.found = true, .tokens = count};
    if (count) {
        out->mean = mean;
    } else {
        free(mean); /* no token came by: nothing is known */
    }
    return CVQ_OK;
}

/* Some tensor of the file belongs to no matrix of the model, or lacks its other half. */
static cvq_status name_stranger(const cvq_safetensors *file, const cvq_model_config *config,
                                cvq_error *err) {
    for (size_t i = 0; i < cvq_safetensors_count(file); i++) {
        const char *name = cvq_safetensors_at(file, i)->name;
        bool known = false;
        for (size_t t = 0; t < cvq_model_tensor_count(config) && !known; t++) {
            cvq_tensor_spec spec;
            cvq_model_tensor_spec(config, t, &spec);
            const size_t length = strlen(spec.name);
            known = spec.role == CVQ_ROLE_MATRIX && strncmp(name, spec.name, length) == 0 &&
                    (strcmp(name + length, ".sum_sq") == 0 || strcmp(name + length, ".count") == 0);
        }
        if (!known) return cvq_fail(err, CVQ_FORMAT, name, "belongs to no matrix of this model");
    }
    return cvq_fail(err, CVQ_INTERNAL, "importance", "tensors miscounted");
}

/* Half of the power that the vision expert's queries, keys and values are made from is a part that
 * all patches have in common. An error of it adds the same to all keys, which softmax does not see;
 * to weigh it costs precision where patches differ (docs/quantization.md has the measurement). */
static bool heeded(const cvq_tensor_spec *spec) {
    return spec->kind != CVQ_T_VISION_QKV;
}

static cvq_status read_all(cvq_importance *out, const cvq_safetensors *file,
                           const cvq_model_config *config, cvq_error *err) {
    size_t found = 0;
    for (size_t i = 0; i < out->count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(config, i, &spec);
        if (spec.role != CVQ_ROLE_MATRIX) continue;
        const cvq_st_tensor *sum = find(file, spec.name, ".sum_sq");
        const cvq_st_tensor *tokens = find(file, spec.name, ".count");
        if (!sum && !tokens) continue;
        if (!sum || !tokens)
            return cvq_fail(err, CVQ_FORMAT, spec.name, "has only one of .sum_sq and .count");
        CVQ_TRY(read_mean(&out->tensors[i], &spec, sum, tokens, err));
        if (!heeded(&spec)) {
            free(out->tensors[i].mean);
            out->tensors[i].mean = NULL;
        }
        found += 2;
    }
    return found == cvq_safetensors_count(file) ? CVQ_OK : name_stranger(file, config, err);
}

cvq_status cvq_importance_open(cvq_importance **out, const char *path,
                               const cvq_model_config *config, cvq_error *err) {
    cvq_safetensors *file = NULL;
    cvq_error problem = {0};
    if (cvq_safetensors_open(&file, path, &problem) != CVQ_OK)
        return cvq_fail_advising(err, path, &problem, ADVICE);
    const size_t count = cvq_model_tensor_count(config);
    void *memory = NULL, *tensors = NULL;
    cvq_importance *imp = NULL;
    cvq_status status = cvq_alloc(&memory, 1, sizeof *imp, path, err);
    if (status != CVQ_OK) goto done;
    imp = memory;
    status = cvq_alloc(&tensors, count, sizeof *imp->tensors, path, err);
    if (status != CVQ_OK) goto done;
    imp->count = count;
    imp->tensors = tensors;
    status = read_all(imp, file, config, &problem);
    if (status != CVQ_OK) status = cvq_fail_advising(err, path, &problem, ADVICE);
    if (status == CVQ_OK) status = cvq_calibration_hash(file, imp->hash, err);
done:
    cvq_safetensors_close(file);
    if (status == CVQ_OK)
        *out = imp;
    else
        cvq_importance_free(imp);
    return status;
}

const uint8_t *cvq_importance_hash(const cvq_importance *i) {
    return i->hash;
}

void cvq_importance_free(cvq_importance *i) {
    if (!i) return;
    for (size_t t = 0; t < i->count; t++) free(i->tensors[t].mean);
    free(i->tensors);
    free(i);
}

const float *cvq_importance_of(const cvq_importance *i, size_t tensor) {
    return tensor < i->count ? i->tensors[tensor].mean : NULL;
}

bool cvq_importance_has(const cvq_importance *i, size_t tensor, uint64_t *tokens) {
    if (tensor >= i->count || !i->tensors[tensor].found) return false;
    *tokens = i->tensors[tensor].tokens;
    return true;
}
