/* A Hugging Face checkpoint to a .cvq file of any recipe: the whole of cvq-convert but its command
 * line. */
#ifndef CVQ_CONVERT_CONVERT_H
#define CVQ_CONVERT_CONVERT_H

#include "convert/tensor_map.h"
#include "quant/recipe.h"

typedef struct cvq_convert_options {
    const char *revision;  /* of the source, or NULL */
    const char *card_path; /* a text file, or NULL */
    cvq_quantize_options quantize;
} cvq_convert_options;

/* An opened checkpoint: config, tensors mapped to the model, nothing read but headers. */
typedef struct cvq_checkpoint cvq_checkpoint;
cvq_status cvq_checkpoint_open(cvq_checkpoint **out, const char *dir, cvq_error *err);
void cvq_checkpoint_close(cvq_checkpoint *c);
const cvq_model_config *cvq_checkpoint_config(const cvq_checkpoint *c);
const cvq_tensor_map *cvq_checkpoint_tensors(const cvq_checkpoint *c);

/* The plan as TSV, a line a tensor: name, shape, source_type, type, bytes; from headers alone (no
 * tokenizer needed). */
cvq_status cvq_convert_dry_run(cvq_buffer *out, const cvq_checkpoint *c, const cvq_recipe *recipe,
                               cvq_error *err);

/* Writes to fd (empty, open for reading and writing); where names the output. *licenses tells how
 * many licence texts went in. */
cvq_status cvq_convert(const cvq_checkpoint *c, const cvq_recipe *recipe,
                       const cvq_convert_options *options, int fd, const char *where,
                       size_t *licenses, uint8_t id[32], cvq_error *err);

/* The second step: a .cvq of recipe bf16 to another recipe; gives the bytes that cvq_convert gives
 * in one step. Refuses a source that is quantized already. Lives here because it carries the
 * provenance through. */
cvq_status cvq_requantize(const cvq_reader *in, const cvq_recipe *recipe,
                          const cvq_convert_options *options, int fd, const char *where,
                          uint8_t id[32], cvq_error *err);
/* The exact size of the file that it would write, and its plan as cvq_convert_dry_run prints it. */
cvq_status cvq_requantized_size(const cvq_reader *in, const cvq_recipe *recipe, uint64_t *bytes,
                                cvq_error *err);
cvq_status cvq_requantize_dry_run(cvq_buffer *out, const cvq_reader *in, const cvq_recipe *recipe,
                                  cvq_error *err);

#endif
