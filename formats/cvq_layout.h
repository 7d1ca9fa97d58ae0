/* Where things stand in a .cvq file: the constants, and the plan of a whole file from its config
 * and types. Normative text: docs/format.md. */
#ifndef CVQ_FORMATS_CVQ_LAYOUT_H
#define CVQ_FORMATS_CVQ_LAYOUT_H

#include "formats/block_types.h"
#include "formats/model_tensors.h"

#define CVQ_FILE_VERSION 1u
#define CVQ_ALIGNMENT 65536u     /* every tensor, and the data section */
#define CVQ_CHUNK_BYTES 1048576u /* hashed together; chunks start anew at each tensor */
#define CVQ_ID_BYTES 32
#define CVQ_MAX_METADATA (16u << 20) /* decompressed */
#define CVQ_MAX_TOKENIZER (64u << 20)
#define CVQ_MAX_HEAD (256u << 20)

/* Whether a file that begins like this means to be a .cvq file. */
bool cvq_is_model_file(const uint8_t *data, uint64_t size);

/* One tensor of a file: its spec with how and where it is stored. */
typedef struct cvq_tensor {
    cvq_tensor_spec spec;
    cvq_type type;
    uint32_t panel_rows;   /* 16 or 1 */
    cvq_codebook codebook; /* q4t, q4s; else zero */
    uint64_t offset;       /* from the file's start */
    uint64_t size;         /* bytes without the padding behind */
    uint64_t first_chunk;  /* its hashes in the chunk table: ceil(size / CVQ_CHUNK_BYTES) of them */
} cvq_tensor;

/* The panel height that goes with a role. */
uint32_t cvq_panel_rows_for(cvq_role role);
/* Whether a tensor of this role may have this type: vectors are f32; inv_freq f32 or bf16; tables
 * any type; matrices any but f32, which has no panels of 16 rows (their values come from bf16, so
 * f32 would add nothing). */
bool cvq_type_allowed(cvq_role role, cvq_type type);

/* Whether all scales (block types) or values (f32, bf16) of the panels that have a byte in
 * [at, at + size) of the tensor's data are finite. */
bool cvq_tensor_finite(const cvq_tensor *t, const uint8_t *data, uint64_t at, uint64_t size);

#endif
