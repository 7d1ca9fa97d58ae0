/* Pictures that keep what was computed of them, saved and loaded: the same bits as without,
 * whatever the settings; files that are damaged, cut, of another model or another session. The
 * model is random, as small as may be, with enough slots for a whole block of the KV cache.
 * cvq-test: threads */
#define CVQ_UNSTABLE
#include "cvq.h"

#include "convert/convert.h"
#include "formats/chunk_hash.h"
#include "runtime/kv_prefix.h"
#include "tests/unit/fake_checkpoint.h"
#include "tests/unit/fake_tokenizer.h"
#include "tests/unit/harness.h"

#define SIZE 40 /* of the pictures, before they are resized */
#define HEAD 160
#define IMAGE 448 /* 32 x 32 patches, 256 after the convolution, boi, eoi */
#define SLOTS 258
#define HIDDEN 24

static cvq_model *models[2]; /* the same checkpoint in 16 bits and in q8 */
static uint8_t pixels[2][SIZE * SIZE * 3];
static const int32_t question[] = {70, 71, 5, 9}, other_question[] = {1, 255};

/* ---------------------------------------------------------------- the model */

static void make_checkpoint(void) {
    cvq_model_config c = fake_config;
    c.image_size = IMAGE;
    c.vit_num_positions = 32 * 32 + 1;
    c.max_positions = 512;
    fake_list l = fake_list_make(&c, CVQ_ST_BF16);
    fake_write("model.safetensors", l.tensors, l.count, false);
    fake_list_free(&l);
    char text[2000];
    snprintf(text, sizeof text,
             "{\"architectures\":[\"CogVLMForCausalLM\"],\"hidden_size\":24,"
             "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_multi_query_heads\":1,"
             "\"intermediate_size\":40,\"vocab_size\":300,\"max_position_embeddings\":512,"
             "\"bos_token_id\":256,\"pad_token_id\":258,\"eos_token_id\":[257],\"vision_config\":{"
             "\"hidden_size\":20,\"num_hidden_layers\":1,\"num_heads\":2,\"intermediate_size\":36,"
             "\"image_size\":%d,\"patch_size\":14,\"in_channels\":3,\"num_positions\":%u,"
             "\"layer_norm_eps\":1e-6}}",
             IMAGE, c.vit_num_positions);
    temp_write_text("config.json", text);
    cJSON *tokenizer = make_tokenizer();
    cvq_buffer json = {0};
    if (cvq_json_print(&json, tokenizer, NULL) != CVQ_OK) abort();
    temp_write("tokenizer.json", json.data, json.size);
    cvq_buffer_free(&json);
    cJSON_Delete(tokenizer);
}

static cvq_status make_model(int which, cvq_error *err) {
    static const char *const recipes[] = {"bf16", "q8"};
    cvq_checkpoint *checkpoint = NULL;
    cvq_recipe *recipe = NULL;
    cvq_convert_options options = {.quantize = {.threads = 2}};
    cvq_convert_result result = {0};
    const char *path = temp_path(recipes[which]);
    const cvq_convert_target target = {
        .fd = open(path, O_CREAT | O_RDWR | O_EXCL, 0600), .journal = -1, .where = "model"};
    cvq_status status = cvq_checkpoint_open(&checkpoint, temp_folder, err);
    if (status == CVQ_OK) status = cvq_recipe_open(&recipe, recipes[which], err);
    if (status == CVQ_OK) status = cvq_convert(checkpoint, recipe, &options, &target, &result, err);
    cvq_recipe_free(recipe);
    cvq_checkpoint_close(checkpoint);
    close(target.fd);
    return status == CVQ_OK ? cvq_model_open(&models[which], path, NULL, err) : status;
}

/* ---------------------------------------------------------------- sessions and pictures */

static cvq_session *open_session(int model, const cvq_session_options *options) {
    cvq_session *s = NULL;
    cvq_error err = {0};
    if (cvq_session_open(&s, models[model], options, &err) != CVQ_OK) {
        printf("%s\n", err.message);
        exit(1);
    }
    return s;
}

static cvq_image *open_image(int model, int which) {
    cvq_image *image = NULL;
    CHECK(cvq_image_create(&image, models[model], pixels[which], SIZE, SIZE, 3 * SIZE, NULL) ==
          CVQ_OK);
    return image;
}

/* What phases a sync went through. */
static unsigned phases;
static int note_phase(void *context, cvq_phase phase, uint64_t done, uint64_t total, double left) {
    (void)context, (void)done, (void)total, (void)left;
    phases |= 1u << phase;
    return 0;
}

/* Ask about the picture; the logits of the last slot. */
static void ask(cvq_session *s, int model, cvq_image *image, const int32_t *ids, size_t n,
                float *out) {
    cvq_prompt *p = NULL;
    cvq_error err = {0};
    phases = 0;
    cvq_session_set_progress(s, note_phase, NULL);
    CHECK(cvq_prompt_from_ids(&p, models[model], ids, n, image, NULL) == CVQ_OK);
    CHECK_SAY(cvq_session_sync(s, p, &err) == CVQ_OK, "%s", err.message);
    if (cvq_session_logits(s)) memcpy(out, cvq_session_logits(s), 300 * sizeof *out);
    CHECK(out[0] - out[0] == 0); /* finite */
    cvq_prompt_free(p);
}

static bool encoded(void) {
    return phases & 1u << CVQ_PHASE_ENCODE;
}

/* ---------------------------------------------------------------- files in memory */

static int append(void *context, const void *data, size_t size) {
    return cvq_buffer_append(context, data, size, NULL) != CVQ_OK;
}

/* Gives up after so many bytes, as a full disk does. */
static int append_some(void *context, const void *data, size_t size) {
    size_t *left = context;
    (void)data;
    if (size > *left) return 1;
    *left -= size;
    return 0;
}

typedef struct source {
    const uint8_t *data;
    size_t size, at;
} source;

static size_t take(void *context, void *data, size_t size) {
    source *s = context;
    size_t n = s->size - s->at < size ? s->size - s->at : size;
    if (n) memcpy(data, s->data + s->at, n);
    s->at += n;
    return n;
}

static cvq_status load(cvq_image **out, int model, const uint8_t *data, size_t size,
                       cvq_error *err) {
    source s = {data, size, 0};
    return cvq_image_load(out, models[model], take, &s, err);
}

/* The first picture, saved after a session of the usual settings was asked about it. */
static cvq_buffer saved(int model) {
    static cvq_image *images[2]; /* computed once */
    cvq_buffer b = {0};
    float ignored[300];
    if (model < 0) { /* the end */
        cvq_image_free(images[0]);
        cvq_image_free(images[1]);
        return b;
    }
    if (!images[model]) {
        cvq_session *s = open_session(model, &(cvq_session_options){.threads = 2});
        images[model] = open_image(model, 0);
        ask(s, model, images[model], question, 4, ignored);
        cvq_session_close(s);
    }
    CHECK(cvq_image_save(images[model], append, &b, NULL) == CVQ_OK);
    return b;
}

/* ---------------------------------------------------------------- the tests */

static const cvq_session_options settings[] = {
    {.threads = 2},
    {.threads = 2, .kv = CVQ_KV_Q8},
    {.threads = 2, .kv = CVQ_KV_F16},
    {.threads = 2, .rope = CVQ_ROPE_F32, .kv = CVQ_KV_F32},
};
#define NUM_SETTINGS (sizeof settings / sizeof *settings)

static void loaded_pictures_give_the_same_bits(void) {
    for (int model = 0; model < 2; model++) {
        cvq_image *image = open_image(model, 0), *other = open_image(model, 1);
        for (size_t k = 0; k < NUM_SETTINGS; k++) {
            float want[300], more[300], got[300];
            cvq_session *fresh = open_session(model, &settings[k]);
            cvq_session *s = open_session(model, &settings[k]);
            cvq_image *kept = NULL;
            ask(fresh, model, image, question, 4, want);
            CHECK(encoded() == (k == 0) && cvq_image_ready(image, fresh));
            cvq_buffer b = {0};
            cvq_error err = {0};
            CHECK(cvq_image_save(image, append, &b, NULL) == CVQ_OK);
            CHECK_SAY(load(&kept, model, b.data, b.size, &err) == CVQ_OK, "%s", err.message);
            CHECK(cvq_image_ready(kept, s));
            ask(s, model, kept, question, 4, got);
            CHECK_SAY(!encoded() && memcmp(want, got, sizeof want) == 0, "model %d, settings %zu",
                      model, k);
            /* Another picture in between, decoding behind both, and back: the shared blocks stay
             * what they were. */
            ask(s, model, other, question, 4, got);
            CHECK(encoded() == (k == 0) && memcmp(want, got, sizeof want) != 0);
            for (int i = 0; i < 3; i++) CHECK(cvq_session_accept(s, 7, NULL) == CVQ_OK);
            ask(s, model, kept, other_question, 2, got);
            CHECK(!encoded());
            ask(fresh, model, image, other_question, 2, more);
            CHECK(memcmp(more, got, sizeof more) == 0);
            for (int i = 0; i < 3; i++) CHECK(cvq_session_accept(s, 7, NULL) == CVQ_OK);
            ask(s, model, NULL, question, 4, got);
            cvq_buffer again = {0};
            CHECK(cvq_image_save(kept, append, &again, NULL) == CVQ_OK);
            CHECK(again.size == b.size && memcmp(again.data, b.data, b.size) == 0);
            /* And in memory, from one session to another. */
            cvq_session *third = open_session(model, &settings[k]);
            ask(third, model, image, question, 4, got);
            CHECK(!encoded() && memcmp(want, got, sizeof want) == 0);
            cvq_session_rewind(third, 0);
            ask(third, model, image, question, 4, got);
            CHECK(memcmp(want, got, sizeof want) == 0);
            cvq_session_close(third);
            cvq_buffer_free(&b);
            cvq_buffer_free(&again);
            cvq_session_close(fresh);
            ask(s, model, kept, question, 4, got); /* whose first session is gone */
            CHECK(!encoded() && memcmp(want, got, sizeof want) == 0);
            cvq_image_free(kept);
            cvq_session_close(s);
        }
        cvq_image_free(image);
        cvq_image_free(other);
    }
}

static void other_settings_are_ignored(void) {
    cvq_buffer b = saved(1);
    cvq_image *image = open_image(1, 0);
    uint8_t keys[NUM_SETTINGS + 1][CVQ_IMAGE_KEY_BYTES];
    cvq_session_options exact = {.threads = 2, .precision = CVQ_PRECISION_EXACT};
    for (size_t k = 0; k <= NUM_SETTINGS; k++) {
        float want[300], got[300];
        cvq_session *s = open_session(1, k < NUM_SETTINGS ? &settings[k] : &exact);
        cvq_session *fresh = open_session(1, k < NUM_SETTINGS ? &settings[k] : &exact);
        cvq_image *kept = NULL;
        CHECK(load(&kept, 1, b.data, b.size, NULL) == CVQ_OK);
        CHECK(cvq_image_key(image, s, keys[k], NULL) == CVQ_OK);
        ask(fresh, 1, image, question, 4, want);
        bool same = k == 0 || k == 2; /* f16 is what fast mode takes anyway */
        CHECK_SAY(cvq_image_ready(kept, s) == same, "settings %zu", k);
        ask(s, 1, kept, question, 4, got);
        CHECK_SAY(memcmp(want, got, sizeof want) == 0, "settings %zu", k);
        CHECK_SAY(encoded() == (k == NUM_SETTINGS), "settings %zu",
                  k); /* the encoding is by precision */
        for (size_t i = 0; i < k; i++)
            CHECK((memcmp(keys[i], keys[k], sizeof keys[i]) == 0) == (i == 0 && k == 2));
        cvq_image_free(kept);
        cvq_session_close(fresh);
        cvq_session_close(s);
    }
    cvq_image_free(image);
    cvq_buffer_free(&b);
}

static void keys_tell_pictures_and_models_apart(void) {
    uint8_t keys[4][CVQ_IMAGE_KEY_BYTES], again[CVQ_IMAGE_KEY_BYTES];
    for (int i = 0; i < 4; i++) {
        cvq_session *s = open_session(i / 2, NULL);
        cvq_image *image = open_image(i / 2, i % 2), *wrong = open_image(1 - i / 2, 0);
        CHECK(cvq_image_key(image, s, keys[i], NULL) == CVQ_OK);
        CHECK(cvq_image_key(image, s, again, NULL) == CVQ_OK && memcmp(again, keys[i], 32) == 0);
        for (int k = 0; k < i; k++) CHECK(memcmp(keys[k], keys[i], 32) != 0);
        CHECK(cvq_image_key(wrong, s, again, NULL) == CVQ_INVALID_ARGUMENT);
        CHECK(!cvq_image_ready(image, s) && !cvq_image_ready(wrong, s));
        CHECK(cvq_image_save(image, append, NULL, NULL) == CVQ_INVALID_ARGUMENT); /* nothing yet */
        cvq_image_free(image);
        cvq_image_free(wrong);
        cvq_session_close(s);
    }
}

static void an_encoding_alone_is_kept(void) {
    cvq_session *s = open_session(0, &settings[0]);
    cvq_image *image = open_image(0, 0), *kept = NULL;
    float want[300], got[300];
    cvq_buffer b = {0};
    CHECK(cvq_image_encode(image, s, NULL) == CVQ_OK);
    CHECK(cvq_image_save(image, append, &b, NULL) == CVQ_OK);
    CHECK(b.size == HEAD + IMAGE * IMAGE * 3 + SLOTS * HIDDEN * 4 + 32);
    CHECK(load(&kept, 0, b.data, b.size, NULL) == CVQ_OK && !cvq_image_ready(kept, s));
    ask(s, 0, kept, question, 4, got);
    CHECK(!encoded());
    ask(s, 0, image, question, 4, want);
    CHECK(memcmp(want, got, sizeof want) == 0 && cvq_image_ready(kept, s));
    cvq_buffer_free(&b);
    cvq_image_free(image);
    cvq_image_free(kept);
    cvq_session_close(s);
}

static void nothing_of_the_question_is_saved(void) {
    cvq_buffer b = saved(0), c = {0};
    cvq_session *s = open_session(0, &settings[0]);
    cvq_image *image = open_image(0, 0);
    float ignored[300];
    ask(s, 0, image, other_question, 2, ignored);
    CHECK(cvq_image_save(image, append, &c, NULL) == CVQ_OK);
    CHECK(b.size == c.size && memcmp(b.data, c.data, b.size) == 0);
    cvq_image_free(image);
    cvq_session_close(s);
    cvq_buffer_free(&b);
    cvq_buffer_free(&c);
}

/* ---------------------------------------------------------------- damage */

static void check_refused(const cvq_buffer *b, size_t size, cvq_status expected, const char *what,
                          size_t where) {
    cvq_image *image = NULL;
    cvq_error err = {0};
    cvq_status status = load(&image, 0, b->data, size, &err);
    CHECK_SAY(status == expected && !image && err.message[0], "%s %zu: %s %s", what, where,
              cvq_status_name(status), err.message);
    cvq_image_free(image);
}

static void cut_files_are_refused(void) {
    cvq_buffer b = saved(0);
    size_t pixels_end = HEAD + IMAGE * IMAGE * 3, encoding_end = pixels_end + SLOTS * HIDDEN * 4;
    size_t layer = (b.size - 32 - encoding_end) / 2;
    const size_t ends[] = {0,
                           1,
                           HEAD - 1,
                           HEAD,
                           HEAD + 1000,
                           pixels_end,
                           pixels_end + 50,
                           encoding_end,
                           encoding_end + 7,
                           encoding_end + layer,
                           b.size - 33,
                           b.size - 32,
                           b.size - 1};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        check_refused(&b, ends[i], CVQ_FORMAT, "cut at", ends[i]);
    CHECK(cvq_buffer_append(&b, "", 1, NULL) == CVQ_OK);
    check_refused(&b, b.size, CVQ_FORMAT, "longer, to", b.size);
    cvq_buffer_free(&b);
}

static void flipped_bits_are_noticed(void) {
    cvq_buffer b = saved(0);
    for (size_t at = 0; at < b.size; at += at < HEAD || at >= b.size - 32 ? 3 : b.size / 20 + 1) {
        b.data[at] ^= (uint8_t)(1u << at % 8);
        cvq_status expected = CVQ_FORMAT;
        if (at >= 8 && at < 12) expected = CVQ_UNSUPPORTED;
        if (at >= 12 && at < 64) expected = CVQ_MISMATCH;
        check_refused(&b, b.size, expected, "a bit of byte", at);
        b.data[at] ^= (uint8_t)(1u << at % 8);
    }
    cvq_buffer_free(&b);
}

/* With a right hash behind them: whoever made these knows the format. */
static void wrong_fields_are_refused(void) {
    static const struct {
        size_t at;
        uint32_t value;
    } cases[] = {
        {96, 0},   {96, 0xffffffff}, {100, 257}, {104, 0x7fffffff}, {108, 3}, {112, 0},
        {116, 16}, {120, 0},         {120, 3},   {120, 4},          {124, 0}, {124, 2},
        {128, 0},  {128, 2},         {128, 3},   {128, 99},         {132, 2}, {136, 0xffffffff},
        {140, 2},  {144, 0},         {148, 1},   {152, 1},          {156, 1},
    };
    cvq_buffer b = saved(0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t before[4];
        memcpy(before, b.data + cases[i].at, 4);
        cvq_store_le(b.data + cases[i].at, cases[i].value, 4);
        CHECK(cvq_sha256(b.data, b.size - 32, b.data + b.size - 32, NULL) == CVQ_OK);
        check_refused(&b, b.size, CVQ_FORMAT, "field at", cases[i].at);
        memcpy(b.data + cases[i].at, before, 4);
    }
    b.data[HEAD] ^= 1; /* pixels that are not those of the head */
    CHECK(cvq_sha256(b.data, b.size - 32, b.data + b.size - 32, NULL) == CVQ_OK);
    check_refused(&b, b.size, CVQ_FORMAT, "pixel at", HEAD);
    cvq_buffer_free(&b);
}

static void other_models_are_refused(void) {
    cvq_buffer b = saved(1);
    check_refused(&b, b.size, CVQ_MISMATCH, "another model", 0);
    cvq_buffer_free(&b);
    cvq_image *image = NULL;
    source s = {NULL, 0, 0};
    CHECK(cvq_image_load(NULL, models[0], take, &s, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_image_load(&image, models[0], NULL, NULL, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_image_save(NULL, append, NULL, NULL) == CVQ_INVALID_ARGUMENT);
}

static void failing_writers_are_told(void) {
    cvq_session *s = open_session(0, &settings[0]);
    cvq_buffer b = saved(0);
    cvq_image *image = NULL;
    CHECK(load(&image, 0, b.data, b.size, NULL) == CVQ_OK);
    cvq_buffer_free(&b);
    for (size_t left = 0; left < 700000; left += 90000) {
        size_t room = left;
        cvq_error err = {0};
        CHECK(cvq_image_save(image, append_some, &room, &err) == CVQ_IO && err.message[0]);
    }
    cvq_image_free(image);
    cvq_session_close(s);
}

/* Blocks and rows of every type and of head sizes that fill no panel. */
static void prefixes_share_blocks(void) {
    const cvq_kernels *kernels = cvq_kernels_for(CVQ_CPU_SCALAR);
    for (int type = CVQ_KV_F32; type <= CVQ_KV_Q8; type++)
        for (size_t keys = 255; keys < 620; keys += 91) {
            enum { HEADS = 2, DIM = 20, ALL = 700 };
            cvq_kv_cache a, b;
            cvq_kv_prefix p = {0}, copy = {0};
            float row[HEADS * DIM], scratch[2][32 * 256];
            cvq_kv_init(&a, (cvq_kv_type)type, HEADS, DIM);
            cvq_kv_init(&b, (cvq_kv_type)type, HEADS, DIM);
            CHECK(cvq_kv_own(&a, 0, ALL, NULL) == CVQ_OK);
            for (size_t slot = 0; slot < ALL; slot++) {
                for (size_t i = 0; i < HEADS * DIM; i++) row[i] = (float)((slot * 31 + i * 7) % 97);
                cvq_kv_store(&a, kernels, slot, row, row);
            }
            CHECK(cvq_kv_prefix_take(&p, &a, keys, NULL) == CVQ_OK);
            CHECK(cvq_kv_own(&a, 5, ALL, NULL) == CVQ_OK); /* written from the middle on */
            memset(row, 0, sizeof row);
            for (size_t slot = 5; slot < ALL; slot++) cvq_kv_store(&a, kernels, slot, row, row);
            CHECK(cvq_kv_prefix_alloc(&copy, (cvq_kv_type)type, HEADS, DIM, keys, NULL) == CVQ_OK);
            CHECK(cvq_kv_prefix_pieces(&p) == cvq_kv_prefix_pieces(&copy));
            for (size_t i = 0; i < cvq_kv_prefix_pieces(&p); i++) {
                size_t size, other;
                const uint8_t *from = cvq_kv_prefix_piece(&p, i, &size);
                uint8_t *to = cvq_kv_prefix_piece(&copy, i, &other);
                CHECK(size == other);
                if (size) memcpy(to, from, size);
            }
            CHECK(cvq_kv_prefix_give(&copy, &b, NULL) == CVQ_OK);
            cvq_kv_prefix_free(&copy);
            cvq_kv_free(&a);
            cvq_kv_prefix_free(&p);
            CHECK(cvq_kv_own(&b, keys, ALL, NULL) == CVQ_OK); /* text behind it */
            size_t wrong = 0;
            for (size_t slot = 0; slot < keys; slot++)
                for (size_t h = 0; h < HEADS; h++) {
                    size_t at = slot % 256, block = slot / 256;
                    const float *k = cvq_kv_keys(&b, kernels, block, h, 16, scratch[0]);
                    const float *v = cvq_kv_values(&b, kernels, block, h, 16, scratch[1]);
                    cvq_kv_scales scales = cvq_kv_block_scales(&b, block, h);
                    float key_scale = scales.keys ? scales.keys[at] : 1;
                    float value_scale = scales.values ? scales.values[at] : 1;
                    for (size_t i = 0; i < DIM && (slot % 17 == 0 || slot + 20 > keys); i++) {
                        float want = (float)((slot * 31 + (h * DIM + i) * 7) % 97);
                        float key = k[(at / 16 * DIM + i) * 16 + at % 16] * key_scale;
                        float value = v[(i / 16 * 256 + at) * 16 + i % 16] * value_scale;
                        wrong += key - want > 0.5f || want - key > 0.5f || key != value;
                    }
                }
            CHECK_SAY(wrong == 0, "type %d, %zu keys: %zu wrong", type, keys, wrong);
            cvq_kv_free(&b);
        }
}

int main(void) {
    cvq_error err = {0};
    if (!temp_open()) return 1;
    for (size_t i = 0; i < sizeof pixels; i++) ((uint8_t *)pixels)[i] = (uint8_t)(i * i / 77);
    make_checkpoint();
    for (int m = 0; m < 2; m++)
        if (make_model(m, &err) != CVQ_OK) {
            printf("%s: %s\n0 passed, 1 failed, 0 skipped\n", err.where, err.message);
            return 1;
        }
    RUN(loaded_pictures_give_the_same_bits);
    RUN(other_settings_are_ignored);
    RUN(keys_tell_pictures_and_models_apart);
    RUN(an_encoding_alone_is_kept);
    RUN(nothing_of_the_question_is_saved);
    RUN(cut_files_are_refused);
    RUN(flipped_bits_are_noticed);
    RUN(wrong_fields_are_refused);
    RUN(other_models_are_refused);
    RUN(failing_writers_are_told);
    RUN(prefixes_share_blocks);
    saved(-1);
    for (int m = 0; m < 2; m++) cvq_model_close(models[m]);
    temp_close();
    return REPORT();
}
