/* Chunks are checked in the order in which they are needed. The list of what is right is only
 * written under the lock; a tensor that is right as a whole is told by a flag of its own, without
 * it. */
#include "runtime/weight_check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"

#define BATCH 256 /* chunks shared out at once */

struct cvq_weight_check {
    const cvq_reader *reader;
    pthread_mutex_t lock;
    uint8_t *right; /* a bit for each chunk */
    size_t bytes;
    atomic_bool whole[]; /* of each tensor: all its chunks are right */
};

enum { UNKNOWN, RIGHT, DAMAGED, NOT_FINITE, NOT_HASHED };

typedef struct check_job {
    const cvq_reader *reader;
    const cvq_tensor *tensor;
    const uint8_t *data;    /* of the tensor */
    const atomic_int *stop; /* or NULL */
    uint64_t chunks[BATCH]; /* within the tensor */
    uint8_t verdict[BATCH];
} check_job;

static bool is_stopped(const check_job *job) {
    return job->stop && atomic_load_explicit(job->stop, memory_order_relaxed) != 0;
}

static uint64_t chunks_of(const cvq_tensor *t) {
    return (t->size + CVQ_CHUNK_BYTES - 1) / CVQ_CHUNK_BYTES;
}

static bool is_right(const cvq_weight_check *w, uint64_t chunk) {
    return w->right[chunk / 8] >> chunk % 8 & 1;
}

cvq_status cvq_weight_check_open(cvq_weight_check **out, const cvq_reader *reader, cvq_error *err) {
    const size_t count = cvq_reader_tensor_count(reader);
    const cvq_tensor *last = cvq_reader_tensor(reader, count - 1);
    void *p;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_weight_check) + count * sizeof(atomic_bool),
                      "checking weights", err));
    cvq_weight_check *w = p;
    w->bytes = (size_t)((last->first_chunk + chunks_of(last) + 7) / 8);
    const cvq_status status = cvq_alloc(&p, w->bytes, 1, "checking weights", err);
    if (status != CVQ_OK) {
        free(w);
        return status;
    }
    w->right = p;
    w->reader = reader;
    pthread_mutex_init(&w->lock, NULL);
    *out = w;
    return CVQ_OK;
}

void cvq_weight_check_close(cvq_weight_check *w) {
    if (!w) return;
    pthread_mutex_destroy(&w->lock);
    free(w->right);
    free(w);
}

static void check_unit(void *context, size_t index, int thread) {
    check_job *job = context;
    (void)thread;
    if (is_stopped(job)) return; /* the verdict stays UNKNOWN */
    const cvq_tensor *t = job->tensor;
    const uint64_t chunk = job->chunks[index], at = chunk * CVQ_CHUNK_BYTES;
    const uint64_t size = t->size - at < CVQ_CHUNK_BYTES ? t->size - at : CVQ_CHUNK_BYTES;
    uint8_t hash[CVQ_HASH_BYTES];
    if (cvq_sha256(job->data + at, (size_t)size, hash, NULL) != CVQ_OK)
        job->verdict[index] = NOT_HASHED;
    else if (memcmp(hash, cvq_reader_chunk_hash(job->reader, t->first_chunk + chunk),
                    sizeof hash) != 0)
        job->verdict[index] = DAMAGED;
    else
        job->verdict[index] =
            cvq_tensor_finite(t, job->data, at, size) ? RIGHT : (uint8_t)NOT_FINITE;
}

static cvq_status judge(const check_job *job, size_t index, const char *path, cvq_error *err) {
    const cvq_tensor *t = job->tensor;
    const uint64_t at = job->chunks[index] * CVQ_CHUNK_BYTES;
    const uint64_t end = t->size - at < CVQ_CHUNK_BYTES ? t->size : at + CVQ_CHUNK_BYTES;
    switch (job->verdict[index]) {
    case RIGHT:
        return CVQ_OK;
    case DAMAGED:
        return cvq_fail(err, CVQ_MISMATCH, path,
                        "tensor %s: bytes %llu to %llu of the file do not match their SHA-256; "
                        "cvq-info --verify lists all that is damaged",
                        t->spec.name, (unsigned long long)(t->offset + at),
                        (unsigned long long)(t->offset + end - 1));
    case UNKNOWN:
        return cvq_fail(err, CVQ_CANCELLED, NULL, "cancelled while weights were verified");
    case NOT_FINITE:
        return cvq_fail(err, CVQ_FORMAT, path,
                        "tensor %s: a scale or value is infinite or not a number; whoever made "
                        "this file has to make it again",
                        t->spec.name);
    default:
        return cvq_fail(err, CVQ_INTERNAL, path, "libcrypto refused to hash; try again");
    }
}

/* Chunks first .. end - 1 of a tensor, under the lock. */
static cvq_status check_chunks(cvq_weight_check *w, size_t tensor, uint64_t first, uint64_t end,
                               int threads, const atomic_int *stop, cvq_error *err) {
    const cvq_tensor *t = cvq_reader_tensor(w->reader, tensor);
    check_job job = {
        .reader = w->reader, .tensor = t, .data = cvq_reader_data(w->reader, tensor), .stop = stop};
    cvq_status status = CVQ_OK;
    for (uint64_t chunk = first; status == CVQ_OK && chunk < end;) {
        size_t n = 0;
        for (; chunk < end && n < BATCH; chunk++)
            if (!is_right(w, t->first_chunk + chunk)) {
                job.verdict[n] = UNKNOWN;
                job.chunks[n++] = chunk;
            }
        cvq_parallel_for(threads, n, check_unit, &job);
        for (size_t i = 0; i < n; i++) {
            const uint64_t number = t->first_chunk + job.chunks[i];
            if (job.verdict[i] == RIGHT)
                w->right[number / 8] |= (uint8_t)(1 << number % 8);
            else if (status == CVQ_OK)
                status = judge(&job, i, cvq_reader_path(w->reader), err);
        }
    }
    return status;
}

cvq_status cvq_weight_check_tensors(cvq_weight_check *w, size_t first, size_t count, int threads,
                                    const atomic_int *stop, cvq_error *err) {
    if (!w) return CVQ_OK;
    for (size_t i = first; i < first + count; i++) {
        if (atomic_load_explicit(&w->whole[i], memory_order_acquire)) continue;
        pthread_mutex_lock(&w->lock);
        const cvq_status status =
            check_chunks(w, i, 0, chunks_of(cvq_reader_tensor(w->reader, i)), threads, stop, err);
        pthread_mutex_unlock(&w->lock);
        if (status != CVQ_OK) return status;
        atomic_store_explicit(&w->whole[i], true, memory_order_release);
    }
    return CVQ_OK;
}

cvq_status cvq_weight_check_bytes(cvq_weight_check *w, size_t tensor, uint64_t at, uint64_t size,
                                  const atomic_int *stop, cvq_error *err) {
    if (!w || size == 0 || atomic_load_explicit(&w->whole[tensor], memory_order_acquire))
        return CVQ_OK;
    pthread_mutex_lock(&w->lock);
    const cvq_status status = check_chunks(w, tensor, at / CVQ_CHUNK_BYTES,
                                           (at + size - 1) / CVQ_CHUNK_BYTES + 1, 1, stop, err);
    pthread_mutex_unlock(&w->lock);
    return status;
}

size_t cvq_weight_check_size(const cvq_weight_check *w) {
    return w->bytes;
}

void cvq_weight_check_save(cvq_weight_check *w, uint8_t *bits) {
    pthread_mutex_lock(&w->lock);
    memcpy(bits, w->right, w->bytes);
    pthread_mutex_unlock(&w->lock);
}

void cvq_weight_check_load(cvq_weight_check *w, const uint8_t *bits) {
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < w->bytes; i++) w->right[i] |= bits[i];
    pthread_mutex_unlock(&w->lock);
}
