/* Parsing and printing of the option tables, and what the shared options mean. */
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "cli/interrupt.h"
#include "cli/manual.h"
#include "cli/messages.h"
#include "cvq.h"

#define HELP_INDENT 28
#define HELP_WIDTH 80

/* For completion; base/cpu.h knows which of them this machine has. */
static const char *const levels[] = {"scalar", "avx2",    "avxvnni", "avx512", "avx512bf16",
                                     "neon",   "dotprod", "i8mm",    NULL};

#define COMMON(member) offsetof(cvq_common, member)
static const cvq_option common_options[] = {
    {.name = "threads",
     .kind = CVQ_OPTION_COUNT,
     .offset = COMMON(thread_count),
     .value = "N",
     .min = 1,
     .max = CVQ_MAX_THREADS,
     .help = "use N threads (default: the physical cores that this process may use)"},
    {.name = "cpu",
     .kind = CVQ_OPTION_TEXT,
     .offset = COMMON(cpu),
     .value = "LEVEL",
     .choices = levels,
     .help = "use this instruction set instead of the best one: scalar, avx2, avxvnni, avx512, "
             "avx512bf16, neon, dotprod or i8mm; the environment variable CVQ_CPU does the same"},
    {.name = "force",
     .kind = CVQ_OPTION_FLAG,
     .offset = COMMON(force),
     .help = "replace an output file that exists"},
    {.name = "progress",
     .kind = CVQ_OPTION_FLAG,
     .offset = COMMON(progress),
     .help = "show progress also where stderr is not a terminal"},
    {.name = "no-progress",
     .kind = CVQ_OPTION_FLAG,
     .offset = COMMON(no_progress),
     .help = "show no progress"},
    {.name = "quiet",
     .letter = 'q',
     .kind = CVQ_OPTION_FLAG,
     .offset = COMMON(quiet),
     .help = "no notes, no progress, no closing summary"},
    {.name = "verbose",
     .letter = 'v',
     .kind = CVQ_OPTION_FLAG,
     .offset = COMMON(verbose),
     .help = "say more on stderr about what is done and how long it took"},
    {.name = "help",
     .letter = 'h',
     .kind = CVQ_OPTION_FLAG,
     .offset = COMMON(help),
     .help = "print this help"},
    {.name = "version",
     .kind = CVQ_OPTION_FLAG,
     .offset = COMMON(version),
     .help = "print the version"},
};
#define NUM_COMMON (sizeof common_options / sizeof *common_options)

/* ---------------------------------------------------------------- help */

/* Prints text from column `at` on, wrapped at HELP_WIDTH, further lines indented by `indent`. */
static void print_wrapped(const char *text, int at, int indent) {
    int column = at;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (column > indent && column + 1 + word > HELP_WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", word, text);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

/* Paragraphs, each on a line of its own in the text. */
static void print_notes(const char *notes) {
    while (notes && *notes) {
        int length = (int)strcspn(notes, "\n");
        char paragraph[1024];
        snprintf(paragraph, sizeof paragraph, "%.*s", length, notes);
        putchar('\n');
        print_wrapped(paragraph, 0, 0);
        notes += length;
        if (*notes) notes++;
    }
}

static void print_option(const cvq_option *o) {
    char head[96];
    char letter[8] = "    ";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    int n = snprintf(head, sizeof head, "  %s--%s%s%s", letter, o->name, o->value ? " " : "",
                     o->value ? o->value : "");
    fputs(head, stdout);
    if (n > HELP_INDENT - 2) {
        putchar('\n');
        n = 0;
    }
    printf("%*s", HELP_INDENT - n, "");
    print_wrapped(o->help, HELP_INDENT, HELP_INDENT);
}

void cvq_options_help(const cvq_command *command) {
    printf("usage: %s [option]... %s\n\n", command->name, command->operands);
    print_wrapped(command->summary, 0, 0);
    if (command->num_options > 0) puts("\nOptions:");
    for (size_t i = 0; i < command->num_options; i++) print_option(&command->options[i]);
    puts("\nOptions of all commands:");
    for (size_t i = 0; i < NUM_COMMON; i++) print_option(&common_options[i]);
    print_notes(command->notes);
    puts("\nExit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.");
}

/* ---------------------------------------------------------------- values */

/* Decimal digits only: no sign, no white space, no overflow. */
static bool parse_count(const char *text, uint64_t *out) {
    uint64_t v = 0;
    if (!*text) return false;
    for (; *text; text++) {
        unsigned digit = (unsigned)(unsigned char)*text - '0';
        if (digit > 9 || v > (UINT64_MAX - digit) / 10) return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

/* A decimal number: no white space, no "inf", no "nan", no hexadecimal. */
static bool parse_real(const char *text, double *out) {
    if (!*text || text[strspn(text, "0123456789.eE+-")] != '\0') return false;
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (*end != '\0' || end == text || (errno == ERANGE && (v > 1 || v < -1))) return false;
    *out = v;
    return true;
}

/* Bytes, with K, M, G or T (powers of 1000), or Ki, Mi, Gi, Ti (of 1024); a fraction before these.
 */
static bool parse_size(const char *text, uint64_t *out) {
    static const char units[] = "KMGT";
    char number[32];
    double v, unit = 1;
    const size_t digits = strspn(text, "0123456789.");
    if (digits == 0 || digits >= sizeof number) return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    const char *rest = text + digits, *letter = *rest ? strchr(units, *rest) : NULL;
    if (*rest && !letter) return false;
    const bool binary = letter && rest[1] == 'i';
    if (letter && rest[binary ? 2 : 1] != '\0') return false;
    for (const char *p = units; letter && p <= letter; p++) unit *= binary ? 1024 : 1000;
    if (!parse_real(number, &v) || !(v * unit < 0x1p63)) return false;
    *out = (uint64_t)(v * unit);
    return true;
}

static void list_choices(const char *const *choices, char *out, size_t size) {
    size_t n = 0;
    for (size_t i = 0; choices[i] && n < size; i++) {
        const char *join = i == 0 ? "" : choices[i + 1] ? ", " : " or ";
        n += (size_t)snprintf(out + n, size - n, "%s%s", join, choices[i]);
    }
}

/* Each returns true or has printed why not. */
static bool store_count(const cvq_command *c, const cvq_option *o, const char *text, void *member) {
    uint64_t v;
    if (!parse_count(text, &v) || v < o->min || v > o->max) {
        cvq_say_usage(c, "--%s %s: must be a whole number from %llu to %llu", o->name, text,
                      (unsigned long long)o->min, (unsigned long long)o->max);
        return false;
    }
    memcpy(member, &v, sizeof v);
    return true;
}

static bool store_size(const cvq_command *c, const cvq_option *o, const char *text, void *member) {
    uint64_t v;
    if (!parse_size(text, &v) || v < o->min || v > o->max) {
        cvq_say_usage(c, "--%s %s: must be a size of at least %llu bytes, as 700M, 2G or 1.5Gi",
                      o->name, text, (unsigned long long)o->min);
        return false;
    }
    memcpy(member, &v, sizeof v);
    return true;
}

static bool store_real(const cvq_command *c, const cvq_option *o, const char *text, void *member) {
    double v;
    if (!parse_real(text, &v) || !(v >= o->low && v <= o->high)) {
        cvq_say_usage(c, "--%s %s: must be a number from %g to %g", o->name, text, o->low, o->high);
        return false;
    }
    memcpy(member, &v, sizeof v);
    return true;
}

static bool store_choice(const cvq_command *c, const cvq_option *o, const char *text,
                         void *member) {
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], text) != 0) continue;
        int v = i + 1;
        memcpy(member, &v, sizeof v);
        return true;
    }
    char names[256];
    list_choices(o->choices, names, sizeof names);
    cvq_say_usage(c, "--%s %s: must be %s", o->name, text, names);
    return false;
}

static bool store_item(const cvq_command *c, const cvq_option *o, const char *text, void *member) {
    cvq_text_list *list = member;
    if (list->count == CVQ_MAX_LIST) {
        cvq_say_usage(c, "--%s was given more than %d times", o->name, CVQ_MAX_LIST);
        return false;
    }
    list->items[list->count++] = text;
    return true;
}

/* text is NULL for a flag. */
static bool store(const cvq_command *c, const cvq_option *o, const char *text, void *args) {
    void *member = (char *)args + o->offset;
    switch (o->kind) {
    case CVQ_OPTION_FLAG:
        *(bool *)member = true;
        return true;
    case CVQ_OPTION_TEXT:
        memcpy(member, &text, sizeof text);
        return true;
    case CVQ_OPTION_LIST:
        return store_item(c, o, text, member);
    case CVQ_OPTION_COUNT:
        return store_count(c, o, text, member);
    case CVQ_OPTION_SIZE:
        return store_size(c, o, text, member);
    case CVQ_OPTION_REAL:
        return store_real(c, o, text, member);
    case CVQ_OPTION_CHOICE:
        return store_choice(c, o, text, member);
    }
    return false;
}

/* ---------------------------------------------------------------- parsing */

static const cvq_option *find_in(const cvq_option *table, size_t n, const char *name, size_t length,
                                 char letter) {
    for (size_t i = 0; i < n; i++) {
        const cvq_option *o = &table[i];
        if (name ? strlen(o->name) == length && memcmp(o->name, name, length) == 0
                 : o->letter && o->letter == letter)
            return o;
    }
    return NULL;
}

/* By long name, or by letter where name is NULL. */
static const cvq_option *find(const cvq_command *c, const char *name, size_t length, char letter) {
    const cvq_option *o = find_in(c->options, c->num_options, name, length, letter);
    return o ? o : find_in(common_options, NUM_COMMON, name, length, letter);
}

typedef struct parser {
    const cvq_command *command;
    int argc, at; /* argv[at] is the next argument */
    char **argv;
    void *args;
} parser;

/* The value of an option: what is attached to it, or the next argument. */
static bool store_value(parser *p, const cvq_option *o, const char *attached) {
    if (o->kind == CVQ_OPTION_FLAG) {
        if (!attached) return store(p->command, o, NULL, p->args);
        cvq_say_usage(p->command, "--%s takes no value", o->name);
        return false;
    }
    if (!attached && p->at == p->argc) {
        cvq_say_usage(p->command, "--%s needs a value (%s)", o->name, o->value);
        return false;
    }
    return store(p->command, o, attached ? attached : p->argv[p->at++], p->args);
}

static bool parse_long(parser *p, const char *text) {
    const char *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    const cvq_option *o = find(p->command, text, length, 0);
    if (!o) {
        cvq_say_usage(p->command, "unknown option --%.*s", (int)length, text);
        return false;
    }
    return store_value(p, o, equals ? equals + 1 : NULL);
}

/* "-qv": letters of flags together; a letter with a value takes the rest. */
static bool parse_letters(parser *p, const char *text) {
    for (; *text; text++) {
        const cvq_option *o = find(p->command, NULL, 0, *text);
        if (!o) {
            cvq_say_usage(p->command, "unknown option -%c", *text);
            return false;
        }
        if (o->kind != CVQ_OPTION_FLAG) return store_value(p, o, text[1] ? text + 1 : NULL);
        if (!store_value(p, o, NULL)) return false;
    }
    return true;
}

/* Options and operands in any order; operands are moved to the front of argv. */
static bool parse_all(parser *p, cvq_common *common) {
    bool only_operands = false;
    common->operands = p->argv + 1;
    while (p->at < p->argc) {
        char *text = p->argv[p->at++];
        if (!only_operands && strcmp(text, "--") == 0) {
            only_operands = true;
        } else if (only_operands || text[0] != '-' || text[1] == '\0') {
            common->operands[common->num_operands++] = text;
        } else if (!(text[1] == '-' ? parse_long(p, text + 2) : parse_letters(p, text + 1))) {
            return false;
        }
        if (common->help || common->version) return true;
    }
    return true;
}

static bool check_operands(const cvq_command *c, const cvq_common *common) {
    if (common->num_operands < c->min_operands) {
        cvq_say_usage(c, "too few arguments: needs %s", c->operands);
    } else if (common->num_operands > c->max_operands) {
        cvq_say_usage(c, "too many arguments, from '%s' on: takes %s",
                      common->operands[c->max_operands], c->operands);
    } else {
        return true;
    }
    return false;
}

/* The shared options' effects. */
static bool apply_common(const cvq_command *c, cvq_common *common) {
    if (common->quiet && common->verbose) {
        cvq_say_usage(c, "--quiet and --verbose exclude each other");
        return false;
    }
    if (common->progress && common->no_progress) {
        cvq_say_usage(c, "--progress and --no-progress exclude each other");
        return false;
    }
    common->threads = common->thread_count ? (int)common->thread_count : cvq_default_threads();
    const char *level = common->cpu ? common->cpu : getenv("CVQ_CPU");
    if (level && !common->cpu && !*level) level = NULL; /* CVQ_CPU= is the same as not set */
    cvq_error err = {0};
    if (cvq_cpu_select(level, &err) != CVQ_OK) {
        cvq_say_usage(c, "%s%s: %s", common->cpu ? "--cpu " : "CVQ_CPU=", level ? level : "",
                      err.message);
        return false;
    }
    return true;
}

/* What make install asks for, with no other argument; not in the help. */
static bool print_for_install(const cvq_command *command, int argc, char **argv) {
    if (argc != 2) return false;
    if (strcmp(argv[1], "--print-manual") == 0)
        cvq_manual_print(command, common_options, NUM_COMMON);
    else if (strcmp(argv[1], "--print-completion") == 0)
        cvq_completion_print(command, common_options, NUM_COMMON);
    else
        return false;
    return true;
}

bool cvq_options_parse(const cvq_command *command, int argc, char **argv, void *args,
                       int *exit_code) {
    cvq_common *common = args;
    if (print_for_install(command, argc, argv)) {
        *exit_code = cvq_finish_stdout(command, CVQ_EXIT_DONE);
        return false;
    }
    parser p = {.command = command, .argc = argc, .at = 1, .argv = argv, .args = args};
    common->command = command;
    *exit_code = CVQ_EXIT_USAGE;
    if (!parse_all(&p, common)) return false;
    if (common->help || common->version) {
        if (common->help)
            cvq_options_help(command);
        else
            printf("%s %s\n", command->name, CVQ_VERSION_STRING);
        *exit_code = cvq_finish_stdout(command, CVQ_EXIT_DONE);
        return false;
    }
    if (!check_operands(command, common) || !apply_common(command, common)) return false;
    cvq_interrupt_install(command->name);
    *exit_code = CVQ_EXIT_DONE;
    return true;
}
