/* Rotary tables: positions of slots, and cos and sin of every angle in the precision of the
 * checkpoint. */
#ifndef CVQ_RUNTIME_ROTARY_H
#define CVQ_RUNTIME_ROTARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The released code computes position, angle, cos and sin in the dtype of the checkpoint's
 * inv_freq; with bf16, positions above 256 share angles, and the weights were trained that way. */
typedef struct cvq_rotary {
    size_t half;           /* angles a head: head_dim / 2 */
    const float *inv_freq; /* [half] */
    bool bf16;
} cvq_rotary;

/* inv_freq[i] = theta^(-2i / head_dim) in f32, for --rope f32. */
void cvq_rotary_frequencies(float theta, size_t half, float *inv_freq);
/* cos and sin [half] of one position. */
void cvq_rotary_angles(const cvq_rotary *r, uint32_t position, float *cos_out, float *sin_out);
/* bos 0, boi 1, every patch 2, eoi 3, text 4, 5, ...; without a picture (image_slots 0) the slot's
 * own number. */
uint32_t cvq_slot_position(size_t slot, size_t image_slots);

#endif
