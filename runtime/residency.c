/* A thread between the mapped file and the work on it. What it does next follows from three things:
 * where the work is, what was asked for already, and what stays. */
#include "runtime/residency.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/parallel.h"

/* Stations ahead of the work for which there is always room: a layer takes seconds where memory
 * counts, and a tenth of that to read. */
#define AHEAD 1
/* Asked for at once, before looking where the work is by now. */
#define PIECE ((uint64_t)8 << 20)

/* Of the file; empty where end == first. */
typedef struct range {
    uint64_t first, end;
    size_t tensor, tensors; /* the first of them, and how many */
    bool here;              /* asked for, and not let go of */
} range;

/* A station may have more than what it always needs: a decoder's layer the vision expert's weights,
 * of use where a picture's slots pass; the head, from where the way leads to the next token, the
 * embeddings, of which single rows are read, so that they are asked for only where they stay. */
enum { OWN, MORE, RANGES };

struct cvq_residency {
    const cvq_reader *reader;
    cvq_weight_check *check; /* or NULL */
    int threads;             /* for it */
    const atomic_int *stop;
    cvq_advise_fn advise;
    void *advise_context;
    size_t embedding;     /* the tensor's number */
    pthread_mutex_t lock; /* of all below */
    uint64_t kept;
    pthread_cond_t moved;
    pthread_t thread;
    bool started, no_thread;
    atomic_bool closing; /* written under the lock */
    atomic_size_t at;    /* the station where the work is; written under the lock */
    atomic_bool settled; /* nothing is left to be done on the way from here round and round */
    bool picture;
    size_t first_decoder, count;
    range stations[][RANGES];
};

/* ---------------------------------------------------------------- stations */

size_t cvq_station_patch(void) {
    return 0;
}
size_t cvq_station_vit(size_t layer) {
    return 1 + layer;
}
size_t cvq_station_adapter(const cvq_model_config *c) {
    return cvq_station_vit(c->vit_num_layers);
}
size_t cvq_station_decoder(const cvq_model_config *c, size_t layer) {
    return cvq_station_adapter(c) + 1 + layer;
}
size_t cvq_station_head(const cvq_model_config *c) {
    return cvq_station_decoder(c, c->num_layers);
}

static range part_range(const cvq_reader *reader, cvq_part part, size_t layer) {
    size_t first, count;
    cvq_model_part_range(cvq_reader_config(reader), part, (uint32_t)layer, &first, &count);
    const cvq_tensor *last = cvq_reader_tensor(reader, first + count - 1);
    return (range){.first = cvq_reader_tensor(reader, first)->offset,
                   .end = last->offset + last->size,
                   .tensor = first,
                   .tensors = count};
}

static void station_ranges(const cvq_reader *reader, size_t station, range out[RANGES]) {
    const cvq_model_config *c = cvq_reader_config(reader);
    size_t adapter = cvq_station_adapter(c), decoder = cvq_station_decoder(c, 0);
    out[OWN] = out[MORE] = (range){0};
    if (station == cvq_station_patch()) {
        out[OWN] = part_range(reader, CVQ_PART_VIT_PATCH, 0);
    } else if (station < adapter) {
        out[OWN] = part_range(reader, CVQ_PART_VIT, station - cvq_station_vit(0));
    } else if (station == adapter) {
        out[OWN] = part_range(reader, CVQ_PART_ADAPTER, 0);
    } else if (station < cvq_station_head(c)) {
        out[OWN] = part_range(reader, CVQ_PART_LANGUAGE, station - decoder);
        out[MORE] = part_range(reader, CVQ_PART_VISION, station - decoder);
    } else {
        out[OWN] = part_range(reader, CVQ_PART_HEAD, 0);
        out[MORE] = part_range(reader, CVQ_PART_EMBEDDING, 0);
    }
}

static size_t layers_of(const cvq_model_config *c, cvq_part part) {
    if (part == CVQ_PART_VIT) return c->vit_num_layers;
    return part == CVQ_PART_LANGUAGE || part == CVQ_PART_VISION ? c->num_layers : 1;
}

uint64_t cvq_residency_kept(const cvq_reader *reader, uint64_t bytes) {
    const cvq_model_config *c = cvq_reader_config(reader);
    uint64_t kept = 0, taken = 0;
    for (int part = 0; part < CVQ_PARTS; part++)
        for (size_t n = 0; n < layers_of(c, (cvq_part)part); n++) {
            range r = part_range(reader, (cvq_part)part, n);
            taken += r.end - r.first;
            if (taken > bytes) return kept;
            kept = r.end;
        }
    return kept;
}

uint64_t cvq_residency_window(const cvq_reader *reader) {
    const cvq_model_config *c = cvq_reader_config(reader);
    uint64_t last[AHEAD + 1] = {0}, sum = 0, most = 0;
    for (size_t s = 0; s <= cvq_station_head(c); s++) {
        range r[RANGES];
        station_ranges(reader, s, r);
        /* The decoder's own weights are kept if anything is. */
        uint64_t bytes = s < cvq_station_decoder(c, 0) ? r[OWN].end - r[OWN].first
                         : s < cvq_station_head(c)     ? r[MORE].end - r[MORE].first
                                                       : 0;
        sum += bytes - last[s % (AHEAD + 1)];
        last[s % (AHEAD + 1)] = bytes;
        if (sum > most) most = sum;
    }
    return most;
}

/* ---------------------------------------------------------------- what to do next */

/* From the head the way leads back to the decoder's first layer: the next token. */
static size_t next_station(const cvq_residency *r, size_t station) {
    return station + 1 < r->count ? station + 1 : r->first_decoder;
}

static bool stays(const cvq_residency *r, const range *x) {
    return x->end <= r->kept;
}

static bool is_needed(const cvq_residency *r, size_t station, int which) {
    const range *x = &r->stations[station][which];
    if (which == OWN || x->first == x->end) return x->first < x->end;
    return station + 1 == r->count ? stays(r, x) : r->picture;
}

/* Something that was passed, or is not needed after all. */
static range *to_let_go(cvq_residency *r) {
    for (size_t s = 0; s < r->count; s++)
        for (int which = 0; which < RANGES; which++) {
            range *x = &r->stations[s][which];
            if (!x->here || stays(r, x)) continue;
            size_t ahead = 0, way = atomic_load(&r->at);
            while (ahead <= AHEAD && way != s) ahead++, way = next_station(r, way);
            if (ahead > AHEAD || !is_needed(r, s, which)) return x;
        }
    return NULL;
}

/* The first on the way that is not here. Far ahead only what stays is asked for: there would be no
 * room for the rest. */
static range *to_ask_for(cvq_residency *r) {
    size_t s = atomic_load(&r->at);
    for (size_t ahead = 0; ahead < r->count; ahead++, s = next_station(r, s))
        for (int which = 0; which < RANGES; which++) {
            range *x = &r->stations[s][which];
            if (!is_needed(r, s, which)) continue;
            if (ahead > AHEAD && !stays(r, x)) return NULL;
            if (!x->here) return x;
        }
    return NULL;
}

/* With nothing to do at the moment: nothing either on the whole way round. */
static bool is_settled(const cvq_residency *r) {
    size_t s = atomic_load(&r->at);
    for (size_t ahead = 0; ahead < r->count; ahead++, s = next_station(r, s))
        for (int which = 0; which < RANGES; which++)
            if (is_needed(r, s, which) && !stays(r, &r->stations[s][which])) return false;
    return true;
}

static size_t station_of(const cvq_residency *r, const range *x) {
    return (size_t)(x - r->stations[0]) / RANGES;
}

/* Whether the work, on its way from `then` to `now`, has left `station` behind. */
static bool was_passed(size_t station, size_t then, size_t now) {
    if (now >= then) return station >= then && station < now;
    return station >= then || station < now;
}

/* Without the lock: the range's bounds never change. Work that has passed by has read the rest
 * itself, but of the embeddings it reads single rows. Whoever closes does not wait for a disk. */
static void ask_for(const cvq_residency *r, const range *x) {
    size_t station = station_of(r, x), then = atomic_load(&r->at);
    bool all_read = x != &r->stations[r->count - 1][MORE];
    for (uint64_t at = x->first; at < x->end;) {
        uint64_t size = x->end - at < PIECE ? x->end - at : PIECE;
        if (all_read && was_passed(station, then, atomic_load(&r->at))) return;
        if (atomic_load(&r->closing)) return;
        r->advise(r->advise_context, at, size, CVQ_ADVICE_WILLNEED);
        r->advise(r->advise_context, at, size, CVQ_ADVICE_POPULATE);
        at += size;
    }
}

/* One thing of what is to be done, under the lock but for the thing itself. False: nothing is. */
static bool serve_one(cvq_residency *r) {
    range *gone = to_let_go(r), *next = gone ? NULL : to_ask_for(r);
    if (!gone && !next) {
        atomic_store(&r->settled, is_settled(r));
        return false;
    }
    (gone ? gone : next)->here = !gone;
    pthread_mutex_unlock(&r->lock);
    if (gone)
        r->advise(r->advise_context, gone->first, gone->end - gone->first, CVQ_ADVICE_LET_GO);
    else
        ask_for(r, next);
    pthread_mutex_lock(&r->lock);
    return true;
}

static void *serve(void *residency) {
    cvq_residency *r = residency;
    pthread_mutex_lock(&r->lock);
    while (!atomic_load(&r->closing))
        if (!serve_one(r)) pthread_cond_wait(&r->moved, &r->lock);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

void cvq_residency_serve(cvq_residency *r) {
    pthread_mutex_lock(&r->lock);
    while (serve_one(r)) continue;
    pthread_mutex_unlock(&r->lock);
}

/* ---------------------------------------------------------------- the work's side */

static void advise_system(void *residency, uint64_t offset, uint64_t size, cvq_advice advice) {
    const cvq_residency *r = residency;
    cvq_file_map_advise(cvq_reader_map(r->reader), offset, size, advice);
}

cvq_status cvq_residency_open(cvq_residency **out, const cvq_reader *reader,
                              cvq_weight_check *check, int threads, const atomic_int *stop,
                              cvq_error *err) {
    size_t tables;
    const cvq_model_config *c = cvq_reader_config(reader);
    size_t count = cvq_station_head(c) + 1;
    void *p;
    CVQ_TRY(cvq_alloc(&p, 1, sizeof(cvq_residency) + count * sizeof(range[RANGES]),
                      "residency of weights", err));
    cvq_residency *r = p;
    r->reader = reader;
    r->check = check;
    r->threads = threads;
    r->stop = stop;
    r->advise = advise_system;
    r->advise_context = r;
    cvq_model_part_range(c, CVQ_PART_EMBEDDING, 0, &r->embedding, &tables);
    r->first_decoder = cvq_station_decoder(c, 0);
    r->count = count;
    for (size_t s = 0; s < count; s++) station_ranges(reader, s, r->stations[s]);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->moved, NULL);
    atomic_init(&r->at, 0);
    atomic_init(&r->settled, false);
    atomic_init(&r->closing, false);
    *out = r;
    return CVQ_OK;
}

void cvq_residency_by_hand(cvq_residency *r, cvq_advise_fn advise, void *context) {
    r->advise = advise;
    r->advise_context = context;
    r->no_thread = true;
}

void cvq_residency_close(cvq_residency *r) {
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    atomic_store(&r->closing, true);
    pthread_cond_signal(&r->moved);
    pthread_mutex_unlock(&r->lock);
    if (r->started) pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->moved);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void cvq_residency_begin(cvq_residency *r, uint64_t kept) {
    pthread_mutex_lock(&r->lock);
    r->kept = kept;
    for (size_t s = 0; s < r->count; s++)
        for (int which = 0; which < RANGES; which++)
            if (stays(r, &r->stations[s][which])) r->stations[s][which].here = false;
    atomic_store(&r->settled, false);
    pthread_mutex_unlock(&r->lock);
}

/* Without a thread all goes on, a little slower from a cold disk. */
static void start(cvq_residency *r) {
    if (r->started || r->no_thread) return;
    r->started = cvq_thread_start(&r->thread, serve, r);
    r->no_thread = !r->started;
}

/* The helper thread meanwhile brings what comes next. */
static cvq_status verify(cvq_residency *r, size_t station, bool picture, cvq_error *err) {
    for (int which = 0; which <= (picture ? MORE : OWN); which++) {
        const range *x = &r->stations[station][which];
        CVQ_TRY(
            cvq_weight_check_tensors(r->check, x->tensor, x->tensors, r->threads, r->stop, err));
    }
    return CVQ_OK;
}

static void move_to(cvq_residency *r, size_t station, bool picture) {
    if (atomic_load(&r->settled)) return;
    pthread_mutex_lock(&r->lock);
    atomic_store(&r->at, station);
    r->picture = picture;
    start(r);
    pthread_cond_signal(&r->moved);
    pthread_mutex_unlock(&r->lock);
}

cvq_status cvq_residency_enter(cvq_residency *r, size_t station, bool picture, cvq_error *err) {
    if (!r) return CVQ_OK;
    move_to(r, station, picture);
    return r->check ? verify(r, station, picture, err) : CVQ_OK;
}

cvq_status cvq_residency_embedding(cvq_residency *r, size_t row, cvq_error *err) {
    if (!r || !r->check) return CVQ_OK;
    const cvq_tensor *t = cvq_reader_tensor(r->reader, r->embedding);
    const uint64_t bytes = t->size / t->spec.rows; /* a table's panels are of one row */
    return cvq_weight_check_bytes(r->check, r->embedding, row * bytes, bytes, r->stop, err);
}
