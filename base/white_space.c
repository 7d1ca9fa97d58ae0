/* The list is that of Python's str.isspace(): Unicode's white space and four separators. */
#include "base/white_space.h"

#include <string.h>

static const char *const spaces[] = {
    " ",
    "\t",
    "\n",
    "\v",
    "\f",
    "\r",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x1f",
    "\xc2\x85",
    "\xc2\xa0",
    "\xe1\x9a\x80",
    "\xe2\x80\x80",
    "\xe2\x80\x81",
    "\xe2\x80\x82",
    "\xe2\x80\x83",
    "\xe2\x80\x84",
    "\xe2\x80\x85",
    "\xe2\x80\x86",
    "\xe2\x80\x87",
    "\xe2\x80\x88",
    "\xe2\x80\x89",
    "\xe2\x80\x8a",
    "\xe2\x80\xa8",
    "\xe2\x80\xa9",
    "\xe2\x80\xaf",
    "\xe2\x81\x9f",
    "\xe3\x80\x80",
};
#define NUM_SPACES (sizeof spaces / sizeof *spaces)

/* Length of the one that stands at the beginning (at_end 0) or end of the text; 0 for none. */
static size_t one_space(const char *text, size_t length, int at_end) {
    for (size_t i = 0; i < NUM_SPACES; i++) {
        size_t n = strlen(spaces[i]);
        if (n <= length && memcmp(at_end ? text + length - n : text, spaces[i], n) == 0) return n;
    }
    return 0;
}

size_t cvq_leading_space(const char *text, size_t length) {
    size_t at = 0;
    for (size_t n; (n = one_space(text + at, length - at, 0)) > 0;) at += n;
    return at;
}

size_t cvq_trailing_space(const char *text, size_t length) {
    size_t end = length;
    for (size_t n; (n = one_space(text, end, 1)) > 0;) end -= n;
    return length - end;
}
