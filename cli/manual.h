/* A command's manual page and its completion for bash, both from the table of options that parsing
 * and --help use. Printed for whoever installs cvq (make install), by options that the help does
 * not mention: --print-manual and --print-completion. */
#ifndef CVQ_CLI_MANUAL_H
#define CVQ_CLI_MANUAL_H

#include "cli/options.h"

/* common: the options of all commands. In man(7) macros, to stdout. */
void cvq_manual_print(const cvq_command *command, const cvq_option *common, size_t num_common);
void cvq_completion_print(const cvq_command *command, const cvq_option *common, size_t num_common);

#endif
