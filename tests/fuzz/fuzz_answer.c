/* A model whose structure is right and whose weights are anything, NaN and infinities included:
 * the input's bytes lie on those of the small file. It is asked about a picture, in every
 * arithmetic; the picture is kept and taken up again. (What is not finite is refused unless the
 * user said --verify never; this is then.)
 * fuzz-max-len: 512 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cpu.h"
#include "base/file_map.h"
#include "cvq.h"
#include "formats/cvq_reader.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/small_file.h"

#define CHOICE_BYTES 8
#define PATCH_BYTES 14 /* where, how often, eight bytes */

typedef struct weights {
    const char *path;
    int fd;
    uint64_t first, size; /* from the first tensor on */
    cvq_buffer file;      /* as it was */
} weights;

static weights w = {.fd = -1};

static void make_file(void) {
    const cvq_model_config config = small_quick_config();
    cvq_reader *r = NULL;
    w.path = fuzz_file(NULL, 0, 0);
    w.fd = open(w.path, O_RDWR);
    if (w.fd < 0 || small_write_config(&config, 0, w.fd, SMALL_METADATA, 0, NULL, NULL) != CVQ_OK ||
        cvq_read_file(&w.file, w.path, 1u << 28, NULL) != CVQ_OK ||
        cvq_reader_open(&r, w.path, NULL) != CVQ_OK)
        abort();
    w.first = cvq_reader_tensor(r, 0)->offset;
    w.size = w.file.size - w.first;
    cvq_reader_close(r);
}

/* The stretch of the weights that a patch lies on. */
static size_t patch_at(const uint8_t *patch, size_t *times) {
    const size_t at = (size_t)(cvq_load_le(patch, 4) * 8 % w.size);
    *times = (size_t)cvq_load_le(patch + 4, 2) + 1;
    if (*times > (w.size - at) / 8) *times = (size_t)(w.size - at) / 8;
    return (size_t)w.first + at;
}

static void lay_patches(const uint8_t *data, size_t size, bool back) {
    for (; size >= PATCH_BYTES; data += PATCH_BYTES, size -= PATCH_BYTES) {
        size_t times;
        const size_t at = patch_at(data, &times);
        uint8_t *bytes = malloc(8 * times + 1);
        if (!bytes) abort();
        memcpy(bytes, w.file.data + at, 8 * times);
        for (size_t i = 0; !back && i < times; i++) memcpy(bytes + 8 * i, data + 6, 8);
        if (cvq_write_all(w.fd, at, bytes, 8 * times, w.path, NULL) != CVQ_OK) abort();
        free(bytes);
    }
}

static int append(void *context, const void *data, size_t size) {
    return cvq_buffer_append(context, data, size, NULL) != CVQ_OK;
}

static int check_token(void *context, int32_t id, const char *text, size_t length) {
    (void)text, (void)length;
    if (id < -1 || id >= (int32_t) * (const uint32_t *)context) __builtin_trap();
    return 0;
}

static void use(cvq_model *model, cvq_session *session, cvq_image *image, const uint8_t *choice) {
    uint32_t vocab = cvq_model_describe(model)->vocab_size;
    const cvq_sampling sampling = {.temperature = (float)(choice[3] & 15) * 0.25f,
                                   .top_k = choice[3] >> 4,
                                   .top_p = (float)(choice[4] & 15) / 15.0f,
                                   .repetition_penalty = (float)(choice[4] >> 4) * 0.2f,
                                   .seed = choice[5]};
    cvq_prompt *prompt = NULL;
    cvq_image *again = NULL;
    cvq_buffer kept = {0};
    const int32_t ids[2] = {choice[2], choice[6]};
    if (cvq_prompt_from_ids(&prompt, model, ids, 2, image, NULL) != CVQ_OK ||
        cvq_session_sync(session, prompt, NULL) != CVQ_OK ||
        cvq_session_generate(session, &sampling, 3, check_token, &vocab, NULL, NULL) != CVQ_OK ||
        cvq_image_save(image, append, &kept, NULL) != CVQ_OK)
        __builtin_trap();
    cvq_cursor c = cvq_cursor_make(kept.data, kept.size);
    if (cvq_image_load(&again, model, fuzz_take, &c, NULL) != CVQ_OK ||
        !cvq_image_ready(again, session))
        __builtin_trap();
    cvq_image_free(again);
    cvq_buffer_free(&kept);
    cvq_prompt_free(prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t rgb[5 * 4 * 3] = {255, 0, 0, 9, 99, 199, [30] = 77, [58] = 255};
    cvq_model *model = NULL;
    cvq_session *session = NULL;
    cvq_image *image = NULL;
    if (size < CHOICE_BYTES) return 0;
    if (w.fd < 0) make_file();
    lay_patches(data + CHOICE_BYTES, size - CHOICE_BYTES, false);
    const char *level = cvq_cpu_level_name((cvq_cpu_level)(data[0] % CVQ_CPU_LEVELS));
    (void)cvq_cpu_select(level, NULL); /* one that the machine has not stays what it was */
    const cvq_session_options options = {.precision = (cvq_precision)(data[1] & 1) + 1,
                                         .kv = (cvq_kv_type)(data[1] >> 1 & 3),
                                         .rope = (cvq_rope)((data[1] >> 3 & 3) % 3),
                                         .threads = 1};
    /* Rotary frequencies that are none are refused. */
    const cvq_status status = cvq_model_open(&model, w.path, NULL, NULL);
    if (status != CVQ_OK && status != CVQ_FORMAT) __builtin_trap();
    if (status == CVQ_OK) {
        fuzz_accepted();
        if (cvq_session_open(&session, model, &options, NULL) != CVQ_OK ||
            cvq_image_create(&image, model, rgb, 5, 4, 15, NULL) != CVQ_OK)
            __builtin_trap();
        use(model, session, image, data);
    }
    cvq_image_free(image);
    cvq_session_close(session);
    cvq_model_close(model);
    lay_patches(data + CHOICE_BYTES, size - CHOICE_BYTES, true);
    return 0;
}
