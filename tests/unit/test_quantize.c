/* Whole files: the same bytes for any number of threads and either source, values and statistics
 * against a decoding of the file, padding, failures that name their place, progress, the report.
 * cvq-test: threads */
#include "quant/quantize.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "quant/recipe.h"
#include "tests/unit/harness.h"
#include "tests/unit/small_file.h"

#define MAX_TENSORS 256

static char folder[] = "/tmp/cvq-quantize-XXXXXX";
static char first_path[sizeof folder + 16], second_path[sizeof folder + 16];

/* A made-up checkpoint: every value depends on tensor, row and column alone. Raw bytes are f32. */
typedef struct made_up {
    cvq_model_config config;
    size_t order[MAX_TENSORS]; /* backwards */
    size_t bad_tensor; /* has `bad` at row bad_row, column 1, or fails to read if fail_read */
    uint64_t bad_row;
    float bad;
    bool fail_read, fail_check;
    uint64_t read[MAX_TENSORS], checked[MAX_TENSORS]; /* rows */
    size_t last;                                      /* tensor read */
    size_t finished, stop_after;
} made_up;

static float made_value(size_t tensor, uint64_t row, uint64_t col) {
    uint64_t s = 88172645463325252u + tensor * 1000003u + row * 7919u + col * 104729u;
    int64_t sum = 0;
    for (int i = 0; i < 8; i++) sum += small_random(&s) >> 8;
    float v = (float)(sum - 4 * (1 << 24)) * 0x1p-29f;
    return cvq_bf16_to_f32(cvq_f32_to_bf16(v));
}

static cvq_tensor_spec made_spec(const made_up *m, size_t tensor) {
    cvq_tensor_spec spec;
    cvq_model_tensor_spec(&m->config, tensor, &spec);
    return spec;
}

static size_t made_size(void *context, size_t tensor, uint64_t count) {
    return (size_t)(made_spec(context, tensor).cols * count) * sizeof(float);
}

static cvq_status made_read(void *context, size_t tensor, uint64_t first, uint64_t count,
                            uint8_t *raw, cvq_error *err) {
    made_up *m = context;
    const cvq_tensor_spec spec = made_spec(m, tensor);
    float *out = (float *)(void *)raw;
    CHECK(count > 0 && first + count <= spec.rows);
    CHECK(m->read[tensor] == first && (first > 0 ? m->last == tensor : true));
    m->read[tensor] += count;
    m->last = tensor;
    for (uint64_t r = first; r < first + count; r++) {
        for (uint64_t k = 0; k < spec.cols; k++) *out++ = made_value(tensor, r, k);
        if (tensor != m->bad_tensor || r < m->bad_row) continue;
        if (m->fail_read)
            return cvq_fail(err, CVQ_IO, spec.name, "row %u is gone", (unsigned)m->bad_row);
        if (r == m->bad_row || r == m->bad_row + 20) out[1 - (int64_t)spec.cols] = m->bad;
    }
    return CVQ_OK;
}

static cvq_status made_check(void *context, size_t tensor, uint64_t first, uint64_t count,
                             const uint8_t *raw, cvq_error *err) {
    made_up *m = context;
    const cvq_tensor_spec spec = made_spec(m, tensor);
    CHECK(m->checked[tensor] == first);
    m->checked[tensor] += count;
    float v;
    memcpy(&v, raw, sizeof v);
    CHECK(v == made_value(tensor, first, 0));
    if (tensor != m->bad_tensor || !m->fail_check) return CVQ_OK;
    return cvq_fail(err, CVQ_MISMATCH, spec.name, "damaged");
}

static cvq_status made_decode(void *context, size_t tensor, uint64_t count, const uint8_t *raw,
                              float *out, cvq_error *err) {
    (void)err;
    memcpy(out, raw, made_size(context, tensor, count));
    return CVQ_OK;
}

static cvq_status made_finished(void *context, size_t tensor, cvq_error *err) {
    made_up *m = context;
    CHECK(tensor == m->order[m->finished]);
    if (++m->finished == m->stop_after) return cvq_fail(err, CVQ_CANCELLED, NULL, "enough");
    return CVQ_OK;
}

static made_up make_up(void) {
    made_up m = {.config = small_config(), .bad_tensor = SIZE_MAX};
    m.config.vocab_size = 3001; /* several strips of single rows, the last a short one */
    const size_t count = cvq_model_tensor_count(&m.config);
    for (size_t i = 0; i < count; i++) m.order[i] = count - 1 - i;
    return m;
}
static void read_again(made_up *m) {
    memset(m->read, 0, sizeof m->read);
    memset(m->checked, 0, sizeof m->checked);
}
static cvq_row_source source_of(made_up *m) {
    return (cvq_row_source){.context = m,
                            .order = m->order,
                            .size = made_size,
                            .read = made_read,
                            .check = made_check,
                            .decode = made_decode};
}

typedef struct wish {
    const char *path;
    const cvq_type *types;
    const cvq_row_source *source;
    cvq_quantize_options options;
    cvq_buffer *report; /* or NULL */
} wish;

static cvq_status make(const cvq_model_config *config, const wish *wanted, cvq_error *err) {
    cvq_buffer table = {0};
    cvq_writer *w = NULL;
    int fd = open(wanted->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    cvq_status status = small_tokenizer(&table, err);
    const cvq_file_spec spec = {.config = config,
                                .types = wanted->types,
                                .tokenizer = table.data,
                                .tokenizer_size = table.size,
                                .metadata = SMALL_METADATA,
                                .metadata_size = strlen(SMALL_METADATA)};
    if (status == CVQ_OK) status = cvq_writer_plan(&w, &spec, err);
    if (status == CVQ_OK) status = cvq_writer_begin(w, fd, wanted->path, false, err);
    if (status == CVQ_OK) status = cvq_quantize_all(w, wanted->source, &wanted->options, err);
    if (status == CVQ_OK) status = cvq_writer_finish(w, NULL, err);
    if (status == CVQ_OK && wanted->report)
        status = cvq_quant_report(wanted->report, w, wanted->options.stats, err);
    cvq_writer_free(w);
    cvq_buffer_free(&table);
    close(fd);
    return status;
}

static bool same_files(const char *a, const char *b) {
    cvq_buffer x = {0}, y = {0};
    bool same = cvq_read_file(&x, a, 1u << 26, NULL) == CVQ_OK &&
                cvq_read_file(&y, b, 1u << 26, NULL) == CVQ_OK && x.size == y.size &&
                memcmp(x.data, y.data, x.size) == 0;
    cvq_buffer_free(&x);
    cvq_buffer_free(&y);
    return same;
}

static void recipe_types(const made_up *m, const char *name, cvq_type *types) {
    cvq_recipe *r = NULL;
    CHECK(cvq_recipe_open(&r, name, NULL) == CVQ_OK);
    CHECK(cvq_recipe_types(r, &m->config, CVQ_TYPE_BF16, types, NULL) == CVQ_OK);
    cvq_recipe_free(r);
}

static void threads_do_not_change_bytes(void) {
    made_up m = make_up();
    cvq_type types[MAX_TENSORS];
    const cvq_row_source source = source_of(&m);
    cvq_quant_stats one[MAX_TENSORS], many[MAX_TENSORS];
    small_types(&m.config, types);
    cvq_error err = {0};
    wish w = {first_path, types, &source, {.threads = 1, .stats = one}, NULL};
    CHECK_SAY(make(&m.config, &w, &err) == CVQ_OK, "%s: %s", err.where, err.message);
    const size_t count = cvq_model_tensor_count(&m.config);
    for (size_t i = 0; i < count; i++) {
        CHECK(m.read[i] == made_spec(&m, i).rows && m.checked[i] == m.read[i]);
    }
    static const int threads[] = {2, 3, 7};
    for (int i = 0; i < 3; i++) {
        read_again(&m);
        w.path = second_path;
        w.options.threads = threads[i];
        w.options.stats = many;
        CHECK(make(&m.config, &w, &err) == CVQ_OK);
        CHECK_SAY(same_files(first_path, second_path), "%d threads", threads[i]);
        CHECK(memcmp(one, many, count * sizeof *one) == 0);
    }
    read_again(&m);
    w.options.stats = NULL; /* counting errors changes nothing */
    CHECK(make(&m.config, &w, &err) == CVQ_OK && same_files(first_path, second_path));
}

/* Decode what was written: values near the source's, statistics those of the decoding, pad columns
 * zero (q4t, q4s, q4h: as near as its codes get), pad rows zero. */
static void check_tensor(const cvq_reader *r, size_t i, const cvq_quant_stats *stats) {
    static const double limits[CVQ_TYPES] = {0, 0, 0.009, 0.03, 0.09, 0.11, 0.09, 0.08};
    const cvq_tensor *t = cvq_reader_tensor(r, i);
    const cvq_type_info *info = cvq_type_describe(t->type);
    const size_t cols = (size_t)t->spec.cols, ld = cvq_padded_cols(info, cols);
    const size_t panel = cvq_panel_bytes(info, t->panel_rows, cols);
    float *out = malloc(16 * ld * sizeof *out);
    double error = 0, power = 0, most = 0;
    if (!out) abort();
    for (uint64_t row = 0; row < t->spec.rows; row += t->panel_rows) {
        const uint8_t *bytes = cvq_reader_data(r, i) + row / t->panel_rows * panel;
        CHECK(cvq_panel_finite(t->type, t->panel_rows, bytes, cols));
        cvq_panel_decode(t->type, t->panel_rows, &t->codebook, bytes, cols, out, ld);
        for (size_t k = 0; k < t->panel_rows * ld; k++) {
            const uint64_t at = row + k / ld;
            const double v = (double)out[k];
            if (at >= t->spec.rows) {
                CHECK_SAY(v == 0.0, "%s: pad row holds %g", t->spec.name, v);
            } else if (k % ld >= cols) {
                CHECK_SAY(cvq_type_describe(t->type)->zero_point == 0 ? fabs(v) < 0.1 : v == 0.0,
                          "%s: pad column holds %g", t->spec.name, v);
            } else {
                const double x = (double)made_value(i, at, k % ld), e = fabs(x - v);
                error += e * e;
                power += x * x;
                if (e > most) most = e;
            }
        }
    }
    free(out);
    CHECK_SAY(sqrt(error / power) <= limits[t->type], "%s %s: %f", t->spec.name, info->name,
              sqrt(error / power));
    CHECK(fabs(stats->sum_sq - power) <= 1e-9 * power);
    CHECK(fabs(stats->sum_sq_error - error) <= 1e-9 * power);
    CHECK(fabs((double)stats->max_error - most) <= 1e-6 * most);
}

static void values_survive(void) {
    static const char *const recipes[] = {"bf16", "q8", "q4", "q4-small", NULL};
    for (int n = 0; n < 5; n++) {
        made_up m = make_up();
        cvq_type types[MAX_TENSORS];
        cvq_quant_stats stats[MAX_TENSORS];
        const cvq_row_source source = source_of(&m);
        if (recipes[n])
            recipe_types(&m, recipes[n], types);
        else
            small_types(&m.config, types);
        cvq_error err = {0};
        cvq_reader *r = NULL;
        const wish w = {first_path, types, &source, {.threads = 2, .stats = stats}, NULL};
        CHECK_SAY(make(&m.config, &w, &err) == CVQ_OK, "%s: %s", err.where, err.message);
        CHECK(cvq_reader_open(&r, first_path, &err) == CVQ_OK);
        if (!r) return;
        CHECK(cvq_reader_verify(r, 1, NULL, NULL, NULL, &err) == CVQ_OK);
        for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) check_tensor(r, i, &stats[i]);
        cvq_reader_close(r);
    }
}

/* Checkpoint to q4 in one step, or by way of a bf16 file: the same. */
static void two_steps_give_the_same(void) {
    made_up m = make_up();
    cvq_type types[MAX_TENSORS];
    cvq_row_source source = source_of(&m);
    cvq_error err = {0};
    cvq_reader *r = NULL;
    wish w = {first_path, types, &source, {.threads = 2}, NULL};
    recipe_types(&m, "bf16", types);
    CHECK(make(&m.config, &w, &err) == CVQ_OK);
    CHECK(cvq_reader_open(&r, first_path, &err) == CVQ_OK);
    if (!r) return;
    recipe_types(&m, "q4", types);
    cvq_reader_rows *rows = NULL;
    CHECK(cvq_reader_rows_open(&rows, r, &err) == CVQ_OK);
    if (!rows) return;
    source = cvq_reader_rows_source(rows);
    w.path = second_path;
    CHECK_SAY(make(&m.config, &w, &err) == CVQ_OK, "%s: %s", err.where, err.message);
    cvq_reader_rows_close(rows);
    cvq_reader_rows_close(NULL);
    cvq_reader_close(r);
    read_again(&m);
    source = source_of(&m);
    w.path = first_path;
    CHECK(make(&m.config, &w, &err) == CVQ_OK);
    CHECK(same_files(first_path, second_path));
}

static void failures_name_their_place(void) {
    static const struct {
        cvq_tensor_kind kind;
        uint64_t row;
        float bad;
        bool fail_read, fail_check;
        const char *message;
    } cases[] = {
        {CVQ_T_LANGUAGE_QKV, 17, NAN, false, false, "row 17, column 1 is not a number"},
        {CVQ_T_LM_HEAD, 2999, -INFINITY, false, false, "row 2999, column 1 is infinite"},
        {CVQ_T_EMBED_TOKENS, 1500, INFINITY, false, false, "row 1500, column 1 is infinite"},
        {CVQ_T_VISION_QKV_BIAS, 0, NAN, false, false, "row 0, column 1 is not a number"},
        {CVQ_T_VISION_DENSE, 5, -15.5f, false, false,
         "row 5, column 1 is -15.5, and q4h holds magnitudes up to 15.2578; give this tensor"},
        {CVQ_T_VISION_UP, 20, 0, true, false, "row 20 is gone"},
        {CVQ_T_VISION_UP, 0, 0, false, true, "damaged"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int threads = 1; threads < 4; threads += 2) {
            made_up m = make_up();
            cvq_type types[MAX_TENSORS];
            cvq_tensor_spec spec;
            const cvq_row_source source = source_of(&m);
            cvq_error err = {0};
            m.bad_tensor = cvq_model_tensor_index(&m.config, cases[i].kind, 0);
            m.bad_row = cases[i].row;
            m.bad = cases[i].bad;
            m.fail_read = cases[i].fail_read;
            m.fail_check = cases[i].fail_check;
            cvq_model_tensor_spec(&m.config, m.bad_tensor, &spec);
            recipe_types(&m, "q4", types);
            if (cases[i].kind == CVQ_T_VISION_DENSE) types[m.bad_tensor] = CVQ_TYPE_Q4H;
            const wish w = {first_path, types, &source, {.threads = threads}, NULL};
            const cvq_status wanted = m.fail_read    ? CVQ_IO
                                      : m.fail_check ? CVQ_MISMATCH
                                                     : CVQ_FORMAT;
            CHECK(make(&m.config, &w, &err) == wanted);
            CHECK_SAY(strcmp(err.where, spec.name) == 0, "%s", err.where);
            CHECK_SAY(strncmp(err.message, cases[i].message, strlen(cases[i].message)) == 0, "%s",
                      err.message);
        }
    }
}

typedef struct seen {
    uint64_t last, total, stop_at;
    int calls;
} seen;
static int watch(void *context, uint64_t done, uint64_t total) {
    seen *s = context;
    CHECK(done >= s->last && done <= total && (s->calls == 0 || total == s->total));
    s->last = done;
    s->total = total;
    s->calls++;
    return s->stop_at && done >= s->stop_at;
}

/* Damage of a source is found on the way. */
static void damaged_files_are_refused(void) {
    made_up m = make_up();
    cvq_type types[MAX_TENSORS];
    cvq_row_source source = source_of(&m);
    cvq_error err = {0};
    cvq_reader *r = NULL;
    cvq_reader_rows *rows = NULL;
    wish w = {first_path, types, &source, {.threads = 2}, NULL};
    recipe_types(&m, "bf16", types);
    CHECK(make(&m.config, &w, &err) == CVQ_OK);
    CHECK(cvq_reader_open(&r, first_path, &err) == CVQ_OK);
    if (!r) return;
    const size_t head = cvq_model_tensor_index(&m.config, CVQ_T_LM_HEAD, 0);
    const int fd = open(first_path, O_WRONLY);
    CHECK(pwrite(fd, "\xff", 1, (off_t)cvq_reader_tensor(r, head)->offset + 70000) == 1);
    close(fd);
    CHECK(cvq_reader_rows_open(&rows, r, &err) == CVQ_OK);
    if (!rows) return;
    source = cvq_reader_rows_source(rows);
    w.path = second_path;
    CHECK(make(&m.config, &w, &err) == CVQ_MISMATCH);
    CHECK_SAY(strstr(err.message, "lm_head.weight is damaged") &&
                  strcmp(err.where, first_path) == 0,
              "%s: %s", err.where, err.message);
    cvq_reader_rows_close(rows);
    cvq_reader_close(r);
}

/* Tensors that are done are not read again; a caller that hears of each may stop the work. */
static void work_goes_on(void) {
    made_up m = make_up();
    cvq_type types[MAX_TENSORS];
    const cvq_row_source source = source_of(&m);
    cvq_error err = {0};
    const size_t count = cvq_model_tensor_count(&m.config);
    wish w = {first_path,
              types,
              &source,
              {.threads = 2, .finished = made_finished, .finished_context = &m},
              NULL};
    recipe_types(&m, "q4", types);
    m.stop_after = 9;
    CHECK(make(&m.config, &w, &err) == CVQ_CANCELLED && m.finished == 9);
    read_again(&m);
    m.stop_after = 0;
    w.options.done = 9;
    CHECK(make(&m.config, &w, &err) == CVQ_INVALID_ARGUMENT); /* nobody adopted the nine */
    CHECK(m.finished == count);
    for (size_t i = 0; i < count; i++) {
        const size_t t = m.order[i];
        CHECK(m.read[t] == (i < 9 ? 0 : made_spec(&m, t).rows));
    }
}

static void progress_is_told(void) {
    made_up m = make_up();
    cvq_type types[MAX_TENSORS];
    const cvq_row_source source = source_of(&m);
    cvq_error err = {0};
    seen s = {0};
    wish w = {first_path,
              types,
              &source,
              {.threads = 2, .progress = watch, .progress_context = &s},
              NULL};
    recipe_types(&m, "q4", types);
    CHECK(make(&m.config, &w, &err) == CVQ_OK);
    CHECK(s.last == s.total && s.calls >= (int)cvq_model_tensor_count(&m.config));
    read_again(&m);
    s = (seen){.stop_at = s.total / 2};
    CHECK(make(&m.config, &w, &err) == CVQ_CANCELLED && s.last < s.total);
}

static void the_report_has_a_line_each(void) {
    made_up m = make_up();
    cvq_type types[MAX_TENSORS];
    cvq_quant_stats stats[MAX_TENSORS];
    cvq_buffer report = {0};
    const cvq_row_source source = source_of(&m);
    cvq_error err = {0};
    recipe_types(&m, "q4", types);
    const wish w = {first_path, types, &source, {.threads = 2, .stats = stats}, &report};
    CHECK(make(&m.config, &w, &err) == CVQ_OK);
    CHECK(cvq_buffer_append(&report, "", 1, &err) == CVQ_OK);
    const char *text = (const char *)report.data;
    size_t lines = 0, tabs = 0;
    for (const char *p = text; *p; p++) {
        lines += *p == '\n';
        tabs += *p == '\t';
    }
    CHECK(lines == 1 + cvq_model_tensor_count(&m.config) && tabs == 5 * lines);
    static const char header[] = "tensor\tshape\ttype\tbits\trelative_rmse\tmax_error\n";
    CHECK(strncmp(text, header, sizeof header - 1) == 0);
    CHECK(strstr(text, "\nmodel.vision.conv.weight\t20x20x2x2\tq8\t8.125\t0.00") != NULL);
    CHECK(strstr(text, "\nmodel.norm.weight\t72\tf32\t32\t0\t0\n") != NULL);
    CHECK(strstr(text, "\nlm_head.weight\t3001x72\tq6\t6.5\t0.01") != NULL);
    cvq_buffer_free(&report);
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    snprintf(first_path, sizeof first_path, "%s/first.cvq", folder);
    snprintf(second_path, sizeof second_path, "%s/second.cvq", folder);
    RUN(threads_do_not_change_bytes);
    RUN(values_survive);
    RUN(two_steps_give_the_same);
    RUN(failures_name_their_place);
    RUN(damaged_files_are_refused);
    RUN(work_goes_on);
    RUN(progress_is_told);
    RUN(the_report_has_a_line_each);
    unlink(first_path);
    unlink(second_path);
    rmdir(folder);
    return REPORT();
}
