/* Behind the work, a thread of its own syncs the file and then notes in the journal which tensors
 * and source files are complete; so a journal never says more than the disk holds. */
#include "convert/write_model.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "convert/journal.h"
#include "convert/reproduce.h"
#include "cvq.h"
#include "quant/table_choice.h"

/* Records of the journal. */
enum {
    TENSOR_COMPLETE = 1, /* number: of the tensor; statistics, then its chunks' hashes */
    SOURCE_FILE_HASH = 2 /* number: of the file in the checkpoint; its SHA-256 */
};
#define STATS_BYTES 24u

typedef struct maker {
    const cvq_model_parts *parts;
    const cvq_convert_options *options;
    const cvq_convert_target *target;
    cvq_writer *writer;
    cvq_quant_stats *stats; /* [tensor count], or NULL */
    cvq_journal *journal;   /* or NULL */
    /* In the source's order: tensors whose bytes were written, and of those, how many the journal
     * has; the same of the source's files. */
    size_t written, noted, hashed_files, noted_files;
    uint64_t noted_bytes; /* of the source */
    /* the thread that syncs, and what it is about */
    pthread_t thread;
    bool running, threaded;
    atomic_bool ended;
    size_t task_end, task_end_files;
    cvq_status task_status;
    cvq_error task_error;
} maker;

/* ---------------------------------------------------------------- the journal's records */

static void store_stats(uint8_t bytes[STATS_BYTES], const cvq_quant_stats *s) {
    const double values[] = {s->sum_sq_error, s->sum_sq, (double)s->max_error};
    for (size_t i = 0; i < 3; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        cvq_store_le(bytes + 8 * i, bits, 8);
    }
}

static cvq_quant_stats load_stats(const uint8_t bytes[STATS_BYTES]) {
    double values[3];
    for (size_t i = 0; i < 3; i++) {
        const uint64_t bits = cvq_load_le(bytes + 8 * i, 8);
        memcpy(&values[i], &bits, sizeof bits);
    }
    return (cvq_quant_stats){values[0], values[1], (float)values[2]};
}

static size_t tensor_at(const maker *m, size_t position) {
    return m->parts->rows.order ? m->parts->rows.order[position] : position;
}

static uint64_t source_bytes(const maker *m, size_t tensor) {
    const cvq_row_source *rows = &m->parts->rows;
    return rows->size(rows->context, tensor, cvq_writer_tensor(m->writer, tensor)->spec.rows);
}

static cvq_status note_tensor(maker *m, size_t tensor, cvq_error *err) {
    cvq_buffer data = {0};
    uint8_t stats[STATS_BYTES] = {0};
    size_t chunks;
    const uint8_t *hashes = cvq_writer_hashes(m->writer, tensor, &chunks);
    if (m->stats) store_stats(stats, &m->stats[tensor]);
    cvq_status status = cvq_buffer_append(&data, stats, sizeof stats, err);
    if (status == CVQ_OK) status = cvq_buffer_append(&data, hashes, CVQ_HASH_BYTES * chunks, err);
    if (status == CVQ_OK)
        status = cvq_journal_add(m->journal, TENSOR_COMPLETE, (uint32_t)tensor, data.data,
                                 data.size, err);
    cvq_buffer_free(&data);
    return status;
}

static cvq_status take_tensor(maker *m, uint32_t tensor, const uint8_t *data, size_t size,
                              cvq_error *err) {
    const size_t count = cvq_writer_tensor_count(m->writer);
    if (m->noted == count || tensor != tensor_at(m, m->noted) || size < STATS_BYTES ||
        (size - STATS_BYTES) % CVQ_HASH_BYTES != 0)
        return cvq_fail(err, CVQ_FORMAT, m->target->where,
                        "the journal of the interrupted run is damaged: start over without "
                        "--resume");
    CVQ_TRY(cvq_writer_adopt(m->writer, tensor, data + STATS_BYTES,
                             (size - STATS_BYTES) / CVQ_HASH_BYTES, err));
    if (m->stats) m->stats[tensor] = load_stats(data);
    m->noted_bytes += source_bytes(m, tensor);
    m->written = ++m->noted;
    return CVQ_OK;
}

static cvq_status take_record(void *context, uint32_t kind, uint32_t number, const uint8_t *data,
                              size_t size, cvq_error *err) {
    maker *m = context;
    const cvq_model_parts *p = m->parts;
    if (kind == TENSOR_COMPLETE) return take_tensor(m, number, data, size, err);
    if (p->checkpoint && kind == SOURCE_FILE_HASH && size == CVQ_HASH_BYTES &&
        number < cvq_safetensors_files(p->checkpoint)) {
        cvq_checkpoint_rows_set_hash(p->checkpoint_rows, number, data);
        m->hashed_files = m->noted_files = number + 1;
        return CVQ_OK;
    }
    return cvq_fail(err, CVQ_FORMAT, m->target->where,
                    "the journal of the interrupted run has an unknown record: start over without "
                    "--resume");
}

/* ---------------------------------------------------------------- noting what is complete */

static cvq_status note_all(maker *m, cvq_error *err) {
    if (fsync(m->target->fd) != 0)
        return cvq_fail_errno(err, m->target->where, "cannot write it to the disk");
    for (size_t i = m->noted; i < m->task_end; i++) CVQ_TRY(note_tensor(m, tensor_at(m, i), err));
    for (size_t i = m->noted_files; i < m->task_end_files; i++)
        CVQ_TRY(cvq_journal_add(m->journal, SOURCE_FILE_HASH, (uint32_t)i,
                                cvq_checkpoint_rows_hash(m->parts->checkpoint_rows, i),
                                CVQ_HASH_BYTES, err));
    return cvq_journal_sync(m->journal, err);
}

static void *run_task(void *context) {
    maker *m = context;
    m->task_error = (cvq_error){0};
    m->task_status = note_all(m, &m->task_error);
    atomic_store(&m->ended, true);
    return NULL;
}

static cvq_status end_task(maker *m, cvq_error *err) {
    if (!m->running) return CVQ_OK;
    if (m->threaded) pthread_join(m->thread, NULL);
    m->running = false;
    if (m->task_status != CVQ_OK)
        return cvq_fail(err, m->task_status, m->task_error.where, "%s", m->task_error.message);
    for (; m->noted < m->task_end; m->noted++)
        m->noted_bytes += source_bytes(m, tensor_at(m, m->noted));
    m->noted_files = m->task_end_files;
    return CVQ_OK;
}

static void begin_task(maker *m) {
    if (m->written == m->noted) return;
    m->task_end = m->written;
    m->task_end_files = m->hashed_files;
    m->running = true;
    atomic_store(&m->ended, false);
    m->threaded = cvq_thread_start(&m->thread, run_task, m);
    if (!m->threaded) run_task(m);
}

/* As soon as one sync has ended the next may begin. */
static cvq_status tensor_written(void *context, size_t tensor, cvq_error *err) {
    maker *m = context;
    m->written++;
    if (m->target->expected)
        CVQ_TRY(cvq_expect_tensor(m->target->expected, m->writer, tensor, m->target->where, err));
    if (!m->journal) return CVQ_OK;
    while (m->parts->checkpoint && m->hashed_files < cvq_safetensors_files(m->parts->checkpoint) &&
           cvq_checkpoint_rows_hash(m->parts->checkpoint_rows, m->hashed_files))
        m->hashed_files++;
    if (m->running && !atomic_load(&m->ended)) return CVQ_OK;
    CVQ_TRY(end_task(m, err));
    begin_task(m);
    return CVQ_OK;
}

/* Behind a failure: what is complete shall be of use. */
static void note_the_rest(maker *m) {
    if (!m->journal) return;
    if (end_task(m, NULL) != CVQ_OK) return;
    begin_task(m);
    (void)end_task(m, NULL);
}

/* ---------------------------------------------------------------- the key */

static cvq_status make_key(const maker *m, cvq_journal_key *key, cvq_error *err) {
    static const char program[] = "cvq " CVQ_VERSION_STRING;
    memcpy(key->parts[CVQ_JOURNAL_SOURCE], m->parts->source, CVQ_HASH_BYTES);
    CVQ_TRY(cvq_sha256(program, sizeof program, key->parts[CVQ_JOURNAL_PROGRAM], err));
    CVQ_TRY(cvq_writer_plan_hash(m->writer, key->parts[CVQ_JOURNAL_PLAN], err));
    const uint8_t report = m->stats != NULL;
    return cvq_sha256(&report, 1, key->parts[CVQ_JOURNAL_OPTIONS], err);
}

/* ---------------------------------------------------------------- the file */

/* The same each time, so that an interrupted run can be gone on with. codebooks: [tensor count]. */
static cvq_status choose_tables(const maker *m, void **codebooks, cvq_error *err) {
    const cvq_model_parts *p = m->parts;
    CVQ_TRY(cvq_alloc(codebooks, cvq_model_tensor_count(p->config), sizeof(cvq_codebook),
                      "the tensors' tables", err));
    const cvq_status status =
        cvq_tables_choose(*codebooks, p->config, p->types, &p->rows, &m->options->quantize, err);
    if (status != CVQ_OK) {
        free(*codebooks);
        *codebooks = NULL;
    }
    return status;
}

static cvq_status plan(maker *m, cvq_error *err) {
    const cvq_model_parts *p = m->parts;
    cvq_buffer json = {0};
    void *codebooks = NULL;
    CVQ_TRY(choose_tables(m, &codebooks, err));
    cvq_status status = cvq_metadata_print(p->metadata, &json, err);
    const cvq_file_spec spec = {
        .config = p->config,
        .types = p->types,
        .codebooks = codebooks,
        .tokenizer = p->tokenizer,
        .tokenizer_size = p->tokenizer_size,
        .metadata = (const char *)json.data,
        .metadata_size = json.size,
    };
    if (status == CVQ_OK) status = cvq_writer_plan(&m->writer, &spec, err);
    cvq_buffer_free(&json);
    free(codebooks);
    if (status != CVQ_OK || !m->options->report) return status;
    void *stats = NULL;
    status =
        cvq_alloc(&stats, cvq_writer_tensor_count(m->writer), sizeof *m->stats, "statistics", err);
    m->stats = stats;
    return status;
}

static cvq_status begin(maker *m, cvq_error *err) {
    const cvq_convert_target *t = m->target;
    cvq_journal_key key;
    if (t->journal >= 0) {
        CVQ_TRY(make_key(m, &key, err));
        CVQ_TRY(cvq_journal_open(&m->journal, t->journal, t->where, &key, t->resume, take_record, m,
                                 err));
    }
    /* Without a tensor there is nothing to go on from: whatever the file holds is written over. */
    const bool resume = m->noted > 0;
    if (t->expected)
        CVQ_TRY(cvq_expect_plan(t->expected, m->writer, m->parts->metadata, t->where, err));
    if (t->fd == CVQ_WRITE_NOTHING) return cvq_writer_begin(m->writer, t->fd, t->where, false, err);
    struct stat st;
    if (fstat(t->fd, &st) != 0) return cvq_fail_errno(err, t->where, "cannot tell its size");
    if (resume && (uint64_t)st.st_size != cvq_writer_file_size(m->writer))
        return cvq_fail(err, CVQ_MISMATCH, t->where,
                        "what an interrupted run left is not as long as its journal says: start "
                        "over without --resume");
    if (!resume && ftruncate(t->fd, 0) != 0)
        return cvq_fail_errno(err, t->where, "cannot empty it");
    return cvq_writer_begin(m->writer, t->fd, t->where, resume, err);
}

/* The hashes of the checkpoint's files are known now. */
static cvq_status complete_metadata(maker *m, cvq_error *err) {
    const cvq_model_parts *p = m->parts;
    cvq_buffer json = {0};
    if (!p->checkpoint) return CVQ_OK;
    CVQ_TRY(cvq_checkpoint_rows_finish(p->checkpoint_rows, err));
    for (size_t i = 0; i < cvq_safetensors_files(p->checkpoint); i++)
        cvq_provenance_set_hash(p->metadata, cvq_safetensors_file_name(p->checkpoint, i),
                                cvq_checkpoint_rows_hash(p->checkpoint_rows, i));
    CVQ_TRY(cvq_metadata_print(p->metadata, &json, err));
    const cvq_status status =
        cvq_writer_set_metadata(m->writer, (const char *)json.data, json.size, err);
    cvq_buffer_free(&json);
    return status;
}

static cvq_status fill(maker *m, cvq_error *err) {
    cvq_quantize_options quantize = m->options->quantize;
    quantize.stats = m->stats;
    quantize.done = m->noted;
    quantize.finished = tensor_written;
    quantize.finished_context = m;
    CVQ_TRY(cvq_quantize_all(m->writer, &m->parts->rows, &quantize, err));
    return complete_metadata(m, err);
}

cvq_status cvq_write_model(const cvq_model_parts *parts, const cvq_convert_options *options,
                           const cvq_convert_target *target, cvq_convert_result *result,
                           cvq_error *err) {
    maker m = {.parts = parts, .options = options, .target = target};
    cvq_status status = plan(&m, err);
    if (status == CVQ_OK) status = begin(&m, err);
    result->resumed_bytes = m.noted_bytes;
    if (status == CVQ_OK) {
        status = fill(&m, err);
        if (status == CVQ_OK) status = end_task(&m, err);
        if (status != CVQ_OK) note_the_rest(&m);
    }
    if (status == CVQ_OK) status = cvq_writer_finish(m.writer, result->id, err);
    if (status == CVQ_OK && target->expected)
        status = cvq_expect_head(target->expected, m.writer, result->id, parts->metadata,
                                 target->where, err);
    if (status == CVQ_OK && options->report)
        status = cvq_quant_report(&result->report, m.writer, m.stats, err);
    result->noted_bytes = m.noted_bytes;
    cvq_journal_close(m.journal);
    cvq_writer_free(m.writer);
    free(m.stats);
    return status;
}
