/* What the sources of safetensors share: files and tensors of an open checkpoint, and the checks of
 * one file. */
#ifndef CVQ_FORMATS_SAFETENSORS_INTERNAL_H
#define CVQ_FORMATS_SAFETENSORS_INTERNAL_H

#include <stdbool.h>

#include "formats/safetensors.h"

#define CVQ_ST_MAX_HEADER 100000000u /* the reference implementation's cap */

typedef struct cvq_st_file {
    char *name; /* base name */
    char *path;
    cvq_file_map map;
} cvq_st_file;

struct cvq_safetensors {
    cvq_st_file *files;
    size_t num_files;
    cvq_st_tensor *tensors; /* their names are owned, too */
    size_t count, capacity;
    const cvq_st_tensor **by_name; /* [count] */
};

/* 1 to 255 printable ASCII characters: names go into error messages and tables as they are. */
bool cvq_st_good_name(const char *name);
cvq_status cvq_st_copy_string(char **out, const char *text, cvq_error *err); /* the caller frees */

/* Bytes of dims x dtype; false if that is more than 2^63 - 1. */
bool cvq_st_tensor_size(const cvq_st_tensor *t, uint64_t *size);

/* For qsort and bsearch over pointers to tensors. */
int cvq_st_compare_names(const void *a, const void *b);

/* Maps file number `file` of s, whose path is set, and adds its tensors, in order of place. */
cvq_status cvq_st_load_file(cvq_safetensors *s, size_t file, cvq_error *err);

#endif
