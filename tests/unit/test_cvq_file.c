/* The .cvq file: what is written comes back, every byte is accounted for, and what does not
 * fit is refused (each malformation of a head: test_malformed_files.c).
 * cvq-test: threads formats */
#include "tests/unit/head_edit.h"

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
    CHECK(seen == (1u << CVQ_TYPES) - 1 && chunk > cvq_reader_tensor_count(r));
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

/* ---------------------------------------------------------------- other malformations */

enum { EMBEDDING = 10 };

static void strange_files_are_refused(void) {
    cvq_reader *r = NULL;
    cvq_error err = {0};
    unlink(path);
    CHECK(cvq_reader_open(&r, path, &err) == CVQ_NOT_FOUND && strcmp(err.where, path) == 0);
    CHECK(cvq_reader_open(&r, temp_folder, NULL) == CVQ_IO && r == NULL);
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
    if (!make_folder()) return 1;
    RUN(written_file_comes_back);
    RUN(order_does_not_matter);
    RUN(longer_card_moves_no_weight);
    RUN(writer_refuses);
    RUN(writer_goes_on);
    RUN(strange_files_are_refused);
    RUN(other_frames);
    RUN(verify_names_the_damage);
    RUN(verify_joins_and_stops);
    temp_close();
    return REPORT();
}
