/* A model that goes through the same texts and questions as another one, the reference, whose
 * predictions and hidden states stand in a spool: what it predicts is compared token by token, what
 * it holds inside place by place. */
#ifndef CVQ_CLI_COMPARED_MODEL_H
#define CVQ_CLI_COMPARED_MODEL_H

#include "bench/divergence.h"
#include "bench/state_error.h"
#include "cli/scored_text.h"
#include "cli/tap_spool.h"

typedef struct cvq_compared {
    cvq_run_args args; /* the command's, with this model for its operand */
    char *operand;
    cvq_run run;
    cvq_scored_text text;
    cvq_tap_spool *spool;
    bool reference;        /* fills the spool; else compares with it */
    uint64_t tokens;       /* that were scored: a row of logits each */
    cvq_divergence sum[2]; /* of texts, of answers */
    int kind;              /* of the running piece: a place in sum */
    size_t image_slots;    /* of the running piece */
    cvq_state_errors states;
    float *logits, *rows; /* of the reference, read back */
    size_t rows_size;
    cvq_error error; /* of the observer, which cannot return one */
} cvq_compared;

enum { CVQ_COMPARED_TEXT, CVQ_COMPARED_ANSWERS };

/* Opens the model and reads the data. precision: 0 for the model's default. Prints what is wrong
 * and gives the exit code; close it either way. *c stays where it is until then. */
int cvq_compared_open(cvq_compared *c, const cvq_run_args *args, char *path, int precision,
                      const char *data, size_t window, cvq_tap_spool *spool, bool reference);
/* Hidden states too, from now on. */
cvq_status cvq_compared_observe(cvq_compared *c, cvq_error *err);
/* Piece i of c->text. The reference goes first, and pieces in order. */
cvq_status cvq_compared_piece(cvq_compared *c, size_t i, cvq_error *err);
void cvq_compared_close(cvq_compared *c);

#endif
