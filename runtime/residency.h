/* Which of the model's weights are in memory, and when. A question passes stations in a fixed order
 * - patch embedding, the vision encoder's layers, adapter, the decoder's layers, head - and a
 * helper thread asks for the weights of the next one while this one is computed, so that the disk
 * works beside the processor.
 *
 * What stays. The file lies in the order of need: what decoding reads for every token stands first.
 * So a single number, `kept`, says it all: the file's first `kept` bytes stay in memory once they
 * are there, and what lies behind is let go of as soon as its station is passed. Where everything
 * fits, nothing is let go, and the next picture finds its weights in memory. Where too little is
 * there even for decoding, the same first part stays and the rest is read again for each token;
 * left to itself, the system would throw out just what will be needed next.
 *
 * None of this changes results: a page that is not there is read when it is touched.
 *
 * A station is also where weights are verified, when they come into memory for the first time. */
#ifndef CVQ_RUNTIME_RESIDENCY_H
#define CVQ_RUNTIME_RESIDENCY_H

#include "base/file_map.h"
#include "runtime/weight_check.h"

typedef struct cvq_residency cvq_residency;

/* The weights' bytes of a file up to which as much is kept as fits in `bytes`. */
uint64_t cvq_residency_kept(const cvq_reader *reader, uint64_t bytes);
/* The most that is in memory at once of what is let go of: the stations at work and ahead. */
uint64_t cvq_residency_window(const cvq_reader *reader);

/* The thread starts with the first station. check: the model's, or NULL where nothing is verified;
 * threads: to verify with; stop: nonzero ends that with CVQ_CANCELLED. */
cvq_status cvq_residency_open(cvq_residency **out, const cvq_reader *reader,
                              cvq_weight_check *check, int threads, const atomic_int *stop,
                              cvq_error *err);
void cvq_residency_close(cvq_residency *r);

/* A phase begins, in which the file's first `kept` bytes stay. What was read once may have gone
 * since, as when other programs took the memory: it is asked for again as stations are entered. */
void cvq_residency_begin(cvq_residency *r, uint64_t kept);
/* The work at a station begins; with `picture` the vision expert's weights are needed too. r may be
 * NULL. Costs nothing once all that the way ahead needs is in memory. Fails where weights are not
 * what they should be, and where `stop` ends the verification. */
cvq_status cvq_residency_enter(cvq_residency *r, size_t station, bool picture, cvq_error *err);
/* Rows of the embedding, which belongs to no station, are about to be read. */
cvq_status cvq_residency_embedding(cvq_residency *r, size_t row, cvq_error *err);

/* For tests, before the first station: no thread, and advice goes to `advise`, from within
 * cvq_residency_serve, which does all that the thread would do now. */
typedef void (*cvq_advise_fn)(void *context, uint64_t offset, uint64_t size, cvq_advice advice);
void cvq_residency_by_hand(cvq_residency *r, cvq_advise_fn advise, void *context);
void cvq_residency_serve(cvq_residency *r);

/* Numbers of stations. */
size_t cvq_station_patch(void);
size_t cvq_station_vit(size_t layer);
size_t cvq_station_adapter(const cvq_model_config *c);
size_t cvq_station_decoder(const cvq_model_config *c, size_t layer);
size_t cvq_station_head(const cvq_model_config *c);

#endif
