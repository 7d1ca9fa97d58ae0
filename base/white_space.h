/* White space around a text, as Python's str.strip() sees it. */
#ifndef CVQ_BASE_WHITE_SPACE_H
#define CVQ_BASE_WHITE_SPACE_H

#include <stddef.h>

/* Bytes of white space that valid UTF-8 begins and ends with. */
size_t cvq_leading_space(const char *text, size_t length);
size_t cvq_trailing_space(const char *text, size_t length);

#endif
