/* What the file of second moments tells the solver. */
#ifndef CVQ_QUANT_FEEDBACK_INTERNAL_H
#define CVQ_QUANT_FEEDBACK_INTERNAL_H

#include "quant/feedback.h"

typedef struct cvq_moment_view {
    uint64_t tokens;
    bool few;                   /* fewer than cvq_feedback_enough */
    const uint8_t *sums;        /* F32 [cols], or NULL: there are none */
    const uint8_t *correlation; /* F16, triangles */
} cvq_moment_view;
cvq_moment_view cvq_second_moments_file_view(const cvq_second_moments_file *f, size_t tensor);
/* For messages; borrowed. */
const char *cvq_second_moments_file_path(const cvq_second_moments_file *f);

#endif
