/* The smallest .cvq file that the format allows: truncated at every byte, and with every bit of its
 * head flipped, with and without a hash that was made to fit. Every case is refused, or is a change
 * without harm: another valid file. A configuration where this is slow tries fewer, and says so. */
#include <sys/mman.h>

#include "cvq.h"
#include "tests/unit/head_edit.h"

static const cvq_model_config smallest_config = {.hidden_size = 2,
                                                 .num_layers = 1,
                                                 .num_heads = 1,
                                                 .num_kv_heads = 1,
                                                 .intermediate_size = 1,
                                                 .vocab_size = 257,
                                                 .max_positions = 8,
                                                 .rms_norm_eps = 1e-5f,
                                                 .num_eos = 1,
                                                 .template_version = CVQ_TEMPLATE_CHAT,
                                                 .vit_hidden_size = 2,
                                                 .vit_num_layers = 1,
                                                 .vit_num_heads = 1,
                                                 .vit_intermediate_size = 1,
                                                 .image_size = 4,
                                                 .patch_size = 2,
                                                 .in_channels = 3,
                                                 .vit_num_positions = 5,
                                                 .vit_layer_norm_eps = 1e-6f};
#define SMALLEST_METADATA                                                                          \
    "{\"format\":\"cvq\",\"recipe\":{\"name\":\"\",\"types\":{}},\"source\":{\"revision\":\"\","   \
    "\"files\":[]},\"generation\":{},\"licenses\":[],\"card\":\"\"}"

/* The file, mapped and shared, so that what is changed in memory is changed in it. */
static uint8_t *file;
static uint64_t file_size;
static edit e;         /* its head is `file` */
static uint64_t used;  /* bytes of the head before its reserve */
static uint64_t every; /* every how many bits, and bytes, are tried */

static void write_smallest(int fd) {
    uint8_t bytes[256], special[256] = {0};
    uint32_t offsets[257];
    cvq_type types[256];
    cvq_buffer table = {0};
    cvq_writer *w = NULL;
    cvq_error err = {0};
    for (uint32_t i = 0; i < 257; i++) {
        if (i < 256) bytes[i] = (uint8_t)i;
        offsets[i] = i;
    }
    const cvq_tokenizer_source source = {
        .num_tokens = 256, .bytes = bytes, .offsets = offsets, .special = special};
    cvq_status status = cvq_tokenizer_table_build(&table, &source, &err);
    small_types(&smallest_config, types);
    for (size_t i = 0; i < cvq_model_tensor_count(&smallest_config); i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&smallest_config, i, &spec);
        if (spec.rows > 256) types[i] = CVQ_TYPE_BF16; /* so that none needs more than 64 KiB */
    }
    const cvq_file_spec spec = {.config = &smallest_config,
                                .types = types,
                                .tokenizer = table.data,
                                .tokenizer_size = table.size,
                                .metadata = SMALLEST_METADATA,
                                .metadata_size = strlen(SMALLEST_METADATA)};
    if (status == CVQ_OK) status = cvq_writer_plan(&w, &spec, &err);
    if (status == CVQ_OK) status = cvq_writer_begin(w, fd, path, false, &err);
    for (size_t i = 0; status == CVQ_OK && i < cvq_writer_tensor_count(w); i++) {
        static uint8_t data[65536];
        const cvq_tensor *t = cvq_writer_tensor(w, i);
        if (t->size > sizeof data) abort();
        small_tensor(t, i, data);
        status = cvq_writer_put(w, i, 0, data, (size_t)t->size, &err);
    }
    if (status == CVQ_OK) status = cvq_writer_finish(w, NULL, &err);
    CHECK_SAY(status == CVQ_OK, "%s: %s", err.where, err.message);
    cvq_writer_free(w);
    cvq_buffer_free(&table);
}

static void mend(void) {
    if (cvq_head_hash(e.head, e.size, e.head + CVQ_HASH_OFFSET, NULL) != CVQ_OK) abort();
}

/* The writer leaves room for a longer model card; the format asks for none. */
static void drop_reserve(int fd) {
    edit old = {.fd = fd};
    old.head = read_head(fd, &old);
    const cvq_section *reserve = &old.s[CVQ_SECTION_RESERVE];
    const uint64_t size = (reserve->offset + CVQ_ALIGNMENT - 1) / CVQ_ALIGNMENT * CVQ_ALIGNMENT;
    const uint64_t less = old.size - size, data = old.s[CVQ_SECTION_DATA].size;
    add(old.head + 16, 0 - less);
    add(old.head + 24, 0 - less);
    add(row_of(&old, CVQ_SECTION_RESERVE) + 16, 0 - less);
    add(row_of(&old, CVQ_SECTION_DATA) + 8, 0 - less);
    for (size_t i = 0; i < cvq_model_tensor_count(&smallest_config); i++)
        add(entry_of(&old, i) + 152, 0 - less);
    uint8_t *weights = malloc((size_t)data);
    if (!weights || pread(fd, weights, (size_t)data, (off_t)old.size) != (ssize_t)data) abort();
    if (pwrite(fd, old.head, (size_t)size, 0) != (ssize_t)size ||
        pwrite(fd, weights, (size_t)data, (off_t)size) != (ssize_t)data ||
        ftruncate(fd, (off_t)(size + data)) != 0)
        abort();
    free(old.head);
    free(weights);
    file_size = size + data;
    e.head = read_head(fd, &e);
    free(e.head);
    used = reserve->offset;
}

static void make_smallest(void) {
    unlink(path);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) abort();
    write_smallest(fd);
    drop_reserve(fd);
    file = mmap(NULL, (size_t)file_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED) abort();
    e.head = file;
    e.fd = fd;
    mend();
    cvq_reader *r = NULL;
    cvq_model *m = NULL;
    cvq_error err = {0};
    CHECK_SAY(cvq_reader_open(&r, path, &err) == CVQ_OK, "%s", err.message);
    if (!r) return;
    CHECK(cvq_reader_verify(r, 1, NULL, NULL, NULL, NULL) == CVQ_OK);
    CHECK_SAY(cvq_model_open(&m, path, NULL, &err) == CVQ_OK, "%s", err.message);
    CHECK(e.size == CVQ_ALIGNMENT && used < e.size);
    printf("  %llu bytes, of these %llu of head before its reserve\n",
           (unsigned long long)file_size, (unsigned long long)used);
    cvq_model_close(m);
    cvq_reader_close(r);
}

/* ---------------------------------------------------------------- truncation */

static void check_cut(cvq_status s, const cvq_error *err, uint64_t size) {
    CHECK_SAY(s == CVQ_FORMAT && strstr(err->message, size < 8 ? "not a .cvq file" : "truncated"),
              "%llu bytes: %d, %s", (unsigned long long)size, s, err->message);
}

/* All that opening does with a file's size is in cvq_head_decode; beginning and ends are tried
 * through the file, too. */
static void truncated_anywhere(void) {
    uint64_t tried = 0, opened = 0;
    for (uint64_t size = file_size; size-- > 0;) {
        cvq_head head;
        cvq_error err = {0};
        if (size >= used && size % every != 0) continue;
        if (size >= used && size % 64 != 0) /* without its message, which takes longer to make */
            CHECK(cvq_head_decode(&head, file, size, path, NULL) == CVQ_FORMAT);
        else
            check_cut(cvq_head_decode(&head, file, size, path, &err), &err, size);
        tried++;
    }
    uint8_t *copy = malloc((size_t)file_size);
    if (!copy) abort();
    memcpy(copy, file, (size_t)file_size);
    for (uint64_t size = file_size; size-- > 0;) {
        cvq_reader *r = NULL;
        cvq_error err = {0};
        if (size % CVQ_ALIGNMENT > 256 && size != file_size - 1 && (size >= used || size % every))
            continue;
        if (ftruncate(e.fd, (off_t)size) != 0) abort();
        check_cut(cvq_reader_open(&r, path, &err), &err, size);
        opened++;
    }
    if (pwrite(e.fd, copy, (size_t)file_size, 0) != (ssize_t)file_size) abort();
    free(copy);
    printf("  %llu of %llu sizes, %llu of them as files\n", (unsigned long long)tried,
           (unsigned long long)file_size, (unsigned long long)opened);
}

/* ---------------------------------------------------------------- flipped bits */

/* Without a new hash none is accepted. Of the reserve a bit in every fourth byte is tried. */
static void flipped_bits_are_found(void) {
    uint64_t tried = 0;
    for (uint64_t bit = 0; bit < 8 * e.size; bit++) {
        const uint64_t at = bit / 8;
        cvq_head head;
        if (at < used ? bit % every != 0 : (bit % 8 != at / 4 % 8 || at % (4 * every) != 0))
            continue;
        file[at] ^= (uint8_t)(1u << bit % 8);
        const cvq_status s = cvq_head_decode(&head, file, file_size, path, NULL);
        CHECK_SAY(s != CVQ_OK, "bit %llu", (unsigned long long)bit);
        file[at] ^= (uint8_t)(1u << bit % 8);
        tried++;
    }
    printf("  %llu bits of %llu\n", (unsigned long long)tried, (unsigned long long)(8 * e.size));
}

/* What may differ and still be a valid file: numbers of the config, types (of the same size, as q4
 * and q4h), codebooks, pieces, metadata and hashes. Everything else follows from these. */
static bool is_free(uint64_t at) {
    static const cvq_section_kind kinds[] = {CVQ_SECTION_CONFIG, CVQ_SECTION_TOKENIZER,
                                             CVQ_SECTION_METADATA, CVQ_SECTION_CHUNKS};
    const cvq_section index = e.s[CVQ_SECTION_INDEX];
    if (at >= index.offset && at < index.offset + index.size) {
        const uint64_t in_entry = (at - index.offset) % CVQ_INDEX_ENTRY_BYTES;
        return in_entry >= 176 || in_entry == 104;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (at >= e.s[kinds[i]].offset && at < e.s[kinds[i]].offset + e.s[kinds[i]].size)
            return true;
    return false;
}

/* What is accepted can be used, or names what is wrong. */
static void use(cvq_reader *r, uint64_t at) {
    cvq_buffer json = {0};
    cvq_model *m = NULL;
    (void)cvq_reader_metadata(r, &json, NULL);
    cvq_buffer_free(&json);
    if (at >= e.s[CVQ_SECTION_CHUNKS].offset)
        CHECK(cvq_reader_verify(r, 1, NULL, NULL, NULL, NULL) == CVQ_MISMATCH);
    else if (cvq_model_open(&m, path, NULL, NULL) == CVQ_OK)
        cvq_model_close(m);
}

static void mended_bits_are_harmless(void) {
    uint64_t refused = 0, accepted = 0;
    for (uint64_t bit = 0; bit < 8 * used; bit++) {
        const uint64_t at = bit / 8;
        cvq_reader *r = NULL;
        cvq_error err = {0};
        if (bit % every != 0 || (at >= CVQ_HASH_OFFSET && at < CVQ_HASH_OFFSET + CVQ_HASH_BYTES))
            continue;
        file[at] ^= (uint8_t)(1u << bit % 8);
        mend();
        if (cvq_reader_open(&r, path, &err) == CVQ_OK) {
            CHECK_SAY(is_free(at), "bit %llu is accepted", (unsigned long long)bit);
            if (++accepted % 64 == 0) use(r, at);
        } else {
            CHECK_SAY(err.message[0] && strcmp(err.where, path) == 0, "%s", err.where);
            refused++;
        }
        cvq_reader_close(r);
        file[at] ^= (uint8_t)(1u << bit % 8);
    }
    mend();
    printf("  %llu refused, %llu another valid file\n", (unsigned long long)refused,
           (unsigned long long)accepted);
}

int main(void) {
    const char *config = getenv("CVQ_CONFIG");
    every = !config || strcmp(config, "gcc") == 0 ? 1 : 37;
    if (!make_folder()) return 1;
    RUN(make_smallest);
    RUN(truncated_anywhere);
    RUN(flipped_bits_are_found);
    RUN(mended_bits_are_harmless);
    if (every > 1)
        SKIP("every byte and bit", "one in 37 is tried here; the ordinary build tries all");
    if (file) munmap(file, (size_t)file_size);
    close(e.fd);
    temp_close();
    return REPORT();
}
