/* Multiple choice: MMMU's published parsing of letters and of open answers, and a stricter one of
 * our own for letters alone. */
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/white_space.h"
#include "bench/answer_text.h"
#include "bench/metrics_internal.h"

/* ---------------------------------------------------------------- letters */

static bool is_letter_answer(const char *answer) {
    return answer[0] >= 'A' && answer[0] <= 'Z' && answer[1] == '\0';
}

/* Else the question is an open one. */
static bool has_choices(const cvq_answer_key *key) {
    for (size_t i = 0; i < key->num_answers; i++)
        if (!is_letter_answer(key->answers[i])) return key->num_choices > 0;
    return true;
}

/* How many letters are choices: as the task says, else A to D and as far as the answers go. */
static int count_choices(const cvq_answer_key *key) {
    int n = 4;
    if (key->num_choices > 0) return (int)key->num_choices;
    for (size_t i = 0; i < key->num_answers; i++) {
        int letter = key->answers[i][0] - 'A' + 1;
        if (is_letter_answer(key->answers[i]) && letter > n) n = letter;
    }
    return n;
}

/* Where the last occurrence begins, or -1. */
static long last_place(const char *text, const char *part) {
    long place = -1;
    if (!*part) return (long)strlen(text);
    for (const char *at = text; (at = strstr(at, part)); at++) place = (long)(at - text);
    return place;
}

/* The choice whose mark (format, of its letter) stands last, or -1. */
static int last_marked(const char *text, const char *format, int choices) {
    long best = -1;
    int found = -1;
    for (int c = 0; c < choices; c++) {
        char mark[8];
        snprintf(mark, sizeof mark, format, 'A' + c);
        long place = last_place(text, mark);
        if (place > best) {
            best = place;
            found = c;
        }
    }
    return found;
}

/* The choice whose text stands last in a lower-case answer. */
static cvq_status last_quoted(const char *text, const cvq_answer_key *key, int *found,
                              cvq_error *err) {
    long best = -1;
    for (size_t c = 0; c < key->num_choices; c++) {
        char *choice = strdup(key->choices[c]);
        if (!choice) return cvq_fail(err, CVQ_OUT_OF_MEMORY, "an answer", "no memory");
        cvq_text_lower(choice);
        long place = last_place(text, choice);
        if (place > best) {
            best = place;
            *found = (int)c;
        }
        free(choice);
    }
    return CVQ_OK;
}

static size_t count_words(const char *text) {
    size_t n = 0;
    for (size_t word; (word = cvq_text_word(&text)) > 0; text += word) n++;
    return n;
}

/* Takes the signs off both ends, one kind after the other, as MMMU does: "B.," ends as "B". */
static void strip_each(char *text, const char *signs) {
    for (; *signs; signs++) {
        size_t first = 0, n = strlen(text);
        while (n > 0 && text[n - 1] == *signs) n--;
        while (first < n && text[first] == *signs) first++;
        memmove(text, text + first, n - first);
        text[n - first] = '\0';
    }
}

/* Whether a right answer is this choice's letter or, where it is no letter, this choice's text. */
static bool answers_choice(const cvq_answer_key *key, int choice) {
    for (size_t i = 0; choice >= 0 && i < key->num_answers; i++) {
        const char *answer = key->answers[i];
        if (is_letter_answer(answer)) {
            if (answer[0] - 'A' == choice) return true;
        } else if ((size_t)choice < key->num_choices && strcmp(answer, key->choices[choice]) == 0) {
            return true;
        }
    }
    return false;
}

/* parse_multi_choice_response of mmmu/utils/eval_utils.py in MMMU-Benchmark/MMMU (arXiv
 * 2311.16502): the last "(B)"; else the last " B "; else, in an answer of more than five words, the
 * choice whose text stands last. Where it would then guess at random, the answer is wrong here. */
static cvq_status mmmu_letter(const char *answer, const cvq_answer_key *key, int *choice,
                              cvq_error *err) {
    char *stripped = NULL;
    void *padded = NULL;
    int n = count_choices(key);
    *choice = -1;
    cvq_status status = cvq_text_trimmed(&stripped, answer, err);
    if (status == CVQ_OK) status = cvq_alloc(&padded, (uint64_t)strlen(stripped) + 3, 1, "", err);
    if (status == CVQ_OK) {
        char *text = padded;
        strip_each(stripped, ",.!?;:'");
        sprintf(text, " %s ", stripped);
        *choice = last_marked(text, "(%c)", n);
        if (*choice < 0) *choice = last_marked(text, " %c ", n);
        if (*choice < 0 && count_words(text) > 5) {
            cvq_text_lower(text);
            status = last_quoted(text, key, choice, err);
        }
    }
    free(padded);
    free(stripped);
    return status;
}

/* ---------------------------------------------------------------- open answers */

int cvq_mmmu_number(const char *text, double *out) {
    char copy[256], rounded[512];
    const size_t length = strlen(text);
    if (length >= sizeof copy) return 0;
    memcpy(copy, text, length + 1);
    cvq_text_replace(copy, ',', '\0');
    if (!cvq_text_to_number(copy, out)) return 0;
    snprintf(rounded, sizeof rounded, "%.2f", *out);
    *out = strtod(rounded, NULL);
    return 1;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static size_t digits(const char *at) {
    size_t n = 0;
    while (is_digit(at[n])) n++;
    return n;
}

static bool word_at(const char *at) {
    return cvq_text_is_word(cvq_text_next(&at));
}

static bool word_before(const char *text, const char *at) {
    if (at == text) return false;
    do at--;
    while (at > text && (*at & 0xc0) == 0x80);
    return word_at(at);
}

/* [eE][+-]?\d+ : its length, or 0. */
static size_t exponent(const char *at) {
    if (*at != 'e' && *at != 'E') return 0;
    size_t sign = at[1] == '+' || at[1] == '-', n = digits(at + 1 + sign);
    return n ? 1 + sign + n : 0;
}

/* MMMU's three patterns; each gives the length of what matches at `at`, or 0. */

/* -?\b\d{1,3}(?:,\d{3})+\b */
static size_t match_commas(const char *text, const char *at) {
    const char *p = at + (*at == '-');
    if (p == at && word_before(text, at)) return 0;
    size_t n = digits(p), whole = 0;
    if (n < 1 || n > 3) return 0;
    for (p += n; *p == ',' && digits(p + 1) >= 3;) {
        p += 4;
        if (!word_at(p)) whole = (size_t)(p - at);
    }
    return whole;
}

/* -?\d+(?:\.\d+)?[eE][+-]?\d+ */
static size_t match_scientific(const char *text, const char *at) {
    (void)text;
    const char *p = at + (*at == '-');
    size_t n = digits(p);
    if (n == 0) return 0;
    p += n;
    if (*p == '.' && digits(p + 1)) p += 1 + digits(p + 1);
    n = exponent(p);
    return n ? (size_t)(p + n - at) : 0;
}

/* -?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d]) */
static size_t match_simple(const char *text, const char *at) {
    (void)text;
    const char *whole = at + (*at == '-');
    size_t n = digits(whole);
    const char *point = whole + n;
    if (*point == '.' && digits(point + 1)) {
        const char *end = point + 1 + digits(point + 1);
        if (!exponent(end) && *end != ',') return (size_t)(end - at);
    }
    return n > 0 && !word_at(point) && *point != ',' ? (size_t)(point - at) : 0;
}

/* Whether a number that one of the patterns finds in the text is one of the right ones. */
static bool number_found(const char *text, const double *right, size_t num_right) {
    static size_t (*const patterns[])(const char *, const char *) = {match_commas, match_scientific,
                                                                     match_simple};
    for (size_t p = 0; p < 3; p++) {
        for (const char *at = text; *at;) {
            size_t n = patterns[p](text, at);
            char copy[256];
            double number;
            if (n > 0 && n < sizeof copy) {
                memcpy(copy, at, n);
                copy[n] = '\0';
                for (size_t i = 0; cvq_mmmu_number(copy, &number) && i < num_right; i++)
                    if (right[i] == number) return true;
            }
            at += n ? n : 1;
        }
    }
    return false;
}

/* A right text in MMMU's normal form: in small letters; one of a single letter only beside a space.
 */
static bool text_found(const char *text, const char *right) {
    char beside[2][8];
    if (cvq_text_length(right) != 1) return strstr(text, right) != NULL;
    snprintf(beside[0], sizeof beside[0], " %s", right);
    snprintf(beside[1], sizeof beside[1], "%s ", right);
    return strstr(text, beside[0]) || strstr(text, beside[1]);
}

typedef struct open_key {
    double *numbers;
    char **texts;
    size_t num_numbers, num_texts;
} open_key;

static cvq_status read_key(open_key *k, const cvq_answer_key *key, cvq_error *err) {
    void *p;
    CVQ_TRY(cvq_alloc(&p, key->num_answers, sizeof(double), "the answers", err));
    k->numbers = p;
    CVQ_TRY(cvq_alloc(&p, key->num_answers, sizeof(char *), "the answers", err));
    k->texts = p;
    for (size_t i = 0; i < key->num_answers; i++) {
        double number;
        char *text;
        if (cvq_mmmu_number(key->answers[i], &number)) {
            k->numbers[k->num_numbers++] = number;
            continue;
        }
        CVQ_TRY(cvq_text_trimmed(&text, key->answers[i], err));
        cvq_text_lower(text);
        k->texts[k->num_texts++] = text;
    }
    return CVQ_OK;
}

static void free_key(open_key *k) {
    for (size_t i = 0; i < k->num_texts; i++) free(k->texts[i]);
    free(k->texts);
    free(k->numbers);
}

/* One of the response's parts, itself a number or not, holds a right answer. A single letter gets
 * its spaces on this side too. */
static bool part_matches(const char *part, const open_key *k) {
    double number;
    bool right = false;
    if (cvq_mmmu_number(part, &number)) {
        for (size_t i = 0; i < k->num_numbers; i++) right |= k->numbers[i] == number;
    } else if (cvq_text_length(part) == 1) {
        for (size_t i = 0; i < k->num_texts; i++) right |= strcmp(k->texts[i], part) == 0;
    } else {
        for (size_t i = 0; i < k->num_texts; i++) right |= text_found(part, k->texts[i]);
    }
    return right || number_found(part, k->numbers, k->num_numbers);
}

/* What stands behind the last of these words, the shortest of all; NULL where none is there or only
 * a sign is left. Cuts the line. */
static char *key_part(char *line, bool last) {
    static const char *const indicators[] = {
        "could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "="};
    char *shortest = NULL;
    size_t length = 0;
    for (size_t i = 0; i < sizeof indicators / sizeof *indicators - !last; i++) {
        long place = last_place(line, indicators[i]);
        if (place < 0) continue;
        char *part = line + place + strlen(indicators[i]);
        part += cvq_leading_space(part, strlen(part));
        size_t n = strlen(part);
        n -= cvq_trailing_space(part, n);
        if (length == 0 || n < length) {
            shortest = part;
            length = n;
        }
    }
    if (length == 0 || (length == 1 && strchr(":,.!?;'", *shortest))) return NULL;
    shortest[length] = '\0';
    return shortest;
}

/* parse_open_response and eval_open of the same file: the parts behind words such as "answer" and
 * "is", a line each, or else the whole response; a right text within one of them, or a right number
 * among theirs. */
static cvq_status score_open(const char *answer, const cvq_answer_key *key, double *score,
                             cvq_error *err) {
    open_key k = {0};
    char *text = NULL, *lines = NULL;
    bool right = false, any = false;
    cvq_status status = read_key(&k, key, err);
    if (status == CVQ_OK) status = cvq_text_trimmed(&text, answer, err);
    if (status != CVQ_OK) goto done;
    strip_each(text, ".");
    cvq_text_lower(text);
    lines = strdup(text);
    if (!lines) {
        status = cvq_fail(err, CVQ_OUT_OF_MEMORY, "an answer", "no memory");
        goto done;
    }
    for (char *line = lines, *next; line; line = next) {
        char *newline = strchr(line, '\n');
        next = newline ? newline + 1 : NULL;
        if (newline) *newline = '\0';
        char *part = key_part(line, !next);
        if (!part) continue;
        any = true;
        right |= part_matches(part, &k);
    }
    if (!any) {
        size_t end = strlen(text), space = cvq_leading_space(text, end);
        text[end - cvq_trailing_space(text + space, end - space)] = '\0';
        right = part_matches(text + space, &k);
    }
    if (right) *score = 1;
done:
    free_key(&k);
    free(text);
    free(lines);
    return status;
}

cvq_status cvq_score_mmmu(const char *answer, const cvq_answer_key *key, double *score,
                          cvq_error *err) {
    int choice;
    if (!has_choices(key)) return score_open(answer, key, score, err);
    CVQ_TRY(mmmu_letter(answer, key, &choice, err));
    if (answers_choice(key, choice)) *score = 1;
    return CVQ_OK;
}

/* ---------------------------------------------------------------- letters, strictly */

/* Beside a letter of a choice none of these stands: "USB-A", "I'm", "B2". */
static bool joins(uint32_t c) {
    return cvq_text_is_word(c) || c == '\'' || c == '-' || c == 0x2019;
}

/* "A red ball" begins with an article. */
static bool is_article(const char *at) {
    return at[0] == 'A' && at[1] == ' ' && islower((unsigned char)at[2]);
}

/* The first capital letter of a choice that stands alone, or -1. */
static int first_alone(const char *text, int choices) {
    uint32_t before = ' ';
    for (const char *at = text, *next; *at; at = next) {
        next = at;
        uint32_t c = cvq_text_next(&next);
        const char *peek = next;
        if (c >= 'A' && c < 'A' + (uint32_t)choices && !joins(before) &&
            !joins(cvq_text_next(&peek)) && !is_article(at))
            return (int)(c - 'A');
        before = c;
    }
    return -1;
}

/* The first "(B)", or -1. */
static int first_bracketed(const char *text, int choices) {
    for (const char *at = text; (at = strchr(at, '(')); at++)
        if (at[1] >= 'A' && at[1] < 'A' + choices && at[2] == ')') return at[1] - 'A';
    return -1;
}

static int capital_letter(const char *text, int choices) {
    int choice = first_bracketed(text, choices);
    return choice >= 0 ? choice : first_alone(text, choices);
}

/* The whole answer, in small letters and without signs around it, is a letter or a choice's text.
 */
static cvq_status whole_choice(char *text, const cvq_answer_key *key, int choices, int *choice,
                               cvq_error *err) {
    cvq_text_lower(text);
    strip_each(text, ".,:;!?()[]\"'");
    if (text[0] >= 'a' && text[0] < 'a' + choices && text[1] == '\0') *choice = text[0] - 'a';
    for (size_t i = 0; *choice < 0 && i < key->num_choices; i++) {
        char *other;
        CVQ_TRY(cvq_text_trimmed(&other, key->choices[i], err));
        cvq_text_lower(other);
        strip_each(other, ".,:;!?()[]\"'");
        if (strcmp(text, other) == 0) *choice = (int)i;
        free(other);
    }
    return CVQ_OK;
}

/* Our own rule for questions whose answer is a letter. In this order: what stands behind the last
 * "answer is" or "answer:", then the whole answer is searched for the first letter in brackets,
 * "(B)", else the first capital letter that stands alone and is not an article; else the whole
 * answer is one small letter, or the text of a choice. Anything else is wrong. */
cvq_status cvq_score_choice(const char *answer, const cvq_answer_key *key, double *score,
                            cvq_error *err) {
    static const char *const leads[] = {"answer is", "answer:"};
    char *text, *lower = NULL;
    int n = count_choices(key), choice = -1;
    CVQ_TRY(cvq_text_trimmed(&text, answer, err));
    cvq_status status = cvq_text_trimmed(&lower, answer, err);
    if (status == CVQ_OK) {
        cvq_text_lower(lower); /* the same length, so that places agree */
        for (size_t i = 0; choice < 0 && i < 2; i++) {
            long place = last_place(lower, leads[i]);
            if (place >= 0) choice = capital_letter(text + place + strlen(leads[i]), n);
        }
        if (choice < 0) choice = capital_letter(text, n);
        if (choice < 0) status = whole_choice(text, key, n, &choice, err);
    }
    if (status == CVQ_OK && answers_choice(key, choice)) *score = 1;
    free(text);
    free(lower);
    return status;
}
