/* Rows of a source as f32, all of a tensor or from a panel's start on. */
#ifndef CVQ_TESTS_READ_ROWS_H
#define CVQ_TESTS_READ_ROWS_H

#include <stdlib.h>

#include "quant/quantize.h"

static inline cvq_status read_rows(const cvq_row_source *s, size_t tensor, uint64_t first,
                                   uint64_t count, float *out, cvq_error *err) {
    const size_t size = s->size(s->context, tensor, count);
    uint8_t *raw = malloc(size);
    if (!raw) abort();
    if (s->will_need) s->will_need(s->context, tensor, first, count);
    cvq_status status = s->read(s->context, tensor, first, count, raw, err);
    if (status == CVQ_OK && s->check) status = s->check(s->context, tensor, first, count, raw, err);
    if (status == CVQ_OK) status = s->decode(s->context, tensor, count, raw, out, err);
    free(raw);
    return status;
}

#endif
