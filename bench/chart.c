/* SVG by hand: a frame, a line for each power of ten, and a broken line for each series. */
#include "bench/chart.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LEFT = 70, TOP = 40, HEIGHT = 320, BELOW = 190, STEP = 22, LEGEND = 230, ROW = 18 };

static const char *const colors[] = {
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f",
    "#e377c2", "#bcbd22", "#000000", "#0b3d91", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94"};

static cvq_status put(cvq_buffer *svg, cvq_error *err, const char *format, ...) CVQ_PRINTF(3, 4);
static cvq_status put(cvq_buffer *svg, cvq_error *err, const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line)
        return cvq_fail(err, CVQ_INTERNAL, "chart", "a line that is too long");
    return cvq_buffer_append(svg, line, (size_t)n, err);
}

/* Text content: names of files may hold anything. */
static cvq_status put_text(cvq_buffer *svg, const char *text, cvq_error *err) {
    for (; *text; text++) {
        const char *escaped = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : "&amp;";
        const bool special = *text == '<' || *text == '>' || *text == '&';
        const bool control = (unsigned char)*text < ' ';
        CVQ_TRY(cvq_buffer_append(svg,
                                  special   ? escaped
                                  : control ? "?"
                                            : text,
                                  special ? strlen(escaped) : 1, err));
    }
    return CVQ_OK;
}

/* The decades that hold all values. */
static void find_decades(const cvq_chart *c, int *low, int *high) {
    double least = INFINITY, most = 0;
    for (size_t s = 0; s < c->num_series; s++) {
        for (size_t i = 0; i < c->num_labels; i++) {
            const double v = c->series[s].values[i];
            if (!(v > 0) || !isfinite(v)) continue;
            least = v < least ? v : least;
            most = v > most ? v : most;
        }
    }
    *low = most > 0 ? (int)floor(log10(least)) : -1;
    *high = most > 0 ? (int)ceil(log10(most)) : 0;
    if (*high == *low) ++*high;
}

static double place_x(size_t i) {
    return LEFT + STEP * ((double)i + 0.5);
}

static double place_y(double v, int low, int high) {
    return TOP + HEIGHT * (high - log10(v)) / (high - low);
}

static cvq_status put_axes(cvq_buffer *svg, const cvq_chart *c, int low, int high, cvq_error *err) {
    const double right = LEFT + STEP * (double)c->num_labels;
    for (int d = low; d <= high; d++) {
        const double y = place_y(pow(10, d), low, high);
        CVQ_TRY(put(svg, err, "<path d='M%d %.1fH%.1f' stroke='#ccc'/>\n", LEFT, y, right));
        CVQ_TRY(put(svg, err, "<text x='%d' y='%.1f' text-anchor='end'>%g</text>\n", LEFT - 6,
                    y + 4, pow(10, d)));
    }
    for (size_t i = 0; i < c->num_labels; i++) {
        CVQ_TRY(put(svg, err, "<text transform='translate(%.1f %d) rotate(-60)' text-anchor='end'>",
                    place_x(i) + 4, TOP + HEIGHT + 14));
        CVQ_TRY(put_text(svg, c->labels[i], err));
        CVQ_TRY(put(svg, err, "</text>\n"));
    }
    return CVQ_OK;
}

static cvq_status put_series(cvq_buffer *svg, const cvq_chart *c, size_t s, int low, int high,
                             cvq_error *err) {
    const char *color = colors[c->series[s].color % (sizeof colors / sizeof *colors)];
    const char *dash = c->series[s].dashed ? "5 3" : "none";
    const double right = LEFT + STEP * (double)c->num_labels, y = TOP + 10 + ROW * (double)s;
    bool pen_down = false;
    CVQ_TRY(put(svg, err,
                "<path fill='none' stroke='%s' stroke-dasharray='%s' stroke-width='2' "
                "stroke-linejoin='round' d='M0 0",
                color, dash));
    for (size_t i = 0; i < c->num_labels; i++) {
        const double v = c->series[s].values[i];
        const bool there = v > 0 && isfinite(v);
        if (there)
            CVQ_TRY(put(svg, err, "%c%.1f %.1f", pen_down ? 'L' : 'M', place_x(i),
                        place_y(v, low, high)));
        pen_down = there;
    }
    CVQ_TRY(put(svg, err,
                "'/>\n<path stroke='%s' stroke-dasharray='%s' stroke-width='2' "
                "d='M%.1f %.1fh24'/>\n",
                color, dash, right + 14, y));
    CVQ_TRY(put(svg, err, "<text x='%.1f' y='%.1f'>", right + 44, y + 4));
    CVQ_TRY(put_text(svg, c->series[s].name, err));
    return put(svg, err, "</text>\n");
}

cvq_status cvq_chart_print(cvq_buffer *svg, const cvq_chart *c, cvq_error *err) {
    const double width = LEFT + STEP * (double)c->num_labels + LEGEND;
    const double legend = TOP + ROW * (double)(c->num_series + 1);
    int low, high;
    find_decades(c, &low, &high);
    CVQ_TRY(put(svg, err,
                "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %.0f %.0f' "
                "font-family='sans-serif' font-size='11'>\n"
                "<rect width='100%%' height='100%%' fill='white'/>\n"
                "<text x='%d' y='20' font-size='14'>",
                width, fmax(TOP + HEIGHT + BELOW, legend), LEFT));
    CVQ_TRY(put_text(svg, c->title, err));
    CVQ_TRY(put(svg, err,
                "</text>\n<text transform='translate(16 %d) rotate(-90)' "
                "text-anchor='middle'>",
                TOP + HEIGHT / 2));
    CVQ_TRY(put_text(svg, c->unit, err));
    CVQ_TRY(put(svg, err, "</text>\n"));
    CVQ_TRY(put_axes(svg, c, low, high, err));
    for (size_t s = 0; s < c->num_series; s++) CVQ_TRY(put_series(svg, c, s, low, high, err));
    return put(svg, err, "</svg>\n");
}
