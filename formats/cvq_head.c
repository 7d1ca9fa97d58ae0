/* Reading and writing the outermost layer of a .cvq file. A reader believes nothing but the
 * header's few fields before the head's hash is right. */
#include "formats/cvq_head_internal.h"

#include <string.h>

#include "base/checked.h"
#include "formats/cvq_layout.h"
#include "formats/damage_internal.h"

#define RESERVE_LEAST 65536u
#define RESERVE_STEP 262144u

static const uint8_t magic[8] = {0x89, 'C', 'V', 'Q', '\r', '\n', 0x1a, '\n'};

bool cvq_is_model_file(const uint8_t *data, uint64_t size) {
    return size >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}
static const char *const section_names[CVQ_SECTIONS] = {
    "CONFIG", "INDEX", "TOKENIZER", "METADATA", "CHUNKS", "RESERVE", "DATA"};

/* ---------------------------------------------------------------- writing */

cvq_status cvq_head_plan(cvq_head *head, cvq_error *err) {
    /* Every size is below 2^63, as tensor sizes and CVQ_MAX_HEAD bound them; sums are checked. */
    uint64_t at = CVQ_HEADER_BYTES, metadata = 0;
    bool fits = cvq_round_up_u64(at, CVQ_SECTION_ALIGNMENT, &at);
    for (int i = CVQ_SECTION_CONFIG; i < CVQ_SECTION_RESERVE; i++) {
        head->sections[i].offset = at;
        fits = fits && cvq_add_u64(at, head->sections[i].size, &at) &&
               cvq_round_up_u64(at, CVQ_SECTION_ALIGNMENT, &at);
        if (i == CVQ_SECTION_METADATA) metadata = at - head->sections[i].offset;
    }
    uint64_t slot, head_size;
    fits = fits && cvq_add_u64(metadata, RESERVE_LEAST, &slot) &&
           cvq_round_up_u64(slot, RESERVE_STEP, &slot) &&
           cvq_add_u64(at - metadata, slot, &head_size) &&
           cvq_round_up_u64(head_size, CVQ_ALIGNMENT, &head_size);
    if (!fits || head_size > CVQ_MAX_HEAD)
        return cvq_fail(err, CVQ_UNSUPPORTED, ".cvq head",
                        "it would be larger than %u bytes; shorten the metadata", CVQ_MAX_HEAD);
    head->head_size = head_size;
    head->sections[CVQ_SECTION_RESERVE] = (cvq_section){at, head_size - at};
    head->sections[CVQ_SECTION_DATA].offset = head_size;
    if (!cvq_add_u64(head_size, head->sections[CVQ_SECTION_DATA].size, &head->file_size) ||
        head->file_size > INT64_MAX)
        return cvq_fail(err, CVQ_UNSUPPORTED, ".cvq file", "its size does not fit in 63 bits");
    return CVQ_OK;
}

void cvq_head_encode(const cvq_head *head, uint8_t *bytes) {
    memset(bytes, 0, CVQ_HEADER_BYTES);
    memcpy(bytes, magic, sizeof magic);
    cvq_store_le(bytes + 8, CVQ_FILE_VERSION, 4);
    cvq_store_le(bytes + 16, head->file_size, 8);
    cvq_store_le(bytes + 24, head->head_size, 8);
    cvq_store_le(bytes + 64, CVQ_SECTIONS, 4);
    for (unsigned i = 0; i < CVQ_SECTIONS; i++) {
        uint8_t *entry = bytes + 72 + CVQ_SECTION_ENTRY_BYTES * i;
        cvq_store_le(entry, i + 1, 4);
        cvq_store_le(entry + 8, head->sections[i].offset, 8);
        cvq_store_le(entry + 16, head->sections[i].size, 8);
    }
}

cvq_status cvq_head_hash(const uint8_t *bytes, uint64_t head_size, uint8_t hash[CVQ_HASH_BYTES],
                         cvq_error *err) {
    static const uint8_t zeros[CVQ_HASH_BYTES];
    const size_t behind = CVQ_HASH_OFFSET + CVQ_HASH_BYTES;
    cvq_hasher *hasher = NULL;
    CVQ_TRY(cvq_hasher_open(&hasher, err));
    cvq_status status = cvq_hasher_feed(hasher, bytes, CVQ_HASH_OFFSET, err);
    if (status == CVQ_OK) status = cvq_hasher_feed(hasher, zeros, sizeof zeros, err);
    if (status == CVQ_OK)
        status = cvq_hasher_feed(hasher, bytes + behind, (size_t)head_size - behind, err);
    if (status == CVQ_OK) status = cvq_hasher_take(hasher, hash, err);
    cvq_hasher_close(hasher);
    return status;
}

/* ---------------------------------------------------------------- reading */

#define ULL(x) ((unsigned long long)(x))
#define BAD(...) cvq_fail(err, CVQ_FORMAT, where, __VA_ARGS__)

static cvq_status check_start(const uint8_t *data, uint64_t size, const char *where,
                              cvq_error *err) {
    if (!cvq_is_model_file(data, size))
        return BAD("not a .cvq file (its first bytes are not the magic number); cvq-convert makes "
                   "one from a checkpoint");
    if (size < CVQ_HEADER_BYTES)
        return BAD("truncated: %llu bytes, within the header" CVQ_DAMAGED, ULL(size));
    const uint32_t version = (uint32_t)cvq_load_le(data + 8, 4);
    if (version != CVQ_FILE_VERSION)
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "file version %u; this program reads version %u: use the program that "
                        "goes with the file, or convert the model again",
                        version, CVQ_FILE_VERSION);
    const uint32_t features = (uint32_t)cvq_load_le(data + 12, 4);
    if (features != 0)
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "it requires features 0x%x, which this program does not have: use a newer "
                        "one",
                        features);
    return CVQ_OK;
}

static cvq_status check_bounds(cvq_head *head, const uint8_t *data, uint64_t size,
                               const char *where, cvq_error *err) {
    head->file_size = cvq_load_le(data + 16, 8);
    head->head_size = cvq_load_le(data + 24, 8);
    memcpy(head->id, data + CVQ_HASH_OFFSET, CVQ_HASH_BYTES);
    if (head->file_size > size)
        return BAD("truncated: %llu bytes of %llu; fetch the rest", ULL(size),
                   ULL(head->file_size));
    if (head->file_size < size)
        return BAD("%llu bytes too many behind its end at %llu" CVQ_DAMAGED,
                   ULL(size - head->file_size), ULL(head->file_size));
    if (head->head_size == 0 || head->head_size % CVQ_ALIGNMENT != 0)
        return BAD("head size %llu is not a multiple of %u" CVQ_DAMAGED, ULL(head->head_size),
                   CVQ_ALIGNMENT);
    if (head->head_size > CVQ_MAX_HEAD)
        return BAD("head size %llu is above the limit %u" CVQ_DAMAGED, ULL(head->head_size),
                   CVQ_MAX_HEAD);
    if (head->head_size > size)
        return BAD("head size %llu is larger than the file" CVQ_DAMAGED, ULL(head->head_size));
    const uint32_t sections = (uint32_t)cvq_load_le(data + 64, 4);
    if (sections != CVQ_SECTIONS)
        return BAD("%u sections, not %d" CVQ_DAMAGED, sections, CVQ_SECTIONS);
    if (!cvq_all_zero(data + 68, 4)) return BAD("the header's reserved field is not 0" CVQ_DAMAGED);
    return CVQ_OK;
}

/* One entry of the section table: its kind, and its place right behind the section before. */
static cvq_status check_section(cvq_head *head, const uint8_t *data, unsigned i, uint64_t *end,
                                const char *where, cvq_error *err) {
    const uint8_t *entry = data + 72 + CVQ_SECTION_ENTRY_BYTES * i;
    const char *name = section_names[i];
    const uint64_t kind = cvq_load_le(entry, 4);
    const cvq_section s = {cvq_load_le(entry + 8, 8), cvq_load_le(entry + 16, 8)};
    if (kind != i + 1)
        return BAD("section %u is of kind %llu; %u (%s) belongs there" CVQ_DAMAGED, i, ULL(kind),
                   i + 1, name);
    if (!cvq_all_zero(entry + 4, 4))
        return BAD("section %s: reserved field is not 0" CVQ_DAMAGED, name);
    uint64_t start = 0; /* *end is at most the file's size, which is below 2^63 */
    const bool is_data = i == CVQ_SECTION_DATA;
    if (!cvq_round_up_u64(*end, CVQ_SECTION_ALIGNMENT, &start) || s.offset != start)
        return BAD("section %s starts at byte %llu; %llu is where the one before it ends (sections "
                   "neither overlap nor leave holes)" CVQ_DAMAGED,
                   name, ULL(s.offset), ULL(start));
    if (!cvq_range_within(s.offset, s.size, is_data ? head->file_size : head->head_size))
        return BAD("section %s, %llu bytes at %llu, ends behind the %s" CVQ_DAMAGED, name,
                   ULL(s.size), ULL(s.offset), is_data ? "file" : "head");
    if (!cvq_all_zero(data + *end, (size_t)(start - *end)))
        return BAD("padding before section %s is not zero" CVQ_DAMAGED, name);
    head->sections[i] = s;
    *end = s.offset + s.size;
    if (i == CVQ_SECTION_RESERVE && *end != head->head_size)
        return BAD("section RESERVE ends at byte %llu, the head at %llu" CVQ_DAMAGED, ULL(*end),
                   ULL(head->head_size));
    if (is_data && *end != head->file_size)
        return BAD("section DATA ends at byte %llu, the file at %llu" CVQ_DAMAGED, ULL(*end),
                   ULL(head->file_size));
    return CVQ_OK;
}

cvq_status cvq_head_decode(cvq_head *head, const uint8_t *data, uint64_t size, const char *where,
                           cvq_error *err) {
    uint8_t hash[CVQ_HASH_BYTES];
    CVQ_TRY(check_start(data, size, where, err));
    CVQ_TRY(check_bounds(head, data, size, where, err));
    CVQ_TRY(cvq_head_hash(data, head->head_size, hash, err));
    if (memcmp(hash, head->id, sizeof hash) != 0)
        return cvq_fail(err, CVQ_MISMATCH, where,
                        "the head (bytes 0 to %llu) does not match its SHA-256; the file is "
                        "damaged: fetch it again, or mend it with cvq-info --repair from a second "
                        "copy",
                        ULL(head->head_size - 1));
    uint64_t end = CVQ_HEADER_BYTES;
    for (unsigned i = 0; i < CVQ_SECTIONS; i++)
        CVQ_TRY(check_section(head, data, i, &end, where, err));
    const cvq_section reserve = head->sections[CVQ_SECTION_RESERVE];
    if (!cvq_all_zero(data + reserve.offset, (size_t)reserve.size))
        return BAD("section RESERVE is not zero" CVQ_DAMAGED);
    return CVQ_OK;
}
