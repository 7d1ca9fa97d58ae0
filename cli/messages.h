/* What commands say to people: one-line errors and notes on stderr, and the check that stdout took
 * everything. */
#ifndef CVQ_CLI_MESSAGES_H
#define CVQ_CLI_MESSAGES_H

#include <stdio.h>

#include "cli/options.h"

/* "cvq-run: WHERE: MESSAGE", always a single line. Nothing is printed where the user stopped the
 * work. Returns the exit code: CVQ_EXIT_INTERRUPTED or CVQ_EXIT_FAILED. */
int cvq_say_error(const cvq_command *command, const cvq_error *err);
/* A line that names wrong usage and points at --help. Returns CVQ_EXIT_USAGE. */
int cvq_say_usage(const cvq_command *command, const char *format, ...) CVQ_PRINTF(2, 3);
/* Why an option's value was refused: wrong usage, unless the cause is another (no memory). Returns
 * the exit code. */
int cvq_say_wrong_value(const cvq_command *command, const char *option, const char *value,
                        const cvq_error *err);
/* "cvq-run: note: ...", unless the user asked for quiet. */
void cvq_say_note(const cvq_common *common, const char *format, ...) CVQ_PRINTF(2, 3);

/* The same, only with --verbose. */
void cvq_say_more(const cvq_common *common, const char *format, ...) CVQ_PRINTF(2, 3);

/* Flush stdout; what did not reach it (a full disk) turns exit code 0 into 1 with a message. */
int cvq_finish_stdout(const cvq_command *command, int exit_code);

/* "OUT.cvq: 13.4 GB (13,412,345,678 bytes), id 9f86...": what a finished file is. */
void cvq_say_written(FILE *to, const char *path, const uint8_t id[32]);

/* Text that a stranger wrote, to stdout: each control character becomes '?', so that it cannot
 * drive a terminal, nor look like a line of ours. print_plain_lines: but for tabs and ends of
 * lines. */
void cvq_print_plain(const char *text);
void cvq_print_plain_lines(const char *text, size_t length);

/* "1,221" in out, which holds 32 bytes. */
const char *cvq_with_commas(uint64_t n, char *out);
/* "13.4 GB", "1.2 MB", "312 bytes": decimal units, out of 32 bytes. */
const char *cvq_human_bytes(uint64_t n, char *out);
/* 64 hex digits and a NUL. */
void cvq_hex_id(const uint8_t id[32], char out[65]);

#endif
