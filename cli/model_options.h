/* Options that several commands share, as rows for their own tables: how a model is run, and how it
 * is asked. `at` is the offset of the option's member in the command's arguments. */
#ifndef CVQ_CLI_MODEL_OPTIONS_H
#define CVQ_CLI_MODEL_OPTIONS_H

#include "cli/options.h"

/* In the order of cvq_prompt_kind, cvq_rope, cvq_kv_type and cvq_precision: the value of a choice,
 * 0 where not given, is one of the last three, and one more than a cvq_prompt_kind. */
extern const char *const cvq_template_names[],
    *const cvq_rope_names[], *const cvq_kv_names[], *const cvq_precision_names[],
                                                        *const cvq_verify_names[];
/* What --verify chooses; 0: not given. */
enum { CVQ_VERIFY_AUTO = 1, CVQ_VERIFY_ALWAYS, CVQ_VERIFY_NEVER };

#define CVQ_OPTION_TEMPLATE(at)                                                                    \
    {                                                                                              \
        .name = "template", .kind = CVQ_OPTION_CHOICE, .offset = (at), .value = "NAME",            \
        .choices = cvq_template_names,                                                             \
        .help =                                                                                    \
            "what the question is put into: chat (whole sentences), vqa (short answers) or base "  \
            "(the text as it is); default: the model's own, chat for the released ones"            \
    }
#define CVQ_OPTION_MAX_TOKENS(at)                                                                  \
    {                                                                                              \
        .name = "max-tokens", .kind = CVQ_OPTION_COUNT, .offset = (at), .value = "N",              \
        .max = 1u << 30, .help = "stop an answer after N tokens (default 2048)"                    \
    }
#define CVQ_OPTION_ROPE(at)                                                                        \
    {                                                                                              \
        .name = "rope", .kind = CVQ_OPTION_CHOICE, .offset = (at), .value = "TYPE",                \
        .choices = cvq_rope_names,                                                                 \
        .help = "rotary tables: bf16 or f32; default: as the checkpoint stores them, bf16 in the " \
                "released ones"                                                                    \
    }
#define CVQ_OPTION_CONTEXT(at)                                                                     \
    {                                                                                              \
        .name = "context", .kind = CVQ_OPTION_COUNT, .offset = (at), .value = "N", .min = 1,       \
        .max = UINT32_MAX,                                                                         \
        .help = "sequence slots for prompt and answer (default: the model's limit)"                \
    }
/* Of commands that read plain texts in windows: of how many tokens; `standard` says the default. */
#define CVQ_OPTION_WINDOW(at, standard)                                                            \
    {                                                                                              \
        .name = "context", .kind = CVQ_OPTION_COUNT, .offset = (at), .value = "N", .min = 1,       \
        .max = UINT32_MAX - 1, .help = "cut plain texts into windows of N tokens (" standard ")"   \
    }
#define CVQ_OPTION_KV(at)                                                                          \
    {                                                                                              \
        .name = "kv", .kind = CVQ_OPTION_CHOICE, .offset = (at), .value = "TYPE",                  \
        .choices = cvq_kv_names,                                                                   \
        .help =                                                                                    \
            "how keys and values are kept: f32, f16 or q8; default f32 with --precision exact, "   \
            "else f16"                                                                             \
    }
#define CVQ_OPTION_PRECISION(at)                                                                   \
    {                                                                                              \
        .name = "precision", .kind = CVQ_OPTION_CHOICE, .offset = (at), .value = "P",              \
        .choices = cvq_precision_names,                                                            \
        .help =                                                                                    \
            "exact (float32 arithmetic) or fast (8-bit activations); default exact for 16-bit "    \
            "files, fast for quantized ones"                                                       \
    }
#define CVQ_OPTION_VERIFY(at)                                                                      \
    {                                                                                              \
        .name = "verify", .kind = CVQ_OPTION_CHOICE, .offset = (at), .value = "WHEN",              \
        .choices = cvq_verify_names,                                                               \
        .help = "hash weights before they are used for the first time: auto (default; what was "   \
                "found right is remembered in the cache folder while the file stays the same), "   \
                "always (in every run) or never"                                                   \
    }
#define CVQ_OPTION_NO_EXIF(at)                                                                     \
    {                                                                                              \
        .name = "no-exif", .kind = CVQ_OPTION_FLAG, .offset = (at),                                \
        .help = "do not turn a JPEG as its EXIF data says"                                         \
    }

#endif
