/* Rotary tables as the released code makes them. */
#include "runtime/rotary.h"

#include <math.h>

#include "base/half.h"

static float round_bf16(float x) {
    return cvq_bf16_to_f32(cvq_f32_to_bf16(x));
}

void cvq_rotary_frequencies(float theta, size_t half, float *inv_freq) {
    for (size_t i = 0; i < half; i++)
        inv_freq[i] = 1.0f / powf(theta, (float)(2 * i) / (float)(2 * half));
}

void cvq_rotary_angles(const cvq_rotary *r, uint32_t position, float *cos_out, float *sin_out) {
    for (size_t i = 0; i < r->half; i++) {
        if (r->bf16) {
            float angle = round_bf16(round_bf16((float)position) * r->inv_freq[i]);
            cos_out[i] = round_bf16(cosf(angle));
            sin_out[i] = round_bf16(sinf(angle));
        } else {
            float angle = (float)position * r->inv_freq[i];
            cos_out[i] = cosf(angle);
            sin_out[i] = sinf(angle);
        }
    }
}

uint32_t cvq_slot_position(size_t slot, size_t image_slots) {
    if (image_slots == 0 || slot < 2) return (uint32_t)slot;
    if (slot < image_slots) return 2;          /* patches: slots 2 .. image_slots - 1 */
    return (uint32_t)(slot - image_slots + 3); /* eoi (slot image_slots): 3 */
}
