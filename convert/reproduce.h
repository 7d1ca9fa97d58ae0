/* Whether a file is what it claims: the checkpoint that its manifest names is converted again by
 * the manifest's recipe, writing nothing, and every MiB compared with the manifest's hashes. */
#ifndef CVQ_CONVERT_REPRODUCE_H
#define CVQ_CONVERT_REPRODUCE_H

#include "convert/convert.h"

/* CVQ_OK: the conversion gives exactly that file, and all that the manifest says of it holds but
 * for its name and "quality", which is not looked at. CVQ_MISMATCH names the first thing that
 * differs: a source file, a calibration file (options->quantize must have those that the manifest
 * names), a tensor with its bytes, or the head. revision and card of the options are the
 * manifest's; `where` names what is checked. */
cvq_status cvq_reproduce(const cvq_checkpoint *c, const cvq_manifest *m,
                         const cvq_convert_options *options, const char *where,
                         cvq_convert_result *result, cvq_error *err);

/* ---- for convert/write_model.c, at each stage of a file that must become what a manifest says */

/* Tensors by name, type, size and place, the head's size, licences, and the source's files by all
 * that is known of them already. */
cvq_status cvq_expect_plan(const cvq_manifest *m, const cvq_writer *w, const cvq_metadata *metadata,
                           const char *where, cvq_error *err);
cvq_status cvq_expect_tensor(const cvq_manifest *m, const cvq_writer *w, size_t tensor,
                             const char *where, cvq_error *err);
/* After cvq_writer_finish, which gives the id; the metadata are complete. */
cvq_status cvq_expect_head(const cvq_manifest *m, const cvq_writer *w,
                           const uint8_t id[CVQ_ID_BYTES], const cvq_metadata *metadata,
                           const char *where, cvq_error *err);

#endif
