/* Command lines: one table of options per command gives parsing, checks, `--help` and the synopsis.
 * The options that every command has stand in one shared table, whose values are the first member
 * of each command's own struct of arguments. */
#ifndef CVQ_CLI_OPTIONS_H
#define CVQ_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Exit codes of all commands. */
enum { CVQ_EXIT_DONE = 0, CVQ_EXIT_FAILED = 1, CVQ_EXIT_USAGE = 2, CVQ_EXIT_INTERRUPTED = 130 };

/* The type of the member that an option fills. */
typedef enum cvq_option_kind {
    CVQ_OPTION_FLAG,  /* bool, set to true */
    CVQ_OPTION_TEXT,  /* const char *, borrowed from argv */
    CVQ_OPTION_LIST,  /* cvq_text_list, one entry each time the option is given */
    CVQ_OPTION_COUNT, /* uint64_t between min and max */
    CVQ_OPTION_SIZE,  /* uint64_t of bytes between min and max: "2G", "1.5Gi", "700000" */
    CVQ_OPTION_REAL,  /* double between low and high */
    CVQ_OPTION_CHOICE /* int: the place in `choices`, plus 1; 0 = not given */
} cvq_option_kind;

#define CVQ_MAX_LIST 256
typedef struct cvq_text_list {
    const char *items[CVQ_MAX_LIST];
    size_t count;
} cvq_text_list;

typedef struct cvq_option {
    const char *name; /* without the dashes */
    char letter;      /* the short form, or 0 */
    cvq_option_kind kind;
    size_t offset;              /* of its member in the command's arguments */
    const char *value;          /* what the help calls the value; NULL for a flag */
    const char *help;           /* a sentence or two, wrapped when printed */
    uint64_t min, max;          /* CVQ_OPTION_COUNT, CVQ_OPTION_SIZE */
    double low, high;           /* CVQ_OPTION_REAL */
    const char *const *choices; /* CVQ_OPTION_CHOICE, and completion; ends with NULL */
} cvq_option;

typedef struct cvq_command {
    const char *name;     /* "cvq-convert" */
    const char *summary;  /* what it does, for the help */
    const char *operands; /* as the synopsis shows them: "IN.cvq OUT.cvq" */
    int min_operands, max_operands;
    const cvq_option *options;
    size_t num_options;
    const char
        *notes; /* after the options, or NULL: paragraphs of up to 1,000 bytes, a '\n' between */
} cvq_command;

/* First member of every command's arguments. */
typedef struct cvq_common {
    const cvq_command *command;
    bool help, version, quiet, verbose, force, progress, no_progress;
    uint64_t thread_count; /* as given; 0 = not given */
    const char *cpu;
    int threads;     /* to use: at least 1 */
    char **operands; /* what is not an option, in order */
    int num_operands;
} cvq_common;

/* Fills args (whose first member is a cvq_common; the caller has set the defaults), prints help or
 * version where asked for, chooses the instruction set and makes the process ready for Ctrl-C.
 * False: leave with *exit_code, which is else
 * CVQ_EXIT_DONE. */
bool cvq_options_parse(const cvq_command *command, int argc, char **argv, void *args,
                       int *exit_code);
/* The help text on stdout. */
void cvq_options_help(const cvq_command *command);

#endif
