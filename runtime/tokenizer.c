/* Text to ids and back. Owns the pattern that cuts text into pre-tokens, what becomes of bytes that
 * are not UTF-8, the byte-pair merging inside a pre-token, and the way back to bytes.
 *
 * A text is cut into runs of valid UTF-8 and single bytes between them. Each run is a subject of
 * its own for the pattern, so that nothing the pattern looks ahead to is ever an invalid byte; each
 * single byte is the token of that byte. A pre-token that is a piece of the vocabulary is that
 * token (where the table says ignore_merges), any other is merged from its bytes: the pair of
 * lowest rank first, the leftmost of equals. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/tokenizer.h"

#include <pcre2.h>
#include <string.h>

#include "base/checked.h"

/* Llama 3's pattern, alternative by alternative:
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 *   \s*[\r\n]+|\s+(?!\S)|\s+
 * written so that no two regular-expression engines can read it differently:
 *   \s is Unicode's White_Space, spelled out, since PCRE2's own \s also takes U+180E;
 *   the contractions' case folding is spelled out; it is Unicode's simple folding, as in the
 *   Oniguruma of Hugging Face's tokenizers, so U+017F (long s) is an s.
 * Each match starts where the last one ended (every character is taken by some alternative), and
 * takes time linear in what it consumes, except that white space may be walked three times. */
#define SPACE "\\t-\\r \\x{85}\\p{Z}"
static const char pattern[] = "'[sS\\x{17f}]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
                              "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
                              "|\\p{N}{1,3}"
                              "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*"
                              "|[" SPACE "]*[\\r\\n]+"
                              "|[" SPACE "]+(?![^" SPACE "])"
                              "|[" SPACE "]+";

/* Longer texts are refused: the scratch memory of one pre-token is up to 32 bytes a byte. */
#define MAX_TEXT ((size_t)1 << 26)
/* Pre-tokens up to this many bytes are merged by scanning, longer ones with a heap. */
#define SHORT_PIECE 48
#define NO_RANK UINT32_MAX
#define NO_NODE UINT32_MAX

struct cvq_tokenizer {
    const cvq_tokenizer_table *table;
    pcre2_code *code; /* read by any number of threads; match data belong to a call */
};

cvq_status cvq_tokenizer_open(cvq_tokenizer **out, const cvq_tokenizer_table *table,
                              cvq_error *err) {
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, 1, sizeof(cvq_tokenizer), "the tokenizer", err));
    cvq_tokenizer *t = memory;
    t->table = table;
    int code = 0;
    PCRE2_SIZE at = 0;
    t->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_ANCHORED,
                            &code, &at, NULL);
    if (!t->code) {
        PCRE2_UCHAR message[128] = "";
        pcre2_get_error_message(code, message, sizeof message);
        cvq_tokenizer_close(t);
        if (code == PCRE2_ERROR_HEAP_FAILED)
            return cvq_fail(err, CVQ_OUT_OF_MEMORY, "libpcre2-8",
                            "no memory to compile the tokenizer's pattern");
        return cvq_fail(err, CVQ_UNSUPPORTED, "libpcre2-8",
                        "cannot compile the tokenizer's pattern: %s at offset %zu; install a "
                        "PCRE2 with Unicode support",
                        (const char *)message, (size_t)at);
    }
    /* Without a just-in-time compiler the same code is interpreted. */
    (void)pcre2_jit_compile(t->code, PCRE2_JIT_COMPLETE);
    *out = t;
    return CVQ_OK;
}

void cvq_tokenizer_close(cvq_tokenizer *t) {
    if (!t) return;
    pcre2_code_free(t->code);
    free(t);
}

/* ---------------------------------------------------------------- UTF-8 */

typedef enum utf8_kind { UTF8_WHOLE, UTF8_INVALID, UTF8_INCOMPLETE } utf8_kind;

/* Looks at the sequence that starts at p[0], n > 0. Returns its length if it is one character, else
 * the length of the longest start of a character it has, at least 1 (Unicode's "maximal subpart",
 * which is replaced by one U+FFFD). INCOMPLETE: only the end of the bytes cuts it short. */
static size_t utf8_scan(const uint8_t *p, size_t n, utf8_kind *kind) {
    uint8_t first = p[0], low = 0x80, high = 0xbf; /* bounds of the second byte */
    size_t length;
    *kind = UTF8_WHOLE;
    if (first < 0x80) return 1;
    *kind = UTF8_INVALID;
    if (first < 0xc2 || first > 0xf4) return 1;
    if (first < 0xe0)
        length = 2;
    else if (first < 0xf0)
        length = 3;
    else
        length = 4;
    if (first == 0xe0) low = 0xa0;  /* no overlong forms, */
    if (first == 0xed) high = 0x9f; /* no surrogates, */
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f; /* nothing above U+10FFFF */
    for (size_t i = 1; i < length; i++) {
        if (i == n) {
            *kind = UTF8_INCOMPLETE;
            return i;
        }
        if (p[i] < low || p[i] > high) return i;
        low = 0x80;
        high = 0xbf;
    }
    *kind = UTF8_WHOLE;
    return length;
}

/* The length of the longest start of p that is valid UTF-8. */
static size_t utf8_run(const uint8_t *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        utf8_kind kind;
        size_t length = utf8_scan(p + i, n - i, &kind);
        if (kind != UTF8_WHOLE) break;
        i += length;
    }
    return i;
}

size_t cvq_utf8_stream_feed(cvq_utf8_stream *s, const uint8_t *bytes, size_t n, bool flush,
                            char *out) {
    static const char replacement[3] = {(char)0xef, (char)0xbf, (char)0xbd};
    size_t written = 0, taken = 0;
    for (;;) {
        /* What is pending is the start of a character, at most 3 bytes; fill up to 4. */
        uint8_t window[4];
        size_t old = s->num_pending, have = old;
        memcpy(window, s->pending, old);
        while (have < 4 && taken + (have - old) < n) {
            window[have] = bytes[taken + (have - old)];
            have++;
        }
        if (have == 0) return written;
        utf8_kind kind;
        size_t length = utf8_scan(window, have, &kind);
        if (kind == UTF8_INCOMPLETE && !flush) { /* so have == length <= 3: all is taken */
            memcpy(s->pending, window, have);
            s->num_pending = have;
            return written;
        }
        if (kind == UTF8_WHOLE) {
            memcpy(out + written, window, length);
            written += length;
        } else {
            memcpy(out + written, replacement, sizeof replacement);
            written += sizeof replacement;
        }
        /* length >= old: pending bytes are the start of a character already. */
        taken += length - old;
        s->num_pending = 0;
    }
}

/* ---------------------------------------------------------------- merging */

/* One call of encode: where ids go, and scratch memory that is kept from piece to piece. */
typedef struct encoder {
    const cvq_tokenizer_table *table;
    int32_t *ids;
    size_t cap, n; /* n counts on past cap */
    struct node *nodes;
    struct candidate *heap; /* [2 * num_nodes] */
    size_t num_nodes;       /* allocated */
} encoder;

static void emit(encoder *e, uint32_t id) {
    if (e->n < e->cap) e->ids[e->n] = (int32_t)id;
    e->n++;
}

static uint32_t pair_rank(const encoder *e, uint32_t left, uint32_t right) {
    uint32_t rank, merged;
    return cvq_tokenizer_merge(e->table, left, right, &rank, &merged) ? rank : NO_RANK;
}

/* At most SHORT_PIECE bytes: the ranks of all pairs side by side, the lowest found by scanning. */
static void merge_short(encoder *e, const uint8_t *bytes, size_t length) {
    uint32_t id[SHORT_PIECE], rank[SHORT_PIECE]; /* rank[i] of the pair i, i + 1 */
    size_t n = length;
    for (size_t i = 0; i < n; i++) id[i] = e->table->byte_ids[bytes[i]];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = pair_rank(e, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        uint32_t merged;
        (void)cvq_tokenizer_merge(e->table, id[best], id[best + 1], &rank[best], &merged);
        id[best] = merged;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        n--;
        if (best > 0) rank[best - 1] = pair_rank(e, id[best - 1], id[best]);
        if (best + 1 < n) rank[best] = pair_rank(e, id[best], id[best + 1]);
    }
    for (size_t i = 0; i < n; i++) emit(e, id[i]);
}

/* Longer pieces: the tokens as a linked list over the bytes' positions, and a heap of pairs. A
 * pair that no longer stands when it comes to the top is known by its rank: the list keeps the
 * rank of each token's pair with the next, and ranks are different for different pairs. */
typedef struct node {
    uint32_t id, prev, next;
    uint32_t rank; /* of the pair with next; NO_RANK where there is none, or the token is gone */
} node;
typedef struct candidate {
    uint32_t rank, at;
} candidate;

static bool comes_first(candidate a, candidate b) {
    return a.rank < b.rank || (a.rank == b.rank && a.at < b.at);
}

static void heap_push(candidate *heap, size_t *size, candidate c) {
    size_t i = (*size)++;
    while (i > 0 && comes_first(c, heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = c;
}

static candidate heap_pop(candidate *heap, size_t *size) {
    candidate top = heap[0], last = heap[--*size];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *size) break;
        if (child + 1 < *size && comes_first(heap[child + 1], heap[child])) child++;
        if (!comes_first(heap[child], last)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void rank_pair(encoder *e, uint32_t at, size_t *heap_size) {
    node *left = &e->nodes[at];
    left->rank = left->next == NO_NODE ? NO_RANK : pair_rank(e, left->id, e->nodes[left->next].id);
    if (left->rank != NO_RANK) heap_push(e->heap, heap_size, (candidate){left->rank, at});
}

static cvq_status merge_long(encoder *e, const uint8_t *bytes, size_t length, cvq_error *err) {
    if (length > e->num_nodes) {
        void *nodes = NULL, *heap = NULL;
        free(e->nodes);
        free(e->heap);
        e->nodes = NULL;
        e->heap = NULL;
        e->num_nodes = 0;
        CVQ_TRY(cvq_alloc(&nodes, length, sizeof(node), "the tokenizer's merges", err));
        e->nodes = nodes;
        /* Never more than 2 * length: a merge takes one candidate away and adds two. */
        CVQ_TRY(cvq_alloc(&heap, length, 2 * sizeof(candidate), "the tokenizer's merges", err));
        e->heap = heap;
        e->num_nodes = length;
    }
    size_t heap_size = 0;
    node *nodes = e->nodes;
    for (size_t i = 0; i < length; i++)
        nodes[i] = (node){e->table->byte_ids[bytes[i]], i == 0 ? NO_NODE : (uint32_t)i - 1,
                          i + 1 == length ? NO_NODE : (uint32_t)i + 1, NO_RANK};
    for (size_t i = 0; i < length; i++) rank_pair(e, (uint32_t)i, &heap_size);
    while (heap_size > 0) {
        candidate c = heap_pop(e->heap, &heap_size);
        node *left = &nodes[c.at];
        if (left->rank != c.rank) continue;
        node *right = &nodes[left->next];
        uint32_t rank, merged;
        (void)cvq_tokenizer_merge(e->table, left->id, right->id, &rank, &merged);
        left->id = merged;
        left->next = right->next;
        right->rank = NO_RANK;
        if (left->next != NO_NODE) nodes[left->next].prev = c.at;
        if (left->prev != NO_NODE) rank_pair(e, left->prev, &heap_size);
        rank_pair(e, c.at, &heap_size);
    }
    for (uint32_t i = 0; i != NO_NODE; i = nodes[i].next) emit(e, nodes[i].id);
    return CVQ_OK;
}

/* ---------------------------------------------------------------- encode and decode */

static cvq_status encode_piece(encoder *e, const uint8_t *bytes, size_t length, cvq_error *err) {
    uint32_t id;
    if (length == 1) {
        emit(e, e->table->byte_ids[bytes[0]]);
        return CVQ_OK;
    }
    if (e->table->ignore_merges && cvq_tokenizer_find(e->table, bytes, length, &id)) {
        emit(e, id);
        return CVQ_OK;
    }
    if (length > SHORT_PIECE) return merge_long(e, bytes, length, err);
    merge_short(e, bytes, length);
    return CVQ_OK;
}

/* One run of valid UTF-8. */
static cvq_status encode_run(encoder *e, const cvq_tokenizer *t, const uint8_t *run, size_t length,
                             pcre2_match_data *match, pcre2_match_context *limits, cvq_error *err) {
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(match);
    for (size_t at = 0; at < length; at = span[1]) {
        int result = pcre2_match(t->code, run, length, at, PCRE2_NO_UTF_CHECK, match, limits);
        /* Machine code that ran out of its small stack: the interpreter has none to run out of. */
        if (result == PCRE2_ERROR_JIT_STACKLIMIT)
            result = pcre2_match(t->code, run, length, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match,
                                 limits);
        if (result == PCRE2_ERROR_NOMEMORY || result == PCRE2_ERROR_HEAPLIMIT)
            return cvq_fail(err, CVQ_OUT_OF_MEMORY, "text",
                            "no memory to match the tokenizer's pattern");
        if (result < 1 || span[0] != at || span[1] <= at)
            return cvq_fail(err, CVQ_INTERNAL, "text",
                            "the tokenizer's pattern stops at byte %zu of a run of %zu (PCRE2 "
                            "says %d)",
                            at, length, result);
        CVQ_TRY(encode_piece(e, run + at, span[1] - at, err));
    }
    return CVQ_OK;
}

static cvq_status encode_all(encoder *e, const cvq_tokenizer *t, const uint8_t *text, size_t length,
                             cvq_error *err) {
    cvq_status status = CVQ_OK;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    if (!match || !limits) {
        status = cvq_fail(err, CVQ_OUT_OF_MEMORY, "text", "no memory to match the pattern");
        goto done;
    }
    /* A match needs a few steps a character; whatever needs more is a defect to be told of, not
     * to be waited for. */
    pcre2_set_match_limit(limits, (uint32_t)(8 * length + 1000));
    for (size_t at = 0; at < length;) {
        size_t run = utf8_run(text + at, length - at);
        if (run > 0) {
            status = encode_run(e, t, text + at, run, match, limits, err);
            if (status != CVQ_OK) goto done;
            at += run;
        } else {
            emit(e, e->table->byte_ids[text[at]]);
            at++;
        }
    }
done:
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    return status;
}

cvq_status cvq_tokenizer_encode(const cvq_tokenizer *t, const char *text, size_t length,
                                int32_t *ids, size_t cap, size_t *n, cvq_error *err) {
    if (length > MAX_TEXT)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "text",
                        "%zu bytes are too many to encode at once; give at most %zu", length,
                        MAX_TEXT);
    encoder e = {.table = t->table, .ids = ids, .cap = cap};
    cvq_status status = encode_all(&e, t, (const uint8_t *)text, length, err);
    free(e.nodes);
    free(e.heap);
    if (status != CVQ_OK) return status;
    *n = e.n;
    if (e.n > cap)
        return cvq_fail(err, CVQ_TOO_SMALL, "ids", "room for %zu ids, the text has %zu", cap, e.n);
    return CVQ_OK;
}

cvq_status cvq_tokenizer_decode(const cvq_tokenizer *t, const int32_t *ids, size_t n, char *text,
                                size_t cap, size_t *length, cvq_error *err) {
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = (uint32_t)ids[i]; /* a negative id becomes one out of range */
        if (cvq_tokenizer_is_special(t->table, id)) continue;
        size_t size = 0;
        const uint8_t *piece = cvq_tokenizer_piece(t->table, id, &size);
        if (size == 0) continue;
        if (cvq_range_within(total, size, cap)) memcpy(text + total, piece, size);
        if (!cvq_add_u64(total, size, &total))
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, "ids", "%zu ids are too many", n);
    }
    if (!cvq_to_size(total, length))
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, "ids", "%zu ids are too many", n);
    if (total > cap)
        return cvq_fail(err, CVQ_TOO_SMALL, "text", "room for %zu bytes, the text has %zu", cap,
                        *length);
    return CVQ_OK;
}
