/* A line chart as SVG: values over labelled places, on a logarithmic scale. */
#ifndef CVQ_BENCH_CHART_H
#define CVQ_BENCH_CHART_H

#include <stdbool.h>

#include "base/memory.h"

typedef struct cvq_chart_series {
    const char *name;
    const double *values; /* [num_labels]; what is not above 0 is left out */
    unsigned color;       /* 0 to 15 differ, then they come again */
    bool dashed;
} cvq_chart_series;

typedef struct cvq_chart {
    const char *title, *unit; /* unit: what the axis shows */
    const char *const *labels;
    size_t num_labels;
    const cvq_chart_series *series;
    size_t num_series;
} cvq_chart;

cvq_status cvq_chart_print(cvq_buffer *svg, const cvq_chart *chart, cvq_error *err);

#endif
