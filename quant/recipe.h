/* Which type each tensor gets: named recipes, and rules on top of them. */
#ifndef CVQ_QUANT_RECIPE_H
#define CVQ_QUANT_RECIPE_H

#include "formats/block_types.h"
#include "formats/metadata.h"
#include "formats/model_tensors.h"

typedef struct cvq_recipe cvq_recipe;

/* "bf16", "q8", "q4", "q4-small"; CVQ_INVALID_ARGUMENT otherwise, listing the names. */
cvq_status cvq_recipe_open(cvq_recipe **out, const char *name, cvq_error *err);
/* A recipe of this name that gives a model these types, [cvq_model_tensor_count]: a rule for all
 * layers' matrices of a kind, and then one for each that differs. */
cvq_status cvq_recipe_of_types(cvq_recipe **out, const char *name, const cvq_model_config *config,
                               const cvq_type *types, cvq_error *err);
/* The recipe that a file's metadata tell, where each pattern stands once. More than 65,536 rules
 * are CVQ_UNSUPPORTED. */
cvq_status cvq_recipe_of_rules(cvq_recipe **out, const char *name, const cvq_type_rule *rules,
                               size_t count, const char *where, cvq_error *err);
void cvq_recipe_free(cvq_recipe *r);
/* "GLOB=TYPE" as given to --type; the last match wins. CVQ_INVALID_ARGUMENT for a bad type or no
 * '='. The recipe's name becomes "custom". */
cvq_status cvq_recipe_add_rule(cvq_recipe *r, const char *rule, cvq_error *err);
/* Types of all tensors of a model, [cvq_model_tensor_count]. inv_freq_type: F32 or BF16, as the
 * source has it (the only tensor whose type no recipe chooses). A rule of --type that matches
 * nothing, or gives a type that its tensor cannot have, is CVQ_INVALID_ARGUMENT. */
cvq_status cvq_recipe_types(const cvq_recipe *r, const cvq_model_config *config,
                            cvq_type inv_freq_type, cvq_type *types, cvq_error *err);
const char *cvq_recipe_name(const cvq_recipe *r);
/* For the metadata: the rules after expansion, borrowed. */
const cvq_type_rule *cvq_recipe_rules(const cvq_recipe *r, size_t *count);
/* Shell-style: '*' any run, '?' any one character, [abc], everything else itself. */
bool cvq_glob_match(const char *pattern, const char *name);

#endif
