/* The .cvq file: what is written comes back, every byte is accounted for, and each malformation is
 * refused with its own message - also where the head's hash was made to fit. */
#include <fcntl.h>
#include <unistd.h>

#include "formats/cvq_head_internal.h"
#include "formats/cvq_index_internal.h"
#include "formats/cvq_reader.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"

static char folder[64], path[96];

/* A fresh small file under `path`; its descriptor, open for changes. */
static int fresh(const char *metadata, bool backwards, uint8_t id[CVQ_ID_BYTES]) {
    cvq_error err = {0};
    unlink(path);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) abort();
    const cvq_status s = small_write(fd, metadata, backwards, id, &err);
    CHECK_SAY(s == CVQ_OK, "%s: %s", err.where, err.message);
    return fd;
}

static void written_file_comes_back(void) {
    uint8_t id[CVQ_ID_BYTES];
    cvq_reader *r = NULL;
    cvq_error err = {0};
    const cvq_model_config c = small_config();
    close(fresh(SMALL_METADATA, false, id));
    CHECK_SAY(cvq_reader_open(&r, path, &err) == CVQ_OK, "%s", err.message);
    if (!r) return;
    CHECK(memcmp(cvq_reader_id(r), id, sizeof id) == 0);
    CHECK(memcmp(cvq_reader_config(r), &c, sizeof c) == 0);
    CHECK(strcmp(cvq_reader_path(r), path) == 0);
    CHECK(cvq_reader_tensor_count(r) == cvq_model_tensor_count(&c));
    cvq_type types[256];
    small_types(&c, types);
    uint64_t end = 0, chunk = 0;
    unsigned seen = 0;
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        uint8_t *data = malloc((size_t)t->size);
        if (!data) abort();
        small_tensor(t, i, data);
        CHECK(t->type == types[i] && t->panel_rows == cvq_panel_rows_for(t->spec.role));
        CHECK(t->offset % CVQ_ALIGNMENT == 0 && t->offset >= end && t->first_chunk == chunk);
        CHECK_SAY(memcmp(data, cvq_reader_data(r, i), (size_t)t->size) == 0, "%s", t->spec.name);
        end = t->offset + t->size;
        chunk += (t->size + CVQ_CHUNK_BYTES - 1) / CVQ_CHUNK_BYTES;
        seen |= 1u << t->type;
        free(data);
    }
    CHECK(end == cvq_reader_file_size(r) && end == cvq_reader_map(r)->size);
    CHECK(seen == 127 && chunk > cvq_reader_tensor_count(r));
    cvq_buffer json = {0};
    CHECK(cvq_reader_metadata(r, &json, &err) == CVQ_OK);
    CHECK(json.size == strlen(SMALL_METADATA) && strcmp((char *)json.data, SMALL_METADATA) == 0);
    CHECK(cvq_reader_tokenizer(r)->num_tokens == 259);
    const uint8_t *table;
    size_t size;
    cvq_reader_tokenizer_bytes(r, &table, &size);
    CHECK(size > 4 && memcmp(table, "CVQT", 4) == 0);
    CHECK(cvq_reader_verify(r, 2, NULL, NULL, NULL, &err) == CVQ_OK);
    cvq_buffer_free(&json);
    cvq_reader_close(r);
}

static void order_does_not_matter(void) {
    uint8_t a[CVQ_ID_BYTES], b[CVQ_ID_BYTES];
    close(fresh(SMALL_METADATA, false, a));
    close(fresh(SMALL_METADATA, true, b));
    CHECK(memcmp(a, b, sizeof a) == 0);
}

static void longer_card_moves_no_weight(void) {
    uint8_t a[CVQ_ID_BYTES], b[CVQ_ID_BYTES];
    uint64_t offset[2] = {0, 1}, size[2] = {0, 1}, state = 5;
    char *text = calloc(1, 60001);
    if (!text) abort();
    for (int i = 0; i < 60000; i++) text[i] = (char)(33 + small_random(&state) % 94);
    for (int i = 0; i < 2; i++) {
        cvq_reader *r = NULL;
        close(fresh(i ? text : SMALL_METADATA, false, i ? b : a));
        CHECK(cvq_reader_open(&r, path, NULL) == CVQ_OK);
        if (!r) break;
        offset[i] = cvq_reader_tensor(r, 0)->offset;
        size[i] = cvq_reader_file_size(r);
        cvq_reader_close(r);
    }
    CHECK(offset[0] == offset[1] && size[0] == size[1] && memcmp(a, b, sizeof a) != 0);
    free(text);
}

/* ---------------------------------------------------------------- the writer's contract */

static void writer_refuses(void) {
    cvq_model_config c = small_config();
    cvq_type types[256];
    cvq_codebook books[256];
    cvq_buffer table = {0};
    cvq_writer *w = NULL;
    cvq_error err = {0};
    small_types(&c, types);
    memset(books, 0, sizeof books);
    CHECK(small_tokenizer(&table, NULL) == CVQ_OK);
    cvq_file_spec spec = {.config = &c,
                          .types = types,
                          .tokenizer = table.data,
                          .tokenizer_size = table.size,
                          .metadata = "{}",
                          .metadata_size = 2};
    spec.codebooks = books; /* all zero: not for q4t */
    CHECK(cvq_writer_plan(&w, &spec, &err) == CVQ_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "codebook"));
    spec.codebooks = NULL;
    types[0] = CVQ_TYPE_Q8; /* a norm */
    err = (cvq_error){0};
    CHECK(cvq_writer_plan(&w, &spec, &err) == CVQ_INVALID_ARGUMENT);
    CHECK(strcmp(err.where, "model.layers.0.input_layernorm.weight") == 0);
    types[0] = (cvq_type)77;
    CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_INVALID_ARGUMENT);
    types[0] = CVQ_TYPE_F32;
    c.vocab_size = 258; /* fewer than the tokenizer's 259 */
    c.eos_ids[1] = 257;
    err = (cvq_error){0};
    CHECK(cvq_writer_plan(&w, &spec, &err) == CVQ_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "more than vocab_size"));
    c = small_config();
    c.num_heads = 5;
    CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_FORMAT);
    c = small_config();
    spec.tokenizer_size--;
    CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_FORMAT);
    spec.tokenizer_size++;
    spec.metadata_size = 0;
    CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_INVALID_ARGUMENT);
    spec.metadata_size = (size_t)CVQ_MAX_METADATA + 1;
    CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_INVALID_ARGUMENT);
    spec.metadata_size = 2;

    CHECK(w == NULL && cvq_writer_plan(&w, &spec, NULL) == CVQ_OK);
    if (!w) return;
    uint8_t byte = 0;
    unlink(path);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(cvq_writer_put(w, 0, 0, &byte, 1, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_writer_finish(w, NULL, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_writer_begin(w, fd, "OUT", true, NULL) == CVQ_INVALID_ARGUMENT); /* is empty */
    cvq_writer_free(w);
    w = NULL;
    CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_OK);
    CHECK(cvq_writer_begin(w, fd, "OUT", false, NULL) == CVQ_OK);
    CHECK(cvq_writer_begin(w, fd, "OUT", false, NULL) == CVQ_INVALID_ARGUMENT);
    const size_t size = (size_t)cvq_writer_tensor(w, 0)->size;
    uint8_t *data = calloc(1, size + 1);
    if (!data) abort();
    err = (cvq_error){0};
    CHECK(cvq_writer_put(w, 0, 0, data, size + 1, &err) == CVQ_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "input_layernorm"));
    CHECK(cvq_writer_put(w, 0, 0, data, size - 1, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_writer_put(w, 0, 1, data, size - 1, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_writer_put(w, cvq_writer_tensor_count(w), 0, data, 1, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_writer_put(w, 0, 0, data, size, NULL) == CVQ_OK);
    CHECK(cvq_writer_put(w, 0, 0, data, size, NULL) == CVQ_INVALID_ARGUMENT); /* twice */
    err = (cvq_error){0};
    CHECK(cvq_writer_finish(w, NULL, &err) == CVQ_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "inv_freq is not complete"));
    cvq_reader *r = NULL; /* without its head it is no .cvq file */
    CHECK(cvq_reader_open(&r, path, NULL) == CVQ_FORMAT && r == NULL);
    cvq_writer_free(w);
    w = NULL;
    CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_OK);
    CHECK(cvq_writer_begin(w, fd, "OUT", false, NULL) == CVQ_INVALID_ARGUMENT); /* not empty */
    cvq_writer_free(w);
    cvq_writer_free(NULL);
    cvq_reader_close(NULL);
    close(fd);
    free(data);
    cvq_buffer_free(&table);
}

/* A run that ends early, and one that goes on with the hashes of the first tensors. */
static void writer_goes_on(void) {
    const cvq_model_config c = small_config();
    cvq_type types[256];
    cvq_buffer table = {0};
    uint8_t whole[CVQ_ID_BYTES], resumed[CVQ_ID_BYTES], hash[2][CVQ_HASH_BYTES], *kept[256] = {0};
    size_t chunks[256], count = 0;
    small_types(&c, types);
    CHECK(small_tokenizer(&table, NULL) == CVQ_OK);
    const cvq_file_spec spec = {.config = &c,
                                .types = types,
                                .tokenizer = table.data,
                                .tokenizer_size = table.size,
                                .metadata = SMALL_METADATA,
                                .metadata_size = strlen(SMALL_METADATA)};
    close(fresh(SMALL_METADATA, false, whole));
    unlink(path);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    for (int run = 0; run < 2; run++) {
        cvq_writer *w = NULL;
        CHECK(cvq_writer_plan(&w, &spec, NULL) == CVQ_OK);
        if (!w) return;
        CHECK(cvq_writer_plan_hash(w, hash[run], NULL) == CVQ_OK);
        CHECK(cvq_writer_begin(w, fd, "OUT", run == 1, NULL) == CVQ_OK);
        const size_t end = run ? cvq_writer_tensor_count(w) : 12;
        for (size_t i = 0; i < count; i++)
            CHECK(cvq_writer_adopt(w, i, kept[i], chunks[i], NULL) == CVQ_OK);
        CHECK(cvq_writer_adopt(w, 0, hash[0], 7, NULL) == CVQ_INVALID_ARGUMENT);
        for (size_t i = count; i < end; i++) {
            const cvq_tensor *t = cvq_writer_tensor(w, i);
            uint8_t *data = malloc((size_t)t->size);
            if (!data) abort();
            small_tensor(t, i, data);
            CHECK(cvq_writer_put(w, i, 0, data, (size_t)t->size, NULL) == CVQ_OK);
            free(data);
            const uint8_t *hashes = cvq_writer_hashes(w, i, &chunks[i]);
            kept[i] = malloc(chunks[i] * CVQ_HASH_BYTES);
            if (!kept[i]) abort();
            memcpy(kept[i], hashes, chunks[i] * CVQ_HASH_BYTES);
        }
        count = end;
        if (run == 0) CHECK(cvq_writer_finish(w, NULL, NULL) == CVQ_INVALID_ARGUMENT);
        if (run == 1) CHECK(cvq_writer_set_metadata(w, "{}", 2, NULL) == CVQ_INVALID_ARGUMENT);
        if (run == 1) CHECK(cvq_writer_finish(w, resumed, NULL) == CVQ_OK);
        cvq_writer_free(w);
    }
    CHECK(memcmp(hash[0], hash[1], sizeof hash[0]) == 0);
    CHECK(memcmp(whole, resumed, sizeof whole) == 0);
    for (size_t i = 0; i < count; i++) free(kept[i]);
    close(fd);
    cvq_buffer_free(&table);
}

/* ---------------------------------------------------------------- malformed heads */

/* What a case may look at and change. */
typedef struct edit {
    uint8_t *head;
    uint64_t size; /* of the head */
    cvq_section s[CVQ_SECTIONS];
} edit;

static uint8_t *entry_of(const edit *e, size_t tensor) {
    return e->head + e->s[CVQ_SECTION_INDEX].offset + CVQ_INDEX_ENTRY_BYTES * tensor;
}
static uint8_t *row_of(const edit *e, cvq_section_kind kind) {
    return e->head + 72 + 24 * (size_t)kind;
}
static void add(uint8_t *at, uint64_t n) {
    cvq_store_le(at, cvq_load_le(at, 8) + n, 8);
}

enum { MATRIX = 2 /* language_expert_query_key_value, q4t */, EMBEDDING = 10 };
/* clang-format off */
#define CASE(name) static void name(edit *e)
CASE(magic) { e->head[3] = 'R'; }
CASE(magic_text) { e->head[4] = '\n'; }
CASE(version) { e->head[8] = 1; }
CASE(feature) { e->head[15] = 0x80; }
CASE(file_more) { add(e->head + 16, 1); }
CASE(file_less) { add(e->head + 16, UINT64_MAX); }
CASE(file_huge) { cvq_store_le(e->head + 16, UINT64_MAX, 8); }
CASE(head_zero) { cvq_store_le(e->head + 24, 0, 8); }
CASE(head_odd) { add(e->head + 24, 64); }
CASE(head_huge) { cvq_store_le(e->head + 24, (uint64_t)1 << 63, 8); }
CASE(head_large) { cvq_store_le(e->head + 24, (uint64_t)CVQ_MAX_HEAD, 8); }
CASE(head_longer) { add(e->head + 24, 65536); }
CASE(sections_more) { e->head[64] = 8; }
CASE(sections_huge) { e->head[67] = 0xff; }
CASE(reserved) { e->head[68] = 1; }
CASE(kind_twice) { row_of(e, CVQ_SECTION_INDEX)[0] = 1; }
CASE(kind_swapped) {
    row_of(e, CVQ_SECTION_TOKENIZER)[0] = 4;
    row_of(e, CVQ_SECTION_METADATA)[0] = 3;
}
CASE(row_reserved) { row_of(e, CVQ_SECTION_DATA)[4] = 1; }
CASE(section_overlaps) { add(row_of(e, CVQ_SECTION_INDEX) + 8, (uint64_t)-64); }
CASE(section_hole) { add(row_of(e, CVQ_SECTION_TOKENIZER) + 8, 64); }
CASE(section_zero) { cvq_store_le(row_of(e, CVQ_SECTION_CONFIG) + 8, 0, 8); }
CASE(section_far) { cvq_store_le(row_of(e, CVQ_SECTION_CHUNKS) + 8, UINT64_MAX - 63, 8); }
CASE(size_huge) { cvq_store_le(row_of(e, CVQ_SECTION_INDEX) + 16, UINT64_MAX, 8); }
CASE(size_63) { cvq_store_le(row_of(e, CVQ_SECTION_CHUNKS) + 16, INT64_MAX, 8); }
CASE(size_wraps) {
    cvq_store_le(row_of(e, CVQ_SECTION_INDEX) + 16, 0 - e->s[CVQ_SECTION_INDEX].offset, 8);
}
CASE(reserve_short) { add(row_of(e, CVQ_SECTION_RESERVE) + 16, (uint64_t)-64); }
CASE(data_short) { add(row_of(e, CVQ_SECTION_DATA) + 16, (uint64_t)-1); }
CASE(data_long) { add(row_of(e, CVQ_SECTION_DATA) + 16, 1); }
CASE(gap) { e->head[CVQ_HEADER_BYTES + 3] = 1; }
CASE(gap_config) { e->head[e->s[CVQ_SECTION_CONFIG].offset + CVQ_CONFIG_BYTES] = 1; }
CASE(reserve) { e->head[e->size - 1] = 1; }
CASE(config_size) { add(row_of(e, CVQ_SECTION_CONFIG) + 16, 4); }
CASE(config_zero) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset, 0, 4); }
CASE(config_layers) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset + 4, 0xffffffff, 4); }
CASE(config_more) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset + 4, 2, 4); }
CASE(config_nan) { cvq_store_le(e->head + e->s[CVQ_SECTION_CONFIG].offset + 28, 0x7fc00000, 4); }
CASE(config_eos) { e->head[e->s[CVQ_SECTION_CONFIG].offset + 4 * 18] = 1; }
CASE(index_size) { add(row_of(e, CVQ_SECTION_INDEX) + 16, 200); }
CASE(name) { entry_of(e, MATRIX)[0] = 'n'; }
CASE(name_tail) { entry_of(e, MATRIX)[103] = 'n'; }
CASE(names_swapped) {
    uint8_t t[CVQ_INDEX_ENTRY_BYTES];
    memcpy(t, entry_of(e, 5), sizeof t);
    memcpy(entry_of(e, 5), entry_of(e, 6), sizeof t);
    memcpy(entry_of(e, 6), t, sizeof t);
}
CASE(type_unknown) { entry_of(e, MATRIX)[104] = CVQ_TYPES; }
CASE(type_huge) { entry_of(e, MATRIX)[107] = 0xff; }
CASE(type_of_norm) { entry_of(e, 0)[104] = CVQ_TYPE_BF16; }
CASE(type_of_matrix) { entry_of(e, MATRIX)[104] = CVQ_TYPE_F32; }
CASE(type_other) {
    entry_of(e, MATRIX)[104] = CVQ_TYPE_Q8;
    memset(entry_of(e, MATRIX) + 176, 0, 24);
}
CASE(panel_one) { entry_of(e, MATRIX)[108] = 1; }
CASE(panel_of_table) { entry_of(e, EMBEDDING)[108] = 16; }
CASE(ndim) { entry_of(e, MATRIX)[112] = 3; }
CASE(entry_reserved) { entry_of(e, MATRIX)[116] = 1; }
CASE(dim) { add(entry_of(e, MATRIX) + 120, 1); }
CASE(dim_huge) { cvq_store_le(entry_of(e, MATRIX) + 128, UINT64_MAX, 8); }
CASE(dim_unused) { cvq_store_le(entry_of(e, MATRIX) + 144, 0, 8); }
CASE(offset) { add(entry_of(e, MATRIX) + 152, CVQ_ALIGNMENT); }
CASE(offset_overlaps) { add(entry_of(e, MATRIX) + 152, 0 - (uint64_t)CVQ_ALIGNMENT); }
CASE(offset_huge) { cvq_store_le(entry_of(e, MATRIX) + 152, (uint64_t)0 - 65536, 8); }
CASE(size_less) { add(entry_of(e, MATRIX) + 160, (uint64_t)-1); }
CASE(size_overflow) { cvq_store_le(entry_of(e, MATRIX) + 160, (uint64_t)1 << 63, 8); }
CASE(first_chunk) { add(entry_of(e, MATRIX) + 168, 1); }
CASE(codebook_falls) { entry_of(e, MATRIX)[176 + 5] = 1; }
CASE(codebook_high) { entry_of(e, MATRIX)[176 + 15] = 128; }
CASE(codebook_extra) { entry_of(e, 0)[176] = 1; }
CASE(tokenizer_magic) { e->head[e->s[CVQ_SECTION_TOKENIZER].offset] = 'X'; }
CASE(tokenizer_size) {
    add(row_of(e, CVQ_SECTION_TOKENIZER) + 16, (uint64_t)-1);
    uint8_t *last = e->head + e->s[CVQ_SECTION_TOKENIZER].offset + e->s[CVQ_SECTION_TOKENIZER].size;
    last[-1] = 0;
}
CASE(metadata_size) { cvq_store_le(e->head + e->s[CVQ_SECTION_METADATA].offset, 0, 8); }
CASE(metadata_bomb) {
    cvq_store_le(e->head + e->s[CVQ_SECTION_METADATA].offset, CVQ_MAX_METADATA + 1, 8);
}
CASE(metadata_other) { add(e->head + e->s[CVQ_SECTION_METADATA].offset, 1); }
CASE(metadata_frame) { e->head[e->s[CVQ_SECTION_METADATA].offset + 8] ^= 1; }
CASE(metadata_behind) { add(row_of(e, CVQ_SECTION_METADATA) + 16, 1); }
CASE(chunks_more) { add(row_of(e, CVQ_SECTION_CHUNKS) + 16, 32); }
CASE(chunks_less) { add(row_of(e, CVQ_SECTION_CHUNKS) + 16, (uint64_t)-32); }
CASE(chunks_fewer) {
    const cvq_section chunks = e->s[CVQ_SECTION_CHUNKS];
    const uint64_t end = (chunks.offset + chunks.size + 63) / 64 * 64 - 64;
    memset(e->head + end, 0, 64);
    add(row_of(e, CVQ_SECTION_CHUNKS) + 16, (uint64_t)-64);
    add(row_of(e, CVQ_SECTION_RESERVE) + 8, (uint64_t)-64);
    add(row_of(e, CVQ_SECTION_RESERVE) + 16, 64);
    memset(e->head + chunks.offset + chunks.size - 64, 0, 64);
}
#undef CASE
/* clang-format on */

typedef struct malformation {
    const char *name;
    void (*change)(edit *e);
    cvq_status status;
    const char *message; /* part of it */
} malformation;

#define M(change, status, message)                                                                 \
    { #change, change, CVQ_##status, message }
/* The head's hash is made right after each change. */
static const malformation malformations[] = {
    M(magic, FORMAT, "not a .cvq file"),
    M(magic_text, FORMAT, "not a .cvq file"),
    M(version, UNSUPPORTED, "file version 1"),
    M(feature, UNSUPPORTED, "features 0x80000000"),
    M(file_more, FORMAT, "truncated"),
    M(file_less, FORMAT, "1 bytes too many"),
    M(file_huge, FORMAT, "truncated"),
    M(head_zero, FORMAT, "head size 0 is not a multiple"),
    M(head_odd, FORMAT, "is not a multiple of 65536"),
    M(head_huge, FORMAT, "head size 9223372036854775808 is above"),
    M(head_large, FORMAT, "is larger than the file"),
    M(head_longer, MISMATCH, "does not match its SHA-256"),
    M(sections_more, FORMAT, "8 sections, not 7"),
    M(sections_huge, FORMAT, "4278190087 sections, not 7"),
    M(reserved, FORMAT, "header's reserved field"),
    M(kind_twice, FORMAT, "section 1 is of kind 1; 2 (INDEX)"),
    M(kind_swapped, FORMAT, "section 2 is of kind 4"),
    M(row_reserved, FORMAT, "section DATA: reserved"),
    M(section_overlaps, FORMAT, "section INDEX starts at"),
    M(section_hole, FORMAT, "section TOKENIZER starts at"),
    M(section_zero, FORMAT, "section CONFIG starts at byte 0; 256 is"),
    M(section_far, FORMAT, "section CHUNKS starts at byte 18446744073709551552"),
    M(size_huge, FORMAT, "section INDEX, 18446744073709551615 bytes"),
    M(size_63, FORMAT, "section CHUNKS, 9223372036854775807 bytes"),
    M(size_wraps, FORMAT, "ends behind the head"),
    M(reserve_short, FORMAT, "section RESERVE ends at"),
    M(data_short, FORMAT, "section DATA ends at"),
    M(data_long, FORMAT, "ends behind the file"),
    M(gap, FORMAT, "padding before section CONFIG"),
    M(gap_config, FORMAT, "padding before section INDEX"),
    M(reserve, FORMAT, "section RESERVE is not zero"),
    M(config_size, FORMAT, "section CONFIG has 120 bytes"),
    M(config_zero, FORMAT, "config: hidden_size is 0"),
    M(config_layers, FORMAT, "config: num_hidden_layers is 4294967295"),
    M(config_more, FORMAT, "section INDEX has"),
    M(config_nan, FORMAT, "config: rms_norm_eps"),
    M(config_eos, FORMAT, "unused eos id 7"),
    M(index_size, FORMAT, "section TOKENIZER starts at"),
    M(name, FORMAT,
      "tensor 2 has another name than model.layers.0.self_attn.language_expert_query"),
    M(name_tail, FORMAT, "tensor 2 has another name"),
    M(names_swapped, FORMAT, "tensor 5 has another name"),
    M(type_unknown, UNSUPPORTED, "type number 7"),
    M(type_huge, UNSUPPORTED, "type number 4278190084"),
    M(type_of_norm, FORMAT, "input_layernorm.weight: type bf16 is not allowed"),
    M(type_of_matrix, FORMAT, "type f32 is not allowed"),
    M(type_other, FORMAT, "query_key_value.weight: size is"),
    M(panel_one, FORMAT, "panels of 1 rows, not 16"),
    M(panel_of_table, FORMAT, "embed_tokens.weight: panels of 16 rows, not 1"),
    M(ndim, FORMAT, "3 dimensions, not 2"),
    M(entry_reserved, FORMAT, "query_key_value.weight: reserved"),
    M(dim, FORMAT, "dimension 0 is 121, not 120"),
    M(dim_huge, FORMAT, "dimension 1 is 18446744073709551615"),
    M(dim_unused, FORMAT, "dimension 3 is 0, not 1"),
    M(offset, FORMAT, "query_key_value.weight: offset is"),
    M(offset_overlaps, FORMAT, "query_key_value.weight: offset is"),
    M(offset_huge, FORMAT, "offset is 18446744073709486080"),
    M(size_less, FORMAT, "query_key_value.weight: size is"),
    M(size_overflow, FORMAT, "size is 9223372036854775808"),
    M(first_chunk, FORMAT, "first chunk is 3, not 2"),
    M(codebook_falls, FORMAT, "codebook is not valid for type q4t"),
    M(codebook_high, FORMAT, "codebook is not valid for type q4t"),
    M(codebook_extra, FORMAT, "codebook is not valid for type f32"),
    M(tokenizer_magic, FORMAT, "tokenizer table: no magic"),
    M(tokenizer_size, FORMAT, "tokenizer table: its counts need"),
    M(metadata_size, FORMAT, "metadata: 0 bytes"),
    M(metadata_bomb, FORMAT, "metadata: 16777217 bytes"),
    M(metadata_other, FORMAT, "does not state the section's"),
    M(metadata_frame, FORMAT, "not a whole zstd frame"),
    M(metadata_behind, FORMAT, "metadata: 1 bytes behind its zstd frame"),
    M(chunks_more, FORMAT, "section RESERVE starts at"),
    M(chunks_fewer, FORMAT, "section CHUNKS has"),
    M(chunks_less, FORMAT, "padding before section RESERVE"),
};

static uint8_t *read_head(int fd, edit *e) {
    uint8_t start[CVQ_HEADER_BYTES];
    if (pread(fd, start, sizeof start, 0) != sizeof start) abort();
    e->size = cvq_load_le(start + 24, 8);
    for (size_t i = 0; i < CVQ_SECTIONS; i++) {
        const uint8_t *row = start + 72 + 24 * i;
        e->s[i] = (cvq_section){cvq_load_le(row + 8, 8), cvq_load_le(row + 16, 8)};
    }
    uint8_t *head = malloc((size_t)e->size);
    if (!head || pread(fd, head, (size_t)e->size, 0) != (ssize_t)e->size) abort();
    return head;
}

static void put_head(int fd, edit *e, bool hash) {
    if (hash && cvq_head_hash(e->head, e->size, e->head + CVQ_HASH_OFFSET, NULL) != CVQ_OK) abort();
    if (pwrite(fd, e->head, (size_t)e->size, 0) != (ssize_t)e->size) abort();
}

static void malformed_heads_are_refused(void) {
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    const int fd = fresh(SMALL_METADATA, false, id);
    uint8_t *good = read_head(fd, &e);
    e.head = malloc((size_t)e.size);
    if (!e.head) abort();
    for (size_t i = 0; i < sizeof malformations / sizeof *malformations; i++) {
        const malformation *m = &malformations[i];
        cvq_reader *r = NULL;
        cvq_error err = {0};
        memcpy(e.head, good, (size_t)e.size);
        m->change(&e);
        put_head(fd, &e, true);
        const cvq_status s = cvq_reader_open(&r, path, &err);
        CHECK_SAY(s == m->status && r == NULL && strstr(err.message, m->message) &&
                      strcmp(err.where, path) == 0,
                  "%s: status %d, \"%s\"", m->name, s, err.message);
        cvq_reader_close(r);
    }
    cvq_reader *r = NULL;
    memcpy(e.head, good, (size_t)e.size);
    put_head(fd, &e, true);
    CHECK(cvq_reader_open(&r, path, NULL) == CVQ_OK); /* the way back is right, too */
    cvq_reader_close(r);
    free(e.head);
    free(good);
    close(fd);
}

/* Without a new hash no bit of the head can change. */
static void head_bits_are_bound(void) {
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    uint64_t state = 11;
    const int fd = fresh(SMALL_METADATA, false, id);
    e.head = read_head(fd, &e);
    for (int i = 0; i < 200; i++) {
        const uint64_t at = i < 60 ? (uint64_t)i * 4 : small_random(&state) % e.size;
        const uint8_t bit = (uint8_t)(1u << small_random(&state) % 8);
        cvq_reader *r = NULL;
        e.head[at] ^= bit;
        if (pwrite(fd, e.head + at, 1, (off_t)at) != 1) abort();
        CHECK_SAY(cvq_reader_open(&r, path, NULL) != CVQ_OK, "byte %llu", (unsigned long long)at);
        cvq_reader_close(r);
        e.head[at] ^= bit;
        if (pwrite(fd, e.head + at, 1, (off_t)at) != 1) abort();
    }
    free(e.head);
    close(fd);
}

/* With a new hash anything may be in the head: opening ends, and what it accepts can be used. */
static void random_heads_are_survived(void) {
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    uint64_t state = 12;
    const int fd = fresh(SMALL_METADATA, false, id);
    uint8_t *good = read_head(fd, &e);
    const uint64_t used = e.s[CVQ_SECTION_CHUNKS].offset + e.s[CVQ_SECTION_CHUNKS].size;
    e.head = malloc((size_t)e.size);
    if (!e.head) abort();
    for (int i = 0; i < 300; i++) {
        cvq_reader *r = NULL;
        memcpy(e.head, good, (size_t)e.size);
        for (uint32_t n = small_random(&state) % 3 + 1; n > 0; n--)
            e.head[small_random(&state) % used] = (uint8_t)small_random(&state);
        put_head(fd, &e, true);
        if (cvq_reader_open(&r, path, NULL) != CVQ_OK) continue;
        cvq_buffer json = {0};
        (void)cvq_reader_metadata(r, &json, NULL);
        (void)cvq_reader_verify(r, 1, NULL, NULL, NULL, NULL);
        cvq_buffer_free(&json);
        cvq_reader_close(r);
    }
    free(e.head);
    free(good);
    close(fd);
}

static void truncation_is_refused(void) {
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    const int fd = fresh(SMALL_METADATA, false, id);
    uint8_t *head = read_head(fd, &e);
    const uint64_t size = e.s[CVQ_SECTION_DATA].offset + e.s[CVQ_SECTION_DATA].size;
    uint64_t cuts[40] = {size - 1, size - 65536, e.size, e.size - 1, 0, 1, 7, 8, 72, 239, 240};
    size_t n = 11;
    for (int i = 0; i < CVQ_SECTIONS; i++) {
        cuts[n++] = e.s[i].offset;
        cuts[n++] = e.s[i].offset + 5;
    }
    for (size_t i = 0; i < n; i++) {
        cvq_reader *r = NULL;
        cvq_error err = {0};
        unlink(path);
        const int cut = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        const size_t keep = cuts[i] < e.size ? (size_t)cuts[i] : (size_t)e.size;
        if (pwrite(cut, head, keep, 0) != (ssize_t)keep || ftruncate(cut, (off_t)cuts[i]) != 0)
            abort();
        CHECK(cvq_reader_open(&r, path, &err) == CVQ_FORMAT);
        CHECK_SAY(strstr(err.message, cuts[i] < 8 ? "not a .cvq file" : "truncated"), "%s",
                  err.message);
        close(cut);
    }
    free(head);
    close(fd);
}

static void strange_files_are_refused(void) {
    cvq_reader *r = NULL;
    cvq_error err = {0};
    unlink(path);
    CHECK(cvq_reader_open(&r, path, &err) == CVQ_NOT_FOUND && strcmp(err.where, path) == 0);
    CHECK(cvq_reader_open(&r, folder, NULL) == CVQ_IO && r == NULL);
    uint8_t id[CVQ_ID_BYTES];
    const int fd = fresh(SMALL_METADATA, false, id);
    const off_t end = lseek(fd, 0, SEEK_END);
    err = (cvq_error){0};
    if (pwrite(fd, "", 1, end) != 1) abort();
    CHECK(cvq_reader_open(&r, path, &err) == CVQ_FORMAT && strstr(err.message, "1 bytes too many"));

    edit e; /* the same byte, admitted by header and section table: no tensor has it */
    e.head = read_head(fd, &e);
    add(e.head + 16, 1);
    add(row_of(&e, CVQ_SECTION_DATA) + 16, 1);
    put_head(fd, &e, true);
    err = (cvq_error){0};
    CHECK(cvq_reader_open(&r, path, &err) == CVQ_FORMAT);
    CHECK_SAY(strstr(err.message, "the last tensor ends at byte"), "%s", err.message);
    free(e.head);
    close(fd);
}

/* Any frame is read, not only what the writer makes: here the text's last 4 bytes are one run. One
 * that states its size and then gives another is found when it is decompressed. */
static void other_frames(void) {
    uint8_t id[CVQ_ID_BYTES];
    edit e;
    const int fd = fresh(SMALL_METADATA, false, id);
    const uint32_t size = sizeof SMALL_METADATA - 1;
    e.head = read_head(fd, &e);
    uint8_t *block = e.head + e.s[CVQ_SECTION_METADATA].offset + 8 + 13;
    CHECK(e.s[CVQ_SECTION_METADATA].size == 8 + 13 + 3 + size);
    CHECK(cvq_load_le(block, 3) == (1 | size << 3));
    for (uint32_t run = 4; run < 6; run++) {
        cvq_reader *r = NULL;
        cvq_buffer json = {0};
        cvq_error err = {0};
        cvq_store_le(block, (size - 4) << 3, 3);
        cvq_store_le(block + 3 + size - 4, 1 | 1 << 1 | run << 3, 3);
        block[3 + size - 1] = '}';
        put_head(fd, &e, true);
        CHECK(cvq_reader_open(&r, path, NULL) == CVQ_OK);
        if (!r) break;
        const cvq_status status = cvq_reader_metadata(r, &json, &err);
        if (run == 4) CHECK(status == CVQ_OK && json.size == size && json.data[size - 4] == '}');
        if (run == 5) CHECK(status == CVQ_FORMAT && strstr(err.message, "metadata"));
        cvq_buffer_free(&json);
        cvq_reader_close(r);
    }
    free(e.head);
    close(fd);
}

/* ---------------------------------------------------------------- verifying */

typedef struct seen {
    size_t calls, tensor[8], progress;
    uint64_t offset[8], size[8], done, total;
    bool stop;
} seen;

static void note_damage(void *context, size_t tensor, uint64_t offset, uint64_t size) {
    seen *s = context;
    if (s->calls < 8) {
        s->tensor[s->calls] = tensor;
        s->offset[s->calls] = offset;
        s->size[s->calls] = size;
    }
    s->calls++;
}
static int note_progress(void *context, uint64_t done, uint64_t total) {
    seen *s = context;
    s->progress++;
    CHECK(done >= s->done && done <= total);
    s->done = done;
    s->total = total;
    return s->stop;
}

static void flip(int fd, uint64_t at) {
    uint8_t b;
    if (pread(fd, &b, 1, (off_t)at) != 1) abort();
    b ^= 0x10;
    if (pwrite(fd, &b, 1, (off_t)at) != 1) abort();
}

static void verify_names_the_damage(void) {
    uint8_t id[CVQ_ID_BYTES];
    cvq_reader *r = NULL;
    const int fd = fresh(SMALL_METADATA, false, id);
    CHECK(cvq_reader_open(&r, path, NULL) == CVQ_OK);
    if (!r) return;
    const size_t last = cvq_reader_tensor_count(r) - 1;
    for (size_t i = 0; i <= last; i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        for (int end = 0; end < 2; end++) {
            seen s = {0};
            cvq_error err = {0};
            const uint64_t in = end ? t->size - 1 : 0, chunk = in / CVQ_CHUNK_BYTES;
            const uint64_t at = t->offset + chunk * CVQ_CHUNK_BYTES;
            const uint64_t left = t->offset + t->size - at;
            flip(fd, t->offset + in);
            CHECK(cvq_reader_verify(r, 1 + end, note_damage, note_progress, &s, &err) ==
                  CVQ_MISMATCH);
            CHECK(s.calls == 1 && s.tensor[0] == i && s.offset[0] == at);
            CHECK(s.size[0] == (left < CVQ_CHUNK_BYTES ? left : CVQ_CHUNK_BYTES));
            CHECK(s.done == s.total &&
                  s.done == cvq_reader_file_size(r) - cvq_reader_tensor(r, 0)->offset);
            CHECK(strstr(err.message, t->spec.name) && strcmp(err.where, path) == 0);
            flip(fd, t->offset + in);
        }
        if (i == last) break;
        seen s = {0};
        cvq_error err = {0};
        const uint64_t padding = t->offset + t->size;
        if (padding == t[1].offset) continue;
        flip(fd, t[1].offset - 1);
        CHECK(cvq_reader_verify(r, 1, note_damage, NULL, &s, &err) == CVQ_MISMATCH);
        CHECK(s.calls == 1 && s.tensor[0] == SIZE_MAX && s.offset[0] == padding);
        CHECK(s.offset[0] + s.size[0] == t[1].offset && strstr(err.message, "padding"));
        flip(fd, t[1].offset - 1);
    }
    CHECK(cvq_reader_verify(r, 2, note_damage, NULL, NULL, NULL) == CVQ_OK);
    cvq_reader_close(r);
    close(fd);
}

static void verify_joins_and_stops(void) {
    uint8_t id[CVQ_ID_BYTES];
    cvq_reader *r = NULL;
    seen s = {0};
    cvq_error err = {0};
    const int fd = fresh(SMALL_METADATA, false, id);
    CHECK(cvq_reader_open(&r, path, NULL) == CVQ_OK);
    if (!r) return;
    const cvq_tensor *t = cvq_reader_tensor(r, EMBEDDING);
    CHECK(t->size > CVQ_CHUNK_BYTES); /* two chunks, both damaged: one range */
    flip(fd, t->offset);
    flip(fd, t->offset + t->size - 1);
    flip(fd, cvq_reader_tensor(r, 3)->offset);
    CHECK(cvq_reader_verify(r, 2, note_damage, NULL, &s, &err) == CVQ_MISMATCH);
    CHECK(s.calls == 2 && s.tensor[0] == 3 && s.tensor[1] == EMBEDDING);
    CHECK(s.offset[1] == t->offset && s.size[1] == t->size);
    CHECK_SAY(strstr(err.message, "damaged ranges: 2"), "%s", err.message);
    s = (seen){.stop = true};
    CHECK(cvq_reader_verify(r, 2, NULL, note_progress, &s, NULL) == CVQ_CANCELLED);
    CHECK(s.progress == 1);
    cvq_reader_close(r);
    close(fd);
}

int main(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.32s/cvq-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/small.cvq", folder);
    RUN(written_file_comes_back);
    RUN(order_does_not_matter);
    RUN(longer_card_moves_no_weight);
    RUN(writer_refuses);
    RUN(writer_goes_on);
    RUN(malformed_heads_are_refused);
    RUN(head_bits_are_bound);
    RUN(random_heads_are_survived);
    RUN(truncation_is_refused);
    RUN(strange_files_are_refused);
    RUN(other_frames);
    RUN(verify_names_the_damage);
    RUN(verify_joins_and_stops);
    unlink(path);
    rmdir(folder);
    return REPORT();
}
