/* A manifest from a file, or from the .cvq file that it would describe. */
#ifndef CVQ_CLI_MANIFEST_FILE_H
#define CVQ_CLI_MANIFEST_FILE_H

#include "cli/options.h"
#include "formats/manifest.h"

/* Of a .cvq file every byte is verified first. */
cvq_status cvq_manifest_open(cvq_manifest *m, const char *path, const cvq_common *common,
                             cvq_error *err);

#endif
