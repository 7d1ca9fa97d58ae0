/* Sessions on the small checkpoint: what is kept, recomputed, decoded or split gives the same bits;
 * limits and cancellation.
 * cvq-test: threads */
#define CVQ_UNSTABLE
#include "cvq.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "convert/convert.h"
#include "tests/unit/harness.h"

static char folder[] = "/tmp/cvq-session-XXXXXX";
static const char *const recipes[] = {"bf16", "q4"};
static cvq_model *models[2];
static uint8_t picture[2][40 * 30 * 3];
static uint32_t vocab;

static const char *path_of(int recipe) {
    static char path[64];
    snprintf(path, sizeof path, "%s/%s.cvq", folder, recipes[recipe]);
    return path;
}

static cvq_status convert(int recipe, cvq_error *err) {
    cvq_checkpoint *checkpoint = NULL;
    cvq_recipe *r = NULL;
    cvq_convert_options options = {.quantize = {.threads = 2}};
    cvq_convert_result result = {0};
    const cvq_convert_target target = {.fd = open(path_of(recipe), O_CREAT | O_RDWR | O_EXCL, 0600),
                                       .journal = -1,
                                       .where = "model"};
    cvq_status status = cvq_checkpoint_open(&checkpoint, "models/cogvlm2-tiny", err);
    if (status == CVQ_OK) status = cvq_recipe_open(&r, recipes[recipe], err);
    if (status == CVQ_OK) status = cvq_convert(checkpoint, r, &options, &target, &result, err);
    cvq_recipe_free(r);
    cvq_checkpoint_close(checkpoint);
    close(target.fd);
    return status;
}

static cvq_session *session(int recipe, const cvq_session_options *options) {
    cvq_session *s = NULL;
    cvq_error err = {0};
    CHECK_SAY(cvq_session_open(&s, models[recipe], options, &err) == CVQ_OK, "%s", err.message);
    return s;
}

static cvq_image *image(int recipe, int which) {
    cvq_image *i = NULL;
    CHECK(cvq_image_create(&i, models[recipe], picture[which], 40, 30, 40 * 3, NULL) == CVQ_OK);
    return i;
}

static cvq_prompt *prompt(int recipe, const cvq_turn *turns, size_t n, const char *question,
                          cvq_image *i) {
    cvq_prompt *p = NULL;
    CHECK(cvq_prompt_create(&p, models[recipe], CVQ_PROMPT_CHAT, turns, n, question, i, NULL) ==
          CVQ_OK);
    return p;
}

/* The logits of a prompt in a session of its own. */
static float *fresh_logits(int recipe, const cvq_prompt *p, const cvq_session_options *options) {
    cvq_session *s = session(recipe, options);
    cvq_error err = {0};
    float *copy = calloc(vocab, sizeof *copy);
    cvq_session_rewind(s, 0); /* nothing is taken from the picture */
    CHECK_SAY(cvq_session_sync(s, p, &err) == CVQ_OK, "%s", err.message);
    memcpy(copy, cvq_session_logits(s), vocab * sizeof *copy);
    cvq_session_close(s);
    return copy;
}

static int equal(const cvq_session *s, const float *want) {
    return memcmp(cvq_session_logits(s), want, vocab * sizeof *want) == 0;
}

static void kept_prefixes_change_nothing(void) {
    for (int recipe = 0; recipe < 2; recipe++) {
        cvq_image *a = image(recipe, 0), *same = image(recipe, 0), *other = image(recipe, 1);
        cvq_turn turn = {"How many digits are there?", " 2"};
        cvq_prompt *prompts[] = {
            prompt(recipe, NULL, 0, "What number is written in the image?", a),
            prompt(recipe, NULL, 0, "What color is the text?", same), /* equal pixels */
            prompt(recipe, &turn, 1, "What color is the text?", a),
            prompt(recipe, NULL, 0, "What color is the text?", other),
            prompt(recipe, NULL, 0, "Who art thou?", NULL),
            prompt(recipe, NULL, 0, "Who art thou?", NULL),
            prompt(recipe, NULL, 0, "What color is the text?", a),
        };
        size_t n = sizeof prompts / sizeof *prompts;
        cvq_session *s = session(recipe, NULL);
        for (size_t i = 0; i < n; i++) {
            float *want = fresh_logits(recipe, prompts[i], NULL);
            CHECK(cvq_session_sync(s, prompts[i], NULL) == CVQ_OK);
            CHECK_SAY(equal(s, want), "%s, prompt %zu", recipes[recipe], i);
            free(want);
        }
        cvq_session_close(s);
        for (size_t i = 0; i < n; i++) cvq_prompt_free(prompts[i]);
        cvq_image_free(a);
        cvq_image_free(same);
        cvq_image_free(other);
    }
}

static void decoding_equals_reading(void) {
    for (int recipe = 0; recipe < 2; recipe++) {
        const int32_t text[] = {70, 300, 301, 12, 999, 5, 80};
        cvq_session *s = session(recipe, NULL);
        for (size_t n = 1; n < 7; n++) {
            cvq_prompt *p = NULL;
            CHECK(cvq_prompt_from_ids(&p, models[recipe], text, n, NULL, NULL) == CVQ_OK);
            if (n == 1)
                CHECK(cvq_session_sync(s, p, NULL) == CVQ_OK);
            else
                CHECK(cvq_session_accept(s, text[n - 1], NULL) == CVQ_OK);
            float *want = fresh_logits(recipe, p, NULL);
            CHECK_SAY(equal(s, want), "%s, %zu ids", recipes[recipe], n);
            free(want);
            cvq_prompt_free(p);
        }
        cvq_session_close(s);
    }
}

static void threads_change_nothing(void) {
    cvq_image *i = image(1, 0);
    cvq_prompt *p = prompt(1, NULL, 0, "What number is written in the image?", i);
    float *one = fresh_logits(1, p, &(cvq_session_options){.threads = 1});
    float *three = fresh_logits(1, p, &(cvq_session_options){.threads = 3});
    CHECK(memcmp(one, three, vocab * sizeof *one) == 0);
    free(one);
    free(three);
    cvq_prompt_free(p);
    cvq_image_free(i);
}

static int count_rows(void *context, size_t slot, const float *logits) {
    float *last = context;
    (void)slot;
    memcpy(last, logits, vocab * sizeof *last);
    return 0;
}

static void scoring_ends_as_syncing_does(void) {
    for (int recipe = 0; recipe < 2; recipe++) {
        cvq_image *i = image(recipe, 0);
        cvq_prompt *p = prompt(recipe, NULL, 0, "Is there a circle?", i);
        float *want = fresh_logits(recipe, p, NULL), *last = calloc(vocab, sizeof *last);
        cvq_session *s = session(recipe, NULL);
        CHECK(cvq_session_score(s, p, count_rows, last, NULL) == CVQ_OK);
        CHECK_SAY(memcmp(want, last, vocab * sizeof *last) == 0, "%s", recipes[recipe]);
        cvq_session_close(s);
        free(want);
        free(last);
        cvq_prompt_free(p);
        cvq_image_free(i);
    }
}

/* ---------------------------------------------------------------- limits */

static void a_full_context_is_an_error(void) {
    cvq_session *s = session(0, &(cvq_session_options){.context = 20});
    cvq_error err = {0};
    cvq_image *i = image(0, 0);
    cvq_prompt *p = prompt(0, NULL, 0, "A question that does not fit in so few slots.", i);
    CHECK(cvq_session_sync(s, p, &err) == CVQ_CONTEXT_FULL && strstr(err.message, "20"));
    CHECK(cvq_session_logits(s) == NULL);
    cvq_prompt_free(p);
    const int32_t ids[17] = {0};
    CHECK(cvq_prompt_from_ids(&p, models[0], ids, 17, NULL, NULL) == CVQ_OK);
    CHECK(cvq_session_sync(s, p, NULL) == CVQ_OK);
    CHECK(cvq_session_accept(s, 5, NULL) == CVQ_OK && cvq_session_accept(s, 5, NULL) == CVQ_OK);
    err = (cvq_error){0};
    CHECK(cvq_session_accept(s, 5, &err) == CVQ_CONTEXT_FULL);
    cvq_result r = {0};
    CHECK(cvq_session_generate(s, NULL, 5, NULL, NULL, &r, NULL) == CVQ_OK);
    CHECK(r.finish == CVQ_FINISH_CONTEXT || r.finish == CVQ_FINISH_STOP);
    cvq_prompt_free(p);
    cvq_image_free(i);
    cvq_session_close(s);
    CHECK(cvq_session_open(&s, models[0], &(cvq_session_options){.context = 2049}, &err) ==
          CVQ_INVALID_ARGUMENT);
}

static void wrong_calls_are_refused(void) {
    cvq_session *s = session(0, NULL);
    cvq_prompt *p = NULL;
    cvq_image *i = image(0, 0);
    cvq_result r;
    CHECK(cvq_session_accept(s, 1, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_session_generate(s, NULL, 1, NULL, NULL, &r, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_session_sync(s, NULL, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_prompt_from_ids(&p, models[0], (int32_t[]){-1}, 1, NULL, NULL) ==
          CVQ_INVALID_ARGUMENT);
    CHECK(cvq_prompt_from_ids(&p, models[0], (int32_t[]){1 << 20}, 1, NULL, NULL) ==
          CVQ_INVALID_ARGUMENT);
    CHECK(cvq_prompt_create(&p, models[1], CVQ_PROMPT_CHAT, NULL, 0, "?", i, NULL) ==
          CVQ_INVALID_ARGUMENT); /* a picture of another model */
    CHECK(p == NULL);
    CHECK(cvq_model_open(NULL, "x", NULL, NULL) == CVQ_INVALID_ARGUMENT);
    cvq_image_free(i);
    cvq_session_close(s);
    cvq_session_close(NULL);
    cvq_model_close(NULL);
    cvq_image_free(NULL);
    cvq_prompt_free(NULL);
}

typedef struct stopper {
    int calls, stop_at;
    cvq_session *cancel;
} stopper;

static int stop_after(void *context, cvq_phase phase, uint64_t done, uint64_t total, double left) {
    stopper *s = context;
    (void)phase;
    (void)left;
    CHECK(done <= total);
    if (++s->calls != s->stop_at) return 0;
    if (!s->cancel) return 1;
    cvq_session_cancel(s->cancel); /* as a signal handler would */
    return 0;
}

static void cancelled_sessions_stay_usable(void) {
    cvq_image *i = image(1, 0);
    cvq_prompt *p = prompt(1, NULL, 0, "What number is written in the image?", i);
    float *want = fresh_logits(1, p, NULL);
    for (int at = 1; at <= 8; at++)
        for (int by_flag = 0; by_flag < 2; by_flag++) {
            cvq_session *s = session(1, NULL);
            cvq_image *again = image(1, 0);
            cvq_prompt *q = prompt(1, NULL, 0, "What number is written in the image?", again);
            stopper stop = {0, at, by_flag ? s : NULL};
            cvq_session_set_progress(s, stop_after, &stop);
            CHECK_SAY(cvq_session_sync(s, q, NULL) == CVQ_CANCELLED, "step %d", at);
            CHECK(cvq_session_logits(s) == NULL);
            cvq_session_set_progress(s, NULL, NULL);
            CHECK(cvq_session_sync(s, q, NULL) == CVQ_OK);
            CHECK_SAY(equal(s, want), "after step %d", at);
            cvq_prompt_free(q);
            cvq_image_free(again);
            cvq_session_close(s);
        }
    free(want);
    cvq_prompt_free(p);
    cvq_image_free(i);
}

typedef struct course {
    int begun[2], ended[2], wrong;
    uint64_t done, total[2];
} course;

static int follow(void *context, cvq_phase phase, uint64_t done, uint64_t total, double left) {
    course *c = context;
    if (done == 0 && !c->begun[phase]) {
        c->begun[phase] = 1;
        c->total[phase] = total;
        c->done = 0;
        if (left >= 0) c->wrong = 1; /* nothing is known yet */
    }
    if (done < c->done || total != c->total[phase] || (done > 1 && left < 0)) c->wrong = 2;
    c->done = done;
    if (done == total) c->ended[phase]++;
    if ((done == total) != (left == 0)) c->wrong = 3;
    return 0;
}

/* From nothing to all in each phase, with the time left; a long text goes through the layers in two
 * stretches, which are one phase. */
static void phases_are_reported_layer_by_layer(void) {
    cvq_image *i = image(1, 0);
    static int32_t ids[1500];
    for (size_t n = 0; n < 1500; n++) ids[n] = (int32_t)(n % 500);
    cvq_prompt *p = NULL;
    CHECK(cvq_prompt_from_ids(&p, models[1], ids, 1500, i, NULL) == CVQ_OK);
    cvq_session *s = session(1, NULL);
    course c = {0};
    cvq_session_set_progress(s, follow, &c);
    CHECK(cvq_session_sync(s, p, NULL) == CVQ_OK);
    uint64_t layers = cvq_model_describe(models[1])->num_layers;
    CHECK_SAY(!c.wrong, "%d", c.wrong);
    CHECK(c.begun[0] && c.begun[1] && c.ended[0] == 1 && c.ended[1] == 1);
    CHECK(c.total[0] == cvq_model_describe(models[1])->vit_num_layers + 2);
    CHECK(c.total[1] == 2 * layers);
    cvq_session_close(s);
    cvq_prompt_free(p);
    cvq_image_free(i);
}

static void the_plan_tells_the_phases(void) {
    cvq_memory m = {0};
    for (int recipe = 0; recipe < 2; recipe++) {
        CHECK(cvq_memory_plan(models[recipe], NULL, &m, NULL) == CVQ_OK);
        CHECK(m.weights_decode < m.weights_prefill);
        CHECK(m.weights_encode + m.weights_prefill < m.weights_mapped);
        CHECK(m.weights_kept <= m.weights_mapped && m.available <= m.total);
        CHECK(m.least > m.kv_cache + m.work_encode && m.least <= m.enough);
        CHECK(m.enough >= m.weights_decode + m.kv_cache + m.work_decoder);
        CHECK(m.resident_decode > m.kv_cache && m.resident_decode <= m.resident_prefill);
        CHECK(m.kv_cache > 0 && m.work_encode > 0 && m.work_decoder > 0);
    }
    const cvq_model_info *info = cvq_model_describe(models[1]);
    CHECK(strcmp(info->recipe, "q4") == 0 && info->quantized && strlen(info->id) == 64);
    CHECK(info->image_size == 112 && info->image_slots == 18 && info->max_context == 2048);
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    for (size_t i = 0; i < sizeof picture; i++) ((uint8_t *)picture)[i] = (uint8_t)(i * i / 77);
    cvq_error err = {0};
    for (int r = 0; r < 2; r++)
        if (convert(r, &err) || cvq_model_open(&models[r], path_of(r), NULL, &err)) {
            printf("%s: %s\n0 passed, 1 failed, 0 skipped\n", err.where, err.message);
            return 1;
        }
    vocab = cvq_model_describe(models[0])->vocab_size;
    RUN(kept_prefixes_change_nothing);
    RUN(decoding_equals_reading);
    RUN(threads_change_nothing);
    RUN(scoring_ends_as_syncing_does);
    RUN(a_full_context_is_an_error);
    RUN(wrong_calls_are_refused);
    RUN(cancelled_sessions_stay_usable);
    RUN(phases_are_reported_layer_by_layer);
    RUN(the_plan_tells_the_phases);
    for (int r = 0; r < 2; r++) {
        cvq_model_close(models[r]);
        unlink(path_of(r));
    }
    rmdir(folder);
    return REPORT();
}
