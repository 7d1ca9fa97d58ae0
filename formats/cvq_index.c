/* The CONFIG and INDEX sections. Nothing in the index is free: names, shapes, places and sizes all
 * follow from the config and the types, and whatever differs is refused. */
#include "formats/cvq_index_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "formats/damage_internal.h"

#define ULL(x) ((unsigned long long)(x))
#define BAD(...) cvq_fail(err, CVQ_FORMAT, where, __VA_ARGS__)

/* ---------------------------------------------------------------- config */

#define FIELD(name) offsetof(cvq_model_config, name)
#define EOS(i) (FIELD(eos_ids) + 4 * (i))
/* Members of cvq_model_config in the order of the file; each is 4 bytes, integer or float. */
static const size_t config_fields[] = {
    FIELD(hidden_size),
    FIELD(num_layers),
    FIELD(num_heads),
    FIELD(num_kv_heads),
    FIELD(intermediate_size),
    FIELD(vocab_size),
    FIELD(max_positions),
    FIELD(rms_norm_eps),
    FIELD(bos_id),
    FIELD(pad_id),
    FIELD(num_eos),
    EOS(0),
    EOS(1),
    EOS(2),
    EOS(3),
    EOS(4),
    EOS(5),
    EOS(6),
    EOS(7),
    FIELD(template_version),
    FIELD(vit_hidden_size),
    FIELD(vit_num_layers),
    FIELD(vit_num_heads),
    FIELD(vit_intermediate_size),
    FIELD(image_size),
    FIELD(patch_size),
    FIELD(in_channels),
    FIELD(vit_num_positions),
    FIELD(vit_layer_norm_eps),
};
#define CONFIG_FIELDS (sizeof config_fields / sizeof *config_fields)
_Static_assert(4 * CONFIG_FIELDS == CVQ_CONFIG_BYTES, "every field is in the file");
_Static_assert(sizeof(cvq_model_config) == CVQ_CONFIG_BYTES, "and no field was forgotten");
_Static_assert(CVQ_MAX_EOS == 8, "the file has room for 8");

void cvq_config_encode(const cvq_model_config *config, uint8_t bytes[CVQ_CONFIG_BYTES]) {
    for (size_t i = 0; i < CONFIG_FIELDS; i++) {
        uint32_t v;
        memcpy(&v, (const char *)config + config_fields[i], 4);
        cvq_store_le(bytes + 4 * i, v, 4);
    }
}

cvq_status cvq_config_decode(cvq_model_config *config, const uint8_t *bytes, uint64_t size,
                             const char *where, cvq_error *err) {
    cvq_model_config c;
    if (size != CVQ_CONFIG_BYTES)
        return BAD("section CONFIG has %llu bytes, not %u" CVQ_DAMAGED, ULL(size),
                   CVQ_CONFIG_BYTES);
    for (size_t i = 0; i < CONFIG_FIELDS; i++) {
        const uint32_t v = (uint32_t)cvq_load_le(bytes + 4 * i, 4);
        memcpy((char *)&c + config_fields[i], &v, 4);
    }
    cvq_error problem = {0};
    if (cvq_model_config_check(&c, where, &problem) != CVQ_OK)
        return cvq_fail_advising(err, where, &problem, CVQ_DAMAGED);
    for (uint32_t i = c.num_eos; i < CVQ_MAX_EOS; i++) {
        if (c.eos_ids[i] != 0) return BAD("config: unused eos id %u is not 0" CVQ_DAMAGED, i);
    }
    *config = c;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- index */

cvq_status cvq_tensor_place(cvq_tensor *t, cvq_place *next, const char *where, cvq_error *err) {
    uint64_t offset, end;
    if (!cvq_tensor_bytes(t->type, t->panel_rows, t->spec.rows, t->spec.cols, &t->size) ||
        !cvq_round_up_u64(next->offset, CVQ_ALIGNMENT, &offset) ||
        !cvq_add_u64(offset, t->size, &end) || end > INT64_MAX)
        return BAD("tensor %s: its end does not fit in 63 bits", t->spec.name);
    t->offset = offset;
    t->first_chunk = next->chunk;
    next->offset = end;
    next->chunk += (t->size - 1) / CVQ_CHUNK_BYTES + 1;
    return CVQ_OK;
}

/* Offsets in an entry. */
enum { AT_TYPE = 104, AT_PANEL_ROWS = 108, AT_NDIM = 112, AT_RESERVED = 116, AT_DIMS = 120 };
enum { AT_OFFSET = 152, AT_SIZE = 160, AT_FIRST_CHUNK = 168, AT_CODEBOOK = 176 };
_Static_assert(AT_CODEBOOK + sizeof(cvq_codebook) == CVQ_INDEX_ENTRY_BYTES, "an entry is full");
_Static_assert(CVQ_MAX_TENSOR_NAME == AT_TYPE && 8 * CVQ_MAX_DIMS == AT_OFFSET - AT_DIMS,
               "names and dims have their room");

void cvq_index_entry_encode(const cvq_tensor *t, uint8_t bytes[CVQ_INDEX_ENTRY_BYTES]) {
    memset(bytes, 0, CVQ_INDEX_ENTRY_BYTES);
    memcpy(bytes, t->spec.name, strlen(t->spec.name));
    cvq_store_le(bytes + AT_TYPE, t->type, 4);
    cvq_store_le(bytes + AT_PANEL_ROWS, t->panel_rows, 4);
    cvq_store_le(bytes + AT_NDIM, t->spec.ndim, 4);
    for (int d = 0; d < CVQ_MAX_DIMS; d++)
        cvq_store_le(bytes + AT_DIMS + 8 * d, t->spec.dims[d], 8);
    cvq_store_le(bytes + AT_OFFSET, t->offset, 8);
    cvq_store_le(bytes + AT_SIZE, t->size, 8);
    cvq_store_le(bytes + AT_FIRST_CHUNK, t->first_chunk, 8);
    memcpy(bytes + AT_CODEBOOK, &t->codebook, sizeof t->codebook);
}

static cvq_status check_shape(const cvq_tensor_spec *spec, const uint8_t *entry, size_t i,
                              const char *where, cvq_error *err) {
    uint8_t name[CVQ_MAX_TENSOR_NAME] = {0};
    memcpy(name, spec->name, strlen(spec->name));
    if (memcmp(entry, name, sizeof name) != 0)
        return BAD("tensor %zu has another name than %s, which belongs there" CVQ_DAMAGED, i,
                   spec->name);
    const uint64_t ndim = cvq_load_le(entry + AT_NDIM, 4);
    if (ndim != spec->ndim)
        return BAD("tensor %s: %llu dimensions, not %u" CVQ_DAMAGED, spec->name, ULL(ndim),
                   spec->ndim);
    for (unsigned d = 0; d < CVQ_MAX_DIMS; d++) {
        const uint64_t dim = cvq_load_le(entry + AT_DIMS + 8 * d, 8);
        if (dim != spec->dims[d])
            return BAD("tensor %s: dimension %u is %llu, not %llu" CVQ_DAMAGED, spec->name, d,
                       ULL(dim), ULL(spec->dims[d]));
    }
    if (!cvq_all_zero(entry + AT_RESERVED, 4))
        return BAD("tensor %s: reserved field is not 0" CVQ_DAMAGED, spec->name);
    return CVQ_OK;
}

static cvq_status read_type(cvq_tensor *t, const uint8_t *entry, const char *where,
                            cvq_error *err) {
    const char *name = t->spec.name;
    const uint32_t type = (uint32_t)cvq_load_le(entry + AT_TYPE, 4);
    const cvq_type_info *info = cvq_type_describe(type);
    if (!info)
        return cvq_fail(
            err, CVQ_UNSUPPORTED, where,
            "tensor %s: type number %u, which this program does not know: use a newer one", name,
            type);
    if (!cvq_type_allowed(t->spec.role, (cvq_type)type))
        return BAD("tensor %s: type %s is not allowed for it" CVQ_DAMAGED, name, info->name);
    const uint32_t panel_rows = (uint32_t)cvq_load_le(entry + AT_PANEL_ROWS, 4);
    if (panel_rows != cvq_panel_rows_for(t->spec.role))
        return BAD("tensor %s: panels of %u rows, not %u" CVQ_DAMAGED, name, panel_rows,
                   cvq_panel_rows_for(t->spec.role));
    t->type = (cvq_type)type;
    t->panel_rows = panel_rows;
    memcpy(&t->codebook, entry + AT_CODEBOOK, sizeof t->codebook);
    if (!cvq_codebook_valid(&t->codebook, t->type))
        return BAD("tensor %s: its codebook is not valid for type %s" CVQ_DAMAGED, name,
                   info->name);
    return CVQ_OK;
}

static cvq_status check_place(const cvq_tensor *t, const uint8_t *entry, const char *where,
                              cvq_error *err) {
    static const struct {
        const char *name;
        int at;
    } fields[] = {{"offset", AT_OFFSET}, {"size", AT_SIZE}, {"first chunk", AT_FIRST_CHUNK}};
    const uint64_t wanted[] = {t->offset, t->size, t->first_chunk};
    for (int i = 0; i < 3; i++) {
        const uint64_t value = cvq_load_le(entry + fields[i].at, 8);
        if (value != wanted[i])
            return BAD("tensor %s: %s is %llu, not %llu" CVQ_DAMAGED, t->spec.name, fields[i].name,
                       ULL(value), ULL(wanted[i]));
    }
    return CVQ_OK;
}

cvq_status cvq_index_decode(cvq_tensor **tensors, size_t *count, cvq_place *next,
                            const cvq_model_config *config, const uint8_t *bytes, uint64_t size,
                            const char *where, cvq_error *err) {
    const size_t n = cvq_model_tensor_count(config); /* bounded by the checked config */
    if (size / CVQ_INDEX_ENTRY_BYTES != n || size % CVQ_INDEX_ENTRY_BYTES != 0)
        return BAD("section INDEX has %llu bytes; the config's %zu tensors need %llu" CVQ_DAMAGED,
                   ULL(size), n, ULL(n * (uint64_t)CVQ_INDEX_ENTRY_BYTES));
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, n, sizeof(cvq_tensor), "the tensor index", err));
    cvq_tensor *list = memory;
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < n; i++) {
        const uint8_t *entry = bytes + CVQ_INDEX_ENTRY_BYTES * i;
        cvq_model_tensor_spec(config, i, &list[i].spec);
        status = check_shape(&list[i].spec, entry, i, where, err);
        if (status == CVQ_OK) status = read_type(&list[i], entry, where, err);
        if (status == CVQ_OK) status = cvq_tensor_place(&list[i], next, where, err);
        if (status == CVQ_OK) status = check_place(&list[i], entry, where, err);
    }
    if (status != CVQ_OK) {
        free(list);
        return status;
    }
    *tensors = list;
    *count = n;
    return CVQ_OK;
}
