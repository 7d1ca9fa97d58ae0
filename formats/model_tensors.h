/* The tensors of a CogVLM2: names, shapes and order of need, all from the config. The order is that
 * of the file, so a tensor's place in this list is its number everywhere (1,221 of them in the real
 * model). */
#ifndef CVQ_FORMATS_MODEL_TENSORS_H
#define CVQ_FORMATS_MODEL_TENSORS_H

#include "formats/model_config.h"

/* Parts in order of need: decode needs the first two only. Each can be asked for and dropped alone,
 * layer by layer. */
typedef enum cvq_part {
    CVQ_PART_LANGUAGE, /* language expert, norms and inv_freq, by layer */
    CVQ_PART_HEAD,     /* final norm, lm_head */
    CVQ_PART_EMBEDDING,
    CVQ_PART_VISION,    /* vision expert, by layer */
    CVQ_PART_ADAPTER,   /* conv, GLU, boi, eoi */
    CVQ_PART_VIT_PATCH, /* patch, cls and position embedding */
    CVQ_PART_VIT,       /* by layer */
    CVQ_PARTS
} cvq_part;

typedef enum cvq_role {
    CVQ_ROLE_MATRIX,  /* y = W x: panels of 16 rows */
    CVQ_ROLE_TABLE,   /* single rows are read: panels of 1 row */
    CVQ_ROLE_VECTOR,  /* norms, biases, boi, eoi, cls: f32, one row */
    CVQ_ROLE_INV_FREQ /* f32, or bf16 as stored in the checkpoint: its type decides the rotary
                         tables */
} cvq_role;

typedef enum cvq_tensor_kind {
    /* CVQ_PART_LANGUAGE, layer by layer */
    CVQ_T_INPUT_NORM,
    CVQ_T_INV_FREQ,
    CVQ_T_LANGUAGE_QKV,
    CVQ_T_LANGUAGE_DENSE,
    CVQ_T_POST_NORM,
    CVQ_T_LANGUAGE_GATE,
    CVQ_T_LANGUAGE_UP,
    CVQ_T_LANGUAGE_DOWN,
    /* CVQ_PART_HEAD */
    CVQ_T_FINAL_NORM,
    CVQ_T_LM_HEAD,
    /* CVQ_PART_EMBEDDING */
    CVQ_T_EMBED_TOKENS,
    /* CVQ_PART_VISION, layer by layer */
    CVQ_T_VISION_QKV,
    CVQ_T_VISION_QKV_BIAS,
    CVQ_T_VISION_DENSE,
    CVQ_T_VISION_GATE,
    CVQ_T_VISION_UP,
    CVQ_T_VISION_DOWN,
    /* CVQ_PART_ADAPTER */
    CVQ_T_CONV,
    CVQ_T_CONV_BIAS,
    CVQ_T_ADAPTER_PROJ,
    CVQ_T_ADAPTER_NORM,
    CVQ_T_ADAPTER_NORM_BIAS,
    CVQ_T_ADAPTER_GATE,
    CVQ_T_ADAPTER_UP,   /* dense_h_to_4h */
    CVQ_T_ADAPTER_DOWN, /* dense_4h_to_h */
    CVQ_T_BOI,
    CVQ_T_EOI,
    /* CVQ_PART_VIT_PATCH */
    CVQ_T_PATCH_PROJ,
    CVQ_T_PATCH_BIAS,
    CVQ_T_CLS,
    CVQ_T_POSITION,
    /* CVQ_PART_VIT, layer by layer */
    CVQ_T_VIT_QKV,
    CVQ_T_VIT_QKV_BIAS,
    CVQ_T_VIT_DENSE,
    CVQ_T_VIT_DENSE_BIAS,
    CVQ_T_VIT_INPUT_NORM,
    CVQ_T_VIT_INPUT_NORM_BIAS,
    CVQ_T_VIT_FC1,
    CVQ_T_VIT_FC1_BIAS,
    CVQ_T_VIT_FC2,
    CVQ_T_VIT_FC2_BIAS,
    CVQ_T_VIT_POST_NORM,
    CVQ_T_VIT_POST_NORM_BIAS,
    CVQ_TENSOR_KINDS
} cvq_tensor_kind;

#define CVQ_MAX_TENSOR_NAME 104 /* with its NUL */
#define CVQ_MAX_DIMS 4

typedef struct cvq_tensor_spec {
    char name[CVQ_MAX_TENSOR_NAME]; /* the Hugging Face name */
    cvq_tensor_kind kind;
    cvq_part part;
    cvq_role role;
    uint32_t layer; /* 0 where the part has no layers */
    uint32_t ndim;
    uint64_t dims[CVQ_MAX_DIMS]; /* as in the checkpoint, unused ones 1 */
    uint64_t rows, cols; /* as a matrix: dims[0] x the product of the rest; vectors are 1 x n */
} cvq_tensor_spec;

/* c must have passed cvq_model_config_check. */
size_t cvq_model_tensor_count(const cvq_model_config *c);
/* i < count. */
void cvq_model_tensor_spec(const cvq_model_config *c, size_t i, cvq_tensor_spec *spec);
/* The number of a tensor; layer is ignored where the part has no layers. */
size_t cvq_model_tensor_index(const cvq_model_config *c, cvq_tensor_kind kind, uint32_t layer);
/* Tensors [*first, *first + *count) of a part's layer (of the whole part where it has no layers).
 */
void cvq_model_part_range(const cvq_model_config *c, cvq_part part, uint32_t layer, size_t *first,
                          size_t *count);

#endif
