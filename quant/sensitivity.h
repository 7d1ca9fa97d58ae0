/* How much a model's predictions suffer where one tensor's output is wrong by a given share: the
 * exchange rate between the errors of different tensors. Measured by cvq-sensitivity; the
 * built-in rates are those of the small checkpoint, by kind of matrix, the decoder's first layer
 * apart. */
#ifndef CVQ_QUANT_SENSITIVITY_H
#define CVQ_QUANT_SENSITIVITY_H

#include "base/memory.h"
#include "formats/model_tensors.h"

/* One tensor: the divergence that a relative squared error of its output brought about. */
typedef struct cvq_sensitivity {
    double error;  /* of cvq_type_errors; above 0 */
    double kld[2]; /* nats a token, of texts and of answers; negative: not measured */
    bool known;
} cvq_sensitivity;

/* The file: a line "# cvq-sensitivity 1", one with the model's id, one of headings, then a tensor a
 * line: name, type tried, error, kld_text, kld_answers ("-" where there were none), by tabs. */
cvq_status cvq_sensitivity_print_head(cvq_buffer *out, const char *model_id, cvq_error *err);
cvq_status cvq_sensitivity_print(cvq_buffer *out, const char *tensor, const char *type,
                                 const cvq_sensitivity *s, cvq_error *err);
/* Into out [tensor count], which begins as zeros. Untrusted: CVQ_FORMAT for what is no such file or
 * names what the model does not have. *whole: where the last whole line ends (a file may be
 * unfinished), or NULL: an unfinished line is CVQ_FORMAT. model_id: must be the file's
 * (CVQ_MISMATCH); NULL: any, as a file is good for every quantization of a model. */
cvq_status cvq_sensitivity_read(cvq_sensitivity *out, const cvq_model_config *config,
                                const char *path, const char *model_id, size_t *whole,
                                cvq_error *err);

/* Loss for a relative squared error of 1, for each tensor, [tensor count]: divergences of texts and
 * of answers each as shares of their sums, so that both count alike. s NULL: the built-in rates.
 * CVQ_NOT_FOUND names a tensor with a choice that s does not know. */
cvq_status cvq_loss_rates(double *rates, const cvq_model_config *config, const cvq_sensitivity *s,
                          cvq_error *err);

#endif
