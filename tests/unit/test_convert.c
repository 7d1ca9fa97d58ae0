/* Whole conversions: values, one step against two, provenance, progress, and the plan of the real
 * model from sparse files.
 * cvq-test: threads formats */
#include "convert/convert.h"

#include "formats/chunk_hash.h"
#include "formats/cvq_reader.h"
#include "formats/json.h"
#include "tests/unit/fake_checkpoint.h"
#include "tests/unit/fake_tokenizer.h"
#include "tests/unit/harness.h"
#include "tests/unit/read_rows.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define MODEL "model.safetensors"

/* ---------------------------------------------------------------- making checkpoints */

static void write_json(const char *name, const cJSON *json) {
    cvq_buffer text = {0};
    if (cvq_json_print(&text, json, NULL) != CVQ_OK) abort();
    temp_write(name, text.data, text.size);
    cvq_buffer_free(&text);
}

static void write_config(const cvq_model_config *c) {
    char text[2000];
    snprintf(text, sizeof text,
             "{\"architectures\":[\"CogVLMForCausalLM\"],\"hidden_size\":%u,"
             "\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_multi_query_heads\":%u,"
             "\"intermediate_size\":%u,\"vocab_size\":%u,\"max_position_embeddings\":%u,"
             "\"bos_token_id\":%u,\"pad_token_id\":%u,\"eos_token_id\":[%u],\"vision_config\":{"
             "\"hidden_size\":%u,\"num_hidden_layers\":%u,\"num_heads\":%u,"
             "\"intermediate_size\":%u,\"image_size\":%u,\"patch_size\":%u,\"in_channels\":%u,"
             "\"num_positions\":%u,\"layer_norm_eps\":1e-6}}",
             c->hidden_size, c->num_layers, c->num_heads, c->num_kv_heads, c->intermediate_size,
             c->vocab_size, c->max_positions, c->bos_id, c->pad_id, c->eos_ids[0],
             c->vit_hidden_size, c->vit_num_layers, c->vit_num_heads, c->vit_intermediate_size,
             c->image_size, c->patch_size, c->in_channels, c->vit_num_positions);
    temp_write_text("config.json", text);
}

/* A whole checkpoint in the temporary folder, instead of what is there. */
static void make_checkpoint(cvq_st_dtype dtype) {
    fake_list l = fake_list_make(&fake_config, dtype);
    for (size_t i = 0; i < l.count && dtype == CVQ_ST_F16; i++) {
        if (strstr(l.tensors[i].name, "inv_freq")) l.tensors[i].dtype = CVQ_ST_F32;
    }
    temp_close();
    if (!temp_open()) exit(1);
    write_config(&fake_config);
    fake_write(MODEL, l.tensors, l.count, false);
    fake_list_free(&l);
    cJSON *tokenizer = make_tokenizer();
    write_json("tokenizer.json", tokenizer);
    cJSON_Delete(tokenizer);
    temp_write_text("LICENSE", "a licence\n");
}

/* ---------------------------------------------------------------- converting */

static cvq_convert_options plain_options(void) {
    return (cvq_convert_options){.quantize = {.threads = 2}};
}

static cvq_recipe *open_recipe(const char *name) {
    cvq_recipe *r = NULL;
    cvq_error err = {0};
    bool custom = strcmp(name, "custom") == 0;
    cvq_status status = cvq_recipe_open(&r, custom ? "q8" : name, &err);
    if (status == CVQ_OK && custom) {
        status = cvq_recipe_add_rule(r, "model.layers.1.*gate_proj.weight=q6", &err);
    }
    if (status != CVQ_OK) {
        printf("%s\n", err.message);
        exit(1);
    }
    return r;
}

/* The folder's checkpoint to the file `name` in it, with a journal beside it. */
static cvq_status convert_with(const char *recipe, const cvq_convert_options *options,
                               const char *name, bool resume, cvq_convert_result *result,
                               cvq_error *err) {
    cvq_checkpoint *c = NULL;
    char journal[64];
    cvq_status status = cvq_checkpoint_open(&c, temp_folder, err);
    if (status != CVQ_OK) return status;
    cvq_recipe *r = open_recipe(recipe);
    snprintf(journal, sizeof journal, "%s.journal", name);
    const cvq_convert_target target = {.fd = open(temp_path(name), O_RDWR | O_CREAT, 0600),
                                       .journal = open(temp_path(journal), O_RDWR | O_CREAT, 0600),
                                       .resume = resume,
                                       .where = name};
    status = cvq_convert(c, r, options, &target, result, err);
    close(target.fd);
    close(target.journal);
    cvq_recipe_free(r);
    cvq_checkpoint_close(c);
    return status;
}

static cvq_status convert(const char *recipe, const cvq_convert_options *options, const char *name,
                          size_t *licenses, cvq_error *err) {
    cvq_convert_result result = {0};
    cvq_status status = convert_with(recipe, options, name, false, &result, err);
    if (licenses) *licenses = result.licenses;
    return status;
}

static cvq_status requantize_with(const char *in, const char *recipe,
                                  const cvq_convert_options *options, const char *name, bool resume,
                                  cvq_convert_result *result, cvq_error *err) {
    cvq_reader *reader = NULL;
    char journal[64];
    cvq_status status = cvq_reader_open(&reader, temp_path(in), err);
    if (status != CVQ_OK) return status;
    cvq_recipe *r = open_recipe(recipe);
    snprintf(journal, sizeof journal, "%s.journal", name);
    const cvq_convert_target target = {.fd = open(temp_path(name), O_RDWR | O_CREAT, 0600),
                                       .journal = open(temp_path(journal), O_RDWR | O_CREAT, 0600),
                                       .resume = resume,
                                       .where = name};
    status = cvq_requantize(reader, r, options, &target, result, err);
    close(target.fd);
    close(target.journal);
    cvq_recipe_free(r);
    cvq_reader_close(reader);
    return status;
}

static cvq_status requantize(const char *in, const char *recipe, const cvq_convert_options *options,
                             const char *name, cvq_error *err) {
    cvq_convert_result result = {0};
    return requantize_with(in, recipe, options, name, false, &result, err);
}

static bool same_files(const char *a, const char *b) {
    cvq_buffer x = {0}, y = {0};
    bool same = cvq_read_file(&x, temp_path(a), 1u << 30, NULL) == CVQ_OK &&
                cvq_read_file(&y, temp_path(b), 1u << 30, NULL) == CVQ_OK && x.size == y.size &&
                memcmp(x.data, y.data, x.size) == 0;
    cvq_buffer_free(&x);
    cvq_buffer_free(&y);
    return same;
}

/* ---------------------------------------------------------------- values */

/* Every value of a bf16 file is the checkpoint's, rounded to bf16 (f32's inv_freq as it is). */
static void check_file_values(cvq_st_dtype dtype) {
    cvq_reader *reader = NULL;
    cvq_error err = {0};
    CHECK_SAY(cvq_reader_open(&reader, temp_path("a.cvq"), &err) == CVQ_OK, "%s", err.message);
    if (!reader) return;
    CHECK_SAY(cvq_reader_verify(reader, 2, NULL, NULL, NULL, &err) == CVQ_OK, "%s", err.message);
    CHECK(memcmp(cvq_reader_config(reader), &fake_config, sizeof fake_config) == 0);
    cvq_reader_rows *opened = NULL;
    CHECK(cvq_reader_rows_open(&opened, reader, NULL) == CVQ_OK);
    const cvq_row_source rows = cvq_reader_rows_source(opened);
    for (size_t i = 0; i < cvq_reader_tensor_count(reader); i++) {
        const cvq_tensor *t = cvq_reader_tensor(reader, i);
        size_t n = (size_t)(t->spec.rows * t->spec.cols), wrong = 0;
        bool inv_freq = t->spec.role == CVQ_ROLE_INV_FREQ;
        float *out = calloc(n, sizeof *out);
        if (!out) abort();
        CHECK(read_rows(&rows, i, 0, t->spec.rows, out, NULL) == CVQ_OK);
        for (size_t k = 0; k < n; k++) {
            float v = fake_value(t->spec.name, k);
            if (dtype == CVQ_ST_F16 && !inv_freq) v = cvq_f16_to_f32(cvq_f32_to_f16(v));
            if (dtype == CVQ_ST_BF16 || !inv_freq) v = cvq_bf16_to_f32(cvq_f32_to_bf16(v));
            wrong += cvq_f32_bits(v) != cvq_f32_bits(out[k]);
        }
        CHECK_SAY(wrong == 0, "%s: %zu values", t->spec.name, wrong);
        free(out);
    }
    cvq_reader_rows_close(opened);
    cvq_reader_close(reader);
}

static const cvq_st_dtype dtypes[] = {CVQ_ST_BF16, CVQ_ST_F32, CVQ_ST_F16};

static void values_are_kept(void) {
    for (size_t i = 0; i < COUNT(dtypes); i++) {
        cvq_convert_options o = plain_options();
        cvq_error err = {0};
        size_t licenses = 0;
        make_checkpoint(dtypes[i]);
        CHECK_SAY(convert("bf16", &o, "a.cvq", &licenses, &err) == CVQ_OK, "%s: %s", err.where,
                  err.message);
        CHECK(licenses == 1);
        check_file_values(dtypes[i]);
    }
}

static void one_step_is_two_steps(void) {
    static const char *const recipes[] = {"bf16", "custom", "q8", "q4", "q4-small"};
    for (size_t i = 0; i < COUNT(dtypes); i++) {
        size_t count = dtypes[i] == CVQ_ST_BF16 ? COUNT(recipes) : 2;
        cvq_convert_options o = {.revision = "v1", .quantize = {.threads = 3}};
        make_checkpoint(dtypes[i]);
        o.card = "# A card\n";
        CHECK(convert("bf16", &o, "bf16.cvq", NULL, NULL) == CVQ_OK);
        for (size_t r = 0; r < count; r++) {
            cvq_convert_options second = {.quantize = {.threads = 1}};
            cvq_error err = {0};
            CHECK_SAY(convert(recipes[r], &o, "one.cvq", NULL, &err) == CVQ_OK, "%s", err.message);
            CHECK_SAY(requantize("bf16.cvq", recipes[r], &second, "two.cvq", &err) == CVQ_OK, "%s",
                      err.message);
            CHECK_SAY(same_files("one.cvq", "two.cvq"), "%s of %s", recipes[r],
                      cvq_st_dtype_name(dtypes[i]));
        }
    }
}

/* A revision and a card given only with the second step end in the same file, too. */
static void metadata_given_late(void) {
    make_checkpoint(CVQ_ST_BF16);
    cvq_convert_options none = plain_options(), both = plain_options();
    CHECK(convert("bf16", &none, "bf16.cvq", NULL, NULL) == CVQ_OK);
    both.revision = "0123456789abcdef0123456789abcdef01234567";
    both.card = "late";
    CHECK(convert("q8", &both, "one.cvq", NULL, NULL) == CVQ_OK);
    CHECK(requantize("bf16.cvq", "q8", &both, "two.cvq", NULL) == CVQ_OK);
    CHECK(same_files("one.cvq", "two.cvq"));
}

static void quantized_sources_are_refused(void) {
    cvq_convert_options o = plain_options();
    cvq_error err = {0};
    make_checkpoint(CVQ_ST_BF16);
    CHECK(convert("q8", &o, "q8.cvq", NULL, NULL) == CVQ_OK);
    CHECK(requantize("q8.cvq", "q4", &o, "q4.cvq", &err) == CVQ_UNSUPPORTED);
    CHECK_SAY(strstr(err.message, "quantized already") && strstr(err.where, "q8.cvq"), "%s: %s",
              err.where, err.message);
}

static void bad_values_are_named(void) {
    static const char name[] = "model.layers.1.mlp.vision_mlp.up_proj.weight";
    cvq_convert_options o = plain_options();
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    make_checkpoint(CVQ_ST_BF16);
    CHECK(cvq_safetensors_open(&s, temp_folder, NULL) == CVQ_OK);
    off_t at = (off_t)cvq_safetensors_find(s, name)->offset + 2 * (24 * 5 + 7);
    cvq_safetensors_close(s);
    int fd = open(temp_path(MODEL), O_WRONLY);
    CHECK(pwrite(fd, "\xc0\x7f", 2, at) == 2); /* a NaN in row 5 */
    close(fd);
    CHECK(convert("q4", &o, "a.cvq", NULL, &err) == CVQ_FORMAT);
    CHECK_SAY(strstr(err.where, name) && strstr(err.message, "5"), "%s: %s", err.where,
              err.message);
}

/* ---------------------------------------------------------------- provenance */

static void read_metadata(const char *name, cvq_metadata *m) {
    cvq_reader *reader = NULL;
    cvq_buffer json = {0};
    cvq_error err = {0};
    cvq_status status = cvq_reader_open(&reader, temp_path(name), &err);
    if (status == CVQ_OK) status = cvq_reader_metadata(reader, &json, &err);
    if (status == CVQ_OK) {
        status = cvq_metadata_parse(m, (const char *)json.data, json.size, name, &err);
    }
    CHECK_SAY(status == CVQ_OK, "%s", err.message);
    cvq_buffer_free(&json);
    cvq_reader_close(reader);
}

static void check_source_file(const cvq_source_file *f, const char *name) {
    cvq_buffer bytes = {0};
    uint8_t hash[CVQ_HASH_BYTES];
    char hex[65];
    CHECK_SAY(strcmp(f->name, name) == 0, "%s", f->name);
    CHECK(cvq_read_file(&bytes, temp_path(name), 1u << 30, NULL) == CVQ_OK);
    CHECK(cvq_sha256(bytes.data, bytes.size, hash, NULL) == CVQ_OK);
    cvq_hash_hex(hash, hex);
    CHECK(f->size == bytes.size && strcmp(f->sha256, hex) == 0);
    cvq_buffer_free(&bytes);
}

static void provenance(void) {
    static const char *const names[] = {
        "LICENSE",     "MODEL_LICENSE.txt",      "NOTICE", "USE_POLICY.md",
        "config.json", "generation_config.json", MODEL,    "tokenizer.json",
    };
    cvq_convert_options o = {.revision = "abc", .quantize = {.threads = 3}};
    cvq_metadata m = {0};
    cvq_error err = {0};
    size_t licenses = 0;
    make_checkpoint(CVQ_ST_BF16);
    temp_write_text("MODEL_LICENSE.txt", "");
    temp_write_text("blob", "a notice, \xc3\xa9\n\"quoted\"\\");
    CHECK(symlink(temp_path("blob"), temp_path("NOTICE")) == 0);
    temp_write_text("USE_POLICY.md", "policy");
    temp_write_text("README.md", "not in it");
    temp_write_text("tokenizer_config.json", "{}");
    temp_write_text("generation_config.json", "{\"temperature\":0.6,\"top_p\":0.9}");
    CHECK(mkdir(temp_path("LICENSES"), 0700) == 0);
    o.card = "# Card\n";
    CHECK_SAY(convert("bf16", &o, "a.cvq", &licenses, &err) == CVQ_OK, "%s: %s", err.where,
              err.message);
    CHECK(licenses == 4);
    read_metadata("a.cvq", &m);
    CHECK(m.num_files == COUNT(names) && m.num_licenses == 4);
    for (size_t i = 0; i < COUNT(names) && i < m.num_files; i++) {
        check_source_file(&m.files[i], names[i]);
    }
    for (size_t i = 0; i < m.num_licenses; i++) CHECK(strcmp(m.licenses[i].name, names[i]) == 0);
    if (m.num_licenses == 4) {
        CHECK(strcmp(m.licenses[0].text, "a licence\n") == 0);
        CHECK(strcmp(m.licenses[1].text, "") == 0);
        CHECK(strcmp(m.licenses[2].text, "a notice, \xc3\xa9\n\"quoted\"\\") == 0);
    }
    CHECK(strcmp(m.revision, "abc") == 0 && strcmp(m.card, "# Card\n") == 0);
    CHECK(strcmp(m.recipe, "bf16") == 0 && m.num_rules > 0);
    CHECK(m.temperature > 0.59 && m.temperature < 0.61 && m.top_p > 0.89 && m.top_p < 0.91);
    cvq_metadata_free(&m);
}

/* The same checkpoint behind links, as in a download cache, and in another folder: the same file.
 */
static void place_does_not_matter(void) {
    static const char *const names[] = {"config.json", "tokenizer.json", MODEL, "LICENSE"};
    cvq_convert_options o = plain_options();
    make_checkpoint(CVQ_ST_BF16);
    CHECK(convert("bf16", &o, "a.cvq", NULL, NULL) == CVQ_OK);
    CHECK(mkdir(temp_path("links"), 0700) == 0);
    for (size_t i = 0; i < COUNT(names); i++) {
        char blob[32], link[64];
        snprintf(blob, sizeof blob, "blob%zu", i);
        snprintf(link, sizeof link, "links/%s", names[i]);
        CHECK(rename(temp_path(names[i]), temp_path(blob)) == 0);
        CHECK(symlink(temp_path(blob), temp_path(link)) == 0);
    }
    cvq_checkpoint *c = NULL;
    cvq_recipe *r = open_recipe("bf16");
    cvq_convert_result result = {0};
    CHECK(cvq_checkpoint_open(&c, temp_path("links"), NULL) == CVQ_OK);
    const cvq_convert_target target = {
        .fd = open(temp_path("b.cvq"), O_RDWR | O_CREAT, 0600), .journal = -1, .where = "b.cvq"};
    CHECK(c && cvq_convert(c, r, &o, &target, &result, NULL) == CVQ_OK);
    close(target.fd);
    cvq_recipe_free(r);
    cvq_checkpoint_close(c);
    CHECK(same_files("a.cvq", "b.cvq"));
}

static void no_license(void) {
    cvq_convert_options o = plain_options();
    size_t licenses = 7;
    make_checkpoint(CVQ_ST_BF16);
    CHECK(remove(temp_path("LICENSE")) == 0);
    CHECK(convert("bf16", &o, "a.cvq", &licenses, NULL) == CVQ_OK && licenses == 0);
}

static void check_convert_fails(const cvq_convert_options *o, cvq_status expected,
                                const char *where, const char *message) {
    cvq_error err = {0};
    cvq_status status = convert("bf16", o, "a.cvq", NULL, &err);
    CHECK_SAY(status == expected && strstr(err.where, where) && strstr(err.message, message),
              "expected %s: %s, got %d %s: %s", where, message, status, err.where, err.message);
}

static void bad_texts_are_refused(void) {
    cvq_convert_options o = plain_options();
    char *large = calloc(1, (1u << 20) + 2), revision[128];
    if (!large) abort();
    memset(large, 'x', (1u << 20) + 1);
    make_checkpoint(CVQ_ST_BF16);
    temp_write_text("LICENSE", "\xff");
    check_convert_fails(&o, CVQ_FORMAT, "LICENSE", "not UTF-8");
    temp_write("LICENSE", "a\0b", 3);
    check_convert_fails(&o, CVQ_FORMAT, "LICENSE", "not UTF-8");
    temp_write_text("LICENSE", large);
    check_convert_fails(&o, CVQ_FORMAT, "LICENSE", "larger than");
    temp_write_text("LICENSE", "fine");
    o.card = "\xc3";
    check_convert_fails(&o, CVQ_FORMAT, "metadata", "UTF-8");
    o.card = NULL;
    o.revision = "two words";
    check_convert_fails(&o, CVQ_INVALID_ARGUMENT, "revision", "without spaces");
    o.revision = "a\n";
    check_convert_fails(&o, CVQ_INVALID_ARGUMENT, "revision", "without spaces");
    memset(revision, 'f', 101);
    revision[101] = 0;
    o.revision = revision;
    check_convert_fails(&o, CVQ_INVALID_ARGUMENT, "revision", "at most 100");
    o.revision = NULL;
    CHECK(remove(temp_path("tokenizer.json")) == 0);
    check_convert_fails(&o, CVQ_NOT_FOUND, "tokenizer.json", "no such file");
    free(large);
}

/* ---------------------------------------------------------------- progress */

typedef struct progress_log {
    uint64_t last, total, stop_at;
    bool fell;
    int calls;
} progress_log;

static int log_progress(void *context, uint64_t done, uint64_t total) {
    progress_log *p = context;
    p->fell |= done < p->last || done > total || (p->total && total != p->total);
    p->last = done;
    p->total = total;
    p->calls++;
    return done >= p->stop_at;
}

static void progress(void) {
    progress_log p = {.stop_at = UINT64_MAX};
    cvq_convert_options o = {
        .quantize = {.threads = 1, .progress = log_progress, .progress_context = &p}};
    cvq_error err = {0};
    struct stat st;
    make_checkpoint(CVQ_ST_BF16);
    CHECK(stat(temp_path(MODEL), &st) == 0);
    CHECK_SAY(convert("q8", &o, "a.cvq", NULL, &err) == CVQ_OK, "%s", err.message);
    CHECK(!p.fell && p.last == p.total && p.calls > 4 && p.total < (uint64_t)st.st_size);
    p = (progress_log){.stop_at = 1};
    CHECK(convert("q8", &o, "a.cvq", NULL, NULL) == CVQ_CANCELLED && p.calls == 1);
    p = (progress_log){.stop_at = p.total / 2};
    CHECK(convert("q8", &o, "a.cvq", NULL, NULL) == CVQ_CANCELLED && p.calls > 1);
}

/* ---------------------------------------------------------------- going on */

/* Shards in which the tensors lie in another order than in the model's list. */
static void make_shards(size_t shards) {
    fake_list l = fake_list_make(&fake_config, CVQ_ST_BF16);
    cJSON *index = cJSON_CreateObject(), *map = cJSON_AddObjectToObject(index, "weight_map");
    cvq_st_tensor *part = calloc(l.count, sizeof *part);
    if (!part) abort();
    for (size_t s = 0; s < shards; s++) {
        char name[64];
        size_t count = 0;
        snprintf(name, sizeof name, "model-%zu.safetensors", s);
        for (size_t i = l.count; i-- > 0;) {
            if (i * 7 % shards != s) continue;
            cJSON_AddStringToObject(map, l.tensors[i].name, name);
            part[count++] = l.tensors[i];
        }
        fake_write(name, part, count, false);
    }
    remove(temp_path(MODEL));
    write_json("model.safetensors.index.json", index);
    cJSON_Delete(index);
    free(part);
    fake_list_free(&l);
}

/* What stops it: told so much progress. Each run gets further, with other threads; the file is the
 * one that a run in one go makes. */
static void interrupted_runs_go_on(void) {
    make_checkpoint(CVQ_ST_BF16);
    make_shards(3);
    progress_log p = {.stop_at = UINT64_MAX};
    cvq_convert_options o = {.revision = "r", .quantize = {.threads = 2}};
    cvq_convert_result result = {0};
    CHECK(convert("bf16", &o, "bf16.cvq", NULL, NULL) == CVQ_OK);
    o.quantize.progress = log_progress;
    o.quantize.progress_context = &p;
    o.report = true;
    for (int second = 0; second < 2; second++) {
        cvq_convert_result whole = {0};
        cvq_error err = {0};
        p = (progress_log){.stop_at = UINT64_MAX};
        CHECK((second ? requantize_with("bf16.cvq", "q4", &o, "a.cvq", false, &whole, &err)
                      : convert_with("q4", &o, "a.cvq", false, &whole, &err)) == CVQ_OK);
        const uint64_t total = p.total;
        remove(temp_path("b.cvq"));
        remove(temp_path("b.cvq.journal"));
        cvq_status status = CVQ_CANCELLED;
        uint64_t noted = 0;
        for (int run = 1; status == CVQ_CANCELLED && run < 10; run++) {
            result = (cvq_convert_result){0};
            p = (progress_log){.stop_at = total * (uint64_t)run / 6};
            if (run > 5) p.stop_at = UINT64_MAX;
            o.quantize.threads = 1 + run % 3;
            err = (cvq_error){0};
            status = second ? requantize_with("bf16.cvq", "q4", &o, "b.cvq", true, &result, &err)
                            : convert_with("q4", &o, "b.cvq", true, &result, &err);
            CHECK_SAY(status == CVQ_OK || status == CVQ_CANCELLED, "%s: %s", err.where,
                      err.message);
            CHECK_SAY(result.resumed_bytes == noted && result.noted_bytes >= noted,
                      "%llu, %llu, %llu", (unsigned long long)noted,
                      (unsigned long long)result.resumed_bytes,
                      (unsigned long long)result.noted_bytes);
            noted = result.noted_bytes;
        }
        CHECK(status == CVQ_OK && noted > 0 && same_files("a.cvq", "b.cvq"));
        CHECK(memcmp(whole.id, result.id, sizeof whole.id) == 0);
        CHECK(whole.report.size == result.report.size && whole.report.size > 0 &&
              memcmp(whole.report.data, result.report.data, whole.report.size) == 0);
        cvq_buffer_free(&whole.report);
        cvq_buffer_free(&result.report);
    }
}

/* A journal cut off anywhere, as by a power cut, or changed: the whole records in front count. */
static void cut_journals_go_on(void) {
    make_checkpoint(CVQ_ST_BF16);
    progress_log p = {.stop_at = UINT64_MAX};
    cvq_convert_options o = {
        .quantize = {.threads = 2, .progress = log_progress, .progress_context = &p}};
    cvq_convert_result result = {0};
    CHECK(convert("q8", &o, "a.cvq", NULL, NULL) == CVQ_OK);
    p = (progress_log){.stop_at = p.total - 1};
    CHECK(convert("q8", &o, "b.cvq", NULL, NULL) != CVQ_OK);
    cvq_buffer journal = {0};
    CHECK(cvq_read_file(&journal, temp_path("b.cvq.journal"), 1u << 20, NULL) == CVQ_OK);
    uint64_t before = UINT64_MAX;
    for (size_t cut = journal.size; cut > 0; cut -= cut < 97 ? cut : 97) {
        /* the last byte is changed: what it ends does not count */
        journal.data[cut - 1] ^= 1;
        temp_write("b.cvq.journal", journal.data, cut);
        journal.data[cut - 1] ^= 1;
        p = (progress_log){.stop_at = UINT64_MAX};
        result = (cvq_convert_result){0};
        CHECK(convert_with("q8", &o, "b.cvq", true, &result, NULL) == CVQ_OK);
        CHECK(result.resumed_bytes <= before);
        before = result.resumed_bytes;
        CHECK(same_files("a.cvq", "b.cvq"));
    }
    CHECK(before == 0);
    cvq_buffer_free(&journal);
}

static void check_not_resumed(const char *recipe, const cvq_convert_options *o,
                              const char *message) {
    cvq_convert_result result = {0};
    cvq_error err = {0};
    cvq_status status = convert_with(recipe, o, "b.cvq", true, &result, &err);
    CHECK_SAY(status == CVQ_MISMATCH && strstr(err.message, message) &&
                  strstr(err.message, "without"),
              "%d, %s: %s", status, err.where, err.message);
    cvq_buffer_free(&result.report);
}

/* A run that would make another file does not go on with this one. */
static void other_runs_do_not_go_on(void) {
    progress_log p = {.stop_at = 1};
    cvq_convert_options o = {
        .quantize = {.threads = 2, .progress = log_progress, .progress_context = &p}};
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    make_checkpoint(CVQ_ST_BF16);
    p.stop_at = 10000;
    CHECK(convert("q8", &o, "b.cvq", NULL, NULL) == CVQ_CANCELLED);
    p.stop_at = UINT64_MAX;
    check_not_resumed("q4", &o, "another recipe");
    o.revision = "another";
    check_not_resumed("q8", &o, "feedback, revision");
    o.revision = NULL;
    o.report = true;
    check_not_resumed("q8", &o, "report");
    o.report = false;
    CHECK(truncate(temp_path("b.cvq"), 100) == 0);
    check_not_resumed("q8", &o, "not as long as its journal says");
    CHECK(utimensat(AT_FDCWD, temp_path(MODEL), times, 0) == 0);
    check_not_resumed("q8", &o, "files that have changed");
}

/* ---------------------------------------------------------------- the plan */

/* Field `n` of a line as text. */
static const char *field(const char *line, int n) {
    static char out[128];
    while (n-- > 0 && line) line = strchr(line, '\t') ? strchr(line, '\t') + 1 : NULL;
    if (!line) return "";
    snprintf(out, sizeof out, "%.*s", (int)strcspn(line, "\t\n"), line);
    return out;
}

static void dry_run(void) {
    cvq_convert_options o = plain_options();
    cvq_checkpoint *c = NULL;
    cvq_reader *reader = NULL;
    cvq_buffer plan = {0};
    cvq_recipe *r = open_recipe("custom");
    make_checkpoint(CVQ_ST_F32);
    CHECK(convert("custom", &o, "a.cvq", NULL, NULL) == CVQ_OK);
    CHECK(cvq_reader_open(&reader, temp_path("a.cvq"), NULL) == CVQ_OK);
    CHECK(remove(temp_path("tokenizer.json")) == 0);
    CHECK(cvq_checkpoint_open(&c, temp_folder, NULL) == CVQ_OK);
    CHECK(cvq_convert_dry_run(&plan, c, r, NULL) == CVQ_OK);
    cvq_buffer_append(&plan, "", 1, NULL);
    const char *line = (const char *)plan.data;
    static const char header[] = "name\tshape\tsource_type\ttype\tbytes\n";
    CHECK(strncmp(line, header, sizeof header - 1) == 0);
    for (size_t i = 0; i < cvq_reader_tensor_count(reader); i++) {
        const cvq_tensor *t = cvq_reader_tensor(reader, i);
        line = strchr(line, '\n') + 1;
        CHECK(strcmp(field(line, 0), t->spec.name) == 0);
        CHECK(strcmp(field(line, 2), "F32") == 0);
        CHECK(strcmp(field(line, 3), cvq_type_describe(t->type)->name) == 0);
        CHECK(strtoull(field(line, 4), NULL, 10) == t->size);
        if (t->spec.kind == CVQ_T_CONV) CHECK(strcmp(field(line, 1), "20x20x2x2") == 0);
        if (t->spec.kind == CVQ_T_BOI) CHECK(strcmp(field(line, 1), "1x1x24") == 0);
        if (t->spec.kind == CVQ_T_FINAL_NORM) CHECK(strcmp(field(line, 1), "24") == 0);
    }
    CHECK(strcmp(strchr(line, '\n'), "\n") == 0);
    cvq_buffer_free(&plan);
    cvq_recipe_free(r);
    cvq_checkpoint_close(c);
    cvq_reader_close(reader);
}

/* Eight sparse shards with an index, as the released checkpoint has them. */
static void make_real_size(const fake_list *l) {
    cJSON *index = cJSON_CreateObject(), *map = cJSON_AddObjectToObject(index, "weight_map");
    for (size_t shard = 0; shard < 8; shard++) {
        char name[64];
        size_t first = l->count * shard / 8, end = l->count * (shard + 1) / 8;
        snprintf(name, sizeof name, "model-%05zu-of-00008.safetensors", shard + 1);
        fake_write(name, l->tensors + first, end - first, true);
        for (size_t i = first; i < end; i++) {
            cJSON_AddStringToObject(map, l->tensors[i].name, name);
        }
    }
    write_json("model.safetensors.index.json", index);
    cJSON_Delete(index);
    write_config(&cvq_real_config);
}

static void real_size_dry_run(void) {
    fake_list l = fake_list_make(&cvq_real_config, CVQ_ST_BF16);
    cvq_checkpoint *c = NULL;
    cvq_error err = {0};
    temp_close();
    if (!temp_open()) exit(1);
    make_real_size(&l);
    fake_list_free(&l);
    CHECK_SAY(cvq_checkpoint_open(&c, temp_folder, &err) == CVQ_OK, "%s: %s", err.where,
              err.message);
    if (!c) return;
    uint64_t source = 0;
    for (size_t i = 0; i < cvq_model_tensor_count(cvq_checkpoint_config(c)); i++) {
        source += cvq_tensor_map_source(cvq_checkpoint_tensors(c), i)->size;
    }
    CHECK_SAY(source == 39006214656, "%llu", (unsigned long long)source);
    static const char *const recipes[] = {"bf16", "q8", "q4", "q4-small"};
    static const double most[] = {39.1e9, 20.0e9, 13.7e9, 11.5e9};
    for (size_t i = 0; i < COUNT(recipes); i++) {
        cvq_recipe *r = open_recipe(recipes[i]);
        cvq_buffer plan = {0};
        size_t lines = 0;
        double bytes = 0;
        CHECK(cvq_convert_dry_run(&plan, c, r, NULL) == CVQ_OK);
        cvq_buffer_append(&plan, "", 1, NULL);
        for (const char *at = (const char *)plan.data; *at; at = strchr(at, '\n') + 1) {
            if (lines++ > 0) bytes += strtod(field(at, 4), NULL);
        }
        CHECK_SAY(lines == 1222, "%zu lines", lines);
        CHECK_SAY(bytes < most[i], "%s: %.0f bytes", recipes[i], bytes);
        cvq_buffer_free(&plan);
        cvq_recipe_free(r);
    }
    cvq_checkpoint_close(c);
}

/* ---------------------------------------------------------------- sample checkpoints */

static void sample_model(void) {
    cvq_checkpoint *c = NULL;
    cvq_recipe *r = open_recipe("bf16");
    cvq_reader *reader = NULL;
    cvq_convert_options o = plain_options();
    cvq_error err = {0};
    cvq_convert_result result = {0};
    CHECK_SAY(cvq_checkpoint_open(&c, "models/cogvlm2-tiny", &err) == CVQ_OK, "%s", err.message);
    const cvq_convert_target target = {.fd = open(temp_path("tiny.cvq"), O_RDWR | O_CREAT, 0600),
                                       .journal = -1,
                                       .where = "tiny.cvq"};
    CHECK_SAY(c && cvq_convert(c, r, &o, &target, &result, &err) == CVQ_OK, "%s", err.message);
    close(target.fd);
    CHECK(cvq_reader_open(&reader, temp_path("tiny.cvq"), &err) == CVQ_OK);
    CHECK(reader && memcmp(cvq_reader_id(reader), result.id, 32) == 0);
    cvq_reader_close(reader);
    cvq_recipe_free(r);
    cvq_checkpoint_close(c);
}

/* The released index names exactly the tensors of our list. */
static void released_index(void) {
    char path[512];
    cJSON *index = NULL;
    cvq_error err = {0};
    snprintf(path, sizeof path, "%s/hf/model.safetensors.index.json", getenv("CVQ_SHARED"));
    CHECK_SAY(cvq_json_read_file(&index, path, 1u << 24, &err) == CVQ_OK, "%s", err.message);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    size_t count = cvq_model_tensor_count(&cvq_real_config);
    CHECK(count == 1221 && cJSON_GetArraySize(map) == 1221);
    for (size_t i = 0; i < count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&cvq_real_config, i, &spec);
        CHECK_SAY(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(map, spec.name)), "%s",
                  spec.name);
    }
    cJSON_Delete(index);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(values_are_kept);
    RUN(one_step_is_two_steps);
    RUN(metadata_given_late);
    RUN(quantized_sources_are_refused);
    RUN(bad_values_are_named);
    RUN(provenance);
    RUN(place_does_not_matter);
    RUN(no_license);
    RUN(bad_texts_are_refused);
    RUN(progress);
    RUN(interrupted_runs_go_on);
    RUN(cut_journals_go_on);
    RUN(other_runs_do_not_go_on);
    RUN(dry_run);
    RUN(real_size_dry_run);
    RUN(sample_model);
    if (getenv("CVQ_SHARED")) {
        RUN(released_index);
    } else {
        SKIP("released_index", "CVQ_SHARED is not set");
    }
    temp_close();
    return REPORT();
}
