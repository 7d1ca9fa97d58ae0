/* PIL's antialiased bicubic resize of 8-bit RGB, integer-exact: a = -0.5, two passes in 22-bit
 * fixed point through 8-bit intermediates. */
#ifndef CVQ_RUNTIME_RESIZE_H
#define CVQ_RUNTIME_RESIZE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CVQ_MAX_PICTURE_SIDE 65535u

/* rgb [height][stride bytes] to out [out_height][out_width][3]. Sides 1 .. CVQ_MAX_PICTURE_SIDE.
 * Equals Image.resize((w, h), BICUBIC) of an RGB image (horizontal pass first; a pass whose size
 * does not change is skipped). */
cvq_status cvq_resize_bicubic(const uint8_t *rgb, size_t width, size_t height, size_t stride,
                              uint8_t *out, size_t out_width, size_t out_height, cvq_error *err);
/* size x size x 3 bytes to f32 planes out [3][size][size]: / 255, minus mean, / std, in that order
 * in f32 as torch does it. */
void cvq_normalize_pixels(const uint8_t *rgb, size_t size, float *out);

#endif
