/* Manual pages and completion. */
#include "cli/manual.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cvq.h"

/* ---------------------------------------------------------------- manual page */

/* Text for troff: backslashes and hyphens as such, and no line that begins with a control
 * character. */
static void print_text(const char *text) {
    bool line_start = true;
    for (const char *p = text; *p; p++) {
        if (line_start && (*p == '.' || *p == '\'')) fputs("\\&", stdout);
        line_start = *p == '\n';
        if (*p == '\n')
            fputs("\n.PP\n", stdout);
        else if (*p == '\\')
            fputs("\\e", stdout);
        else if (*p == '-')
            fputs("\\-", stdout);
        else
            putchar(*p);
    }
    putchar('\n');
}

static void print_options(const cvq_option *options, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const cvq_option *o = &options[i];
        puts(".TP");
        fputs(".B ", stdout);
        if (o->letter) printf("\\-%c, ", o->letter);
        printf("\\-\\-");
        for (const char *p = o->name; *p; p++) printf(*p == '-' ? "\\-" : "%c", *p);
        if (o->value) printf(" \\fI%s\\fR", o->value);
        putchar('\n');
        print_text(o->help);
    }
}

void cvq_manual_print(const cvq_command *command, const cvq_option *common, size_t num_common) {
    char upper[32];
    size_t n = 0;
    for (; command->name[n] && n + 1 < sizeof upper; n++)
        upper[n] = (char)toupper((unsigned char)command->name[n]);
    upper[n] = '\0';
    printf(".TH %s 1 \"\" \"cvq %s\" \"User Commands\"\n", upper, CVQ_VERSION_STRING);
    printf(".SH NAME\n%s \\- ", command->name);
    /* "Say what is in it." -> "say what is in it", as whatis(1) shows it */
    const char *rest = command->summary + 1;
    const size_t length = strlen(rest);
    printf("%c%.*s\n", tolower((unsigned char)command->summary[0]),
           (int)(length > 0 && rest[length - 1] == '.' ? length - 1 : length), rest);
    printf(".SH SYNOPSIS\n.B %s\n[\\fIoption\\fR]...\n", command->name);
    print_text(command->operands);
    puts(".SH DESCRIPTION");
    print_text(command->summary);
    if (command->notes) {
        puts(".PP");
        print_text(command->notes);
    }
    if (command->num_options > 0) puts(".SH OPTIONS");
    print_options(command->options, command->num_options);
    puts(".SH OPTIONS OF ALL COMMANDS");
    print_options(common, num_common);
    puts(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage, 130 interrupted.");
    puts(".SH ENVIRONMENT\n.TP\n.B CVQ_CPU\nThe instruction set to use, as\n.BR \\-\\-cpu .");
    puts(".TP\n.B XDG_CACHE_HOME\nWhere what was computed of pictures is kept, in a folder "
         "\\fIcvq\\fR; without it, \\fI~/.cache\\fR.");
    puts(".SH SEE ALSO");
    static const char *const all[] = {"calibrate",  "convert",  "eval", "info", "pack",
                                      "perplexity", "quantize", "run",  "bench"};
    const char *join = "";
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(command->name + strlen("cvq-"), all[i]) == 0) continue;
        printf("%s.BR cvq\\-%s (1)", join, all[i]);
        join = ",\n";
    }
    putchar('\n');
}

/* ---------------------------------------------------------------- completion */

static void print_words(const char *const *words) {
    for (size_t i = 0; words[i]; i++) printf("%s%s", i ? " " : "", words[i]);
}

/* What follows an option: one of its choices, a file, or nothing that could be guessed. */
static void print_value_cases(const cvq_option *options, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const cvq_option *o = &options[i];
        if (!o->value) continue;
        printf("    --%s", o->name);
        if (o->letter) printf("|-%c", o->letter);
        if (o->choices) {
            fputs(") COMPREPLY=($(compgen -W \"", stdout);
            print_words(o->choices);
            puts("\" -- \"$cur\")); return ;;");
        } else if (o->kind == CVQ_OPTION_TEXT || o->kind == CVQ_OPTION_LIST) {
            puts(") return ;;");
        } else {
            puts(") compopt +o default; return ;;");
        }
    }
}

static void print_names(const cvq_option *options, size_t n) {
    for (size_t i = 0; i < n; i++) {
        printf("--%s ", options[i].name);
        if (options[i].letter) printf("-%c ", options[i].letter);
    }
}

void cvq_completion_print(const cvq_command *command, const cvq_option *common, size_t num_common) {
    char function[32];
    snprintf(function, sizeof function, "_%s", command->name);
    for (char *p = function; *p; p++)
        if (*p == '-') *p = '_';
    printf("# bash completion for %s; made from its table of options\n", command->name);
    printf("%s() {\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n",
           function);
    puts("    COMPREPLY=()\n    case $prev in");
    print_value_cases(command->options, command->num_options);
    print_value_cases(common, num_common);
    fputs("    esac\n    [[ $cur == -* ]] && COMPREPLY=($(compgen -W \"", stdout);
    print_names(command->options, command->num_options);
    print_names(common, num_common);
    printf("\" -- \"$cur\"))\n}\ncomplete -o default -F %s %s\n", function, command->name);
}
