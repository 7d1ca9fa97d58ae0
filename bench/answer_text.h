/* Text as the metrics' published rules see it, which are written in Python: lower case, words,
 * numbers, characters. All texts are valid UTF-8 with a NUL behind them. */
#ifndef CVQ_BENCH_ANSWER_TEXT_H
#define CVQ_BENCH_ANSWER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* The code point at *at, which is moved behind it; 0 at the end. */
uint32_t cvq_text_next(const char **at);
/* Characters, not bytes. */
size_t cvq_text_length(const char *text);
/* In place: the capital letters of Latin (with its extensions A and Additional), Greek, Cyrillic,
 * Armenian and the full-width forms, whose small ones take as many bytes. */
void cvq_text_lower(char *text);
/* A letter, a digit or '_', as the word character of a regular expression. */
bool cvq_text_is_word(uint32_t c);

/* A copy to work on, without the white space around it; release with free(). */
cvq_status cvq_text_trimmed(char **out, const char *text, cvq_error *err);
/* Moves to the next word (text between white space): its length, or 0 at the end. */
size_t cvq_text_word(const char **at);
/* The words with one space between, in place. */
void cvq_text_join_words(char *text);
/* Every `from` becomes `to`, or is taken out where `to` is 0, in place. Both ASCII. */
void cvq_text_replace(char *text, char from, char to);

/* What Python's float() reads: "1", " -.5e3 ", "1_000", "inf", "nan"; no commas, no hexadecimal. */
bool cvq_text_to_number(const char *text, double *out);

#endif
