/* Errors of hidden states by hand, and the picture of them. */
#include "bench/state_error.h"

#include <math.h>
#include <stdlib.h>

#include "bench/chart.h"
#include "harness.h"

static void sums(void) {
    cvq_state_errors e = {0};
    const float reference[] = {3, 0, 4, 0, 0, 12}, values[] = {3, 1, 4, 0, 0, 10};
    CHECK(cvq_state_errors_add(&e, "a", reference, values, 1, 3, NULL) == CVQ_OK);
    CHECK(cvq_state_errors_add(&e, "b", reference, reference, 3, 2, NULL) == CVQ_OK);
    CHECK(cvq_state_errors_add(&e, "a", reference + 3, values + 3, 1, 3, NULL) == CVQ_OK);
    const cvq_state_error *a = cvq_state_errors_find(&e, "a"), *b = cvq_state_errors_find(&e, "b");
    CHECK(e.count == 2 && a && a->rows == 2 && a->cols == 3 && b && b->rows == 3);
    /* Differences 1 and 2, squares 9 + 16 + 144. */
    CHECK(a && fabs(cvq_state_error_relative(a) - sqrt(5.0 / 169)) < 1e-12);
    CHECK(b && cvq_state_error_relative(b) == 0);
    CHECK(cvq_state_errors_find(&e, "c") == NULL);
    CHECK(cvq_state_errors_add(&e, "a", reference, values, 1, 2, NULL) == CVQ_INTERNAL);
    /* Channels 9, 0 and 160. */
    double outliers = -1;
    CHECK(a && cvq_state_error_outliers(a, &outliers, NULL) == CVQ_OK);
    CHECK_SAY(fabs(outliers - sqrt(160.0 / 9)) < 1e-12, "%g", outliers);
    cvq_state_errors_free(&e);
    CHECK(e.count == 0 && e.places == NULL);
}

static void zeros(void) {
    cvq_state_errors e = {0};
    const float zero[] = {0, 0, 0}, one[] = {0, 1, 0};
    double outliers = -1;
    CHECK(cvq_state_errors_add(&e, "zero", zero, one, 1, 3, NULL) == CVQ_OK);
    CHECK(cvq_state_error_relative(&e.places[0]) == 0);
    CHECK(cvq_state_error_outliers(&e.places[0], &outliers, NULL) == CVQ_OK && outliers == 0);
    cvq_state_errors_free(&e);
}

static void chart(void) {
    const char *const labels[] = {"a", "b<&>", "c"};
    const double x[] = {0.01, 0.1, 1}, y[] = {0, 0.02, 0};
    const cvq_chart_series series[] = {{"x", x, 0, false}, {"y & z", y, 17, true}};
    const cvq_chart c = {"Title", "unit", labels, 3, series, 2};
    cvq_buffer svg = {0};
    CHECK(cvq_chart_print(&svg, &c, NULL) == CVQ_OK);
    CHECK(cvq_buffer_append(&svg, "", 1, NULL) == CVQ_OK);
    const char *text = (const char *)svg.data;
    /* Two decades in 320 units of height, below 40; places 22 apart from 81 on. */
    CHECK(strstr(text, "M81.0 360.0L103.0 200.0L125.0 40.0'") != NULL);
    CHECK(strstr(text, "M103.0 311.8'") != NULL);
    CHECK(strstr(text, "stroke='#1f77b4' stroke-dasharray='none'") != NULL);
    CHECK(strstr(text, "stroke='#d62728' stroke-dasharray='5 3'") != NULL);
    CHECK(strstr(text, ">b&lt;&amp;&gt;</text>") != NULL &&
          strstr(text, ">y &amp; z</text>") != NULL);
    CHECK(strncmp(text, "<svg ", 5) == 0 && strcmp(text + svg.size - 8, "</svg>\n") == 0);
    cvq_buffer_free(&svg);
}

static void chart_of_nothing(void) {
    const char *const labels[] = {"a"};
    const double nothing[] = {0};
    const cvq_chart_series series[] = {{"x", nothing, 0, false}};
    const cvq_chart c = {"", "", labels, 1, series, 1};
    cvq_buffer svg = {0};
    CHECK(cvq_chart_print(&svg, &c, NULL) == CVQ_OK && svg.size > 0);
    cvq_buffer_free(&svg);
}

int main(void) {
    RUN(sums);
    RUN(zeros);
    RUN(chart);
    RUN(chart_of_nothing);
    return REPORT();
}
