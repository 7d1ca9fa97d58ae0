/* A picture as bytes: its resized pixels, its encoding, and the keys and values of its slots, so
 * that nothing of it has to be computed again. docs/cache.md describes the layout. Reading trusts
 * nothing: the head is calculated anew from the model and compared, so that every size is the
 * model's own, and a hash covers all that comes before it. */
#include <string.h>

#include "base/checked.h"
#include "base/memory.h"
#include "runtime/image_prefix.h"
#include "runtime/session_internal.h"

#define MAGIC "cvqimage"
#define FILE_VERSION 1
#define WHERE "saved picture"
#define PIECE ((size_t)1 << 18) /* bytes that are hashed while they are near */

/* The head: where its fields are. */
enum {
    AT_VERSION = 8,     /* u32 */
    AT_ARITHMETIC = 12, /* u32 CVQ_ARITHMETIC_VERSION */
    AT_LEVEL = 16,      /* char [16], zeros behind */
    AT_MODEL = 32,      /* the model's id */
    AT_PIXELS = 64,     /* SHA-256 of the pixels */
    AT_SIZES = 96,      /* u32 image_size, image_slots, hidden_size, layers, KV heads, head_dim */
    AT_ENCODINGS = 120, /* u32: 1 exact, 2 fast, 3 both */
    AT_PREFIX = 124,    /* u32: 1 if there are keys and values; the next four are else 0 */
    AT_KV = 128,        /* u32: a cvq_kv_type */
    AT_FAST = 132,      /* u32 */
    AT_ROPE_BF16 = 136, /* u32 */
    AT_ROPE_RECOMPUTED = 140 /* u32 */,
    AT_FILE_BYTES = 144, /* u64 */
    HEAD_BYTES = 160
};

/* What a file holds. */
typedef struct contents {
    uint8_t *rgb;
    uint8_t hash[CVQ_HASH_BYTES];
    float *encodings[2]; /* NULL: not there */
    cvq_image_prefix *prefix;
} contents;

static size_t rgb_bytes(const cvq_model *m) {
    return (size_t)m->info.image_size * m->info.image_size * 3;
}

static size_t encoding_bytes(const cvq_model *m) {
    return (size_t)m->info.image_slots * m->info.hidden_size * sizeof(float);
}

/* ---------------------------------------------------------------- the head */

static uint64_t file_bytes(const cvq_model *m, const cvq_model_config *c, uint32_t encodings,
                           bool prefix, cvq_kv_type kv) {
    uint64_t bytes = HEAD_BYTES + rgb_bytes(m) + CVQ_HASH_BYTES;
    bytes += ((encodings & 1) + (encodings >> 1)) * (uint64_t)encoding_bytes(m);
    if (!prefix) return bytes;
    size_t slots = cvq_image_prefix_slots(m);
    size_t block = cvq_kv_block_bytes(kv, c->num_kv_heads, cvq_head_dim(c)) - sizeof(cvq_kv_block);
    size_t row = cvq_kv_row_bytes(kv, c->num_kv_heads, cvq_head_dim(c));
    return bytes + c->num_layers * ((uint64_t)(slots / CVQ_KV_BLOCK) * block +
                                    (uint64_t)(slots % CVQ_KV_BLOCK) * row);
}

/* settings NULL: no keys and values. */
static void make_head(const cvq_model *m, const uint8_t hash[CVQ_HASH_BYTES], uint32_t encodings,
                      const cvq_slot_settings *settings, uint8_t head[HEAD_BYTES]) {
    const cvq_model_config *c = cvq_reader_config(m->reader);
    const uint64_t sizes[] = {c->image_size, m->info.image_slots, c->hidden_size,
                              c->num_layers, c->num_kv_heads,     cvq_head_dim(c)};
    const char *level = cvq_cpu_level_name(m->kernels->level);
    memset(head, 0, HEAD_BYTES);
    memcpy(head, MAGIC, 8);
    cvq_store_le(head + AT_VERSION, FILE_VERSION, 4);
    cvq_store_le(head + AT_ARITHMETIC, CVQ_ARITHMETIC_VERSION, 4);
    memcpy(head + AT_LEVEL, level, strnlen(level, 16));
    memcpy(head + AT_MODEL, cvq_reader_id(m->reader), CVQ_ID_BYTES);
    memcpy(head + AT_PIXELS, hash, CVQ_HASH_BYTES);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        cvq_store_le(head + AT_SIZES + 4 * i, sizes[i], 4);
    cvq_store_le(head + AT_ENCODINGS, encodings, 4);
    if (settings) {
        cvq_store_le(head + AT_PREFIX, 1, 4);
        cvq_store_le(head + AT_KV, settings->kv, 4);
        cvq_store_le(head + AT_FAST, settings->fast, 4);
        cvq_store_le(head + AT_ROPE_BF16, settings->rope_bf16, 4);
        cvq_store_le(head + AT_ROPE_RECOMPUTED, settings->rope_recomputed, 4);
    }
    cvq_store_le(head + AT_FILE_BYTES,
                 file_bytes(m, c, encodings, settings != NULL, settings ? settings->kv : 0), 8);
}

static uint32_t field(const uint8_t *head, size_t at) {
    return (uint32_t)cvq_load_le(head + at, 4);
}

/* The few fields that are free to differ; then all of the head must be what it would be made of
 * them. */
static cvq_status check_head(const cvq_model *m, const uint8_t head[HEAD_BYTES], bool *has_prefix,
                             cvq_slot_settings *settings, cvq_error *err) {
    uint8_t expected[HEAD_BYTES];
    if (memcmp(head, MAGIC, 8) != 0)
        return cvq_fail(err, CVQ_FORMAT, WHERE, "is not one: its first bytes are others");
    if (field(head, AT_VERSION) != FILE_VERSION)
        return cvq_fail(err, CVQ_UNSUPPORTED, WHERE, "has version %u; this is for version %d",
                        field(head, AT_VERSION), FILE_VERSION);
    if (memcmp(head + AT_MODEL, cvq_reader_id(m->reader), CVQ_ID_BYTES) != 0)
        return cvq_fail(err, CVQ_MISMATCH, WHERE, "is of another model; encode the picture anew");
    *has_prefix = field(head, AT_PREFIX) != 0;
    *settings = (cvq_slot_settings){.fast = field(head, AT_FAST) != 0,
                                    .rope_bf16 = field(head, AT_ROPE_BF16) != 0,
                                    .rope_recomputed = field(head, AT_ROPE_RECOMPUTED) != 0,
                                    .kv = (cvq_kv_type)field(head, AT_KV)};
    if (field(head, AT_ENCODINGS) > 3 || field(head, AT_KV) > CVQ_KV_Q8 ||
        *has_prefix != (field(head, AT_KV) != CVQ_KV_DEFAULT))
        return cvq_fail(err, CVQ_FORMAT, WHERE, "has an unknown type or kind of contents");
    make_head(m, head + AT_PIXELS, field(head, AT_ENCODINGS), *has_prefix ? settings : NULL,
              expected);
    if (memcmp(head + AT_ARITHMETIC, expected + AT_ARITHMETIC, AT_MODEL - AT_ARITHMETIC) != 0)
        return cvq_fail(err, CVQ_MISMATCH, WHERE,
                        "was computed with other arithmetic or at another level of instructions; "
                        "encode the picture anew");
    if (memcmp(head, expected, HEAD_BYTES) != 0)
        return cvq_fail(err, CVQ_FORMAT, WHERE, "has sizes that are not this model's");
    return CVQ_OK;
}

/* ---------------------------------------------------------------- bytes, both ways */

/* One of write and read is set. */
typedef struct stream {
    cvq_write_fn write;
    cvq_read_fn read;
    void *context;
    cvq_hasher *hasher;
} stream;

static cvq_status pass_piece(const stream *s, void *data, size_t size, cvq_error *err) {
    if (s->write && s->write(s->context, data, size) != 0)
        return cvq_fail(err, CVQ_IO, WHERE, "could not be written");
    if (s->read && s->read(s->context, data, size) != size)
        return cvq_fail(err, CVQ_FORMAT, WHERE, "ends early, or could not be read");
    return cvq_hasher_feed(s->hasher, data, size, err);
}

static cvq_status pass(const stream *s, void *data, size_t size, cvq_error *err) {
    for (size_t done = 0, n; done < size; done += n) {
        n = size - done < PIECE ? size - done : PIECE;
        CVQ_TRY(pass_piece(s, (uint8_t *)data + done, n, err));
    }
    return CVQ_OK;
}

/* All that lies between head and hash, in order. */
static cvq_status pass_contents(const stream *s, const cvq_model *m, const contents *c,
                                cvq_error *err) {
    CVQ_TRY(pass(s, c->rgb, rgb_bytes(m), err));
    for (int i = 0; i < 2; i++)
        if (c->encodings[i]) CVQ_TRY(pass(s, c->encodings[i], encoding_bytes(m), err));
    for (size_t n = 0; c->prefix && n < c->prefix->num_layers; n++) {
        const cvq_kv_prefix *layer = &c->prefix->layers[n];
        for (size_t i = 0; i < cvq_kv_prefix_pieces(layer); i++) {
            size_t size;
            uint8_t *piece = cvq_kv_prefix_piece(layer, i, &size);
            CVQ_TRY(pass(s, piece, size, err));
        }
    }
    return CVQ_OK;
}

/* ---------------------------------------------------------------- saving */

static cvq_status save(const stream *s, const cvq_model *m, const contents *c, cvq_error *err) {
    uint8_t head[HEAD_BYTES], hash[CVQ_HASH_BYTES];
    uint32_t encodings = (c->encodings[0] ? 1u : 0) + (c->encodings[1] ? 2u : 0);
    make_head(m, c->hash, encodings, c->prefix ? &c->prefix->settings : NULL, head);
    CVQ_TRY(pass(s, head, sizeof head, err));
    CVQ_TRY(pass_contents(s, m, c, err));
    CVQ_TRY(cvq_hasher_take(s->hasher, hash, err));
    return pass(s, hash, sizeof hash, err);
}

cvq_status cvq_image_save(const cvq_image *image, cvq_write_fn write, void *context,
                          cvq_error *err) {
    if (!image || !write)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_image_save", "NULL given");
    cvq_image *i = (cvq_image *)image; /* for its lock */
    contents c = {.rgb = image->rgb, .prefix = cvq_image_prefix_of(image)};
    memcpy(c.hash, image->hash, sizeof c.hash);
    pthread_mutex_lock(&i->lock);
    memcpy(c.encodings, i->encodings, sizeof c.encodings);
    pthread_mutex_unlock(&i->lock);
    stream s = {.write = write, .context = context};
    cvq_status status = CVQ_OK;
    if (!c.prefix && !c.encodings[0] && !c.encodings[1])
        status = cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_image_save",
                          "the picture has not been encoded yet");
    if (status == CVQ_OK) status = cvq_hasher_open(&s.hasher, err);
    if (status == CVQ_OK) status = save(&s, image->model, &c, err);
    cvq_hasher_close(s.hasher);
    cvq_image_prefix_release(c.prefix);
    return status;
}

/* ---------------------------------------------------------------- loading */

/* The memory for what a checked head announces, in a picture that is nobody else's yet. */
static cvq_status make_room(cvq_image *image, const uint8_t head[HEAD_BYTES],
                            const cvq_slot_settings *settings, cvq_error *err) {
    const cvq_model *m = image->model;
    memcpy(image->hash, head + AT_PIXELS, sizeof image->hash);
    for (uint32_t i = 0; i < 2; i++) {
        if (!(field(head, AT_ENCODINGS) >> i & 1)) continue;
        void *p;
        CVQ_TRY(cvq_alloc(&p, encoding_bytes(m), 1, "picture encoding", err));
        image->encodings[i] = p;
    }
    return settings ? cvq_image_prefix_alloc(&image->prefix, m, settings, err) : CVQ_OK;
}

/* The hash behind everything, the end behind the hash, and the pixels' own hash, by which sessions
 * know the picture. */
static cvq_status check_end(const stream *s, const cvq_image *image, cvq_error *err) {
    uint8_t hash[CVQ_HASH_BYTES], stored[CVQ_HASH_BYTES], more;
    CVQ_TRY(cvq_hasher_take(s->hasher, hash, err));
    CVQ_TRY(pass(s, stored, sizeof stored, err));
    if (memcmp(hash, stored, sizeof hash) != 0)
        return cvq_fail(err, CVQ_FORMAT, WHERE, "is damaged: its hash is another");
    if (s->read(s->context, &more, 1) != 0)
        return cvq_fail(err, CVQ_FORMAT, WHERE, "goes on where it should end");
    CVQ_TRY(cvq_sha256(image->rgb, rgb_bytes(image->model), hash, err));
    if (memcmp(hash, image->hash, sizeof hash) != 0)
        return cvq_fail(err, CVQ_FORMAT, WHERE, "has pixels that are not those it names");
    return CVQ_OK;
}

static cvq_status load(const stream *s, cvq_image *image, cvq_error *err) {
    uint8_t head[HEAD_BYTES] = {0};
    bool has_prefix;
    cvq_slot_settings settings;
    CVQ_TRY(pass(s, head, sizeof head, err));
    CVQ_TRY(check_head(image->model, head, &has_prefix, &settings, err));
    CVQ_TRY(make_room(image, head, has_prefix ? &settings : NULL, err));
    contents c = {.rgb = image->rgb, .prefix = image->prefix};
    memcpy(c.encodings, image->encodings, sizeof c.encodings);
    CVQ_TRY(pass_contents(s, image->model, &c, err));
    return check_end(s, image, err);
}

cvq_status cvq_image_load(cvq_image **out, const cvq_model *model, cvq_read_fn read, void *context,
                          cvq_error *err) {
    if (!out || !model || !read)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_image_load", "NULL given");
    cvq_image *image;
    CVQ_TRY(cvq_image_new(&image, model, err));
    stream s = {.read = read, .context = context};
    cvq_status status = cvq_hasher_open(&s.hasher, err);
    if (status == CVQ_OK) status = load(&s, image, err);
    cvq_hasher_close(s.hasher);
    if (status == CVQ_OK)
        *out = image;
    else
        cvq_image_free(image);
    return status;
}

/* ---------------------------------------------------------------- what fits a session */

cvq_status cvq_image_key(const cvq_image *image, const cvq_session *session,
                         uint8_t key[CVQ_IMAGE_KEY_BYTES], cvq_error *err) {
    if (!image || !session || !key || image->model != session->model)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_image_key",
                        "NULL, or a picture of another model");
    uint8_t head[HEAD_BYTES];
    make_head(image->model, image->hash, session->settings.fast ? 2 : 1, &session->settings, head);
    return cvq_sha256(head, sizeof head, key, err);
}

int cvq_image_ready(const cvq_image *image, const cvq_session *session) {
    if (!image || !session || image->model != session->model) return 0;
    cvq_image *i = (cvq_image *)image; /* for its lock */
    pthread_mutex_lock(&i->lock);
    bool ready = i->encodings[session->settings.fast] && i->prefix &&
                 cvq_slot_settings_equal(&i->prefix->settings, &session->settings);
    pthread_mutex_unlock(&i->lock);
    return ready;
}
