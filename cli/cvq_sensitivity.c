/* cvq-sensitivity: how much each matrix matters, measured by quantizing one at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"
#include "cli/compared_model.h"
#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "quant/quantize.h"
#include "quant/sensitivity.h"
#include "quant/type_errors.h"

typedef struct sensitivity_args {
    cvq_run_args run;
    const char *output, *imatrix;
    uint64_t window;
} sensitivity_args;

#define MEMBER(name) offsetof(sensitivity_args, name)
static const cvq_option options[] = {
    {.name = "output",
     .letter = 'o',
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(output),
     .value = "FILE.tsv",
     .help = "where to write (default sensitivity.tsv); what it has is kept, and the rest is "
             "measured (with --force it starts anew)"},
    {.name = "imatrix",
     .kind = CVQ_OPTION_TEXT,
     .offset = MEMBER(imatrix),
     .value = "FILE",
     .help = "importance of the input channels, as for cvq-quantize"},
    CVQ_OPTION_WINDOW(MEMBER(window), "default 512"),
    CVQ_OPTION_TEMPLATE(MEMBER(run.template_choice)),
    CVQ_OPTION_ROPE(MEMBER(run.rope)),
    CVQ_OPTION_KV(MEMBER(run.kv)),
    CVQ_OPTION_NO_EXIF(MEMBER(run.no_exif)),
};

static const cvq_command command = {
    .name = "cvq-sensitivity",
    .summary = "Measure how much each matrix of a model matters, for cvq-quantize --target-size.",
    .operands = "MODEL.cvq DATA.jsonl",
    .min_operands = 2,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
    .notes =
        "MODEL.cvq is a 16-bit file, DATA.jsonl as for cvq-calibrate: questions, whose first "
        "answers are scored, and texts {\"text\"}. Each matrix in turn is quantized to 4 bits "
        "(q4h), and all of the data goes through the model: as many times as the model has "
        "matrices, so take little data. Beside FILE lies meanwhile a copy of the model.\n"
        "FILE has a line for each matrix: its name, the type, the share of its output's square "
        "that is wrong, and the divergence from the original, KL(reference || model) in nats, on "
        "texts and on answers. It is good for every quantization of this model.",
};

/* The type that is tried: coarse enough to be seen, and divergence grows in step with the square
 * of small errors. */
#define TRIED CVQ_TYPE_Q4H

typedef struct work {
    const sensitivity_args *args;
    cvq_reader *reader;
    cvq_importance *importance;
    cvq_sensitivity *known; /* [tensor count] */
    cvq_output copy;
    cvq_tap_spool spool;
    cvq_compared reference;
    int fd; /* of FILE */
    size_t size;
    size_t done, total;
    double started;
    int said; /* the exit code of an error that has had its message; else 0 */
} work;

/* ---------------------------------------------------------------- opening */

static cvq_status count_work(work *w, cvq_error *err) {
    for (size_t i = 0; i < cvq_reader_tensor_count(w->reader); i++) {
        const cvq_tensor *t = cvq_reader_tensor(w->reader, i);
        if (!cvq_has_choice(&t->spec)) continue;
        if (t->type != CVQ_TYPE_BF16)
            return cvq_fail(err, CVQ_UNSUPPORTED, cvq_reader_path(w->reader),
                            "is quantized already (%s is %s); take a file of recipe bf16",
                            t->spec.name, cvq_type_describe(t->type)->name);
        w->total += !w->known[i].known;
    }
    return CVQ_OK;
}

#define MAX_HEADING (1u << 20) /* of a file without three lines */

/* A heading that was cut short may be written over, another file's beginning may not. */
static cvq_status check_heading(const char *path, const cvq_buffer *head, cvq_error *err) {
    cvq_buffer file = {0};
    CVQ_TRY(cvq_read_file(&file, path, MAX_HEADING, err));
    const bool ours = file.size <= head->size && memcmp(file.data, head->data, file.size) == 0;
    cvq_buffer_free(&file);
    if (ours) return CVQ_OK;
    return cvq_fail(err, CVQ_FORMAT, path,
                    "is not what cvq-sensitivity wrote; give another name or use --force");
}

/* What FILE has from an earlier run; then it is ours to append to. */
static cvq_status read_file(work *w, const char *id, const cvq_buffer *head, cvq_error *err) {
    const char *path = w->args->output;
    if (!w->args->run.common.force) {
        CVQ_TRY(
            cvq_sensitivity_read(w->known, cvq_reader_config(w->reader), path, id, &w->size, err));
        if (w->size == 0) CVQ_TRY(check_heading(path, head, err));
    }
    if (ftruncate(w->fd, (off_t)w->size) != 0)
        return cvq_fail_errno(err, path, "cannot drop its unfinished last line");
    if (w->size > 0) return CVQ_OK;
    w->size = head->size;
    return cvq_write_all(w->fd, 0, head->data, head->size, path, err);
}

static cvq_status open_file(work *w, cvq_error *err) {
    const sensitivity_args *args = w->args;
    const char *inputs[] = {args->run.common.operands[0], args->run.common.operands[1],
                            args->imatrix};
    char id[2 * CVQ_ID_BYTES + 1];
    cvq_buffer head = {0};
    cvq_hex_id(cvq_reader_id(w->reader), id);
    CVQ_TRY(cvq_output_check_inputs(args->output, inputs, args->imatrix ? 3 : 2, err));
    CVQ_TRY(cvq_data_check_outputs(inputs[1], &args->output, 1, err));
    CVQ_TRY(cvq_output_open_growing(&w->fd, args->output, err));
    cvq_status status = cvq_sensitivity_print_head(&head, id, err);
    if (status == CVQ_OK) status = read_file(w, id, &head, err);
    cvq_buffer_free(&head);
    return status;
}

/* A copy of the model whose matrices can be changed, and room for the reference's predictions. */
static cvq_status open_scratch(work *w, cvq_error *err) {
    const cvq_file_map *map = cvq_reader_map(w->reader);
    cvq_buffer name = {0};
    CVQ_TRY(cvq_buffer_append(&name, w->args->output, strlen(w->args->output), err));
    cvq_status status = cvq_buffer_append(&name, ".model", sizeof ".model", err);
    if (status == CVQ_OK)
        status = cvq_output_open(&w->copy, (const char *)name.data, true, NULL, 0, err);
    cvq_buffer_free(&name);
    if (status == CVQ_OK) status = cvq_output_scratch(&w->copy, &w->spool.fd, err);
    w->spool.where = w->args->output;
    if (status == CVQ_OK)
        status = cvq_write_all(w->copy.fd, 0, map->data, (size_t)map->size, w->copy.temp, err);
    return status;
}

static cvq_status open_all(work *w, cvq_error *err) {
    const sensitivity_args *args = w->args;
    void *known;
    CVQ_TRY(cvq_reader_open(&w->reader, args->run.common.operands[0], err));
    if (args->imatrix)
        CVQ_TRY(
            cvq_importance_open(&w->importance, args->imatrix, cvq_reader_config(w->reader), err));
    CVQ_TRY(cvq_alloc(&known, cvq_reader_tensor_count(w->reader), sizeof *w->known, "the matrices",
                      err));
    w->known = known;
    CVQ_TRY(open_file(w, err));
    CVQ_TRY(count_work(w, err));
    return w->total ? open_scratch(w, err) : CVQ_OK;
}

/* ---------------------------------------------------------------- one matrix */

/* Puts panels of tensor i into the copy: as the file has them, or through the type that is tried
 * and back. *error: the share of the output's square that is wrong. */
static cvq_status put_tensor(const work *w, size_t i, bool changed, double *error, cvq_error *err) {
    const cvq_tensor *from = cvq_reader_tensor(w->reader, i);
    const float *importance = w->importance ? cvq_importance_of(w->importance, i) : NULL;
    cvq_reader_rows *source_rows = NULL;
    if (!changed)
        return cvq_write_all(w->copy.fd, from->offset, cvq_reader_data(w->reader, i),
                             (size_t)from->size, w->copy.temp, err);
    cvq_tensor to = *from;
    to.type = TRIED;
    if (cvq_type_has_codebook(TRIED)) to.codebook = cvq_codebook_default;
    const cvq_type_info *info = cvq_type_describe(TRIED);
    const size_t cols = from->spec.cols, height = from->panel_rows;
    const size_t ld = cvq_padded_cols(info, cols);
    const size_t old_bytes = cvq_panel_bytes(cvq_type_describe(from->type), from->panel_rows, cols);
    const size_t new_bytes = cvq_panel_bytes(info, to.panel_rows, cols);
    float *rows = NULL, *decoded = NULL;
    uint8_t *panel = NULL;
    double wrong = 0, all = 0;
    cvq_status status = cvq_alloc((void **)&rows, height * cols, sizeof *rows, "rows", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&decoded, height * ld, sizeof *rows, "rows", err);
    if (status == CVQ_OK)
        status = cvq_alloc((void **)&panel, old_bytes + new_bytes, 1, "a panel", err);
    if (status == CVQ_OK) status = cvq_reader_rows_open(&source_rows, w->reader, err);
    const cvq_row_source source = cvq_reader_rows_source(source_rows);
    for (uint64_t r = 0; status == CVQ_OK && r < from->spec.rows; r += height) {
        const uint64_t left = from->spec.rows - r, count = left < height ? left : height;
        memset(rows, 0, height * cols * sizeof *rows);
        status = cvq_rows_read(&source, i, r, count, rows, err);
        if (status != CVQ_OK) break;
        cvq_panel_quantize(&to, rows, (size_t)count, importance, panel);
        cvq_panel_decode(TRIED, to.panel_rows, &to.codebook, panel, cols, decoded, ld);
        all += cvq_weighted_square(rows, NULL, importance, (size_t)count, cols, 0);
        wrong += cvq_weighted_square(rows, decoded, importance, (size_t)count, cols, ld);
        cvq_panel_encode_bf16(to.panel_rows, decoded, ld, cols, panel + new_bytes);
        status = cvq_write_all(w->copy.fd, from->offset + r / height * old_bytes, panel + new_bytes,
                               old_bytes, w->copy.temp, err);
    }
    *error = all > 0 ? wrong / all : 0;
    cvq_reader_rows_close(source_rows);
    free(rows);
    free(decoded);
    free(panel);
    return status;
}

static cvq_status run_pieces(work *w, cvq_compared *c, const char *what, cvq_error *err) {
    char step[80], prefix[160];
    cvq_status status = CVQ_OK;
    for (size_t i = 0; status == CVQ_OK && i < c->text.num_pieces; i++) {
        cvq_format_step("matrix", w->done, w->total, w->started, step, sizeof step);
        snprintf(prefix, sizeof prefix, "%s%s, ", step, what);
        c->run.prefix = prefix;
        status = cvq_interrupted() ? cvq_fail(err, CVQ_CANCELLED, "", "interrupted")
                                   : cvq_compared_piece(c, i, err);
    }
    cvq_progress_erase();
    c->run.prefix = "";
    return status;
}

static int open_compared(work *w, cvq_compared *c, char *path, bool reference) {
    return cvq_compared_open(c, &w->args->run, path, CVQ_PRECISION_EXACT,
                             w->args->run.common.operands[1], (size_t)w->args->window, &w->spool,
                             reference);
}

static cvq_status measure(work *w, size_t i, cvq_sensitivity *s, cvq_error *err) {
    cvq_compared c;
    CVQ_TRY(put_tensor(w, i, true, &s->error, err));
    cvq_status status = CVQ_OK;
    w->said = open_compared(w, &c, w->copy.temp, false);
    if (w->said != CVQ_EXIT_DONE)
        status = cvq_fail(err, CVQ_IO, w->copy.temp, "could not be opened");
    if (status == CVQ_OK)
        status = run_pieces(w, &c, cvq_reader_tensor(w->reader, i)->spec.name, err);
    for (int k = 0; status == CVQ_OK && k < 2; k++)
        s->kld[k] = c.sum[k].count ? cvq_divergence_summarize(&c.sum[k]).kld_mean : -1;
    cvq_compared_close(&c);
    double unused;
    return status == CVQ_OK ? put_tensor(w, i, false, &unused, err) : status;
}

/* A matrix of zeros is never wrong: it gets a line that says so. */
static cvq_status do_tensor(work *w, size_t i, cvq_error *err) {
    cvq_sensitivity s = {.known = true};
    cvq_buffer line = {0};
    CVQ_TRY(measure(w, i, &s, err));
    if (s.error <= 0) s = (cvq_sensitivity){.error = 1, .known = true};
    cvq_status status = cvq_sensitivity_print(&line, cvq_reader_tensor(w->reader, i)->spec.name,
                                              cvq_type_describe(TRIED)->name, &s, err);
    if (status == CVQ_OK)
        status = cvq_write_all(w->fd, w->size, line.data, line.size, w->args->output, err);
    w->size += line.size;
    w->done++;
    cvq_buffer_free(&line);
    return status;
}

/* ---------------------------------------------------------------- the whole */

static cvq_status measure_all(work *w, cvq_error *err) {
    w->started = cvq_progress_clock();
    CVQ_TRY(run_pieces(w, &w->reference, "the original", err));
    for (size_t i = 0; i < cvq_reader_tensor_count(w->reader); i++)
        if (!w->known[i].known && cvq_has_choice(&cvq_reader_tensor(w->reader, i)->spec))
            CVQ_TRY(do_tensor(w, i, err));
    return CVQ_OK;
}

static int run(work *w) {
    cvq_error err = {0};
    const cvq_common *common = &w->args->run.common;
    if (open_all(w, &err) != CVQ_OK) return cvq_say_error(&command, &err);
    if (w->total) {
        const int exit_code = open_compared(w, &w->reference, common->operands[0], true);
        if (exit_code != CVQ_EXIT_DONE) return exit_code;
        const cvq_status status = measure_all(w, &err);
        if (status == CVQ_CANCELLED)
            cvq_say_note(common,
                         "%s: %zu of %zu matrices are measured; the same command goes on "
                         "from here",
                         w->args->output, w->done, w->total);
        if (status != CVQ_OK) return w->said ? w->said : cvq_say_error(&command, &err);
    }
    if (!common->quiet) printf("%s: %zu matrices measured\n", w->args->output, w->done);
    return CVQ_EXIT_DONE;
}

int main(int argc, char **argv) {
    /* The file that is measured is changed in place, a matrix at a time. */
    sensitivity_args args = {
        .output = "sensitivity.tsv", .window = 512, .run.verify = CVQ_VERIFY_NEVER};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    work w = {.args = &args, .spool = CVQ_TAP_SPOOL_NONE, .copy = CVQ_OUTPUT_NONE, .fd = -1};
    exit_code = run(&w);
    cvq_compared_close(&w.reference);
    cvq_tap_spool_free(&w.spool);
    cvq_output_discard(&w.copy);
    if (w.spool.fd >= 0) close(w.spool.fd);
    if (w.fd >= 0) close(w.fd);
    cvq_importance_free(w.importance);
    cvq_reader_close(w.reader);
    free(w.known);
    return cvq_finish_stdout(&command, exit_code);
}
