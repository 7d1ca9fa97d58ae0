/* JSON from strangers, by cJSON: with a size cap, no duplicate keys, integers exact, and errors
 * that name the key. */
#ifndef CVQ_FORMATS_JSON_H
#define CVQ_FORMATS_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

/* Parse text of exactly size bytes (no NUL needed): one value and white space, valid UTF-8, depth
 * at most 64, no duplicate keys in any object, no NUL in strings. where names the file; the error
 * names line and column. Release with cJSON_Delete. */
cvq_status cvq_json_parse(cJSON **out, const char *text, size_t size, const char *where,
                          cvq_error *err);
/* The same from a file of at most cap bytes. */
cvq_status cvq_json_read_file(cJSON **out, const char *path, size_t cap, cvq_error *err);

/* Whether text is valid UTF-8 (RFC 3629: no overlong form, no surrogate) without NUL. */
bool cvq_utf8_valid(const char *text, size_t size);

/* Whether a value (an element of an array, say) is an integer from 0 to 2^53 - 1. */
bool cvq_json_is_u64(const cJSON *value, uint64_t *out);

/* Members of an object. `required` false: a missing key or null leaves *out as it was. Wrong types
 * are CVQ_FORMAT and name the key. */
cvq_status cvq_json_u64(const cJSON *object, const char *key, bool required, uint64_t max,
                        uint64_t *out, const char *where, cvq_error *err);
cvq_status cvq_json_u32(const cJSON *object, const char *key, bool required, uint32_t max,
                        uint32_t *out, const char *where, cvq_error *err);
cvq_status cvq_json_number(const cJSON *object, const char *key, bool required, double *out,
                           const char *where, cvq_error *err);
cvq_status cvq_json_bool(const cJSON *object, const char *key, bool required, bool *out,
                         const char *where, cvq_error *err);
/* Borrowed from the object. */
cvq_status cvq_json_string(const cJSON *object, const char *key, bool required, const char **out,
                           const char *where, cvq_error *err);

/* Building, member by member: what finds no memory spoils its parent, and cvq_json_print then
 * refuses the whole. So only that has to be checked; a parent may be NULL, too. An item belongs to
 * its parent from then on, whatever happens. */
void cvq_json_add_string(cJSON *object, const char *key, const char *value);
void cvq_json_add_number(cJSON *object, const char *key, double value);
/* All digits, of which cJSON prints 15. */
void cvq_json_add_u64(cJSON *object, const char *key, uint64_t value);
void cvq_json_add_bool(cJSON *object, const char *key, bool value);
cJSON *cvq_json_add_array(cJSON *object, const char *key);
cJSON *cvq_json_add_object(cJSON *object, const char *key);
void cvq_json_add_item(cJSON *object, const char *key, cJSON *item);
void cvq_json_append(cJSON *array, cJSON *item);
/* Print compactly (keys in the order they were added); the text is NUL-terminated in the buffer,
 * the NUL not counted. */
cvq_status cvq_json_print(cvq_buffer *out, const cJSON *value, cvq_error *err);

#endif
