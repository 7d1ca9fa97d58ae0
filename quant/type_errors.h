/* What each type would cost each matrix: the share of its output that rounding changes, measured on
 * a sample of its rows with the search that would be used. */
#ifndef CVQ_QUANT_TYPE_ERRORS_H
#define CVQ_QUANT_TYPE_ERRORS_H

#include "quant/quantize.h"

/* The types that are weighed against each other, smallest first; bf16 is the last and costs
 * nothing. */
enum { CVQ_CHOICES = 5 };
extern const cvq_type cvq_choice_types[CVQ_CHOICES];

/* sum h (w' - w)^2 / sum h w^2, h the importance of the column: what of the output's square is
 * wrong, if inputs do not depend on each other. */
typedef struct cvq_type_errors {
    double error[CVQ_CHOICES];
} cvq_type_errors;

/* Whether a tensor has a choice: matrices and tables, but for the patch and position embeddings,
 * which stay 16-bit. */
bool cvq_has_choice(const cvq_tensor_spec *spec);

/* sum h (a - b)^2 over [rows][cols]; b NULL: zeros, else of row length ld; importance NULL: 1. */
double cvq_weighted_square(const float *a, const float *b, const float *importance, size_t rows,
                           size_t cols, size_t ld);

/* sum h (w' - w)^2 over the rows of a panel, as t's type and codebook have it; rows and count as
 * for cvq_panel_quantize. */
cvq_status cvq_panel_error(const cvq_tensor *t, const float *rows, size_t count,
                           const float *importance, double *error, cvq_error *err);

/* out [tensor count], zeros where there is no choice. options: threads, importance and progress
 * (in weights) are heeded. The same numbers with any number of threads. */
cvq_status cvq_type_errors_measure(cvq_type_errors *out, const cvq_model_config *config,
                                   const cvq_row_source *source,
                                   const cvq_quantize_options *options, cvq_error *err);

#endif
