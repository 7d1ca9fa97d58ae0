/* The progress line. Rates are of this piece of work since it began, so a resumed one does not
 * count what was there before. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/interrupt.h"

#define TERMINAL_INTERVAL 0.2 /* seconds between two states of the line */
#define LOG_INTERVAL 5.0      /* seconds between two lines where there is no terminal */

static bool line_shown; /* there is one terminal, so one line */

double cvq_progress_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cvq_progress_init(cvq_progress *p, const cvq_common *common) {
    *p = (cvq_progress){.terminal = isatty(STDERR_FILENO) != 0};
    p->on = (p->terminal || common->progress) && !common->no_progress && !common->quiet;
}

void cvq_progress_begin(cvq_progress *p, const char *label, const char *unit) {
    cvq_progress_erase();
    p->label = label;
    p->unit = unit;
    p->started = cvq_progress_clock();
    p->last = -1;
    p->first_done = 0;
}

void cvq_format_duration(double seconds, char *out, size_t size) {
    unsigned long s = (unsigned long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, size, "%lu h %02lu m", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, size, "%lu m %02lu s", s / 60, s % 60);
    else
        snprintf(out, size, "%lu s", s);
}

static void print_state(cvq_progress *p, uint64_t done, uint64_t total, double rate, double left) {
    char amount[64], speed[48] = "", rest[48] = "", time_left[32];
    if (strcmp(p->unit, "bytes") == 0) {
        snprintf(amount, sizeof amount, "%.0f / %.0f MB", (double)done / 1e6, (double)total / 1e6);
        if (rate > 0) snprintf(speed, sizeof speed, ", %.1f MB/s", rate / 1e6);
    } else {
        snprintf(amount, sizeof amount, "%s %llu / %llu", p->unit, (unsigned long long)done,
                 (unsigned long long)total);
        if (rate > 0) snprintf(speed, sizeof speed, ", %.3g/s", rate);
    }
    if (left >= 0) {
        cvq_format_duration(left, time_left, sizeof time_left);
        snprintf(rest, sizeof rest, ", %s left", time_left);
    }
    double share = total ? 100.0 * (double)done / (double)total : 100;
    fprintf(stderr, "%s%s: %3.0f%% (%s)%s%s%s", p->terminal ? "\r" : "", p->label, share, amount,
            speed, rest, p->terminal ? "\033[K" : "\n");
    fflush(stderr);
    line_shown = p->terminal;
}

void cvq_progress_update_left(cvq_progress *p, uint64_t done, uint64_t total, double seconds_left) {
    if (!p->on) return;
    double now = cvq_progress_clock();
    if (p->last < 0) p->first_done = done;
    double interval = p->terminal ? TERMINAL_INTERVAL : LOG_INTERVAL;
    if (p->last >= 0 && now - p->last < interval && done < total) return;
    p->last = now;
    double rate = now > p->started ? (double)(done - p->first_done) / (now - p->started) : 0;
    if (seconds_left < 0 && rate > 0) seconds_left = (double)(total - done) / rate;
    print_state(p, done, total, rate, seconds_left);
}

void cvq_progress_update(cvq_progress *p, uint64_t done, uint64_t total) {
    cvq_progress_update_left(p, done, total, -1);
}

void cvq_progress_erase(void) {
    if (!line_shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    line_shown = false;
}

int cvq_progress_bytes(void *progress, uint64_t done, uint64_t total) {
    cvq_progress_update(progress, done, total);
    return cvq_interrupted();
}

void cvq_format_step(const char *what, size_t done, size_t total, double started, char *out,
                     size_t size) {
    char left[40] = "", duration[32];
    if (done > 0) {
        double each = (cvq_progress_clock() - started) / (double)done;
        cvq_format_duration(each * (double)(total - done), duration, sizeof duration);
        snprintf(left, sizeof left, "%s left, ", duration);
    }
    snprintf(out, size, "%s %zu of %zu, %s", what, done + 1, total, left);
}
