/* Edits of JSON text. It is scanned, not parsed: what earlier mutations broke is edited as well. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/mutate.h"

#define MOST_NODES 4096
#define MOST_DEPTH 64

typedef struct node {
    size_t member;     /* where its key starts, or itself */
    size_t start, end; /* of the value, or of the key's string */
    char kind;         /* '"', '{', '[', '0' a number or word, 'k' a key */
} node;

typedef struct text {
    uint8_t *bytes;
    size_t size, most;
    node nodes[MOST_NODES];
    size_t count;
    uint64_t *state;
} text;

static bool is_space(uint8_t c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static size_t skip_space(const text *t, size_t at) {
    while (at < t->size && is_space(t->bytes[at])) at++;
    return at;
}

/* The end of the string, number or word that starts at `at`. */
static size_t token_end(const text *t, size_t at) {
    if (t->bytes[at++] != '"') {
        while (at < t->size && !strchr("{}[],:\"", t->bytes[at]) && !is_space(t->bytes[at])) at++;
        return at;
    }
    while (at < t->size && t->bytes[at] != '"')
        at += t->bytes[at] == '\\' && at + 1 < t->size ? 2 : 1;
    return at < t->size ? at + 1 : t->size;
}

/* The nodes from `at` on, as many as there is room for. */
static void scan(text *t, size_t at) {
    size_t open[MOST_DEPTH], depth = 0, member = SIZE_MAX;
    for (t->count = 0; at < t->size && t->count < MOST_NODES;) {
        const uint8_t c = t->bytes[at];
        if (is_space(c) || c == ',' || c == ':') {
            at++;
        } else if (c == '}' || c == ']') {
            at++;
            if (depth > 0) t->nodes[open[--depth]].end = at;
        } else if (c == '{' || c == '[') {
            if (depth == MOST_DEPTH) return;
            open[depth++] = t->count;
            t->nodes[t->count++] = (node){member == SIZE_MAX ? at : member, at, t->size, (char)c};
            member = SIZE_MAX;
            at++;
        } else {
            const size_t end = token_end(t, at), next = skip_space(t, end);
            const bool key = c == '"' && next < t->size && t->bytes[next] == ':';
            t->nodes[t->count++] = (node){member == SIZE_MAX ? at : member, at, end,
                                          key        ? 'k'
                                          : c == '"' ? '"'
                                                     : '0'};
            member = key ? at : SIZE_MAX;
            at = end;
        }
    }
}

/* The bytes from a to b become these, if there is room. */
static void splice(text *t, size_t a, size_t b, const void *with, size_t size) {
    if (t->size - (b - a) + size > t->most) return;
    memmove(t->bytes + a + size, t->bytes + b, t->size - b);
    if (size) memcpy(t->bytes + a, with, size);
    t->size = t->size - (b - a) + size;
}

/* The same with a stretch of the text itself, and a comma behind it if there is to be one. */
static void splice_own(text *t, size_t a, size_t b, size_t from, size_t to, bool comma) {
    uint8_t *copy = malloc(to - from + 1);
    if (!copy) abort();
    memcpy(copy, t->bytes + from, to - from);
    copy[to - from] = ',';
    splice(t, a, b, copy, to - from + comma);
    free(copy);
}

static const node *any_node(text *t, const char *kinds) {
    for (int tries = 0; t->count > 0 && tries < 64; tries++) {
        const node *n = &t->nodes[mutate_below(t->state, (uint32_t)t->count)];
        if (strchr(kinds, n->kind)) return n;
    }
    return NULL;
}

static void delete_member(text *t, const node *n) {
    size_t a = n->member, b = skip_space(t, n->end);
    if (b < t->size && t->bytes[b] == ',') {
        b++;
    } else {
        b = n->end;
        while (a > 0 && is_space(t->bytes[a - 1])) a--;
        a -= a > 0 && t->bytes[a - 1] == ',';
    }
    splice(t, a, b, NULL, 0);
}

static void set_edge(text *t, const node *n) {
    static const char *const values[] = {"0",
                                         "1",
                                         "-1",
                                         "2",
                                         "255",
                                         "256",
                                         "65535",
                                         "65536",
                                         "2147483647",
                                         "2147483648",
                                         "4294967295",
                                         "4294967296",
                                         "9007199254740991",
                                         "9007199254740992",
                                         "9223372036854775807",
                                         "18446744073709551615",
                                         "18446744073709551616",
                                         "1e400",
                                         "-1e400",
                                         "1e-400",
                                         "0.5",
                                         "1.0000000000000002",
                                         "-0",
                                         "3e38",
                                         "4e38",
                                         "1e15",
                                         "null",
                                         "true",
                                         "false",
                                         "\"\"",
                                         "[]",
                                         "{}",
                                         "[[]]",
                                         "\"\\u0000\"",
                                         "\"\\ud800\"",
                                         "\"\\u00e9\"",
                                         "\".\"",
                                         "\"../a\"",
                                         "\"*\""};
    const char *v = values[mutate_below(t->state, sizeof values / sizeof *values)];
    splice(t, n->start, n->end, v, strlen(v));
}

/* A number near it, or a simple function of it. */
static void change_number(text *t, const node *n) {
    char old[32] = {0}, new[40];
    memcpy(old, t->bytes + n->start, n->end - n->start < 31 ? n->end - n->start : 31);
    const uint64_t v = (uint64_t)strtoll(old, NULL, 10);
    const uint64_t near[] = {v / 2, v + mutate_below(t->state, 9) - 4,
                             v ^ 1u << mutate_below(t->state, 20)};
    const size_t length =
        (size_t)snprintf(new, sizeof new, "%lld", (long long)near[mutate_below(t->state, 3)]);
    splice(t, n->start, n->end, new, length);
}

/* Other bytes between the quotes, mostly such that it stays a string. */
static void change_string(text *t, const node *n) {
    uint8_t inner[256];
    const size_t size = n->end - n->start - 2;
    if (n->end - n->start < 2 || size > 200) return;
    memcpy(inner, t->bytes + n->start + 1, size);
    const size_t now = LLVMFuzzerMutate(inner, size, sizeof inner);
    for (size_t i = 0; mutate_below(t->state, 8) > 0 && i < now; i++)
        if (inner[i] < ' ' || inner[i] == '"' || inner[i] == '\\' || inner[i] > 126)
            inner[i] = (uint8_t)('a' + inner[i] % 26);
    splice(t, n->start + 1, n->end - 1, inner, now);
}

static void wrap(text *t, const node *n) {
    const size_t start = n->start;
    splice(t, n->end, n->end, "]", 1);
    splice(t, start, start, "[", 1);
}

static void swap(text *t, const node *a, const node *b) {
    if (a->start > b->start) {
        const node *c = a;
        a = b;
        b = c;
    }
    if (a->end > b->start) return; /* one holds the other */
    const node first = *a, second = *b;
    uint8_t *copy = malloc(first.end - first.start + 1);
    if (!copy) abort();
    const size_t size = first.end - first.start;
    memcpy(copy, t->bytes + first.start, size);
    const size_t room = t->most - t->size;
    if (second.end - second.start <= size + room) {
        splice_own(t, first.start, first.end, second.start, second.end, false);
        const size_t moved = second.start - size + (second.end - second.start);
        splice(t, moved, moved + (second.end - second.start), copy, size);
    }
    free(copy);
}

static void edit(text *t) {
    const node *n = any_node(t, "\"{[0"), *m = any_node(t, "\"{[0"), *key;
    if (!n || !m) return;
    switch (mutate_below(t->state, 11)) {
    case 0:
        splice_own(t, n->start, n->end, m->start, m->end, false);
        break;
    case 1:
        delete_member(t, n);
        break;
    case 2:
        splice_own(t, n->member, n->member, n->member, n->end, true);
        break;
    case 3:
        splice_own(t, n->member, n->member, m->member, m->end, true);
        break;
    case 4:
        set_edge(t, n);
        break;
    case 5:
    case 6:
        if ((n = any_node(t, "0")) != NULL) change_number(t, n);
        break;
    case 7:
        if ((n = any_node(t, "\"k")) != NULL) change_string(t, n);
        break;
    case 8:
        wrap(t, n);
        break;
    case 9:
        swap(t, n, m);
        break;
    default:
        key = any_node(t, "k");
        if (key && (m = any_node(t, "k")) != NULL)
            splice_own(t, key->start, key->end, m->start, m->end, false);
    }
}

size_t mutate_json_text(uint8_t *bytes, size_t size, size_t most, uint64_t *state) {
    static text t; /* large */
    t = (text){.bytes = bytes, .size = size, .most = most, .state = state};
    for (uint32_t edits = 1 + mutate_below(state, 3); edits > 0; edits--) {
        scan(&t, size > 65536 ? mutate_below(state, (uint32_t)t.size) : 0);
        edit(&t);
    }
    return t.size;
}
