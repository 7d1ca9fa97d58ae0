/* Error feedback: what quantizing a column loses is made good by the columns that follow it, as far
 * as their inputs go together (GPTQ, LDLQ). Minimises tr(E C E^T) for C, the second moments of the
 * inputs as cvq-calibrate --second-moments wrote them, instead of its diagonal.
 *
 * With C + damping = L D L^T, L unit lower triangular, the sum is that of D_k (e_k + sum over j > k
 * of e_j L_jk)^2: so columns are taken from the last to the first, and each is quantized as w_k +
 * sum e_j L_jk. Blocks of 32 columns stay together, the least important first in L; a block's scale
 * is searched with what stands in it when its turn comes, weighed by D. The bytes stay in place. */
#ifndef CVQ_QUANT_FEEDBACK_H
#define CVQ_QUANT_FEEDBACK_H

#include "formats/chunk_hash.h"
#include "formats/cvq_layout.h"
#include "formats/model_tensors.h"

#define CVQ_FEEDBACK_COLS 32 /* of a block */

typedef struct cvq_second_moments_file cvq_second_moments_file;
/* Every tensor in the file must belong to the model; its values are checked when they are used. All
 * of the file is read, for its hash. path is borrowed until it is closed. */
cvq_status cvq_second_moments_file_open(cvq_second_moments_file **out, const char *path,
                                        const cvq_model_config *config, cvq_error *err);
void cvq_second_moments_file_close(cvq_second_moments_file *f);
/* Whether the file has moments for this tensor, and of how many tokens. */
bool cvq_second_moments_file_has(const cvq_second_moments_file *f, size_t tensor, uint64_t *tokens);
/* SHA-256 of the file. */
const uint8_t *cvq_second_moments_file_hash(const cvq_second_moments_file *f);

/* L and D of one matrix. Start with {0}. */
typedef struct cvq_feedback {
    size_t cols, block; /* block: of columns with a triangle of their own */
    uint32_t *order; /* [cols / 32]: per triangle, the block of 32 at each place, from its first */
    float *lower;    /* triangles, row by row, the diagonal (1) included; rows and columns in
                        `order` */
    float *weight;   /* [cols] D, in the order of the file */
    float *diagonal; /* [cols] mean squares */
    const uint8_t *source; /* the moments it was made of: up_proj takes over gate_proj's */
} cvq_feedback;

/* *f may hold another matrix's, which is released. False in *usable: the type has no blocks of 32,
 * the columns are no multiple of 32, the file has nothing for the tensor or saw fewer than
 * cvq_feedback_enough tokens. CVQ_FORMAT: values that are no second moments. */
cvq_status cvq_feedback_open(cvq_feedback *f, const cvq_second_moments_file *file,
                             const cvq_tensor *t, size_t tensor, int threads, bool *usable,
                             cvq_error *err);
void cvq_feedback_close(cvq_feedback *f);
/* Below this many tokens the moments say too little: half the hidden size, 2,048 for the released
 * models. */
uint64_t cvq_feedback_enough(const cvq_model_config *config);

/* Bytes of scratch memory for a panel. */
size_t cvq_feedback_scratch(const cvq_tensor *t);
/* As cvq_panel_quantize. */
void cvq_feedback_panel(const cvq_feedback *f, const cvq_tensor *t, const float *rows, size_t count,
                        void *memory, uint8_t *panel);

#endif
