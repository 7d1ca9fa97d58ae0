/* Attention in int8, the definition: a block of keys and values added to the softmax of rows. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "runtime/kernels/attention_kernel.h"

/* 2^n for -126 <= n <= 127 */
static float power_of_2(float n) {
    return cvq_bits_f32((uint32_t)((int32_t)n + 127) << 23);
}

static uint8_t weight_of(float score, float scale, float offset) {
    float x = fmaf(score, scale, offset);
    x = x > WEIGHT_LOWEST ? x : WEIGHT_LOWEST; /* of a NaN too */
    float n = floorf(x), f = x - n;
    float p = fmaf(fmaf(fmaf(EXP2_3C, f, EXP2_3B), f, EXP2_3A), f, EXP2_3D) * power_of_2(n);
    return (uint8_t)(p < 255.0f ? rintf(p) : 255.0f);
}

static float exp2_5(float x) {
    x = x > EXP2_LOWEST ? x : EXP2_LOWEST;
    float n = floorf(x), f = x - n, p = fmaf(EXP2_5E, f, EXP2_5D);
    p = fmaf(fmaf(fmaf(fmaf(p, f, EXP2_5C), f, EXP2_5B), f, EXP2_5A), f, 1.0f);
    return p * power_of_2(n);
}

static void scores_of_row(const cvq_attention_block *kv, const uint8_t *q, size_t seen,
                          float *scores) {
    for (size_t j = 0; j < seen; j++) {
        const int8_t *key = kv->keys + j / CVQ_PANEL_ROWS * kv->steps * 64;
        int32_t dot = kv->key_start[j];
        for (size_t i = 0; i < 4 * kv->steps; i++)
            dot += q[i] * key[i / 4 * 64 + j % CVQ_PANEL_ROWS * 4 + i % 4];
        scores[j] = (float)dot * kv->key_scale[j];
    }
}

static void add_values(const cvq_attention_block *kv, const uint8_t *weights, size_t seen,
                       float before, float now, float *out) {
    for (size_t i = 0; i < kv->panels * CVQ_PANEL_ROWS; i++) {
        const int8_t *value =
            kv->values + i / CVQ_PANEL_ROWS * 64 + i % CVQ_PANEL_ROWS * 4; /* of the first 4 keys */
        int32_t dot = 0;
        for (size_t j = 0; j < seen; j++)
            dot += weights[j] * value[j / 4 * kv->panels * 64 + j % 4];
        out[i] = fmaf((float)dot, kv->value_scale[i] * now, out[i] * before);
    }
}

void attend_int8_6x1__scalar(const cvq_attention_block *kv, const cvq_attention_rows *r,
                             size_t rows) {
    float scores[CVQ_ATTENTION_KEYS];
    uint8_t weights[CVQ_ATTENTION_KEYS];
    for (size_t i = 0; i < rows; i++) {
        size_t seen = r->seen[i];
        if (seen == 0) continue;
        float scale = r->q_scale[i];
        scores_of_row(kv, r->q + i * 4 * kv->steps, seen, scores);
        float largest = scores[0];
        for (size_t j = 1; j < seen; j++) largest = scores[j] > largest ? scores[j] : largest;
        float offset = fmaf(-largest, scale, WEIGHT_TOP), total = 0;
        for (size_t j = 0; j < seen; j++) {
            weights[j] = weight_of(scores[j], scale, offset);
            total += (float)weights[j]; /* exact: at most 255 x 256 */
        }
        float block_max = largest * scale, max = r->max[i] > block_max ? r->max[i] : block_max;
        float before = exp2_5(r->max[i] - max), now = exp2_5(block_max - max);
        r->max[i] = max;
        r->sum[i] = fmaf(total, now, r->sum[i] * before);
        add_values(kv, weights, seen, before, now, r->out + i * kv->panels * CVQ_PANEL_ROWS);
    }
}
