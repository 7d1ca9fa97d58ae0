/* A manifest from a file, or from the .cvq file that it would describe. */
#ifndef CVQ_CLI_MANIFEST_FILE_H
#define CVQ_CLI_MANIFEST_FILE_H

#include "cli/options.h"
#include "formats/manifest.h"

/* The text of a manifest, ended by a NUL that does not count; *model: it is a .cvq file instead,
 * and there is no text. It is told before it is found to be too large for one. */
cvq_status cvq_manifest_text(cvq_buffer *text, bool *model, const char *path, cvq_error *err);
/* Of a .cvq file every byte is verified first. */
cvq_status cvq_manifest_open(cvq_manifest *m, const char *path, const cvq_common *common,
                             cvq_error *err);

#endif
