/* Which tensor of the checkpoint becomes which tensor of the file. */
#ifndef CVQ_CONVERT_TENSOR_MAP_H
#define CVQ_CONVERT_TENSOR_MAP_H

#include "formats/block_types.h"
#include "formats/model_tensors.h"
#include "formats/safetensors.h"

typedef struct cvq_tensor_map cvq_tensor_map;

/* Finds every tensor of the model; a missing, unexpected or wrongly shaped or typed one is
 * CVQ_FORMAT and named (all bitsandbytes names - .absmax, .quant_state, ... - say which checkpoint
 * to use instead). Checks that inv_freq is the same in every layer. Borrows both arguments. */
cvq_status cvq_tensor_map_open(cvq_tensor_map **out, const cvq_safetensors *checkpoint,
                               const cvq_model_config *config, cvq_error *err);
void cvq_tensor_map_free(cvq_tensor_map *m);
/* The checkpoint's tensor for number i of the model. */
const cvq_st_tensor *cvq_tensor_map_source(const cvq_tensor_map *m, size_t i);
/* CVQ_TYPE_F32 or CVQ_TYPE_BF16. */
cvq_type cvq_tensor_map_inv_freq_type(const cvq_tensor_map *m);

#endif
