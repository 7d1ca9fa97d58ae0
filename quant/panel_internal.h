/* One panel of a tensor, from values to the bytes of the file. */
#ifndef CVQ_QUANT_PANEL_INTERNAL_H
#define CVQ_QUANT_PANEL_INTERNAL_H

#include "formats/cvq_layout.h"

/* rows [panel height][cols], all finite, those from count on are padding and zero; importance
 * [cols] or NULL; panel as long as cvq_panel_bytes says. Any type. */
void cvq_panel_quantize(const cvq_tensor *t, const float *rows, size_t count,
                        const float *importance, uint8_t *panel);

#endif
