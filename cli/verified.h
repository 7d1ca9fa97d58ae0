/* Which chunks of a model's file were found right, remembered from one run to the next in the cache
 * folder, so that each is hashed once and not again while the file stays what it is: the record is
 * bound to device, inode, size, times and id. What cannot be remembered is verified again; nothing
 * here is an error. */
#ifndef CVQ_CLI_VERIFIED_H
#define CVQ_CLI_VERIFIED_H

#include "cli/options.h"
#include "cvq.h"

typedef struct cvq_verified {
    const cvq_common *common;
    char *path;    /* of the record; NULL: nothing is remembered */
    uint8_t *bits; /* as loaded, to see whether there is anything new */
    size_t size;
} cvq_verified;

/* Of a model that was opened with verify_weights from the file `path`: trusts what the record says.
 * Start with {0}. */
void cvq_verified_load(cvq_verified *v, const cvq_common *common, cvq_model *model,
                       const char *path);
/* Before the model is closed: writes the record if something was added. */
void cvq_verified_keep(cvq_verified *v, const cvq_model *model);

#endif
