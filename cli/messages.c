/* Errors, notes and the few formats that commands share. */
#include "cli/messages.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/interrupt.h"
#include "cli/progress.h"

#define MAX_LINE 2048

/* The bytes of the control character that text begins with: 0 where it is none, 2 for one of C1 in
 * UTF-8. */
static size_t control_bytes(const char *text, size_t length) {
    const unsigned char c = (unsigned char)text[0];
    if (c < 0x20 || c == 0x7f) return 1;
    return c == 0xc2 && length > 1 && ((unsigned char)text[1] & 0xe0) == 0x80 ? 2 : 0;
}

static void print_plain(const char *text, size_t length, const char *kept) {
    for (size_t i = 0; i < length;) {
        const size_t control = control_bytes(text + i, length - i);
        putchar(control && !memchr(kept, text[i], strlen(kept)) ? '?' : text[i]);
        i += control ? control : 1;
    }
}

void cvq_print_plain(const char *text) {
    print_plain(text, strlen(text), "");
}

void cvq_print_plain_lines(const char *text, size_t length) {
    print_plain(text, length, "\n\t");
}

/* Control characters become '?' (a file's name may hold any, and a message quotes from files), so
 * that it stays one line and cannot drive a terminal. */
static void print_line(const char *command, char *text) {
    char *to = text;
    for (const char *p = text, *end = text + strlen(text); p < end;) {
        const size_t control = control_bytes(p, (size_t)(end - p));
        *to++ = control ? '?' : *p;
        p += control ? control : 1;
    }
    *to = '\0';
    cvq_progress_erase();
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", command, text);
}

int cvq_say_error(const cvq_command *command, const cvq_error *err) {
    if (cvq_interrupted() && err->code == CVQ_CANCELLED) return CVQ_EXIT_INTERRUPTED;
    char line[MAX_LINE];
    const char *message = err->message[0] ? err->message : cvq_status_name(err->code);
    snprintf(line, sizeof line, "%s%s%s", err->where, err->where[0] ? ": " : "", message);
    print_line(command->name, line);
    return CVQ_EXIT_FAILED;
}

int cvq_say_usage(const cvq_command *command, const char *format, ...) {
    char line[MAX_LINE];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (n < 0 || (size_t)n > sizeof line - 64) n = (int)sizeof line - 64;
    snprintf(line + n, sizeof line - (size_t)n, "; see %s --help", command->name);
    print_line(command->name, line);
    return CVQ_EXIT_USAGE;
}

int cvq_say_wrong_value(const cvq_command *command, const char *option, const char *value,
                        const cvq_error *err) {
    if (err->code != CVQ_INVALID_ARGUMENT) return cvq_say_error(command, err);
    return cvq_say_usage(command, "--%s '%s': %s", option, value, err->message);
}

static void say_line(const cvq_common *common, const char *format, va_list list) {
    char line[MAX_LINE] = "note: ";
    vsnprintf(line + 6, sizeof line - 6, format, list);
    print_line(common->command->name, line);
}

void cvq_say_note(const cvq_common *common, const char *format, ...) {
    va_list list;
    va_start(list, format);
    if (!common->quiet) say_line(common, format, list);
    va_end(list);
}

void cvq_say_more(const cvq_common *common, const char *format, ...) {
    va_list list;
    va_start(list, format);
    if (common->verbose) say_line(common, format, list);
    va_end(list);
}

int cvq_finish_stdout(const cvq_command *command, int exit_code) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return exit_code;
    char line[MAX_LINE];
    snprintf(line, sizeof line, "standard output: cannot write: %s",
             errno ? strerror(errno) : "an earlier part of it was lost; is its disk full?");
    print_line(command->name, line);
    return exit_code == CVQ_EXIT_DONE ? CVQ_EXIT_FAILED : exit_code;
}

void cvq_say_written(FILE *to, const char *path, const uint8_t id[32]) {
    char hex[65], human[32], exact[32], size[80] = "";
    struct stat st;
    if (stat(path, &st) == 0)
        snprintf(size, sizeof size, "%s (%s bytes), ", cvq_human_bytes((uint64_t)st.st_size, human),
                 cvq_with_commas((uint64_t)st.st_size, exact));
    cvq_hex_id(id, hex);
    fprintf(to, "%s: %sid %s\n", path, size, hex);
}

const char *cvq_with_commas(uint64_t n, char *out) {
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    char *to = out;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

const char *cvq_human_bytes(uint64_t n, char *out) {
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    if (n < 1000) {
        snprintf(out, 32, "%u bytes", (unsigned)n);
        return out;
    }
    double v = (double)n / 1000;
    size_t unit = 0;
    for (; v >= 999.95 && unit < 3; unit++) v /= 1000;
    snprintf(out, 32, "%.1f %s", v, units[unit]);
    return out;
}

void cvq_hex_id(const uint8_t id[32], char out[65]) {
    for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", id[i]);
}
