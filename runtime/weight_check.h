/* Whether the weights are those that were written. A chunk of the file is hashed before its bytes
 * are used for the first time, and its scales must be finite; what is known to be right is not
 * looked at again, and can be kept from one run to the next by whoever has a place for it. One for
 * a model, shared by its sessions. */
#ifndef CVQ_RUNTIME_WEIGHT_CHECK_H
#define CVQ_RUNTIME_WEIGHT_CHECK_H

#include <stdatomic.h>

#include "formats/cvq_reader.h"

typedef struct cvq_weight_check cvq_weight_check;

cvq_status cvq_weight_check_open(cvq_weight_check **out, const cvq_reader *reader, cvq_error *err);
void cvq_weight_check_close(cvq_weight_check *w);

/* Before anything of tensors first .. first + count - 1 is used. Chunks are shared out over
 * threads. CVQ_MISMATCH names the tensor and the bytes that are damaged, CVQ_FORMAT a tensor with a
 * scale that is infinite or not a number, CVQ_CANCELLED says that `stop` became nonzero, which is
 * looked at between two chunks. w and stop may be NULL. */
cvq_status cvq_weight_check_tensors(cvq_weight_check *w, size_t first, size_t count, int threads,
                                    const atomic_int *stop, cvq_error *err);
/* Before `size` bytes of a tensor, from `at` on, are used: their chunks alone. */
cvq_status cvq_weight_check_bytes(cvq_weight_check *w, size_t tensor, uint64_t at, uint64_t size,
                                  const atomic_int *stop, cvq_error *err);

/* A bit for each chunk of the file that is known to be right, in cvq_weight_check_size bytes. */
size_t cvq_weight_check_size(const cvq_weight_check *w);
void cvq_weight_check_save(cvq_weight_check *w, uint8_t *bits);
/* Adds what was saved of the very same file. */
void cvq_weight_check_load(cvq_weight_check *w, const uint8_t *bits);

#endif
