/* Which half-made files are kept: all that a run with --resume found, and else those that took some
 * time and ended by a signal or for want of space; a failure that would come again keeps nothing.
 */
#include "cli/model_output.h"

#include "cli/messages.h"

#define WORTH_SECONDS 2.0

cvq_status cvq_model_output_open(cvq_model_output *m, const cvq_common *common, const char *path,
                                 bool resume, const char *const *inputs, size_t num_inputs,
                                 const char *label, cvq_quantize_options *options, cvq_error *err) {
    m->common = common;
    m->resume = resume;
    CVQ_TRY(
        cvq_output_open_resumable(&m->out, path, common->force, resume, inputs, num_inputs, err));
    m->leftover = m->out.leftover;
    if (m->leftover && !resume)
        cvq_say_note(common,
                     "%s: started over; what an interrupted run had left of it was removed "
                     "(--resume would have used it)",
                     path);
    cvq_progress_init(&m->progress, common);
    cvq_progress_begin(&m->progress, label, "bytes");
    options->threads = common->threads;
    options->progress = cvq_progress_bytes;
    options->progress_context = &m->progress;
    return CVQ_OK;
}

cvq_convert_target cvq_model_output_target(const cvq_model_output *m) {
    return (cvq_convert_target){
        .fd = m->out.fd, .journal = m->out.journal, .resume = m->resume, .where = m->out.path};
}

static bool worth_keeping(const cvq_model_output *m, cvq_status status,
                          const cvq_convert_result *result, double seconds) {
    if (m->resume && m->leftover) return true;
    return (status == CVQ_CANCELLED || status == CVQ_IO) && result->noted_bytes > 0 &&
           seconds >= WORTH_SECONDS;
}

cvq_status cvq_model_output_close(cvq_model_output *m, cvq_status status,
                                  const cvq_convert_result *result, const char *done,
                                  cvq_error *err) {
    const double seconds = cvq_progress_clock() - m->progress.started;
    char amount[32];
    cvq_progress_erase();
    if (status == CVQ_OK) {
        cvq_say_more(m->common, "%s in %.2f s with %d threads; %s of the source were done before",
                     done, seconds, m->common->threads,
                     cvq_human_bytes(result->resumed_bytes, amount));
        return cvq_output_commit(&m->out, err);
    }
    if (!m->out.temp) return status;
    if (!worth_keeping(m, status, result, seconds)) {
        cvq_output_discard(&m->out);
        return status;
    }
    cvq_say_note(m->common,
                 "%s stays, with %s of the source done: the same command with --resume goes on; if "
                 "that is not wanted, remove it and its .journal",
                 m->out.temp, cvq_human_bytes(result->noted_bytes, amount));
    cvq_output_keep(&m->out);
    return status;
}
