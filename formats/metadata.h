/* The metadata of a .cvq file: what is known about it that no kernel needs. Kept as canonical JSON:
 * the same content gives the same bytes, whichever command wrote it.
 *
 *   {"format": "cvq", "recipe": {"name": "q4", "types": {"<tensor kind glob>": "<type>", ...},
 *      "importance": "<SHA-256>", "second_moments": "<SHA-256>"},
 *    "source": {"revision": "<commit or empty>", "files": [{"name", "size", "sha256"}, ...]},
 *    "generation": {"temperature": 0.6, "top_p": 0.9},
 *    "licenses": [{"name", "text"}], "card": "<text>"} */
#ifndef CVQ_FORMATS_METADATA_H
#define CVQ_FORMATS_METADATA_H

#include "formats/chunk_hash.h"
#include "formats/json.h"

typedef struct cvq_source_file {
    char *name; /* base name */
    uint64_t size;
    char sha256[CVQ_HASH_DIGITS + 1];
} cvq_source_file;

typedef struct cvq_named_text {
    char *name, *text;
} cvq_named_text;

/* `pattern` is a glob over Hugging Face names, as in cvq-quantize --type; the last match wins. */
typedef struct cvq_type_rule {
    char *pattern, *type;
} cvq_type_rule;

typedef struct cvq_metadata {
    char *recipe;         /* "q4"; "custom" where --type changed it */
    cvq_type_rule *rules; /* the recipe after expansion; each pattern once */
    size_t num_rules;
    /* SHA-256 of the calibration files that the values were chosen by; "" where there was none */
    char importance[CVQ_HASH_DIGITS + 1], second_moments[CVQ_HASH_DIGITS + 1];
    char *revision;         /* "" if not given */
    cvq_source_file *files; /* of the original checkpoint, in order of name */
    size_t num_files;
    double temperature, top_p; /* generation_config.json's; negative if absent */
    cvq_named_text *licenses;  /* in order of name */
    size_t num_licenses;
    char *card; /* "" if none */
} cvq_metadata;

cvq_status cvq_metadata_print(const cvq_metadata *m, cvq_buffer *json, cvq_error *err);
/* Strict: unknown keys are CVQ_UNSUPPORTED, wrong types CVQ_FORMAT. Owned strings; release with
 * cvq_metadata_free. */
cvq_status cvq_metadata_parse(cvq_metadata *m, const char *json, size_t size, const char *where,
                              cvq_error *err);
/* "recipe", "source" and "card" alone, which a manifest has, too. Adding spoils the object where
 * memory runs out, as all of formats/json.h does. */
void cvq_metadata_add_origin(cJSON *object, const cvq_metadata *m);
cvq_status cvq_metadata_parse_origin(cvq_metadata *m, const cJSON *object, const char *where,
                                     cvq_error *err);
void cvq_metadata_free(cvq_metadata *m);

#endif
