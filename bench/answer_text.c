/* The few pieces of Python's str that the metrics need. */
#include "bench/answer_text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "base/white_space.h"

/* ---------------------------------------------------------------- characters */

uint32_t cvq_text_next(const char **at) {
    const unsigned char *p = (const unsigned char *)*at;
    if (*p == 0) return 0;
    uint32_t c = *p++;
    unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
    if (more) c &= 0x3fu >> more;
    for (; more > 0 && (*p & 0xc0) == 0x80; more--) c = c << 6 | (*p++ & 0x3f);
    *at = (const char *)p;
    return c;
}

size_t cvq_text_length(const char *text) {
    size_t n = 0;
    while (cvq_text_next(&text)) n++;
    return n;
}

static bool within(uint32_t c, uint32_t first, uint32_t last) {
    return c >= first && c <= last;
}

/* Where capitals and small letters alternate: the capital is the even one of a pair, or the odd. */
static bool is_even_capital(uint32_t c) {
    return (c & 1) == 0 &&
           (within(c, 0x100, 0x12e) || within(c, 0x132, 0x136) || within(c, 0x14a, 0x176) ||
            within(c, 0x460, 0x480) || within(c, 0x48a, 0x4be) || within(c, 0x4d0, 0x52e) ||
            within(c, 0x1e00, 0x1e94) || within(c, 0x1ea0, 0x1efe));
}
static bool is_odd_capital(uint32_t c) {
    return (c & 1) == 1 &&
           (within(c, 0x139, 0x147) || within(c, 0x179, 0x17d) || within(c, 0x4c1, 0x4cd));
}

static uint32_t lower(uint32_t c) {
    if (within(c, 'A', 'Z') || (within(c, 0xc0, 0xde) && c != 0xd7)) return c + 32;
    if (is_even_capital(c) || is_odd_capital(c)) return c + 1;
    if (c == 0x178) return 0xff;
    if (within(c, 0x391, 0x3ab) && c != 0x3a2) return c + 32;
    if (c == 0x386) return 0x3ac;
    if (within(c, 0x388, 0x38a)) return c + 37;
    if (c == 0x38c) return 0x3cc;
    if (c == 0x38e || c == 0x38f) return c + 63;
    if (within(c, 0x410, 0x42f) || within(c, 0xff21, 0xff3a)) return c + 32;
    if (within(c, 0x400, 0x40f)) return c + 80;
    if (within(c, 0x531, 0x556)) return c + 48;
    return c;
}

void cvq_text_lower(char *text) {
    for (const char *at = text; *at;) {
        char *p = text + (at - text);
        uint32_t c = lower(cvq_text_next(&at));
        size_t n = (size_t)(at - p);
        if (n == 1 && c < 0x80) p[0] = (char)c;
        if (n == 2 && within(c, 0x80, 0x7ff)) {
            p[0] = (char)(0xc0 | c >> 6);
            p[1] = (char)(0x80 | (c & 0x3f));
        }
        if (n == 3 && within(c, 0x800, 0xffff)) {
            p[0] = (char)(0xe0 | c >> 12);
            p[1] = (char)(0x80 | (c >> 6 & 0x3f));
            p[2] = (char)(0x80 | (c & 0x3f));
        }
    }
}

/* Beyond ASCII everything counts as a letter but the blocks of signs. */
bool cvq_text_is_word(uint32_t c) {
    if (c < 0x80)
        return within(c, '0', '9') || within(c, 'A', 'Z') || within(c, 'a', 'z') || c == '_';
    if (c < 0xc0) /* a, mu, o; 2, 3, 1 above the line; the fractions */
        return c == 0xaa || c == 0xb5 || c == 0xba || c == 0xb2 || c == 0xb3 || c == 0xb9 ||
               within(c, 0xbc, 0xbe);
    return c != 0xd7 && c != 0xf7 && !within(c, 0x2000, 0x206f) && !within(c, 0x20a0, 0x20cf) &&
           !within(c, 0x2190, 0x245f) && !within(c, 0x2500, 0x2775) && !within(c, 0x2794, 0x2bff) &&
           !within(c, 0x3000, 0x3004) && !within(c, 0x3008, 0x3020) && !within(c, 0xff00, 0xff0f) &&
           !within(c, 0x1f000, 0x1faff);
}

/* ---------------------------------------------------------------- words */

cvq_status cvq_text_trimmed(char **out, const char *text, cvq_error *err) {
    size_t length = strlen(text), first = cvq_leading_space(text, length);
    size_t kept = length - first - cvq_trailing_space(text + first, length - first);
    void *copy;
    CVQ_TRY(cvq_alloc(&copy, (uint64_t)kept + 1, 1, "an answer", err));
    memcpy(copy, text + first, kept);
    *out = copy;
    return CVQ_OK;
}

size_t cvq_text_word(const char **at) {
    const char *word = *at;
    for (size_t n; (n = cvq_leading_space(word, strnlen(word, 3))) > 0;) word += n;
    const char *end = word; /* no white space is longer than 3 bytes */
    while (*end && cvq_leading_space(end, strnlen(end, 3)) == 0) cvq_text_next(&end);
    *at = word;
    return (size_t)(end - word);
}

void cvq_text_join_words(char *text) {
    const char *at = text;
    char *to = text;
    for (size_t n; (n = cvq_text_word(&at)) > 0; at += n) {
        if (to != text) *to++ = ' ';
        memmove(to, at, n);
        to += n;
    }
    *to = '\0';
}

void cvq_text_replace(char *text, char from, char to) {
    char *out = text;
    for (; *text; text++) {
        if (*text != from)
            *out++ = *text;
        else if (to)
            *out++ = to;
    }
    *out = '\0';
}

/* ---------------------------------------------------------------- numbers */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Digits, with single underscores between; copied to *to without those. False if there are none. */
static bool take_digits(const char **at, char **to) {
    if (!is_digit(**at)) return false;
    for (;;) {
        while (is_digit(**at)) *(*to)++ = *(*at)++;
        if (**at != '_' || !is_digit((*at)[1])) return true;
        (*at)++;
    }
}

/* A trimmed number in the grammar of float(), rewritten for strtod in `to`. */
static bool rewrite_number(const char *at, char *to) {
    if (*at == '+' || *at == '-') *to++ = *at++;
    if (strcasecmp(at, "inf") == 0 || strcasecmp(at, "infinity") == 0 ||
        strcasecmp(at, "nan") == 0) {
        memcpy(to, at, strlen(at) + 1);
        return true;
    }
    bool whole = take_digits(&at, &to), part = false;
    if (*at == '.') {
        *to++ = *at++;
        part = take_digits(&at, &to);
    }
    if (!whole && !part) return false;
    if (*at == 'e' || *at == 'E') {
        *to++ = *at++;
        if (*at == '+' || *at == '-') *to++ = *at++;
        if (!take_digits(&at, &to)) return false;
    }
    *to = '\0';
    return *at == '\0';
}

bool cvq_text_to_number(const char *text, double *out) {
    char copy[256], plain[256];
    size_t length = strlen(text), first = cvq_leading_space(text, length);
    length -= first + cvq_trailing_space(text + first, length - first);
    if (length == 0 || length >= sizeof copy) return false;
    memcpy(copy, text + first, length);
    copy[length] = '\0';
    if (!rewrite_number(copy, plain)) return false;
    *out = strtod(plain, NULL);
    return true;
}
