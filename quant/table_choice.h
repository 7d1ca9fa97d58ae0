/* Which table q4s gets: each tensor one of a few, the one that loses least on a sample of its rows
 * with the search that will be used. */
#ifndef CVQ_QUANT_TABLE_CHOICE_H
#define CVQ_QUANT_TABLE_CHOICE_H

#include "quant/quantize.h"

/* For weights that are nearly normal, and for heavier tails: docs/quantization.md. */
enum { CVQ_Q4S_TABLES = 2 };
extern const cvq_codebook cvq_q4s_tables[CVQ_Q4S_TABLES];

/* codebooks [tensor count]: of q4s chosen, of q4t the default, else zero. Of options threads,
 * importance and progress are heeded. The same with any number of threads. Rows are read out of
 * order, and before the source has checked them: values that are not finite say nothing here. */
cvq_status cvq_tables_choose(cvq_codebook *codebooks, const cvq_model_config *config,
                             const cvq_type *types, const cvq_row_source *source,
                             const cvq_quantize_options *options, cvq_error *err);
/* For one tensor, as q4s. */
cvq_status cvq_table_choose(cvq_codebook *codebook, const cvq_model_config *config, size_t index,
                            const cvq_row_source *source, const cvq_quantize_options *options,
                            cvq_error *err);

#endif
