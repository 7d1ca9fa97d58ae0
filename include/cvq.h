/* cvq: CogVLM2 on a CPU. The public interface of the runtime.
 *
 * Rules
 *  - Every fallible call returns a cvq_status and takes a caller-owned `cvq_error *err` last, which
 *    may be NULL. The first cause wins.
 *  - On failure outputs are untouched (except the stored sizes of CVQ_TOO_SMALL). Every close and
 *    free takes NULL.
 *  - Text is UTF-8. An options struct that is {0}, or NULL, means the defaults.
 *  - A model is immutable and may be shared between threads; a session belongs to one thread
 *    at a time.
 *  - The library never prints, exits, forks or reads the environment.
 *
 * Usage (examples/ask.c)
 *
 *     // ask MODEL.cvq PICTURE.ppm QUESTION: one answer about one picture.
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     #include "cvq.h"
 *
 *     static int show(void *context, int32_t id, const char *text, size_t length) {
 *         (void)context, (void)id;
 *         return fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0;
 *     }
 *
 *     // A binary PPM is its width, height and RGB bytes: just what cvq_image_create takes.
 *     static uint8_t *read_ppm(const char *path, unsigned *width, unsigned *height) {
 *         uint8_t *rgb = NULL;
 *         FILE *file = fopen(path, "rb");
 *         if (file && fscanf(file, "P6 %5u %5u 255", width, height) == 2 && fgetc(file) != EOF) {
 *             size_t size = (size_t)*width * *height * 3;
 *             rgb = malloc(size ? size : 1);
 *             if (rgb && fread(rgb, 1, size, file) != size) free(rgb), rgb = NULL;
 *         }
 *         if (file) fclose(file);
 *         return rgb;
 *     }
 *
 *     int main(int argc, char **argv) {
 *         cvq_model *model = NULL;
 *         cvq_session *session = NULL;
 *         cvq_image *image = NULL;
 *         cvq_prompt *prompt = NULL;
 *         cvq_error err = {0};
 *         unsigned width, height;
 *         uint8_t *rgb = argc == 4 ? read_ppm(argv[2], &width, &height) : NULL;
 *         if (!rgb) return fprintf(stderr, "usage: ask MODEL.cvq PICTURE.ppm QUESTION\n"), 2;
 *
 *         int failed =
 *             cvq_model_open(&model, argv[1], NULL, &err) ||
 *             cvq_session_open(&session, model, NULL, &err) ||
 *             cvq_image_create(&image, model, rgb, width, height, 3 * (size_t)width, &err) ||
 *             cvq_prompt_create(&prompt, model, CVQ_PROMPT_CHAT, NULL, 0, argv[3], image, &err) ||
 *             cvq_session_sync(session, prompt, &err) ||
 *             cvq_session_generate(session, NULL, 2048, show, NULL, NULL, &err);
 *         if (failed)
 *             fprintf(stderr, "ask: %s: %s\n", err.where, err.message);
 *         else
 *             putchar('\n');
 *
 *         cvq_prompt_free(prompt);
 *         cvq_image_free(image);
 *         cvq_session_close(session);
 *         cvq_model_close(model);
 *         free(rgb);
 *         return failed;
 *     }
 */
#ifndef CVQ_H
#define CVQ_H

#include <stddef.h>
#include <stdint.h>

#include "cvq_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CVQ_VERSION_MAJOR 0
#define CVQ_VERSION_MINOR 1
#define CVQ_VERSION_PATCH 0
#define CVQ_VERSION (CVQ_VERSION_MAJOR * 10000u + CVQ_VERSION_MINOR * 100u + CVQ_VERSION_PATCH)
#define CVQ_VERSION_STRING "0.1.0"

typedef struct cvq_model cvq_model;
typedef struct cvq_session cvq_session;
typedef struct cvq_image cvq_image;
typedef struct cvq_prompt cvq_prompt;

/* The version of the library that is linked; compare with CVQ_VERSION. */
unsigned cvq_version(void);

/* Choose the instruction set for the whole process, before the first model is opened: "scalar",
 * "avx2", "avxvnni", "avx512", "avx512bf16", "neon", "dotprod", "i8mm"; NULL = the best that this
 * machine has. CVQ_UNSUPPORTED if the machine lacks it. */
cvq_status cvq_cpu_select(const char *level, cvq_error *err);
/* The level in use; static. */
const char *cvq_cpu_selected(void);

/* ---------------------------------------------------------------- models */

typedef struct cvq_model_options {
    /* 1: every MiB of the weights is hashed before it is used for the first time, and its scales
     * must be finite; what is not as it was written fails (CVQ_MISMATCH, CVQ_FORMAT) with the
     * tensor's name. Costs some 3% of the first picture's time. 0: weights are taken as they are.
     */
    int verify_weights;
} cvq_model_options;

typedef struct cvq_model_info {
    const char *id;     /* 64 hex digits: commits to every byte of the file */
    const char *recipe; /* "bf16", "q4", ..., "custom" */
    uint64_t file_bytes;
    uint32_t vocab_size, hidden_size, num_layers, vit_num_layers;
    uint32_t max_context; /* sequence slots */
    uint32_t image_size;  /* pictures are resized to image_size x image_size */
    uint32_t image_slots; /* sequence slots of one picture, boi and eoi included */
    int quantized;        /* 1 if any matrix has fewer than 16 bits */
    int default_template; /* a cvq_prompt_kind */
} cvq_model_info;

/* Maps the file and checks all of it but the weights; reads no weights. options may be NULL. */
cvq_status cvq_model_open(cvq_model **out, const char *path, const cvq_model_options *options,
                          cvq_error *err);
/* After its sessions, images and prompts. */
void cvq_model_close(cvq_model *model);
/* What decoding reads for every token - the language expert's weights and lm_head - stays in memory
 * from when it gets there until the model is closed, whatever else the machine does. CVQ_IO where
 * the system does not allow it, CVQ_OUT_OF_MEMORY where less is available; all works without. */
cvq_status cvq_model_lock(cvq_model *model, cvq_error *err);
/* What is known to be right so far, to be given to cvq_model_trust when the same file is opened the
 * next time: only sensible where the file cannot have changed meanwhile, by its device, inode, size
 * and times. *size = needed, also on CVQ_TOO_SMALL; a bit for each MiB. */
cvq_status cvq_model_verified(const cvq_model *model, uint8_t *bits, size_t cap, size_t *size,
                              cvq_error *err);
cvq_status cvq_model_trust(cvq_model *model, const uint8_t *bits, size_t size, cvq_error *err);
/* Borrowed from the model. */
const cvq_model_info *cvq_model_describe(const cvq_model *model);

/* ---------------------------------------------------------------- sessions */

typedef enum cvq_precision {
    CVQ_PRECISION_DEFAULT = 0, /* exact for 16-bit files, fast for quantized ones */
    CVQ_PRECISION_EXACT = 1,   /* f32 arithmetic on decoded weights */
    CVQ_PRECISION_FAST = 2     /* int8 activations where weights are quantized */
} cvq_precision;

typedef enum cvq_kv_type {
    CVQ_KV_DEFAULT = 0 /* f32 in exact, f16 in fast mode */,
    CVQ_KV_F32 = 1,
    CVQ_KV_F16 = 2,
    CVQ_KV_Q8 = 3
} cvq_kv_type;

typedef enum cvq_rope {
    CVQ_ROPE_DEFAULT = 0, /* as the checkpoint's inv_freq is stored: bf16 in the released ones */
    CVQ_ROPE_BF16 = 1,
    CVQ_ROPE_F32 = 2
} cvq_rope;

typedef struct cvq_session_options {
    uint32_t context; /* sequence slots; 0 = the model's limit. More than that is refused */
    cvq_kv_type kv;
    cvq_precision precision;
    cvq_rope rope;
    int threads; /* 0 = physical cores that the process may use */
} cvq_session_options;

/* Bytes. */
typedef struct cvq_memory {
    uint64_t weights_mapped;                                  /* the file */
    uint64_t weights_encode, weights_prefill, weights_decode; /* touched in each phase, beside
                                                                 single rows of embeddings */
    uint64_t kv_cache;                  /* when the context is full; it grows as needed. A picture
                                           that a session does not hold keeps its own part */
    uint64_t work_encode, work_decoder; /* buffers beside weights and KV cache */
    uint64_t picture;                   /* pixels and encoding of one */
    uint64_t other;                     /* an estimate of all that is not listed */
    /* What there is: of the machine, or of a control group that gives less (limited is 1). */
    uint64_t total, available;
    int limited;
    /* Of the weights so much stays in memory once it is there, those of decoding first; the others
     * are let go of layer by layer, and read again when they are needed again. All of them stay
     * where there is room. */
    uint64_t weights_kept;
    uint64_t resident_encode, resident_prefill, resident_decode; /* the most at once, all told */
    uint64_t least;  /* needed beside other programs; with less available nothing is done in time */
    uint64_t enough; /* with less available, weights are read again for each token */
} cvq_memory;
/* As things are now; a session makes its own plan when it is opened. */
cvq_status cvq_memory_plan(const cvq_model *model, const cvq_session_options *options,
                           cvq_memory *out, cvq_error *err);

cvq_status cvq_session_open(cvq_session **out, cvq_model *model, const cvq_session_options *options,
                            cvq_error *err);
void cvq_session_close(cvq_session *session);

typedef enum cvq_phase { CVQ_PHASE_ENCODE, CVQ_PHASE_PREFILL, CVQ_PHASE_DECODE } cvq_phase;
/* done of total layers (encode, prefill) or tokens (decode); seconds_left < 0 while unknown.
 * Nonzero = cancel. */
typedef int (*cvq_progress_fn)(void *context, cvq_phase phase, uint64_t done, uint64_t total,
                               double seconds_left);
void cvq_session_set_progress(cvq_session *session, cvq_progress_fn fn, void *context);
/* From any thread or a signal handler: the running call (or, if none runs, the next) returns
 * CVQ_CANCELLED; the session stays usable. */
void cvq_session_cancel(cvq_session *session);

/* ---------------------------------------------------------------- pictures */

/* rgb: 8 bits, [height][stride bytes], at least 3 x width a row; resized now, stays the caller's.
 */
cvq_status cvq_image_create(cvq_image **out, const cvq_model *model, const uint8_t *rgb,
                            uint32_t width, uint32_t height, size_t stride, cvq_error *err);
/* Run the vision encoder (minutes at full size). Idempotent; otherwise cvq_session_sync does it. */
cvq_status cvq_image_encode(cvq_image *image, cvq_session *session, cvq_error *err);
/* A prompt holds its own reference. */
void cvq_image_free(cvq_image *image);

/* A picture keeps, until it is freed, its encoding and the keys and values of its slots (and of bos
 * before them) as the last session computed them: neither depends on the question. A session whose
 * settings are the same takes them up instead of computing them, with the same bits as a result.
 * They can be kept elsewhere too. Where, for how long and how safely is the caller's policy:
 *
 *     cvq_image_create(&image, ...);
 *     cvq_image_key(image, session, key, &err);      // look for a file of this name: if it is
 *     cvq_image_load(&other, model, read, file, &err); // there, ask about `other` instead
 *     ... cvq_session_sync ...
 *     cvq_image_save(image, write, file, &err);      // else write it now
 */
#define CVQ_IMAGE_KEY_BYTES 32
/* Names what cvq_image_save writes of this picture after it was synced into this session: made of
 * the model's id, the resized pixels, and all else that its bits depend on (the number of the
 * library's arithmetic, the level of instructions, precision, rotary tables, type of the KV cache).
 * Fast. */
cvq_status cvq_image_key(const cvq_image *image, const cvq_session *session,
                         uint8_t key[CVQ_IMAGE_KEY_BYTES], cvq_error *err);
/* 1 if the picture has all that a session of these settings would compute of it, else 0. */
int cvq_image_ready(const cvq_image *image, const cvq_session *session);
/* Nonzero: it failed. */
typedef int (*cvq_write_fn)(void *context, const void *data, size_t size);
/* How many bytes were read: fewer than size only at the end. */
typedef size_t (*cvq_read_fn)(void *context, void *data, size_t size);
/* Pixels, encoding, keys and values, bound to the model's id; nothing of any question. In pieces;
 * 340 MB at full size. CVQ_INVALID_ARGUMENT if nothing is encoded yet. */
cvq_status cvq_image_save(const cvq_image *image, cvq_write_fn write, void *context,
                          cvq_error *err);
/* The bytes need not be trusted, but only their shape and their hash are checked: whoever can write
 * them can change answers. CVQ_FORMAT: damaged; CVQ_MISMATCH: of another model, another
 * arithmetic or another level. */
cvq_status cvq_image_load(cvq_image **out, const cvq_model *model, cvq_read_fn read, void *context,
                          cvq_error *err);

/* ---------------------------------------------------------------- prompts */

typedef enum cvq_prompt_kind {
    CVQ_PROMPT_CHAT = 0,
    CVQ_PROMPT_VQA = 1,
    CVQ_PROMPT_BASE = 2
} cvq_prompt_kind;
typedef struct cvq_turn {
    const char *question, *answer;
} cvq_turn;

/* A whole prompt: bos, the picture's slots (image may be NULL), the template with its history. */
cvq_status cvq_prompt_create(cvq_prompt **out, const cvq_model *model, cvq_prompt_kind kind,
                             const cvq_turn *turns, size_t num_turns, const char *question,
                             cvq_image *image, cvq_error *err);
/* Text ids as they are; bos (and the picture's slots, if any) are added in front. */
cvq_status cvq_prompt_from_ids(cvq_prompt **out, const cvq_model *model, const int32_t *ids,
                               size_t n, cvq_image *image, cvq_error *err);
/* Image slots included (as the pad id). Borrowed. */
const int32_t *cvq_prompt_ids(const cvq_prompt *prompt, size_t *n);
void cvq_prompt_free(cvq_prompt *prompt);

/* No bos, no template. *n = needed, also on CVQ_TOO_SMALL. */
cvq_status cvq_tokenize(const cvq_model *model, const char *text, size_t length, int32_t *ids,
                        size_t cap, size_t *n, cvq_error *err);
/* Raw bytes, not NUL-terminated. *length = needed, also on CVQ_TOO_SMALL. */
cvq_status cvq_detokenize(const cvq_model *model, const int32_t *ids, size_t n, char *text,
                          size_t cap, size_t *length, cvq_error *err);

/* ---------------------------------------------------------------- answers */

/* Make the session hold exactly this prompt, with the logits of its last slot ready. What is
 * already there is kept (longest common prefix; pictures are compared by content). CVQ_CONTEXT_FULL
 * if it needs more slots than the context has. */
cvq_status cvq_session_sync(cvq_session *session, const cvq_prompt *prompt, cvq_error *err);
/* [vocab_size], of the last slot; until the next call on the session. NULL before the first sync.
 */
const float *cvq_session_logits(const cvq_session *session);
/* One decode step with this id, for callers' own samplers. CVQ_CONTEXT_FULL when no slot is left.
 */
cvq_status cvq_session_accept(cvq_session *session, int32_t id, cvq_error *err);

typedef struct cvq_sampling {
    float temperature;        /* 0: greedy */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* 0 or 1: off */
    float repetition_penalty; /* 0 or 1: off; as Hugging Face's, prompt included */
    uint64_t seed;
} cvq_sampling;

typedef enum cvq_finish {
    CVQ_FINISH_STOP,
    CVQ_FINISH_LENGTH,
    CVQ_FINISH_CONTEXT,
    CVQ_FINISH_CALLER
} cvq_finish;

typedef struct cvq_result {
    size_t tokens; /* generated, without the eos */
    cvq_finish finish;
    double encode_s, prefill_s, decode_s; /* of the last sync and this call */
} cvq_result;

/* Each token: its id and the whole UTF-8 characters that it completes (length may be 0; not
 * NUL-terminated). Once more at the end with id -1 if bytes were left over. Nonzero stops. */
typedef int (*cvq_token_fn)(void *context, int32_t id, const char *text, size_t length);
/* After sync: sample, accept, repeat until eos, max_tokens, a full context or the caller's stop.
 * sampling, fn and result may be NULL. */
cvq_status cvq_session_generate(cvq_session *session, const cvq_sampling *sampling,
                                size_t max_tokens, cvq_token_fn fn, void *context,
                                cvq_result *result, cvq_error *err);

#ifdef CVQ_UNSTABLE /* for cvq's own tools and tests; may change with any version */

/* Logits of every slot of a prompt, in order, not stored. Nonzero stops with CVQ_CANCELLED. The
 * session is empty before and holds the prompt after. */
typedef int (*cvq_logits_fn)(void *context, size_t slot, const float *logits);
cvq_status cvq_session_score(cvq_session *session, const cvq_prompt *prompt, cvq_logits_fn fn,
                             void *context, cvq_error *err);

/* The session keeps its first `slots` slots (it may hold fewer), and its next sync computes the
 * others anew, whatever a picture keeps. */
void cvq_session_rewind(cvq_session *session, size_t slots);

/* One observer for taps, calibration and error reports. wants: is this tensor wanted? sees: rows
 * [first, first + rows) of it, [rows][cols] f32, from the thread of the call, in the same order
 * with any number of threads. Either NULL: no observer. An observer makes every position that is
 * computed be computed in full. Names:
 *  - "pixels", "vision.patch_embedding", "vision.layer.N", "vision.conv", "vision.out";
 *  - "layer.N" and "hidden" (the last layer's after the final norm: what lm_head would see of every
 *    slot); a row is a slot;
 *  - the inputs of every matrix by the name of its weight; rows are counted among those that go
 *    through it: of a decoder's matrix row 0 is bos in the language expert (eoi and text follow)
 *    and boi in the vision expert (patches follow), of the vision encoder's layers cls, elsewhere
 *    the first patch. lm_head's come only where logits are made, and always as row 0. */
typedef int (*cvq_wants_fn)(void *context, const char *name);
typedef void (*cvq_sees_fn)(void *context, const char *name, size_t first, size_t rows, size_t cols,
                            const float *values);
cvq_status cvq_session_observe(cvq_session *session, cvq_wants_fn wants, cvq_sees_fn sees,
                               void *context, cvq_error *err);

#endif

#ifdef __cplusplus
}
#endif
#endif
