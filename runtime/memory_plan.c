/* What a session will take, said before it does: the weights of each phase, the KV cache, the work
 * buffers, and what the machine has for all that. The sizes are those that are allocated: the same
 * functions calculate both. */
#include "base/machine_memory.h"
#include "runtime/residency.h"
#include "runtime/session_internal.h"

/* Beside what the plan lists: the program itself, tables of text, stacks, page tables. */
#define OTHER_BYTES ((uint64_t)96 << 20)

static uint64_t part_bytes(const cvq_model *m, cvq_part from, cvq_part to) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < cvq_reader_tensor_count(m->reader); i++) {
        const cvq_tensor *t = cvq_reader_tensor(m->reader, i);
        if (t->spec.part >= from && t->spec.part <= to) bytes += t->size;
    }
    return bytes;
}

static uint64_t bytes_before(const cvq_model *m, uint64_t offset) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < cvq_reader_tensor_count(m->reader); i++) {
        const cvq_tensor *t = cvq_reader_tensor(m->reader, i);
        if (t->offset < offset) bytes += t->size;
    }
    return bytes;
}

static uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}
static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static void plan_needs(const cvq_model *m, const cvq_resolved_options *r, cvq_memory *p) {
    const cvq_model_config *c = cvq_reader_config(m->reader);
    uint64_t blocks = (r->context + CVQ_KV_BLOCK - 1) / CVQ_KV_BLOCK;
    uint64_t scratch = (uint64_t)r->threads * CVQ_SCRATCH_FLOATS * sizeof(float);
    uint64_t pixels = 3 * (uint64_t)c->image_size * c->image_size;
    p->weights_mapped = m->info.file_bytes;
    p->weights_encode = part_bytes(m, CVQ_PART_ADAPTER, CVQ_PART_VIT);
    p->weights_decode = part_bytes(m, CVQ_PART_LANGUAGE, CVQ_PART_HEAD);
    p->weights_prefill = p->weights_decode + part_bytes(m, CVQ_PART_VISION, CVQ_PART_VISION);
    p->kv_cache = c->num_layers * blocks *
                  cvq_kv_block_bytes(r->settings.kv, c->num_kv_heads, cvq_head_dim(c));
    p->picture = pixels + m->info.image_slots * (uint64_t)c->hidden_size * sizeof(float);
    p->work_encode = cvq_vision_work_bytes(c, r->settings.fast) + scratch;
    p->work_decoder = cvq_decoder_work_bytes(c, cvq_most_rows(m, r->context), r->settings.fast) +
                      scratch + c->vocab_size * sizeof(float) + r->context * sizeof(int32_t);
    p->other = OTHER_BYTES;
}

/* Everything, or what leaves room for a window. */
static uint64_t kept_within(const cvq_model *m, uint64_t available, uint64_t taken) {
    uint64_t room = available > taken ? available - taken : 0;
    uint64_t window = cvq_residency_window(m->reader), kept = cvq_residency_kept(m->reader, room);
    if (kept == m->info.file_bytes) return kept;
    return cvq_residency_kept(m->reader, room > window ? room - window : 0);
}

/* The weights in memory at once, of those that a phase touches and those that are kept. */
static uint64_t resident(const cvq_model *m, uint64_t kept, uint64_t touched) {
    uint64_t window = kept < m->info.file_bytes ? cvq_residency_window(m->reader) : 0;
    uint64_t stays = bytes_before(m, kept);
    return larger(stays, smaller(stays + window, touched));
}

cvq_kept cvq_memory_plan_make(const cvq_model *m, const cvq_resolved_options *r, cvq_memory *p) {
    cvq_machine_memory machine = cvq_machine_memory_now();
    *p = (cvq_memory){
        .total = machine.total, .available = machine.available, .limited = machine.limited};
    plan_needs(m, r, p);
    uint64_t held = p->kv_cache + p->picture + p->other;
    cvq_kept kept = {kept_within(m, p->available, held + p->work_encode),
                     kept_within(m, p->available, held + p->work_decoder)};
    p->weights_kept = bytes_before(m, kept.decoder);
    p->resident_encode = held + p->work_encode + resident(m, kept.encode, p->weights_encode);
    p->resident_prefill = held + p->work_decoder + resident(m, kept.decoder, p->weights_prefill);
    p->resident_decode = held + p->work_decoder + resident(m, kept.decoder, p->weights_decode);
    p->least = held + larger(p->work_encode, p->work_decoder) + cvq_residency_window(m->reader);
    p->enough = larger(p->least, held + p->work_decoder + cvq_residency_window(m->reader) +
                                     p->weights_decode);
    return kept;
}

cvq_status cvq_memory_plan(const cvq_model *m, const cvq_session_options *options, cvq_memory *out,
                           cvq_error *err) {
    cvq_resolved_options r = {0};
    if (!m || !out) return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_memory_plan", "NULL given");
    CVQ_TRY(cvq_session_resolve(&r, m, options, err));
    cvq_memory_plan_make(m, &r, out);
    return CVQ_OK;
}

cvq_status cvq_model_lock(cvq_model *m, cvq_error *err) {
    if (!m) return cvq_fail(err, CVQ_INVALID_ARGUMENT, "cvq_model_lock", "NULL given");
    const cvq_model_config *c = cvq_reader_config(m->reader);
    const cvq_tensor *first = cvq_reader_tensor(m->reader, 0);
    size_t head, count;
    cvq_model_part_range(c, CVQ_PART_HEAD, 0, &head, &count);
    const cvq_tensor *last = cvq_reader_tensor(m->reader, head + count - 1);
    uint64_t size = last->offset + last->size - first->offset;
    uint64_t available = cvq_machine_memory_now().available;
    if (size > available)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, "locked memory",
                        "the weights of decoding take %.1f MB, %.1f MB are available; free memory",
                        (double)size / 1e6, (double)available / 1e6);
    return cvq_file_map_lock(cvq_reader_map(m->reader), first->offset, size, err);
}
