/* The values of shared options. */
#include "cli/model_options.h"

const char *const cvq_template_names[] = {"chat", "vqa", "base", NULL};
const char *const cvq_rope_names[] = {"bf16", "f32", NULL};
const char *const cvq_kv_names[] = {"f32", "f16", "q8", NULL};
const char *const cvq_precision_names[] = {"exact", "fast", NULL};
const char *const cvq_verify_names[] = {"auto", "always", "never", NULL};
