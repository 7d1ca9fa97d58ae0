#include "cli/manifest_file.h"

#include <string.h>

#include "base/file_map.h"
#include "cli/progress.h"

static cvq_status of_model(cvq_manifest *m, const char *path, const cvq_common *common,
                           cvq_error *err) {
    cvq_reader *r = NULL;
    cvq_buffer text = {0};
    cvq_progress progress;
    CVQ_TRY(cvq_reader_open(&r, path, err));
    cvq_progress_init(&progress, common);
    cvq_progress_begin(&progress, "verifying", "bytes");
    cvq_status status =
        cvq_reader_verify(r, common->threads, NULL, cvq_progress_bytes, &progress, err);
    cvq_progress_erase();
    if (status == CVQ_OK) status = cvq_manifest_print(r, NULL, &text, err);
    if (status == CVQ_OK)
        status = cvq_manifest_parse(m, (const char *)text.data, text.size, path, err);
    cvq_buffer_free(&text);
    cvq_reader_close(r);
    return status;
}

cvq_status cvq_manifest_text(cvq_buffer *text, bool *model, const char *path, cvq_error *err) {
    cvq_file_map file = {.fd = -1};
    CVQ_TRY(cvq_file_map_open(&file, path, err));
    *model = cvq_is_model_file(file.data, file.size);
    const cvq_status status =
        *model ? CVQ_OK : cvq_file_map_read(text, &file, CVQ_MAX_MANIFEST, path, err);
    cvq_file_map_close(&file);
    return status;
}

cvq_status cvq_manifest_open(cvq_manifest *m, const char *path, const cvq_common *common,
                             cvq_error *err) {
    cvq_buffer text = {0};
    bool model = false;
    CVQ_TRY(cvq_manifest_text(&text, &model, path, err));
    if (model) return of_model(m, path, common, err);
    const cvq_status status = cvq_manifest_parse(m, (const char *)text.data, text.size, path, err);
    cvq_buffer_free(&text);
    return status;
}
