/* cvq-quantize with the search for tables taken out: the largest weight at the end of the table,
 * and nothing tried. It shows that `make regress` notices (tests/test_regress.py). */
#include "cli/cvq_quantize.c"
#include "quant/scale_search_internal.h"

/* These stand in for quant/table_search.c, half_search.c and level_search.c, which are then not
 * linked. */
cvq_choice cvq_search_table(const cvq_search_loops *loops, const cvq_codebook *codebook,
                            const cvq_search *s) {
    (void)loops;
    const float end = (float)codebook->table[15] - (float)codebook->zero + 16.0f;
    const uint16_t scale = cvq_f32_to_f16(s->peak / end * s->from_unit);
    return (cvq_choice){.error = s->sum_wxx, .scale = scale};
}

cvq_choice cvq_search_half_tables(const cvq_search_loops *loops, const cvq_search *s) {
    (void)loops;
    const float d = cvq_search_magnitude(s->peak) / 49.0f * s->from_unit; /* the wide table's end */
    const uint32_t bits = cvq_f32_bits(d), first = 0x36800000u;
    const uint32_t level = bits > first ? (bits - first) >> 19 : 0;
    return (cvq_choice){.error = s->sum_wxx, .scale = (uint16_t)(level << 8)};
}

uint16_t cvq_search_half(const float *x, const float *importance, uint16_t scale, size_t half) {
    (void)x, (void)importance, (void)half;
    return scale;
}

/* q4s becomes zeros. */
cvq_choice cvq_search_levels(const cvq_search_loops *loops, const cvq_codebook *codebook,
                             float row_scale, const cvq_search *s) {
    (void)loops, (void)codebook, (void)row_scale;
    return (cvq_choice){.error = s->sum_wxx};
}

float cvq_search_scale_error(const cvq_search_loops *loops, const cvq_search_midpoints *table,
                             float zero, const cvq_search *s, float d) {
    (void)loops, (void)table, (void)zero, (void)d;
    return s->sum_wxx;
}
