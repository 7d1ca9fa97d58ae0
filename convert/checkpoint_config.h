/* config.json and generation_config.json of a Hugging Face checkpoint: defaults for absent keys,
 * refusal by name of what the code does not do. */
#ifndef CVQ_CONVERT_CHECKPOINT_CONFIG_H
#define CVQ_CONVERT_CHECKPOINT_CONFIG_H

#include "formats/model_config.h"

typedef struct cvq_generation_defaults {
    double temperature, top_p; /* negative if the file does not say */
} cvq_generation_defaults;

/* dir/config.json. Every known key is read or checked, every unknown key that is not on the list of
 * harmless ones is CVQ_UNSUPPORTED by name. */
cvq_status cvq_checkpoint_config_read(cvq_model_config *config, const char *dir, cvq_error *err);
/* dir/generation_config.json; absent is fine. Its eos ids are added to the config's where they are
 * missing there. */
cvq_status cvq_generation_config_read(cvq_generation_defaults *defaults, cvq_model_config *config,
                                      const char *dir, cvq_error *err);

#endif
