/* What memory a run will take, said before it does; and what it read and waited for, said after. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/run.h"

bool cvq_run_only_memory(const cvq_run_args *args) {
    return args->memory && !args->prompt && !args->batch;
}

/* ---------------------------------------------------------------- the plan */

typedef struct plan_member {
    const char *name;
    size_t offset;
} plan_member;

static const plan_member members[] = {
    {"weights_mapped", offsetof(cvq_memory, weights_mapped)},
    {"weights_encode", offsetof(cvq_memory, weights_encode)},
    {"weights_prefill", offsetof(cvq_memory, weights_prefill)},
    {"weights_decode", offsetof(cvq_memory, weights_decode)},
    {"weights_kept", offsetof(cvq_memory, weights_kept)},
    {"kv_cache", offsetof(cvq_memory, kv_cache)},
    {"work_encode", offsetof(cvq_memory, work_encode)},
    {"work_decoder", offsetof(cvq_memory, work_decoder)},
    {"picture", offsetof(cvq_memory, picture)},
    {"other", offsetof(cvq_memory, other)},
    {"resident_encode", offsetof(cvq_memory, resident_encode)},
    {"resident_prefill", offsetof(cvq_memory, resident_prefill)},
    {"resident_decode", offsetof(cvq_memory, resident_decode)},
    {"least", offsetof(cvq_memory, least)},
    {"enough", offsetof(cvq_memory, enough)},
    {"total", offsetof(cvq_memory, total)},
    {"available", offsetof(cvq_memory, available)},
};

cJSON *cvq_run_plan_json(const cvq_memory *plan) {
    cJSON *root = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        uint64_t bytes;
        memcpy(&bytes, (const char *)plan + members[i].offset, sizeof bytes);
        cvq_json_add_number(root, members[i].name, (double)bytes);
    }
    cvq_json_add_bool(root, "limited", plan->limited);
    return root;
}

static void print_row(FILE *to, const char *label, uint64_t encode, uint64_t prefill,
                      uint64_t decode) {
    char a[32], b[32], c[32];
    fprintf(to, "%-28s %11s %11s %11s\n", label, cvq_human_bytes(encode, a),
            cvq_human_bytes(prefill, b), cvq_human_bytes(decode, c));
}

static const char *where_limited(const cvq_memory *p) {
    return p->limited ? "this control group" : "this machine";
}

static void print_plan(const cvq_memory *p, FILE *to) {
    char a[32], b[32];
    fprintf(to, "%-28s %11s %11s %11s\n", "", "picture", "prompt", "answer");
    print_row(to, "weights that are read", p->weights_encode, p->weights_prefill,
              p->weights_decode);
    print_row(to, "buffers", p->work_encode, p->work_decoder, p->work_decoder);
    print_row(to, "keys and values, when full", p->kv_cache, p->kv_cache, p->kv_cache);
    print_row(to, "the picture", p->picture, p->picture, p->picture);
    print_row(to, "all else", p->other, p->other, p->other);
    print_row(to, "in memory, at most at once", p->resident_encode, p->resident_prefill,
              p->resident_decode);
    fprintf(to, "%s of %s are available to %s; ", cvq_human_bytes(p->available, a),
            cvq_human_bytes(p->total, b), where_limited(p));
    if (p->weights_kept >= p->weights_encode + p->weights_prefill)
        fprintf(to, "all weights stay in memory (the file has %s).\n",
                cvq_human_bytes(p->weights_mapped, a));
    else
        fprintf(to,
                "of the file's %s, %s of weights stay in memory, the others are read layer by "
                "layer.\n",
                cvq_human_bytes(p->weights_mapped, a), cvq_human_bytes(p->weights_kept, b));
}

static cvq_status show_plan(const cvq_run *run, cvq_error *err) {
    const cvq_run_args *args = run->args;
    cvq_status status = CVQ_OK;
    if (!args->json) {
        print_plan(&run->plan, cvq_run_only_memory(args) ? stdout : stderr);
    } else if (cvq_run_only_memory(args)) { /* else it is a part of the answer's object */
        cvq_buffer text = {0};
        cJSON *root = cvq_run_plan_json(&run->plan);
        status = cvq_json_print(&text, root, err);
        if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
        cJSON_Delete(root);
        cvq_buffer_free(&text);
    }
    return status;
}

/* ---------------------------------------------------------------- too little */

/* Without these nothing runs: keys and values come as they are needed. */
static uint64_t buffers_of(const cvq_run *run) {
    const cvq_memory *p = &run->plan;
    uint64_t picture = p->work_encode + p->picture;
    return p->other + (run->args->image && picture > p->work_decoder ? picture : p->work_decoder);
}

static void say_slow(const cvq_run *run) {
    const cvq_memory *p = &run->plan;
    char enough[32], weights[32], kv[32], available[32], total[32], again[32];
    uint64_t left = p->weights_decode > p->weights_kept ? p->weights_decode - p->weights_kept : 0;
    cvq_say_note(&run->args->common,
                 "answers need %s in memory (weights %s, keys and values up to %s), of which %s of "
                 "%s are available to %s: %s of weights will be read again for every token; free "
                 "memory, or take a shorter --context or --kv q8",
                 cvq_human_bytes(p->enough, enough), cvq_human_bytes(p->weights_decode, weights),
                 cvq_human_bytes(p->kv_cache, kv), cvq_human_bytes(p->available, available),
                 cvq_human_bytes(p->total, total), where_limited(p), cvq_human_bytes(left, again));
}

int cvq_run_check_memory(cvq_run *run, const cvq_session_options *options) {
    const cvq_run_args *args = run->args;
    cvq_memory *p = &run->plan;
    cvq_error err = {0};
    cvq_status status = cvq_memory_plan(run->model, options, p, &err);
    if (status == CVQ_OK && args->memory) status = show_plan(run, &err);
    if (status == CVQ_INVALID_ARGUMENT)
        return cvq_say_usage(args->common.command, "%s", err.message);
    if (status != CVQ_OK) return cvq_say_error(args->common.command, &err);
    if (p->available < buffers_of(run)) {
        char needed[32], available[32], total[32];
        cvq_fail(&err, CVQ_OUT_OF_MEMORY, args->common.operands[0],
                 "buffers take %s beside the weights, of which %s of %s are available to %s; free "
                 "memory",
                 cvq_human_bytes(buffers_of(run), needed), cvq_human_bytes(p->available, available),
                 cvq_human_bytes(p->total, total), where_limited(p));
        return cvq_say_error(args->common.command, &err);
    }
    if (p->weights_kept < p->weights_decode && !cvq_run_only_memory(args)) say_slow(run);
    return CVQ_EXIT_DONE;
}

/* ---------------------------------------------------------------- what was used */

/* What came from the disk for this process, read ahead included; 0 where the system does not say.
 */
static double read_bytes(void) {
    FILE *f = fopen("/proc/self/io", "re");
    char line[96];
    double bytes = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "read_bytes:", 11) == 0) bytes = strtod(line + 11, NULL);
    if (f) fclose(f);
    return bytes;
}

void cvq_run_mark(cvq_run *run, int moment) {
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    run->usage[moment] = (cvq_usage){(double)usage.ru_majflt, read_bytes(), cvq_progress_clock()};
}

void cvq_run_add_usage(const cvq_run *run, const cvq_result *result, cJSON *root) {
    static const struct {
        const char *name;
        int from, to;
    } spans[] = {{"encode", CVQ_MOMENT_START, CVQ_MOMENT_PREFILL},
                 {"prefill", CVQ_MOMENT_PREFILL, CVQ_MOMENT_DECODE},
                 {"decode", CVQ_MOMENT_DECODE, CVQ_MOMENT_END},
                 {"steady", CVQ_MOMENT_STEADY, CVQ_MOMENT_END}};
    char name[48];
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        const cvq_usage *a = &run->usage[spans[i].from], *b = &run->usage[spans[i].to];
        snprintf(name, sizeof name, "%s_major_faults", spans[i].name);
        cvq_json_add_number(root, name, b->major_faults - a->major_faults);
        snprintf(name, sizeof name, "%s_read_bytes", spans[i].name);
        cvq_json_add_number(root, name, b->read_bytes - a->read_bytes);
    }
    const cvq_usage *steady = &run->usage[CVQ_MOMENT_STEADY], *end = &run->usage[CVQ_MOMENT_END];
    double tokens = result->tokens > 2 ? (double)result->tokens - 2 : 0;
    cvq_json_add_number(root, "steady_tokens_per_s",
                        tokens > 0 && end->at > steady->at ? tokens / (end->at - steady->at) : 0);
}
