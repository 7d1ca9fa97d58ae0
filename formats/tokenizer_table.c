/* The tokenizer's binary table: written once by a conversion, checked in one pass when a file is
 * opened, and searched where it lies. Pieces lie sorted by their bytes, and merges refer to pieces
 * by their place in that order, so that every check runs straight ahead through memory: opening a
 * model may take only milliseconds. */
#include "formats/tokenizer_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/damage_internal.h"

static const uint8_t magic[4] = {'C', 'V', 'Q', 'T'};
#define TABLE_VERSION 1u
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
    bool ordinary;
} sort_piece;

typedef struct sort_merge {
    uint32_t left, right, merged; /* piece numbers */
    uint32_t rank;
} sort_merge;

static int compare_bytes(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0) return order;
    return (a_length > b_length) - (a_length < b_length);
}

static int by_piece(const void *a, const void *b) {
    const sort_piece *x = a, *y = b;
    if (x->ordinary != y->ordinary) return x->ordinary ? -1 : 1;
    if (!x->ordinary) return (x->id > y->id) - (x->id < y->id);
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
        if (s->special[i] && s->offsets[i + 1] == s->offsets[i])
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where, "token %u is special, but empty", i);
    }
    for (size_t i = 0; i < 3 * (size_t)s->num_merges; i++) {
        if (s->merges[i] >= s->num_tokens)
            return cvq_fail(err, CVQ_INVALID_ARGUMENT, where,
                            "merge %zu names token %u; there are only %u", i / 3, s->merges[i],
                            s->num_tokens);
    }
    return CVQ_OK;
}

/* Returns the number of ordinary pieces; numbers[id] becomes the place of each. */
static uint32_t sort_pieces(const cvq_tokenizer_source *s, sort_piece *pieces, uint32_t *numbers) {
    uint32_t ordinary = 0;
    for (uint32_t id = 0; id < s->num_tokens; id++) {
        const uint32_t length = s->offsets[id + 1] - s->offsets[id];
        pieces[id] = (sort_piece){s->bytes + s->offsets[id], length, id, length && !s->special[id]};
        ordinary += pieces[id].ordinary;
    }
    qsort(pieces, s->num_tokens, sizeof *pieces, by_piece);
    for (uint32_t i = 0; i < s->num_tokens; i++) numbers[pieces[i].id] = i;
    return ordinary;
}

/* Fails where a pair has two merges. */
static cvq_status sort_merges(const cvq_tokenizer_source *s, const uint32_t *numbers,
                              sort_merge *merges, cvq_error *err) {
    for (uint32_t i = 0; i < s->num_merges; i++) {
        const uint32_t *m = s->merges + 3 * (size_t)i;
        merges[i] = (sort_merge){numbers[m[0]], numbers[m[1]], numbers[m[2]], i};
    }
    qsort(merges, s->num_merges, sizeof *merges, by_pair);
    for (uint32_t i = 1; i < s->num_merges; i++)
        if (by_pair(&merges[i - 1], &merges[i]) == 0)
            return cvq_fail(err, CVQ_FORMAT, "tokenizer", "merges %u and %u are of the same pair",
                            merges[i - 1].rank, merges[i].rank);
    return CVQ_OK;
}

static uint8_t *put_u32(uint8_t *at, uint32_t value) {
    cvq_store_le(at, value, 4);
    return at + 4;
}

/* The arrays one after another, in the order in which docs/format.md lists them. */
static void write_table(uint8_t *at, const cvq_tokenizer_source *s, const sort_piece *pieces,
                        const uint32_t *numbers, uint32_t num_sorted, const sort_merge *merges) {
    const uint32_t n = s->num_tokens;
    memcpy(at, magic, sizeof magic);
    at = put_u32(at + sizeof magic, TABLE_VERSION);
    at = put_u32(at, n);
    at = put_u32(at, num_sorted);
    at = put_u32(at, s->num_merges);
    at = put_u32(at, s->offsets[n]);
    at = put_u32(at, s->ignore_merges ? FLAG_IGNORE_MERGES : 0);
    at = put_u32(at, 0);
    uint32_t offset = 0;
    for (uint32_t i = 0; i < n; offset += pieces[i++].length) at = put_u32(at, offset);
    at = put_u32(at, offset);
    for (uint32_t i = 0; i < n; i++) at = put_u32(at, pieces[i].id);
    for (uint32_t id = 0; id < n; id++) at = put_u32(at, numbers[id]);
    for (uint32_t left = 0, m = 0; left <= num_sorted; left++) {
        while (m < s->num_merges && merges[m].left < left) m++;
        at = put_u32(at, m);
    }
    for (uint32_t i = 0; i < s->num_merges; i++) {
        at = put_u32(at, merges[i].right);
        at = put_u32(at, merges[i].rank);
        at = put_u32(at, merges[i].merged);
    }
    for (uint32_t i = 0; i < n; at += pieces[i++].length)
        memcpy(at, pieces[i].bytes, pieces[i].length);
}

static uint64_t table_bytes(uint64_t tokens, uint64_t sorted, uint64_t merges, uint64_t bytes) {
    return HEADER_BYTES + 4 * (tokens + 1) + 4 * tokens + 4 * tokens + 4 * (sorted + 1) +
           MERGE_BYTES * merges + bytes; /* every count is below 2^32: no overflow in 64 bits */
}

cvq_status cvq_tokenizer_table_build(cvq_buffer *out, const cvq_tokenizer_source *source,
                                     cvq_error *err) {
    void *pieces = NULL, *numbers = NULL, *merges = NULL, *table = NULL;
    cvq_tokenizer_table check;
    cvq_status status = source_check(source, err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&pieces, source->num_tokens, sizeof(sort_piece), "pieces", err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&numbers, source->num_tokens, sizeof(uint32_t), "pieces", err);
    if (status != CVQ_OK) goto done;
    status = cvq_alloc(&merges, source->num_merges, sizeof(sort_merge), "merges", err);
    if (status != CVQ_OK) goto done;
    const uint32_t num_sorted = sort_pieces(source, pieces, numbers);
    status = sort_merges(source, numbers, merges, err);
    if (status != CVQ_OK) goto done;
    const uint64_t size = table_bytes(source->num_tokens, num_sorted, source->num_merges,
                                      source->offsets[source->num_tokens]);
    status = cvq_alloc(&table, size, 1, "the tokenizer table", err);
    if (status != CVQ_OK) goto done;
    write_table(table, source, pieces, numbers, num_sorted, merges);
    /* What opening would refuse is refused now. */
    status = cvq_tokenizer_table_open(&check, table, (size_t)size, "tokenizer", err);
    if (status != CVQ_OK) goto done;
    status = cvq_buffer_append(out, table, (size_t)size, err);
done:
    free(pieces);
    free(numbers);
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
        return BAD("%u tokens; 1 to %u are allowed" CVQ_DAMAGED, t->num_tokens,
                   CVQ_TOKENIZER_MAX_TOKENS);
    if (t->num_merges > CVQ_TOKENIZER_MAX_MERGES)
        return BAD("%u merges; at most %u are allowed" CVQ_DAMAGED, t->num_merges,
                   CVQ_TOKENIZER_MAX_MERGES);
    if (t->num_sorted > t->num_tokens)
        return BAD("%u sorted pieces of %u tokens" CVQ_DAMAGED, t->num_sorted, t->num_tokens);
    const uint64_t wanted = table_bytes(t->num_tokens, t->num_sorted, t->num_merges, t->num_bytes);
    if (wanted != size)
        return BAD("its counts need %llu bytes, the section has %zu" CVQ_DAMAGED,
                   (unsigned long long)wanted, size);
    t->offsets = data + HEADER_BYTES;
    t->ids = t->offsets + 4 * ((size_t)t->num_tokens + 1);
    t->numbers = t->ids + 4 * (size_t)t->num_tokens;
    t->merge_first = t->numbers + 4 * (size_t)t->num_tokens;
    t->merges = t->merge_first + 4 * ((size_t)t->num_sorted + 1);
    t->bytes = t->merges + MERGE_BYTES * (size_t)t->num_merges;
    return CVQ_OK;
}

typedef struct piece {
    const uint8_t *bytes;
    size_t length;
} piece;

static piece piece_at(const cvq_tokenizer_table *t, size_t number) {
    const uint32_t start = u32_at(t->offsets, number);
    return (piece){t->bytes + start, u32_at(t->offsets, number + 1) - start};
}

/* Offsets rise from 0 to num_bytes, and strictly for ordinary pieces. */
static cvq_status check_offsets(const cvq_tokenizer_table *t, const char *where, cvq_error *err) {
    uint32_t before = 0;
    if (u32_at(t->offsets, 0) != 0) return BAD("piece 0 does not start at byte 0" CVQ_DAMAGED);
    for (size_t i = 0; i < t->num_tokens; i++) {
        const uint32_t end = u32_at(t->offsets, i + 1);
        if (end < before || end > t->num_bytes)
            return BAD("piece %zu ends at byte %u, outside %u .. %u" CVQ_DAMAGED, i, end, before,
                       t->num_bytes);
        if (end == before && i < t->num_sorted)
            return BAD("piece %zu is empty, but ordinary" CVQ_DAMAGED, i);
        before = end;
    }
    if (before != t->num_bytes)
        return BAD("pieces end at byte %u of %u" CVQ_DAMAGED, before, t->num_bytes);
    return CVQ_OK;
}

/* ids and numbers are each other's inverse, so both are permutations; the pieces that are not
 * ordinary stand by id. */
static cvq_status check_ids(const cvq_tokenizer_table *t, const char *where, cvq_error *err) {
    for (size_t id = 0; id < t->num_tokens; id++) {
        const uint32_t number = u32_at(t->numbers, id);
        if (number >= t->num_tokens || u32_at(t->ids, number) != id)
            return BAD("token %zu has piece %u, which is out of range or another's" CVQ_DAMAGED, id,
                       number);
    }
    for (size_t i = (size_t)t->num_sorted + 1; i < t->num_tokens; i++) {
        if (u32_at(t->ids, i) <= u32_at(t->ids, i - 1))
            return BAD("piece %zu is not ordinary and not in order of ids" CVQ_DAMAGED, i);
    }
    return CVQ_OK;
}

/* Ordinary pieces rise strictly, so no two are the same. Fills first_byte and byte_ids. */
static cvq_status check_sorted(cvq_tokenizer_table *t, const char *where, cvq_error *err) {
    piece before = {NULL, 0};
    uint32_t next = 0;
    for (uint32_t i = 0; i < t->num_sorted; i++) {
        const piece p = piece_at(t, i);
        if (i > 0 && compare_bytes(before.bytes, before.length, p.bytes, p.length) >= 0)
            return BAD("piece %u (token %u) is not above the one before it: out of order, or two "
                       "tokens with the same bytes" CVQ_DAMAGED,
                       i, u32_at(t->ids, i));
        while (next <= p.bytes[0]) t->first_byte[next++] = i;
        before = p;
    }
    while (next <= 256) t->first_byte[next++] = t->num_sorted;
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t b = (uint8_t)byte;
        if (!cvq_tokenizer_find(t, &b, 1, &t->byte_ids[byte]))
            return BAD(
                "no token for the single byte 0x%02x; each of the 256 must have one" CVQ_DAMAGED,
                byte);
    }
    return CVQ_OK;
}

/* One merge of `left`; ranks is a bit set. */
static cvq_status check_merge(const cvq_tokenizer_table *t, uint32_t m, piece left, uint64_t *ranks,
                              const char *where, cvq_error *err) {
    const uint8_t *entry = t->merges + MERGE_BYTES * (size_t)m;
    const uint32_t right_number = u32_at(entry, 0), rank = u32_at(entry, 1);
    const uint32_t merged_number = u32_at(entry, 2);
    if (right_number >= t->num_sorted || merged_number >= t->num_sorted)
        return BAD("merge %u names a piece that is not ordinary" CVQ_DAMAGED, m);
    const piece right = piece_at(t, right_number), merged = piece_at(t, merged_number);
    if (merged.length != left.length + right.length ||
        memcmp(merged.bytes, left.bytes, left.length) != 0 ||
        memcmp(merged.bytes + left.length, right.bytes, right.length) != 0)
        return BAD("merge %u gives piece %u, which is not its two pieces together" CVQ_DAMAGED, m,
                   merged_number);
    if (rank >= t->num_merges || ranks[rank / 64] >> (rank % 64) & 1)
        return BAD("merge %u has rank %u, which is out of range or taken" CVQ_DAMAGED, m, rank);
    ranks[rank / 64] |= (uint64_t)1 << (rank % 64);
    return CVQ_OK;
}

/* The merges [first, end) of one left piece, right pieces rising. */
static cvq_status check_left(const cvq_tokenizer_table *t, uint32_t left, uint32_t first,
                             uint32_t end, uint64_t *ranks, const char *where, cvq_error *err) {
    const piece p = piece_at(t, left);
    for (size_t m = first; m < end; m++) {
        if (m > first && u32_at(t->merges, 3 * m) <= u32_at(t->merges, 3 * (m - 1)))
            return BAD("merge %zu is not above the one before it" CVQ_DAMAGED, m);
        CVQ_TRY(check_merge(t, (uint32_t)m, p, ranks, where, err));
    }
    return CVQ_OK;
}

static cvq_status check_merges(const cvq_tokenizer_table *t, const char *where, cvq_error *err) {
    void *ranks = NULL;
    if (u32_at(t->merge_first, 0) != 0)
        return BAD("the merges of piece 0 do not start at 0" CVQ_DAMAGED);
    if (u32_at(t->merge_first, t->num_sorted) != t->num_merges)
        return BAD("%u merges belong to pieces, of %u" CVQ_DAMAGED,
                   u32_at(t->merge_first, t->num_sorted), t->num_merges);
    CVQ_TRY(cvq_alloc(&ranks, t->num_merges / 64 + 1, 8, "the ranks of merges", err));
    cvq_status status = CVQ_OK;
    for (uint32_t left = 0, m = 0; status == CVQ_OK && left < t->num_sorted; left++) {
        const uint32_t end = u32_at(t->merge_first, (size_t)left + 1);
        if (end < m || end > t->num_merges)
            status = BAD("the merges of piece %u end at %u, outside %u .. %u" CVQ_DAMAGED, left,
                         end, m, t->num_merges);
        else
            status = check_left(t, left, m, end, ranks, where, err);
        m = end;
    }
    free(ranks);
    return status;
}

cvq_status cvq_tokenizer_table_open(cvq_tokenizer_table *t, const uint8_t *data, size_t size,
                                    const char *where, cvq_error *err) {
    cvq_tokenizer_table table = {0};
    CVQ_TRY(read_header(&table, data, size, where, err));
    CVQ_TRY(check_offsets(&table, where, err));
    CVQ_TRY(check_ids(&table, where, err));
    CVQ_TRY(check_sorted(&table, where, err));
    CVQ_TRY(check_merges(&table, where, err));
    *t = table;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- looking up */

const uint8_t *cvq_tokenizer_piece(const cvq_tokenizer_table *t, uint32_t id, size_t *length) {
    *length = 0;
    if (id >= t->num_tokens) return t->bytes;
    const piece p = piece_at(t, u32_at(t->numbers, id));
    *length = p.length;
    return p.bytes;
}

bool cvq_tokenizer_is_special(const cvq_tokenizer_table *t, uint32_t id) {
    if (id >= t->num_tokens) return false;
    const uint32_t number = u32_at(t->numbers, id);
    return number >= t->num_sorted && piece_at(t, number).length > 0;
}

bool cvq_tokenizer_find(const cvq_tokenizer_table *t, const uint8_t *bytes, size_t length,
                        uint32_t *id) {
    if (length == 0) return false;
    uint32_t low = t->first_byte[bytes[0]], high = t->first_byte[bytes[0] + 1];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const piece p = piece_at(t, middle);
        const int order = compare_bytes(p.bytes, p.length, bytes, length);
        if (order == 0) {
            *id = u32_at(t->ids, middle);
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
    if (left >= t->num_tokens || right >= t->num_tokens) return false;
    const uint32_t left_number = u32_at(t->numbers, left);
    const uint32_t right_number = u32_at(t->numbers, right);
    if (left_number >= t->num_sorted) return false;
    uint32_t low = u32_at(t->merge_first, left_number);
    uint32_t high = u32_at(t->merge_first, (size_t)left_number + 1);
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint8_t *entry = t->merges + MERGE_BYTES * (size_t)middle;
        const uint32_t candidate = u32_at(entry, 0);
        if (candidate == right_number) {
            *rank = u32_at(entry, 1);
            *merged = u32_at(t->ids, u32_at(entry, 2));
            return true;
        }
        if (candidate < right_number)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}
