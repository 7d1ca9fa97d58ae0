/* Checkpoints of noise: cut into files as the released one is, readable as any other, with values
 * of a trained model's spread; holes where they were asked for. */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/synthetic.h"
#include "bench/synthetic_checkpoint.h"
#include "bench/synthetic_tokenizer.h"
#include "convert/convert.h"
#include "convert/tokenizer_import.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "harness.h"
#include "temp_folder.h"

static cvq_model_config small_config(void) {
    cvq_model_config c = cvq_scaled_config(16);
    c.num_layers = 2;
    c.vit_num_layers = 1;
    c.num_eos = 1; /* the two fall together at this scale */
    c.eos_ids[1] = 0;
    return c;
}

static void make(const cvq_model_config *c, const char *dir, int threads, uint64_t seed,
                 bool sparse) {
    cvq_error err = {0};
    const cvq_synthetic_options o = {.seed = seed, .threads = threads};
    CHECK(mkdir(temp_path(dir), 0700) == 0);
    CHECK_SAY(cvq_synthetic_checkpoint(c, &o, sparse, temp_path(dir), &err) == CVQ_OK, "%s: %s",
              err.where, err.message);
}

static const char *in(const char *dir, const char *file) {
    char name[128];
    snprintf(name, sizeof name, "%s/%s", dir, file);
    return temp_path(name);
}

static bool same_files(const char *a, const char *b) {
    cvq_buffer x = {0}, y = {0};
    const bool same = cvq_read_file(&x, a, 1u << 30, NULL) == CVQ_OK &&
                      cvq_read_file(&y, b, 1u << 30, NULL) == CVQ_OK && x.size == y.size &&
                      memcmp(x.data, y.data, x.size) == 0;
    cvq_buffer_free(&x);
    cvq_buffer_free(&y);
    return same;
}

#define WEIGHTS "model-00001-of-00001.safetensors"

static void noise_repeats(void) {
    const cvq_model_config c = small_config();
    make(&c, "a", 1, 5, false);
    make(&c, "b", 3, 5, false);
    make(&c, "other", 1, 6, false);
    CHECK(same_files(in("a", WEIGHTS), in("b", WEIGHTS)));
    CHECK(!same_files(in("a", WEIGHTS), in("other", WEIGHTS)));
    cvq_error err = {0};
    const cvq_synthetic_options o = {.seed = 5, .threads = 1};
    CHECK(cvq_synthetic_checkpoint(&c, &o, false, temp_path("a"), &err) == CVQ_IO);
}

static void it_converts(void) {
    const cvq_model_config c = small_config();
    cvq_checkpoint *checkpoint = NULL;
    cvq_recipe *recipe = NULL;
    cvq_buffer plan = {0};
    cvq_error err = {0};
    make(&c, "c", 2, 5, false);
    CHECK_SAY(cvq_checkpoint_open(&checkpoint, temp_path("c"), &err) == CVQ_OK, "%s: %s", err.where,
              err.message);
    if (!checkpoint) return;
    CHECK(memcmp(cvq_checkpoint_config(checkpoint), &c, sizeof c) == 0);
    CHECK(cvq_recipe_open(&recipe, "q4", &err) == CVQ_OK);
    CHECK(cvq_convert_dry_run(&plan, checkpoint, recipe, &err) == CVQ_OK && plan.size > 1000);
    cvq_buffer_free(&plan);
    cvq_recipe_free(recipe);
    cvq_checkpoint_close(checkpoint);
}

/* The same table, whether by way of tokenizer.json or not. */
static void tokenizer_is_imported(void) {
    const cvq_model_config c = small_config();
    cvq_synthetic_tokenizer t;
    cvq_buffer direct = {0}, imported = {0};
    cvq_error err = {0};
    make(&c, "t", 1, 5, true);
    CHECK(cvq_synthetic_tokenizer_open(&t, &c, &err) == CVQ_OK);
    CHECK(cvq_tokenizer_table_build(&direct, &t.source, &err) == CVQ_OK);
    CHECK_SAY(cvq_tokenizer_import(&imported, in("t", "tokenizer.json"), c.vocab_size, &err) ==
                  CVQ_OK,
              "%s", err.message);
    CHECK(direct.size == imported.size && memcmp(direct.data, imported.data, direct.size) == 0);
    cvq_buffer_free(&direct);
    cvq_buffer_free(&imported);
    cvq_synthetic_tokenizer_close(&t);
}

static void values_have_a_spread(void) {
    const cvq_model_config c = small_config();
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    make(&c, "v", 2, 5, false);
    CHECK(cvq_safetensors_open(&s, temp_path("v"), &err) == CVQ_OK);
    const cvq_st_tensor *t =
        s ? cvq_safetensors_find(s, "model.layers.1.mlp.language_mlp.gate_proj.weight") : NULL;
    CHECK(t && t->dtype == CVQ_ST_BF16 && t->ndim == 2);
    const uint64_t n = t ? t->dims[0] * t->dims[1] : 0;
    float *values = malloc((n + 1) * sizeof *values);
    if (t && values && cvq_st_read_f32(t, 0, n, values, &err) == CVQ_OK) {
        double squares = 0, fourth = 0, most = 0;
        for (uint64_t i = 0; i < n; i++) {
            const double x = (double)values[i], x2 = x * x;
            squares += x2;
            fourth += x2 * x2;
            if (fabs(x) > most) most = fabs(x);
        }
        const double variance = squares / (double)n;
        CHECK_SAY(sqrt(variance) > 0.01 && sqrt(variance) < 0.05, "%g", sqrt(variance));
        /* 3 for a normal distribution */
        CHECK_SAY(fourth / (double)n / (variance * variance) > 6, "%g",
                  fourth / (double)n / (variance * variance));
        CHECK_SAY(most > 15 * sqrt(variance) && most < 100, "%g", most);
    }
    free(values);
    cvq_safetensors_close(s);
}

static void holes_are_zeros(void) {
    const cvq_model_config c = small_config();
    cvq_safetensors *s = NULL;
    cvq_error err = {0};
    make(&c, "s", 2, 5, true);
    CHECK(cvq_safetensors_open(&s, temp_path("s"), &err) == CVQ_OK);
    const cvq_st_tensor *t = s ? cvq_safetensors_find(s, "lm_head.weight") : NULL;
    CHECK(t && t->size > (2u << 20));
    for (uint64_t at = 0; t && at < t->size; at += 4096) {
        const bool hole = at % (1u << 20) >= (64u << 10);
        bool zeros = true;
        for (uint64_t i = at; i < at + 4096 && i < t->size; i++) zeros = zeros && t->data[i] == 0;
        CHECK_SAY(zeros == hole, "byte %llu", (unsigned long long)at);
    }
    cvq_safetensors_close(s);
}

/* The released index names exactly these files for these tensors. */
static void files_are_the_released_ones(void) {
    char path[512], name[64];
    cJSON *index = NULL;
    cvq_error err = {0};
    const size_t count = cvq_model_tensor_count(&cvq_real_config);
    size_t *shard = calloc(count, sizeof *shard);
    const size_t files = cvq_synthetic_shards(&cvq_real_config, shard);
    snprintf(path, sizeof path, "%s/hf/model.safetensors.index.json", getenv("CVQ_SHARED"));
    CHECK_SAY(cvq_json_read_file(&index, path, 1u << 24, &err) == CVQ_OK, "%s", err.message);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    CHECK(files == 8);
    for (size_t i = 0; i < count; i++) {
        cvq_tensor_spec spec;
        cvq_model_tensor_spec(&cvq_real_config, i, &spec);
        snprintf(name, sizeof name, "model-%05zu-of-00008.safetensors", shard[i] + 1);
        const cJSON *file = cJSON_GetObjectItemCaseSensitive(map, spec.name);
        CHECK_SAY(cJSON_IsString(file) && strcmp(file->valuestring, name) == 0, "%s", spec.name);
    }
    cJSON_Delete(index);
    free(shard);
}

int main(void) {
    if (!temp_open()) return 1;
    RUN(noise_repeats);
    RUN(it_converts);
    RUN(tokenizer_is_imported);
    RUN(values_have_a_spread);
    RUN(holes_are_zeros);
    if (getenv("CVQ_SHARED"))
        RUN(files_are_the_released_ones);
    else
        SKIP("files_are_the_released_ones", "CVQ_SHARED is not set");
    temp_close();
    return REPORT();
}
