/* Checkpoints for tests: the tensors of any config as a list that a test may spoil, written with
 * made-up values or as sparse files of the right size. */
#ifndef CVQ_TESTS_FAKE_CHECKPOINT_H
#define CVQ_TESTS_FAKE_CHECKPOINT_H

#include <fcntl.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/memory.h"
#include "formats/model_tensors.h"
#include "formats/safetensors.h"
#include "tests/unit/temp_folder.h"

/* As small as the bounds allow, and no size a multiple of a panel or a block. */
static const cvq_model_config fake_config = {
    .hidden_size = 24,
    .num_layers = 2,
    .num_heads = 2,
    .num_kv_heads = 1,
    .intermediate_size = 40,
    .vocab_size = 300,
    .max_positions = 64,
    .rms_norm_eps = 1e-5f,
    .bos_id = 256,
    .pad_id = 258,
    .num_eos = 1,
    .eos_ids = {257},
    .vit_hidden_size = 20,
    .vit_num_layers = 1,
    .vit_num_heads = 2,
    .vit_intermediate_size = 36,
    .image_size = 56,
    .patch_size = 14,
    .in_channels = 3,
    .vit_num_positions = 17,
    .vit_layer_norm_eps = 1e-6f,
};

typedef struct fake_list {
    size_t count;
    cvq_st_tensor *tensors; /* [count], with room for 2 more */
    cvq_tensor_spec *specs; /* their names */
} fake_list;

static inline void fake_list_free(fake_list *l) {
    free(l->tensors);
    free(l->specs);
}

static inline fake_list fake_list_make(const cvq_model_config *config, cvq_st_dtype dtype) {
    fake_list l = {.count = cvq_model_tensor_count(config)};
    l.tensors = calloc(l.count + 2, sizeof *l.tensors);
    l.specs = calloc(l.count, sizeof *l.specs);
    if (!l.tensors || !l.specs) abort();
    for (size_t i = 0; i < l.count; i++) {
        cvq_model_tensor_spec(config, i, &l.specs[i]);
        l.tensors[i].name = l.specs[i].name;
        l.tensors[i].dtype = dtype;
        l.tensors[i].ndim = l.specs[i].ndim;
        memcpy(l.tensors[i].dims, l.specs[i].dims, sizeof l.specs[i].dims);
    }
    return l;
}

static inline cvq_st_tensor *fake_find(fake_list *l, const char *name) {
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->tensors[i].name, name) == 0) return &l->tensors[i];
    }
    printf("no tensor %s\n", name);
    abort();
}

static inline void fake_remove(fake_list *l, const char *name) {
    cvq_st_tensor *t = fake_find(l, name);
    *t = l->tensors[--l->count];
}

static inline void fake_add(fake_list *l, const char *name, cvq_st_dtype dtype) {
    l->tensors[l->count++] = (cvq_st_tensor){.name = name, .dtype = dtype, .ndim = 1, .dims = {4}};
}

/* Element i of a tensor: between -2 and 2, with more bits than bf16 or f16 can hold, the same
 * whatever list the tensor is in. */
static inline float fake_value(const char *name, uint64_t i) {
    uint32_t h = 2166136261u;
    bool inv_freq = strstr(name, "inv_freq") != NULL;
    for (const char *c = inv_freq ? "inv_freq" : name; *c; c++) h = (h ^ (uint8_t)*c) * 16777619u;
    h = (h ^ (uint32_t)i) * 2654435761u;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return (float)(h >> 8) * 0x1p-22f - 2.0f;
}

static inline uint64_t fake_elements(const cvq_st_tensor *t) {
    uint64_t n = 1;
    for (uint32_t d = 0; d < t->ndim; d++) n *= t->dims[d];
    return n;
}

static inline void fake_append_values(cvq_st_writer *w, const cvq_st_tensor *t) {
    cvq_buffer b = {0};
    unsigned size = (unsigned)cvq_st_dtype_size(t->dtype);
    for (uint64_t i = 0; i < fake_elements(t); i++) {
        float v = fake_value(t->name, i);
        uint64_t bits = t->dtype == CVQ_ST_F32    ? cvq_f32_bits(v)
                        : t->dtype == CVQ_ST_BF16 ? cvq_f32_to_bf16(v)
                        : t->dtype == CVQ_ST_F16  ? cvq_f32_to_f16(v)
                                                  : 0;
        cvq_buffer_append_le(&b, bits, size, NULL);
    }
    if (cvq_st_writer_append(w, b.data, b.size, NULL) != CVQ_OK) abort();
    cvq_buffer_free(&b);
}

/* Tensors as one file of the temporary folder. sparse: the bytes are a hole. */
static inline void fake_write(const char *name, const cvq_st_tensor *tensors, size_t count,
                              bool sparse) {
    int fd = open(temp_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    cvq_st_writer *w = NULL;
    cvq_error err = {0};
    if (cvq_st_writer_open(&w, fd, tensors, count, name, &err) != CVQ_OK) {
        printf("%s: %s\n", name, err.message);
        exit(1);
    }
    for (size_t i = 0; i < count; i++) {
        const uint64_t bytes = fake_elements(&tensors[i]) * cvq_st_dtype_size(tensors[i].dtype);
        if (!sparse) {
            fake_append_values(w, &tensors[i]);
        } else if (cvq_st_writer_skip(w, bytes, &err) != CVQ_OK) {
            printf("%s: a sparse tensor of %llu bytes: %s\n", name, (unsigned long long)bytes,
                   err.message);
            exit(1);
        }
    }
    if (cvq_st_writer_finish(w, NULL) != CVQ_OK) abort();
    close(fd);
}

#endif
