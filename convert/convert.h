/* A Hugging Face checkpoint to a .cvq file of any recipe: the whole of cvq-convert but its command
 * line. */
#ifndef CVQ_CONVERT_CONVERT_H
#define CVQ_CONVERT_CONVERT_H

#include "convert/tensor_map.h"
#include "formats/manifest.h"
#include "quant/quantize.h"
#include "quant/recipe.h"

typedef struct cvq_convert_options {
    const char *revision;          /* of the source, or NULL */
    const char *card;              /* the model card's text, or NULL */
    bool report;                   /* measure what quantization changed */
    cvq_quantize_options quantize; /* of it threads, importance and progress */
} cvq_convert_options;

/* Where the file goes. */
typedef struct cvq_convert_target {
    /* Open for reading and writing; what is in it is written over, unless resumed. Or
     * CVQ_WRITE_NOTHING. */
    int fd;
    /* Open for reading and writing, or -1. It says what is complete, so that an interrupted
     * conversion can go on; the caller removes it when the file is finished. */
    int journal;
    bool resume;                  /* go on where the journal ends */
    const char *where;            /* names the output */
    const cvq_manifest *expected; /* or NULL: what it must become, see convert/reproduce.h */
} cvq_convert_target;

/* Start with {0}. */
typedef struct cvq_convert_result {
    uint8_t id[CVQ_ID_BYTES];
    size_t licenses;        /* licence texts that went in; cvq_convert only */
    cvq_buffer report;      /* a table, see cvq_quant_report; release with cvq_buffer_free */
    uint64_t resumed_bytes; /* of the source, that an earlier run had done */
    uint64_t noted_bytes;   /* of the source, that a run to come need not do again; set on failure,
                               too */
} cvq_convert_result;

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

/* Reads every byte of the checkpoint once, in the order of its files (those that an interrupted run
 * had begun, again up to where it stopped). */
cvq_status cvq_convert(const cvq_checkpoint *c, const cvq_recipe *recipe,
                       const cvq_convert_options *options, const cvq_convert_target *target,
                       cvq_convert_result *result, cvq_error *err);

/* The second step: a .cvq of recipe bf16 to another recipe; gives the bytes that cvq_convert gives
 * in one step. Refuses a source that is quantized already. Lives here because it carries the
 * provenance through. */
cvq_status cvq_requantize(const cvq_reader *in, const cvq_recipe *recipe,
                          const cvq_convert_options *options, const cvq_convert_target *target,
                          cvq_convert_result *result, cvq_error *err);
/* The exact size of the file that it would write, and its plan as cvq_convert_dry_run prints it. */
cvq_status cvq_requantized_size(const cvq_reader *in, const cvq_recipe *recipe,
                                const cvq_convert_options *options, uint64_t *bytes,
                                cvq_error *err);
cvq_status cvq_requantize_dry_run(cvq_buffer *out, const cvq_reader *in, const cvq_recipe *recipe,
                                  cvq_error *err);

#endif
