/* Models of any small shape, with any types: asked about a picture or without one, at one of the
 * machine's levels and at scalar, which must agree.
 * fuzz-max-len: 32 */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "cvq.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/small_file.h"

#define CHOICES 24
#define MOST_VOCAB 324
#define STEPS 2

/* choice[0 .. 15]. */
static cvq_model_config make_config(const uint8_t *choice) {
    cvq_model_config c = small_config();
    const uint32_t share = 1 + choice[2] % 4u, grid = 2 * (1 + choice[11] % 3u);
    c.num_heads = 1 + choice[0] % 4u;
    c.hidden_size = c.num_heads * 2 * (1 + choice[1] % 48u);
    c.num_kv_heads = c.num_heads % share ? c.num_heads : c.num_heads / share;
    c.num_layers = 1 + choice[3] % 2u;
    c.intermediate_size = 1 + choice[4];
    c.vocab_size = 259 + choice[5] % (MOST_VOCAB - 258u);
    c.max_positions = 8 + choice[6] % 56u;
    c.vit_num_heads = 1 + choice[7] % 3u;
    c.vit_hidden_size = c.vit_num_heads * (2 + choice[8] % 70u);
    c.vit_num_layers = 1 + choice[9] % 2u;
    c.vit_intermediate_size = 1 + choice[10];
    c.patch_size = 2 + choice[12] % 8u;
    c.image_size = grid * c.patch_size;
    c.vit_num_positions = grid * grid + 1;
    c.template_version = choice[13] % 3u;
    return c;
}

typedef struct answer {
    size_t rows;
    float logits[STEPS][MOST_VOCAB];
} answer;

/* False: a level that this machine has not. */
static bool ask(const char *path, const char *level, const uint8_t *choice, answer *out) {
    static const uint8_t rgb[5 * 4 * 3] = {255, 0, 0, 9, 99, 199, [30] = 77, [58] = 255};
    const cvq_session_options options = {.precision = (cvq_precision)(choice[17] & 1) + 1,
                                         .kv = (cvq_kv_type)(choice[17] >> 1 & 3),
                                         .rope = (cvq_rope)((choice[17] >> 3 & 3) % 3),
                                         .threads = 1 + (choice[17] >> 5 & 1)};
    cvq_model *model = NULL;
    cvq_session *session = NULL;
    cvq_image *image = NULL;
    cvq_prompt *prompt = NULL;
    const int32_t ids[3] = {choice[18], choice[19], choice[20]};
    if (cvq_cpu_select(level, NULL) != CVQ_OK) return false;
    if (cvq_model_open(&model, path, NULL, NULL) != CVQ_OK) __builtin_trap();
    const uint32_t vocab = cvq_model_describe(model)->vocab_size;
    if (cvq_session_open(&session, model, &options, NULL) != CVQ_OK ||
        (choice[21] & 1 && cvq_image_create(&image, model, rgb, 5, 4, 15, NULL) != CVQ_OK) ||
        cvq_prompt_from_ids(&prompt, model, ids, 1 + choice[21] / 2 % 3u, image, NULL) != CVQ_OK)
        __builtin_trap();
    cvq_status status = cvq_session_sync(session, prompt, NULL);
    for (out->rows = 0; status == CVQ_OK && out->rows < STEPS; out->rows++) {
        memcpy(out->logits[out->rows], cvq_session_logits(session), vocab * sizeof(float));
        status = cvq_session_accept(session, choice[22], NULL);
    }
    if (status != CVQ_OK && status != CVQ_CONTEXT_FULL) __builtin_trap();
    cvq_prompt_free(prompt);
    cvq_image_free(image);
    cvq_session_close(session);
    cvq_model_close(model);
    return true;
}

/* Not asked for where a norm has few inputs: where those are nearly equal, it magnifies what sums
 * in another order differ by. */
static bool agree(const answer *a, const answer *b, const cvq_model_config *c, float tolerance) {
    if (c->hidden_size < 32 || c->vit_hidden_size < 32) return true;
    for (size_t row = 0; row < a->rows; row++) {
        float most = 0.0f, off = 0.0f;
        for (uint32_t i = 0; i < c->vocab_size; i++) {
            most = fmaxf(most, fabsf(a->logits[row][i]));
            off = fmaxf(off, fabsf(a->logits[row][i] - b->logits[row][i]));
        }
        if (off > tolerance * most) return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t choice[CHOICES] = {0};
    answer scalar, other;
    memcpy(choice, data, size < CHOICES ? size : CHOICES);
    const cvq_model_config config = make_config(choice);
    if (cvq_model_config_check(&config, "fuzz", NULL) != CVQ_OK) return 0;
    const char *path = fuzz_file(NULL, 0, 0);
    int fd = open(path, O_RDWR);
    if (fd < 0 ||
        small_write_config(&config, choice[14] % 12u, fd, SMALL_METADATA, 0, NULL, NULL) != CVQ_OK)
        abort();
    close(fd);
    const char *level = cvq_cpu_level_name((cvq_cpu_level)(1 + choice[16] % (CVQ_CPU_LEVELS - 1)));
    if (!ask(path, "scalar", choice, &scalar)) return 0;
    fuzz_accepted();
    for (size_t row = 0; row < scalar.rows; row++)
        for (uint32_t i = 0; i < config.vocab_size; i++)
            if (!isfinite(scalar.logits[row][i])) __builtin_trap();
    if (!ask(path, level, choice, &other)) return 0;
    /* What is rounded to fewer bits on the way is sometimes rounded to another side. */
    const bool rounded = choice[17] & 1 || (choice[17] >> 1 & 3) > CVQ_KV_F32;
    if (other.rows != scalar.rows || !agree(&scalar, &other, &config, rounded ? 0.1f : 1e-3f))
        __builtin_trap();
    return 0;
}
