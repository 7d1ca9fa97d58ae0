/* Pictures that were asked about before, kept as files from one run to the next: a second question
 * starts in the time that its text takes. docs/cache.md tells where, for how long, and what the
 * files are. Nothing here is an error for whoever asks: what cannot be found is computed, what
 * cannot be kept is computed again, and --verbose says why. */
#ifndef CVQ_CLI_PICTURE_CACHE_H
#define CVQ_CLI_PICTURE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/options.h"
#include "cvq.h"

/* {0}: no cache; nothing is found and nothing kept. */
typedef struct cvq_picture_cache {
    const cvq_common *common;
    char *folder; /* need not be there yet */
    uint64_t capacity;
    bool failed; /* a file could not be written: not tried again */
} cvq_picture_cache;

/* In $XDG_CACHE_HOME/cvq or ~/.cache/cvq, for files of so many bytes together. */
void cvq_picture_cache_open(cvq_picture_cache *c, const cvq_common *common, uint64_t capacity);
void cvq_picture_cache_close(cvq_picture_cache *c);
/* Puts the same picture with all that this session would compute of it in the place of *image, if
 * there is a file of it. */
void cvq_picture_cache_find(const cvq_picture_cache *c, const cvq_model *model,
                            const cvq_session *session, cvq_image **image);
/* After the session was asked about the picture (NULL: none): writes its file, if there is none,
 * and removes those that were not used for the longest time until all fit. */
void cvq_picture_cache_keep(cvq_picture_cache *c, const cvq_session *session,
                            const cvq_image *image);

#endif
