/* The tokenizer's binary table: written once by a conversion, checked in one pass when a file is
 * opened, and searched where it lies. Every check reads straight ahead through the arrays, because
 * opening a model may take only milliseconds. */
#include "formats/tokenizer_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/damage_internal.h"

static const uint8_t magic[4] = {'C', 'V', 'Q', 'T'};
#define TABLE_VERSION 0u
#define HEADER_BYTES 32u
#define FLAG_IGNORE_MERGES 1u
#define MERGE_BYTES 12u

static uint32_t u32_at(const uint8_t *array, size_t i) {
    return (uint32_t)cvq_load_le(array + 4 * i, 4);
}

/* ---------------------------------------------------------------- building */

typedef struct sort_piece {
    const uint8_t *bytes;
    uint32_t length, id;
} sort_piece;

typedef struct sort_merge {
    uint32_t left, right, rank, merged;
} sort_merge;

static int compare_bytes(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0) return order;
    return (a_length > b_length) - (a_length < b_length);
}

static int by_piece(const void *a, const void *b) {
    const sort_piece *x = a, *y = b;
    return compare_bytes(x->bytes, x->length, y->bytes, y->length);
}

static int by_pair(const void *a, const void *b) {
    const sort_merge *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static cvq_status source_check(const cvq_tokenizer_source *s, cvq_error *err) {
    const char *where = "tokenizer";
    if (s->num_tokens == 0 || s->num_tokens > CVQ_TOKENIZER_MAX_TOKENS)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "%u tokens; 1 to %u are possible",
                        s->num_tokens, CVQ_TOKENIZER_MAX_TOKENS);
    if (s->num_merges > CVQ_TOKENIZER_MAX_MERGES)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "%u merges; at most %u are possible",
                        s->num_merges, CVQ_TOKENIZER_MAX_MERGES);
    if (s->offsets[0] != 0)
        return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "the first piece must start at byte 0");
    for (uint32_t i = 0; i < s->num_tokens; i++) {
        if (s->offsets[i + 1] < s->offsets[i])
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where,
                            "token %u ends before it starts; offsets must rise", i);
    }
    for (size_t i = 0; i < s->num_merges; i++) {
        if (s->merges[3 * i] >= s->num_tokens)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where,
                            "merge %zu starts with token %u; there are only %u", i,
                            s->merges[3 * i], s->num_tokens);
    }
    return CVQ_OK;
}

static uint32_t sort_pieces(const cvq_tokenizer_source *s, sort_piece *pieces) {
    uint32_t n = 0;
    for (uint32_t id = 0; id < s->num_tokens; id++) {
        const uint32_t length = s->offsets[id + 1] - s->offsets[id];
        if (length == 0 || s->special[id]) continue;
        pieces[n++] = (sort_piece){s->bytes + s->offsets[id], length, id};
    }
    qsort(pieces, n, sizeof *pieces, by_piece);
    return n;
}

static void sort_merges(const cvq_tokenizer_source *s, sort_merge *merges) {
    for (uint32_t i = 0; i < s->num_merges; i++) {
        const uint32_t *m = s->merges + 3 * (size_t)i;
        merges[i] = (sort_merge){m[0], m[1], i, m[2]};
    }
    qsort(merges, s->num_merges, sizeof *merges, by_pair);
}

static uint8_t *put_u32(uint8_t *at, uint32_t value) {
    cvq_store_le(at, value, 4);
    return at + 4;
}

/* The arrays one after another, in the order in which docs/format.md lists them. */
static void write_table(uint8_t *at, const cvq_tokenizer_source *s, const sort_piece *pieces,
                        uint32_t num_sorted, const sort_merge *merges) {
    const uint32_t n = s->num_tokens, num_bytes = s->offsets[n];
    memcpy(at, magic, sizeof magic);
    at = put_u32(at + sizeof magic, TABLE_VERSION);
    at = put_u32(at, n);
    at = put_u32(at, num_sorted);
    at = put_u32(at, s->num_merges);
    at = put_u32(at, num_bytes);
    at = put_u32(at, s->ignore_merges ? FLAG_IGNORE_MERGES : 0);
    at = put_u32(at, 0);
    for (uint32_t i = 0; i <= n; i++) at = put_u32(at, s->offsets[i]);
    for (uint32_t i = 0; i < num_sorted; i++) at = put_u32(at, pieces[i].id);
    for (uint32_t left = 0, m = 0; left <= n; left++) {
        while (m < s->num_merges && merges[m].left < left) m++;
        at = put_u32(at, m);
    }
    for (uint32_t i = 0; i < s->num_merges; i++) {
        at = put_u32(at, merges[i].right);
        at = put_u32(at, merges[i].rank);
        at = put_u32(at, merges[i].merged);
    }
    for (uint32_t i = 0; i < n; i++) *at++ = s->special[i] ? 1 : 0;
    if (num_bytes) memcpy(at, s->bytes, num_bytes);
}

static uint64_t table_bytes(uint64_t tokens, uint64_t sorted, uint64_t merges, uint64_t bytes) {
    return HEADER_BYTES + 4 * (tokens + 1) + 4 * sorted + 4 * (tokens + 1) + MERGE_BYTES * merges +
           tokens + bytes; /* every count is below 2^32: no overflow in 64 bits */
}

cvq_status cvq_tokenizer_table_build(cvq_buffer *out, const cvq_tokenizer_source *source,
                                     cvq_error *err) {
    void *pieces = NULL, *merges = NULL, *table = NULL;
    cvq_tokenizer_table check;
    cvq_status status = source_check(source, err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&pieces, source->num_tokens, sizeof(sort_piece), "pieces", err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&merges, source->num_merges, sizeof(sort_merge), "merges", err);
    if (status != CVQ_OK) goto done;
    const uint32_t num_sorted = sort_pieces(source, pieces);
    sort_merges(source, merges);
    const uint64_t size = table_bytes(source->num_tokens, num_sorted, source->num_merges,
                                      source->offsets[source->num_tokens]);
    status = cvq_alloc(&table, size, 1, "the tokenizer table", err);
    if (status != CVQ_OK) goto done;
    write_table(table, source, pieces, num_sorted, merges);
    /* What opening would refuse is refused now. */
    status = cvq_tokenizer_table_open(&check, table, (size_t)size, "tokenizer", err);
    if (status != CVQ_OK) goto done;
    status = cvq_buffer_append(out, table, (size_t)size, err);
done:
    free(pieces);
    free(merges);
    free(table);
    return status;
}

/* ---------------------------------------------------------------- opening */

#define BAD(...) cvq_fail(err, CVQ_FORMAT, where, "tokenizer table: " __VA_ARGS__)

static cvq_status read_header(cvq_tokenizer_table *t, const uint8_t *data, size_t size,
                              const char *where, cvq_error *err) {
    if (size < HEADER_BYTES) return BAD("only %zu bytes" CVQ_DAMAGED, size);
    if (memcmp(data, magic, sizeof magic) != 0) return BAD("no magic CVQT" CVQ_DAMAGED);
    const uint32_t version = u32_at(data, 1), flags = u32_at(data, 6);
    if (version != TABLE_VERSION)
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "tokenizer table: version %u; this program reads version %u", version,
                        TABLE_VERSION);
    t->num_tokens = u32_at(data, 2);
    t->num_sorted = u32_at(data, 3);
    t->num_merges = u32_at(data, 4);
    t->num_bytes = u32_at(data, 5);
    t->ignore_merges = flags & FLAG_IGNORE_MERGES;
    if (flags & ~FLAG_IGNORE_MERGES)
        return cvq_fail(err, CVQ_UNSUPPORTED, where,
                        "tokenizer table: flags 0x%x; this program knows only bit 0", flags);
    if (u32_at(data, 7) != 0) return BAD("reserved field is not 0" CVQ_DAMAGED);
    if (t->num_tokens == 0 || t->num_tokens > CVQ_TOKENIZER_MAX_TOKENS)
        return BAD("%u tokens; 1 to %u are allowed", t->num_tokens, CVQ_TOKENIZER_MAX_TOKENS);
    if (t->num_merges > CVQ_TOKENIZER_MAX_MERGES)
        return BAD("%u merges; at most %u are allowed", t->num_merges, CVQ_TOKENIZER_MAX_MERGES);
    if (t->num_sorted > t->num_tokens)
        return BAD("%u sorted pieces of %u tokens" CVQ_DAMAGED, t->num_sorted, t->num_tokens);
    const uint64_t wanted = table_bytes(t->num_tokens, t->num_sorted, t->num_merges, t->num_bytes);
    if (wanted != size)
        return BAD("its counts need %llu bytes, the section has %zu" CVQ_DAMAGED,
                   (unsigned long long)wanted, size);
    t->offsets = data + HEADER_BYTES;
    t->by_bytes = t->offsets + 4 * ((size_t)t->num_tokens + 1);
    t->merge_first = t->by_bytes + 4 * (size_t)t->num_sorted;
    t->merges = t->merge_first + 4 * ((size_t)t->num_tokens + 1);
    t->special = t->merges + MERGE_BYTES * (size_t)t->num_merges;
    t->bytes = t->special + t->num_tokens;
    return CVQ_OK;
}

/* Offsets rise from 0 to num_bytes, flags are 0 or 1; counts the ordinary pieces. */
static cvq_status check_tokens(const cvq_tokenizer_table *t, const char *where, cvq_error *err) {
    uint32_t ordinary = 0, before = 0;
    if (u32_at(t->offsets, 0) != 0) return BAD("token 0 does not start at byte 0" CVQ_DAMAGED);
    for (size_t id = 0; id < t->num_tokens; id++) {
        const uint32_t end = u32_at(t->offsets, id + 1);
        if (end < before || end > t->num_bytes)
            return BAD("token %zu ends at byte %u, outside %u .. %u" CVQ_DAMAGED, id, end, before,
                       t->num_bytes);
        if (t->special[id] > 1)
            return BAD("token %zu has the special flag %u" CVQ_DAMAGED, id, t->special[id]);
        ordinary += end > before && !t->special[id];
        before = end;
    }
    if (before != t->num_bytes)
        return BAD("pieces end at byte %u of %u" CVQ_DAMAGED, before, t->num_bytes);
    if (ordinary != t->num_sorted)
        return BAD("%u sorted pieces, but %u ordinary tokens" CVQ_DAMAGED, t->num_sorted, ordinary);
    return CVQ_OK;
}

typedef struct piece {
    const uint8_t *bytes;
    size_t length; /* 0: special, empty or out of range */
} piece;

static piece ordinary_piece(const cvq_tokenizer_table *t, uint32_t id) {
    if (id >= t->num_tokens || t->special[id]) return (piece){NULL, 0};
    const uint32_t start = u32_at(t->offsets, id);
    return (piece){t->bytes + start, u32_at(t->offsets, (size_t)id + 1) - start};
}

/* Strictly rising pieces are distinct, and there are as many as ordinary tokens: so each ordinary
 * token is there exactly once. Fills first_byte. */
static cvq_status check_sorted(cvq_tokenizer_table *t, const char *where, cvq_error *err) {
    piece before = {NULL, 0};
    uint32_t next = 0;
    for (uint32_t i = 0; i < t->num_sorted; i++) {
        const uint32_t id = u32_at(t->by_bytes, i);
        const piece p = ordinary_piece(t, id);
        if (p.length == 0)
            return BAD("sorted entry %u is %u, which is no ordinary token" CVQ_DAMAGED, i, id);
        const bool same = before.length && before.bytes[0] == p.bytes[0];
        if (before.length &&
            (before.bytes[0] > p.bytes[0] ||
             (same && compare_bytes(before.bytes, before.length, p.bytes, p.length) >= 0)))
            return BAD("sorted entry %u (token %u) is not above the one before it: out of order, "
                       "or two tokens with the same bytes" CVQ_DAMAGED,
                       i, id);
        while (next <= p.bytes[0]) t->first_byte[next++] = i;
        before = p;
    }
    while (next <= 256) t->first_byte[next++] = t->num_sorted;
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t b = (uint8_t)byte;
        if (!cvq_tokenizer_find(t, &b, 1, &t->byte_ids[byte]))
            return BAD("no token for the single byte 0x%02x; each of the 256 must have one", byte);
    }
    return CVQ_OK;
}

/* One merge of `left`; ranks is a bit set. */
static cvq_status check_merge(const cvq_tokenizer_table *t, uint32_t m, piece left, uint64_t *ranks,
                              const char *where, cvq_error *err) {
    const uint8_t *entry = t->merges + MERGE_BYTES * (size_t)m;
    const uint32_t rank = u32_at(entry, 1);
    const piece right = ordinary_piece(t, u32_at(entry, 0));
    const piece merged = ordinary_piece(t, u32_at(entry, 2));
    if (left.length == 0 || right.length == 0 || merged.length == 0)
        return BAD("merge %u has an id that is no ordinary token" CVQ_DAMAGED, m);
    if (merged.length != left.length + right.length ||
        memcmp(merged.bytes, left.bytes, left.length) != 0 ||
        memcmp(merged.bytes + left.length, right.bytes, right.length) != 0)
        return BAD("merge %u gives token %u, which is not its two pieces together" CVQ_DAMAGED, m,
                   u32_at(entry, 2));
    if (rank >= t->num_merges || ranks[rank / 64] >> (rank % 64) & 1)
        return BAD("merge %u has rank %u, which is out of range or taken" CVQ_DAMAGED, m, rank);
    ranks[rank / 64] |= (uint64_t)1 << (rank % 64);
    return CVQ_OK;
}

static cvq_status check_merges(const cvq_tokenizer_table *t, const char *where, cvq_error *err) {
    void *memory = NULL;
    CVQ_TRY(cvq_alloc(&memory, t->num_merges / 64 + 1, 8, "the ranks of merges", err));
    uint64_t *ranks = memory;
    cvq_status status = CVQ_OK;
    uint32_t m = u32_at(t->merge_first, 0);
    if (m != 0) status = BAD("the merges of token 0 start at %u" CVQ_DAMAGED, m);
    for (uint32_t left = 0; status == CVQ_OK && left < t->num_tokens; left++) {
        const uint32_t end = u32_at(t->merge_first, (size_t)left + 1);
        if (end < m || end > t->num_merges) {
            status = BAD("the merges of token %u end at %u, outside %u .. %u" CVQ_DAMAGED, left,
                         end, m, t->num_merges);
            break;
        }
        if (m == end) continue;
        const piece p = ordinary_piece(t, left);
        for (uint32_t first = m; status == CVQ_OK && m < end; m++) {
            if (m > first &&
                u32_at(t->merges, 3 * (size_t)m) <= u32_at(t->merges, 3 * ((size_t)m - 1)))
                status = BAD("merge %u is not above the one before it" CVQ_DAMAGED, m);
            else
                status = check_merge(t, m, p, ranks, where, err);
        }
    }
    if (status == CVQ_OK && m != t->num_merges)
        status = BAD("%u merges belong to tokens, of %u" CVQ_DAMAGED, m, t->num_merges);
    free(memory);
    return status;
}

cvq_status cvq_tokenizer_table_open(cvq_tokenizer_table *t, const uint8_t *data, size_t size,
                                    const char *where, cvq_error *err) {
    cvq_tokenizer_table table = {0};
    CVQ_TRY(read_header(&table, data, size, where, err));
    CVQ_TRY(check_tokens(&table, where, err));
    CVQ_TRY(check_sorted(&table, where, err));
    CVQ_TRY(check_merges(&table, where, err));
    *t = table;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- looking up */

const uint8_t *cvq_tokenizer_piece(const cvq_tokenizer_table *t, uint32_t id, size_t *length) {
    *length = 0;
    if (id >= t->num_tokens) return t->bytes;
    const uint32_t start = u32_at(t->offsets, id);
    *length = u32_at(t->offsets, (size_t)id + 1) - start;
    return t->bytes + start;
}

bool cvq_tokenizer_is_special(const cvq_tokenizer_table *t, uint32_t id) {
    return id < t->num_tokens && t->special[id];
}

bool cvq_tokenizer_find(const cvq_tokenizer_table *t, const uint8_t *bytes, size_t length,
                        uint32_t *id) {
    if (length == 0) return false;
    uint32_t low = t->first_byte[bytes[0]], high = t->first_byte[bytes[0] + 1];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2, candidate = u32_at(t->by_bytes, middle);
        const uint32_t start = u32_at(t->offsets, candidate);
        const int order = compare_bytes(
            t->bytes + start, u32_at(t->offsets, (size_t)candidate + 1) - start, bytes, length);
        if (order == 0) {
            *id = candidate;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

bool cvq_tokenizer_merge(const cvq_tokenizer_table *t, uint32_t left, uint32_t right,
                         uint32_t *rank, uint32_t *merged) {
    if (left >= t->num_tokens) return false;
    uint32_t low = u32_at(t->merge_first, left);
    uint32_t high = u32_at(t->merge_first, (size_t)left + 1);
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint8_t *entry = t->merges + MERGE_BYTES * (size_t)middle;
        const uint32_t candidate = u32_at(entry, 0);
        if (candidate == right) {
            *rank = u32_at(entry, 1);
            *merged = u32_at(entry, 2);
            return true;
        }
        if (candidate < right)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}
