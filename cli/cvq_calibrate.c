/* cvq-calibrate: which input channels of a model's matrices matter, measured on data like that
 * which it will meet. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/machine_memory.h"
#include "bench/calibrate.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/run.h"
#include "cli/task_ids.h"
#include "cli/task_pictures.h"
#include "formats/cvq_reader.h"

typedef struct calibrate_args {
    cvq_run_args run;
    const char *output;
    const char *second_moments;
    bool merge;
    uint64_t window;
} calibrate_args;

#define MEMBER(name) offsetof(calibrate_args, name)
static const cvq_option options[] = {
    {.name = "output",
     .letter = 'o',
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(output),
     .value = "FILE.safetensors",
     .help = "where to write (default importance.safetensors)"},
    {.name = "merge",
     .kind = CVQ_OPTION_FLAG,
     .offset = MEMBER(merge),
     .help = "add up files that cvq-calibrate wrote, which are then the arguments"},
    {.name = "second-moments",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(second_moments),
     .value = "FILE.safetensors",
     .help = "measure how the decoder's input channels go together as well, for cvq-quantize "
             "--feedback; goes over the data several times where memory is short (the real model: "
             "10 GB of sums, 5 GB of file)"},
    CVQ_OPTION_WINDOW(MEMBER(window), "default 512, or what the model holds"),
    CVQ_OPTION_TEMPLATE(MEMBER(run.template_choice)),
    CVQ_OPTION_ROPE(MEMBER(run.rope)),
    CVQ_OPTION_KV(MEMBER(run.kv)),
    CVQ_OPTION_PRECISION(MEMBER(run.precision)),
    CVQ_OPTION_VERIFY(MEMBER(run.verify)),
    CVQ_OPTION_NO_EXIF(MEMBER(run.no_exif)),
};

static const cvq_command command = {
    .name = "cvq-calibrate",
    .summary = "Measure which input channels of a model's matrices matter, for cvq-quantize.",
    .operands = "MODEL.cvq DATA.jsonl | --merge A B...",
    .min_operands = 2,
    .max_operands = INT_MAX,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes =
        "DATA.jsonl has one JSON object a line: a question, with or without a picture, as for "
        "cvq-run --batch, where the first of \"answers\" follows the question; or {\"text\": "
        "\"...\"}, plain text, which is cut into windows that each begin with a bos. Questions "
        "about one picture should stand side by side: it is then encoded once, and counts for each "
        "of them.\n"
        "The file has for every matrix NAME.sum_sq (F32, the sum of squares of each input channel) "
        "and NAME.count (I64, of how many tokens). bos and the token that begins a picture do not "
        "count. Any .cvq file of the model will do; the 16-bit one measures best. cvq-quantize "
        "--imatrix reads the file.\n"
        "--second-moments writes for each input of the decoder's matrices (up shares gate's) "
        "NAME.count, NAME.sum_sq and NAME.correlation (F16, the lower triangle row by row, in "
        "blocks of 2,048 channels where there are more than 4,096). There a picture counts once "
        "for the questions that follow one another about it.",
};

/* What goes through the model at once, after a bos and the line's picture. */
typedef struct piece {
    size_t line, first, count; /* ids [first, first + count) of work.ids */
} piece;

typedef struct work {
    const calibrate_args *args;
    cvq_run run;
    cvq_reader *reader; /* for the config */
    cvq_task task;
    cvq_task_pictures pictures;
    cvq_buffer ids, pieces;
    cvq_calibrator calibrator;
    double cost; /* of all pieces */
    cvq_output output, moments_output;
    cvq_second_moments moments;
} work;

static size_t num_pieces(const work *w) {
    return w->pieces.size / sizeof(piece);
}

static const piece *piece_at(const work *w, size_t i) {
    return (const piece *)(const void *)w->pieces.data + i;
}

/* ---------------------------------------------------------------- what to run */

/* Ids of one line to pieces: a text in windows, a question as a whole. */
static cvq_status cut_line(work *w, size_t line, cvq_error *err) {
    const cvq_task_line *l = &w->task.lines[line];
    const cvq_model *model = w->run.model;
    const cvq_model_info *info = cvq_model_describe(model);
    size_t first = w->ids.size / sizeof(int32_t), window = SIZE_MAX;
    if (l->text) {
        CVQ_TRY(cvq_text_ids(model, l->text, strlen(l->text), &w->ids, err));
        window = (size_t)w->args->window;
    } else {
        CVQ_TRY(cvq_line_ids(model, w->run.kind, l, &w->ids, err));
        if (l->answers.count) CVQ_TRY(cvq_answer_ids(model, l->answers.items[0], &w->ids, err));
    }
    size_t end = w->ids.size / sizeof(int32_t), slots = 1 + (l->image ? info->image_slots : 0);
    if (!l->text && end - first + slots > info->max_context)
        return cvq_fail(err, CVQ_CONTEXT_FULL, w->args->run.common.operands[1],
                        "line %zu takes %zu slots, the model has %u; shorten it", l->number,
                        end - first + slots, info->max_context);
    for (piece p = {.line = line, .first = first}; p.first < end; p.first += p.count) {
        p.count = end - p.first < window ? end - p.first : window;
        CVQ_TRY(cvq_buffer_append(&w->pieces, &p, sizeof p, err));
    }
    return CVQ_OK;
}

/* Every picture is read once before hours of work begin. */
static cvq_status try_pictures(const work *w, cvq_error *err) {
    for (size_t i = 0; i < w->pictures.count; i++) {
        const char *path = w->pictures.pictures[i].path;
        cvq_image *image = NULL;
        CVQ_TRY(cvq_run_picture(&w->run, path, &image, err));
        cvq_image_free(image);
        if (cvq_interrupted()) return cvq_fail(err, CVQ_CANCELLED, "", "interrupted");
    }
    return CVQ_OK;
}

static cvq_status read_data(work *w, cvq_error *err) {
    const char *path = w->args->run.common.operands[1];
    CVQ_TRY(cvq_task_read_data(&w->task, path, err));
    for (size_t i = 0; i < w->task.count; i++) {
        if (w->task.lines[i].problem)
            return cvq_fail(err, CVQ_FORMAT, path, "%s", w->task.lines[i].problem);
        CVQ_TRY(cut_line(w, i, err));
    }
    if (num_pieces(w) == 0)
        return cvq_fail(err, CVQ_FORMAT, path, "holds nothing to calibrate with");
    CVQ_TRY(cvq_task_pictures_open(&w->pictures, &w->run, &w->task, NULL, err));
    return try_pictures(w, err);
}

/* Whether piece i needs a picture that the piece before has not left in the session. */
static bool new_picture(const work *w, size_t i) {
    const char *image = w->task.lines[piece_at(w, i)->line].image;
    const char *before = i ? w->task.lines[piece_at(w, i - 1)->line].image : NULL;
    return image && !(before && strcmp(before, image) == 0);
}

/* ---------------------------------------------------------------- running */

static int on_progress(void *context, double done) {
    work *w = context;
    cvq_progress_update(&w->run.progress, (uint64_t)done, (uint64_t)w->cost);
    return cvq_interrupted();
}

static cvq_status run_piece(work *w, size_t i, cvq_error *err) {
    const piece *p = piece_at(w, i);
    const int32_t *ids = (const int32_t *)(const void *)w->ids.data;
    cvq_image *image = NULL;
    CVQ_TRY(cvq_task_pictures_get(&w->pictures, p->line, &image, err));
    cvq_status status = cvq_calibrate_ids(&w->calibrator, image, ids + p->first, p->count, err);
    cvq_task_pictures_done(&w->pictures, p->line);
    return status;
}

static cvq_status run_pieces(work *w, cvq_error *err) {
    for (size_t i = 0; i < num_pieces(w); i++) {
        w->cost += (double)piece_at(w, i)->count;
        if (new_picture(w, i)) w->cost += cvq_calibrate_picture_cost(&w->calibrator);
    }
    /* Text tokens; a picture counts as what it costs. */
    cvq_progress_begin(&w->run.progress, "calibrating", "token");
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < num_pieces(w); i++)
        status = cvq_interrupted() ? cvq_fail(err, CVQ_CANCELLED, "", "interrupted")
                                   : run_piece(w, i, err);
    cvq_progress_erase();
    return status;
}

/* ---------------------------------------------------------------- the file */

/* A line for each part of the model that saw too little. */
static void say_parts(const cvq_common *common, const cvq_calibration *c) {
    cvq_calibrated_part parts[CVQ_CALIBRATE_PARTS];
    char few[32], enough[32];
    cvq_with_commas(cvq_calibrate_enough(c), enough);
    cvq_calibrate_parts(c, parts);
    for (int i = 0; i < CVQ_CALIBRATE_PARTS; i++) {
        const cvq_calibrated_part *p = &parts[i];
        if (p->matrices == 0 || p->tokens >= cvq_calibrate_enough(c)) continue;
        if (p->tokens == 0)
            cvq_say_note(common, "%s: no token went through; it is quantized as without a file",
                         p->name);
        else
            cvq_say_note(common, "%s: only %s tokens, %s or more are better; add data", p->name,
                         cvq_with_commas(p->tokens, few), enough);
    }
}

static cvq_status finish(work *w, const cvq_calibration *c, cvq_error *err) {
    const cvq_common *common = &w->args->run.common;
    cvq_calibrated_part parts[CVQ_CALIBRATE_PARTS];
    char language[32], vision[32];
    CVQ_TRY(cvq_calibration_write(c, w->output.fd, w->args->output, err));
    CVQ_TRY(cvq_output_commit(&w->output, err));
    say_parts(common, c);
    cvq_calibrate_parts(c, parts);
    if (!common->quiet)
        printf("%s: %zu matrices; %s tokens through the language expert, %s through the vision "
               "expert\n",
               w->args->output, c->count, cvq_with_commas(parts[0].tokens, language),
               cvq_with_commas(parts[1].tokens, vision));
    return CVQ_OK;
}

/* What sums of a pass may take: half of the memory that is left. */
static uint64_t moment_budget(void) {
    return cvq_machine_memory_now().available / 2;
}

/* Over the data once, or as often as second moments need. */
static cvq_status run_passes(work *w, cvq_error *err) {
    const calibrate_args *args = w->args;
    bool more = true, not_first = false;
    if (!args->second_moments) return run_pieces(w, err);
    CVQ_TRY(cvq_second_moments_open(&w->moments, cvq_reader_config(w->reader), moment_budget(),
                                    args->run.common.threads, w->moments_output.fd,
                                    args->second_moments, err));
    for (; more; not_first = true) {
        CVQ_TRY(cvq_second_moments_begin(&w->moments, err));
        cvq_calibrate_moments(&w->calibrator, &w->moments, not_first);
        CVQ_TRY(run_pieces(w, err));
        CVQ_TRY(cvq_second_moments_end(&w->moments, &more, err));
    }
    return cvq_output_commit(&w->moments_output, err);
}

static cvq_status calibrate(work *w, cvq_error *err) {
    const cvq_common *common = &w->args->run.common;
    const char *inputs[] = {common->operands[0], common->operands[1]};
    const char *outputs[] = {w->args->output, w->args->second_moments};
    CVQ_TRY(cvq_reader_open(&w->reader, common->operands[0], err));
    CVQ_TRY(cvq_data_check_outputs(common->operands[1], outputs, 2, err));
    CVQ_TRY(cvq_output_open(&w->output, w->args->output, common->force, inputs, 2, err));
    if (w->args->second_moments)
        CVQ_TRY(cvq_output_open(&w->moments_output, w->args->second_moments, common->force, inputs,
                                2, err));
    CVQ_TRY(read_data(w, err));
    CVQ_TRY(cvq_calibrator_open(&w->calibrator, w->run.model, cvq_reader_config(w->reader),
                                w->run.session, on_progress, w, err));
    cvq_interrupt_session(w->run.session);
    cvq_status status = run_passes(w, err);
    cvq_interrupt_session(NULL);
    return status == CVQ_OK ? finish(w, &w->calibrator.total, err) : status;
}

static cvq_status merge(work *w, cvq_error *err) {
    const cvq_common *common = &w->args->run.common;
    const char *const *files = (const char *const *)common->operands;
    cvq_calibration total = {0};
    CVQ_TRY(cvq_output_open(&w->output, w->args->output, common->force, files,
                            (size_t)common->num_operands, err));
    cvq_status status = cvq_calibration_read(&total, files[0], err);
    for (int i = 1; status == CVQ_OK && i < common->num_operands; i++) {
        cvq_calibration more = {0};
        status = cvq_calibration_read(&more, files[i], err);
        if (status == CVQ_OK) status = cvq_calibration_add(&total, &more, files[i], err);
        cvq_calibration_free(&more);
    }
    if (status == CVQ_OK) status = finish(w, &total, err);
    cvq_calibration_free(&total);
    return status;
}

/* ---------------------------------------------------------------- the command */

/* The exit code of what is wrong with the model or its use. */
static int open_model(work *w, calibrate_args *args) {
    int exit_code = cvq_run_open_model(&w->run);
    if (exit_code != CVQ_EXIT_DONE) return exit_code;
    uint32_t limit = cvq_model_describe(w->run.model)->max_context;
    if (args->window == 0) args->window = limit > 512 ? 512 : limit - 1;
    if (args->window >= limit)
        return cvq_say_usage(&command, "--context %llu: this model's limit is %u and a bos",
                             (unsigned long long)args->window, limit - 1);
    return cvq_run_open_session(&w->run);
}

int main(int argc, char **argv) {
    calibrate_args args = {.output = "importance.safetensors"};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    work w = {.args = &args,
              .run = {.args = &args.run},
              .output = CVQ_OUTPUT_NONE,
              .moments_output = CVQ_OUTPUT_NONE};
    cvq_error err = {0};
    if (!args.merge && args.run.common.num_operands != 2)
        return cvq_say_usage(&command, "takes MODEL.cvq and DATA.jsonl; files to add up come after "
                                       "--merge");
    if (args.second_moments && args.merge)
        return cvq_say_usage(&command, "--second-moments cannot be added up; measure them with all "
                                       "the data at once");
    if (args.second_moments && strcmp(args.second_moments, args.output) == 0)
        return cvq_say_usage(&command, "--second-moments and --output are the same file");
    if (!args.merge) exit_code = open_model(&w, &args);
    if (exit_code == CVQ_EXIT_DONE &&
        (args.merge ? merge(&w, &err) : calibrate(&w, &err)) != CVQ_OK)
        exit_code = cvq_say_error(&command, &err);
    cvq_output_discard(&w.output);
    cvq_output_discard(&w.moments_output);
    cvq_calibrator_close(&w.calibrator);
    cvq_second_moments_close(&w.moments);
    cvq_task_pictures_close(&w.pictures);
    cvq_task_free(&w.task);
    cvq_buffer_free(&w.ids);
    cvq_buffer_free(&w.pieces);
    cvq_reader_close(w.reader);
    cvq_run_close(&w.run);
    return cvq_finish_stdout(&command, exit_code);
}
