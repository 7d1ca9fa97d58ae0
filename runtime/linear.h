/* y = W x + b with what follows it: a matrix as it lies in the file, bound once when the model is
 * opened. */
#ifndef CVQ_RUNTIME_LINEAR_H
#define CVQ_RUNTIME_LINEAR_H

#include "base/checked.h"
#include "runtime/engine.h"

typedef struct cvq_matrix {
    cvq_panels panels;
    size_t rows, cols; /* [rows, cols], without padding */
    const float *bias; /* [rows], or NULL */
    const char *name;  /* the Hugging Face name, for the observer */
} cvq_matrix;

/* Rows [first, first + count) of a matrix as a matrix of its own; first must be a multiple of 16.
 */
cvq_matrix cvq_matrix_rows(const cvq_matrix *w, size_t first, size_t count);

/* An input of one or several matrices: x [rows][ld] f32, and (in fast mode) its int8 form, made
 * once when the first quantized matrix needs it. Memory for the int8 form comes from the caller:
 * cvq_input_bytes(rows, cols). */
typedef struct cvq_input {
    const float *x;
    size_t ld, rows, cols;
    void *memory;
    cvq_act8 act;
    bool quantized;
    size_t place; /* of row 0 among all rows of the sequence that this matrix sees; told to the
                     observer */
} cvq_input;

size_t cvq_input_bytes(size_t rows, size_t cols);
static inline cvq_input cvq_input_of(const float *x, size_t ld, size_t rows, size_t cols,
                                     void *memory) {
    cvq_input in = {.x = x, .ld = ld, .rows = rows, .cols = cols, .memory = memory};
    return in;
}

/* Memory of a second input behind that of one. */
static inline size_t cvq_input_next(size_t rows, size_t cols) {
    return cvq_round_up(cvq_input_bytes(rows, cols), 64);
}

/* Makes the int8 form, unless it is there; cvq_linear does so by itself. */
void cvq_input_quantize(const cvq_engine *e, cvq_input *in);

/* What is done with v = W x + b:  y = v,  y = gelu(v),  y = y + v. */
typedef enum cvq_then { CVQ_THEN_STORE, CVQ_THEN_GELU, CVQ_THEN_ADD } cvq_then;

/* y [in->rows][ldy], w->rows columns of it. in->cols must be w->cols. */
void cvq_linear(const cvq_engine *e, const cvq_matrix *w, cvq_input *in, cvq_then then, float *y,
                size_t ldy);
/* The same for y [in->rows][out->ld] that matrix `reader` alone reads next, as out: out->x is y,
 * out->memory is not in->memory. Where only y's int8 form is needed it is made at once, and y not
 * written. */
void cvq_linear_chain(const cvq_engine *e, const cvq_matrix *w, cvq_input *in, cvq_then then,
                      float *y, const cvq_matrix *reader, cvq_input *out);
/* The same for y = silu(gate x) * (up x), both with their biases; the two have the same shape. */
void cvq_linear_gated(const cvq_engine *e, const cvq_matrix *gate, const cvq_matrix *up,
                      cvq_input *in, float *y, const cvq_matrix *reader, cvq_input *out);

#endif
