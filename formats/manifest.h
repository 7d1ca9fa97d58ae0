/* A manifest: what a .cvq file is, as JSON to be published and signed beside it - its id, where it
 * comes from, and the SHA-256 of every part of it, so that damage can be named and mended even
 * where the file's own head is damaged, and an update can tell what is new. docs/publish.md has an
 * example.
 *
 *   {"format": "cvq-manifest", "version": 1,
 *    "file": {"name", "bytes", "id", "format_version"},
 *    "recipe": {...}, "source": {...}, "card": "...", "licenses": [{"name", "sha256"}],
 *    "quality": {...},
 *    "head": {"bytes", "sha256": [...]},
 *    "tensors": [{"name", "type", "offset", "bytes", "sha256": [...]}, ...]}
 *
 * sha256 lists one hash for each 1 MiB of the part, the last for what is left. recipe, source and
 * card are as in the file's metadata; quality, which may be absent, is whatever the publisher
 * measured.
 */
#ifndef CVQ_FORMATS_MANIFEST_H
#define CVQ_FORMATS_MANIFEST_H

#include "formats/cvq_reader.h"
#include "formats/json.h"

#define CVQ_MANIFEST_VERSION 1u
#define CVQ_MAX_MANIFEST (64u << 20) /* of JSON */

/* All borrowed from the manifest. */
typedef struct cvq_manifest_tensor {
    const char *name, *type;
    uint64_t offset, bytes;
    const uint8_t *hashes; /* one for each MiB */
} cvq_manifest_tensor;

typedef struct cvq_manifest {
    cJSON *json;         /* all of it */
    const char *file;    /* base name; borrowed from json */
    uint64_t file_bytes; /* of the file */
    uint8_t id[CVQ_ID_BYTES];
    uint32_t format_version;
    uint64_t head_bytes;
    const uint8_t *head_hashes; /* one for each MiB */
    cvq_extents
        extents; /* the whole file; owners are CVQ_OWNER_HEAD, _PADDING or below num_tensors */
    cvq_manifest_tensor *tensors; /* [num_tensors] */
    size_t num_tensors;
    uint8_t *hashes; /* what the extents point at */
} cvq_manifest;

/* The manifest of an opened file under its base name. quality: a JSON object or NULL, borrowed. The
 * text ends with a newline. */
cvq_status cvq_manifest_print(const cvq_reader *r, const cJSON *quality, cvq_buffer *text,
                              cvq_error *err);
/* Strict about what is used: types, ranges, order and coverage. Release with cvq_manifest_free,
 * which takes {0}. */
cvq_status cvq_manifest_parse(cvq_manifest *m, const char *text, size_t size, const char *where,
                              cvq_error *err);
void cvq_manifest_free(cvq_manifest *m);

/* "head", "padding" or the tensor's name. */
const char *cvq_manifest_owner(const cvq_manifest *m, size_t owner);

#endif
