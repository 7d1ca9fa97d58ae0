/* The file's tensors as the model's parts: every matrix bound with its shape, type and bias once,
 * when the model is opened. A layer then reads like the paper. All pointers go into the mapped
 * file. */
#ifndef CVQ_RUNTIME_WEIGHTS_H
#define CVQ_RUNTIME_WEIGHTS_H

#include "formats/cvq_reader.h"
#include "runtime/linear.h"
#include "runtime/rotary.h"

typedef struct cvq_norm {
    const float *weight, *bias; /* [n]; bias NULL for RMSNorm */
    float eps;
} cvq_norm;

/* One of the two experts of a decoder layer. */
typedef struct cvq_expert {
    cvq_matrix qkv;      /* [6144, 4096]: q, k, v */
    cvq_matrix dense;    /* [4096, 4096] */
    cvq_matrix gate, up; /* [14336, 4096] */
    cvq_matrix down;     /* [4096, 14336] */
} cvq_expert;

typedef struct cvq_decoder_layer {
    cvq_norm input_norm, post_norm;
    cvq_expert language, vision;
} cvq_decoder_layer;

typedef struct cvq_vit_layer {
    cvq_matrix qkv;   /* [5376, 1792] */
    cvq_matrix dense; /* [1792, 1792] */
    cvq_norm input_norm, post_norm;
    cvq_matrix fc1; /* [15360, 1792] */
    cvq_matrix fc2; /* [1792, 15360] */
} cvq_vit_layer;

/* Rows of a table are decoded one at a time. */
typedef struct cvq_table {
    const cvq_tensor *tensor;
    const uint8_t *data;
} cvq_table;

typedef struct cvq_weights {
    const cvq_model_config *config;
    cvq_decoder_layer *layers; /* [num_layers] */
    cvq_norm final_norm;
    cvq_matrix lm_head;        /* [128256, 4096] */
    cvq_table embed_tokens;    /* [128256, 4096] */
    cvq_matrix patch_proj;     /* [1792, 3 x 14 x 14] */
    const float *cls;          /* [1792] */
    cvq_table position;        /* [9217, 1792] */
    cvq_vit_layer *vit_layers; /* [vit_num_layers] */
    cvq_matrix conv;           /* [1792, 1792 x 2 x 2] */
    cvq_matrix adapter_proj;   /* [4096, 1792] */
    cvq_norm adapter_norm;     /* [4096], LayerNorm */
    cvq_matrix adapter_gate, adapter_up, adapter_down;
    const float *boi, *eoi; /* [4096] */
    float *inv_freq;        /* [head_dim / 2], as stored */
    bool inv_freq_bf16;
    bool quantized; /* any matrix has fewer than 16 bits */
} cvq_weights;

cvq_status cvq_weights_open(cvq_weights *w, const cvq_reader *reader, cvq_error *err);
void cvq_weights_close(cvq_weights *w);
/* out[cols] of one row; row < rows. scratch: room for the padded columns. */
void cvq_table_row(const cvq_table *t, size_t row, float *scratch, float *out);

#endif
