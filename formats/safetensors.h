/* safetensors: reading checkpoints (one file, or shards with an index) and writing small files of
 * outputs. Everything is mapped; nothing is read before it is asked for. */
#ifndef CVQ_FORMATS_SAFETENSORS_H
#define CVQ_FORMATS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/file_map.h"
#include "base/status.h"

typedef enum cvq_st_dtype {
    CVQ_ST_F32,
    CVQ_ST_F16,
    CVQ_ST_BF16,
    CVQ_ST_F64,
    CVQ_ST_I64,
    CVQ_ST_I32,
    CVQ_ST_I16,
    CVQ_ST_I8,
    CVQ_ST_U8,
    CVQ_ST_BOOL,
    CVQ_ST_DTYPES
} cvq_st_dtype;
const char *cvq_st_dtype_name(cvq_st_dtype d); /* "BF16" */
size_t cvq_st_dtype_size(cvq_st_dtype d);

#define CVQ_ST_MAX_DIMS 8

typedef struct cvq_st_tensor {
    const char *name;
    cvq_st_dtype dtype;
    uint32_t ndim;
    uint64_t dims[CVQ_ST_MAX_DIMS];
    uint64_t size;       /* bytes: exactly the product of dims x the dtype's size */
    uint32_t file;       /* which of the files */
    uint64_t offset;     /* from that file's start */
    const uint8_t *data; /* mapped */
} cvq_st_tensor;

typedef struct cvq_safetensors cvq_safetensors;

/* path is a .safetensors file, or a checkpoint's directory with model.safetensors.index.json (every
 * name of the index must be in the shard that it says, and every tensor of a shard in the index) or
 * else with one model.safetensors. Checked: header size, JSON, dtype, dims, every offset; tensors
 * cover the data exactly, without overlap or gap; no duplicate names, in one file or across shards.
 */
cvq_status cvq_safetensors_open(cvq_safetensors **out, const char *path, cvq_error *err);
void cvq_safetensors_close(cvq_safetensors *s);
size_t cvq_safetensors_count(const cvq_safetensors *s);
const cvq_st_tensor *cvq_safetensors_at(const cvq_safetensors *s,
                                        size_t i); /* in the order of files and offsets */
const cvq_st_tensor *cvq_safetensors_find(const cvq_safetensors *s,
                                          const char *name); /* NULL if absent */
size_t cvq_safetensors_files(const cvq_safetensors *s);
const char *cvq_safetensors_file_name(const cvq_safetensors *s, size_t file); /* base name */
const cvq_file_map *cvq_safetensors_file_map(const cvq_safetensors *s, size_t file);

/* Elements [first, first + count) of a tensor, in the order of the file, as f32. F32, F16 and BF16
 * only. */
cvq_status cvq_st_read_f32(const cvq_st_tensor *t, uint64_t first, uint64_t count, float *out,
                           cvq_error *err);

/* Writing: names, dtypes and dims first (offset, file and data are ignored), then the bytes of each
 * tensor in that order. */
typedef struct cvq_st_writer cvq_st_writer;
cvq_status cvq_st_writer_open(cvq_st_writer **out, int fd, const cvq_st_tensor *tensors,
                              size_t count, const char *where, cvq_error *err);
cvq_status cvq_st_writer_append(cvq_st_writer *w, const void *data, size_t size, cvq_error *err);
/* The next bytes are left as they are in the file: in a new one a hole, which reads as zeros. */
cvq_status cvq_st_writer_skip(cvq_st_writer *w, uint64_t size, cvq_error *err);
/* Fails if fewer bytes came than were announced. Frees the writer in any case; fd stays the
 * caller's. */
cvq_status cvq_st_writer_finish(cvq_st_writer *w, cvq_error *err);
void cvq_st_writer_free(cvq_st_writer *w);

#endif
