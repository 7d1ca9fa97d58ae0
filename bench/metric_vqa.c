/* VQA accuracy: Antol and others, "VQA" (arXiv 1505.00468), with the normalisation of the official
 * code, PythonEvaluationTools/vqaEvaluation/vqaEval.py in GT-Vision-Lab/VQA, and
 * visualqa.org/evaluation.html. One difference: that code leaves all texts as they are where all
 * annotators agree, which the published rule does not say; here every text is normalised. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bench/answer_text.h"
#include "bench/metrics_internal.h"

typedef struct word_pair {
    const char *from, *to;
} word_pair;

static const word_pair numbers[] = {
    {"none", "0"}, {"zero", "0"}, {"one", "1"},   {"two", "2"},   {"three", "3"}, {"four", "4"},
    {"five", "5"}, {"six", "6"},  {"seven", "7"}, {"eight", "8"}, {"nine", "9"},  {"ten", "10"},
};

/* Words without an apostrophe that they should have: the official list without the entries that can
 * change nothing. That "somebody'd" loses its apostrophe is the list's own slip. */
static const word_pair contractions[] = {
    {"aint", "ain't"},
    {"arent", "aren't"},
    {"cant", "can't"},
    {"couldve", "could've"},
    {"couldnt", "couldn't"},
    {"couldn'tve", "couldn't've"},
    {"couldnt've", "couldn't've"},
    {"didnt", "didn't"},
    {"doesnt", "doesn't"},
    {"dont", "don't"},
    {"hadnt", "hadn't"},
    {"hadnt've", "hadn't've"},
    {"hadn'tve", "hadn't've"},
    {"hasnt", "hasn't"},
    {"havent", "haven't"},
    {"hed", "he'd"},
    {"hed've", "he'd've"},
    {"he'dve", "he'd've"},
    {"hes", "he's"},
    {"howd", "how'd"},
    {"howll", "how'll"},
    {"hows", "how's"},
    {"isnt", "isn't"},
    {"itd", "it'd"},
    {"itd've", "it'd've"},
    {"it'dve", "it'd've"},
    {"itll", "it'll"},
    {"maam", "ma'am"},
    {"mightnt", "mightn't"},
    {"mightnt've", "mightn't've"},
    {"mightn'tve", "mightn't've"},
    {"mightve", "might've"},
    {"mustnt", "mustn't"},
    {"mustve", "must've"},
    {"neednt", "needn't"},
    {"notve", "not've"},
    {"oclock", "o'clock"},
    {"oughtnt", "oughtn't"},
    {"ow's'at", "'ow's'at"},
    {"'ows'at", "'ow's'at"},
    {"'ow'sat", "'ow's'at"},
    {"shant", "shan't"},
    {"shed've", "she'd've"},
    {"she'dve", "she'd've"},
    {"shouldve", "should've"},
    {"shouldnt", "shouldn't"},
    {"shouldnt've", "shouldn't've"},
    {"shouldn'tve", "shouldn't've"},
    {"somebody'd", "somebodyd"},
    {"somebodyd've", "somebody'd've"},
    {"somebody'dve", "somebody'd've"},
    {"somebodyll", "somebody'll"},
    {"somebodys", "somebody's"},
    {"someoned", "someone'd"},
    {"someoned've", "someone'd've"},
    {"someone'dve", "someone'd've"},
    {"someonell", "someone'll"},
    {"someones", "someone's"},
    {"somethingd", "something'd"},
    {"somethingd've", "something'd've"},
    {"something'dve", "something'd've"},
    {"somethingll", "something'll"},
    {"thats", "that's"},
    {"thered", "there'd"},
    {"thered've", "there'd've"},
    {"there'dve", "there'd've"},
    {"therere", "there're"},
    {"theres", "there's"},
    {"theyd", "they'd"},
    {"theyd've", "they'd've"},
    {"they'dve", "they'd've"},
    {"theyll", "they'll"},
    {"theyre", "they're"},
    {"theyve", "they've"},
    {"twas", "'twas"},
    {"wasnt", "wasn't"},
    {"wed've", "we'd've"},
    {"we'dve", "we'd've"},
    {"weve", "we've"},
    {"werent", "weren't"},
    {"whatll", "what'll"},
    {"whatre", "what're"},
    {"whats", "what's"},
    {"whatve", "what've"},
    {"whens", "when's"},
    {"whered", "where'd"},
    {"wheres", "where's"},
    {"whereve", "where've"},
    {"whod", "who'd"},
    {"whod've", "who'd've"},
    {"who'dve", "who'd've"},
    {"wholl", "who'll"},
    {"whos", "who's"},
    {"whove", "who've"},
    {"whyll", "why'll"},
    {"whyre", "why're"},
    {"whys", "why's"},
    {"wont", "won't"},
    {"wouldve", "would've"},
    {"wouldnt", "wouldn't"},
    {"wouldnt've", "wouldn't've"},
    {"wouldn'tve", "wouldn't've"},
    {"yall", "y'all"},
    {"yall'll", "y'all'll"},
    {"y'allll", "y'all'll"},
    {"yall'd've", "y'all'd've"},
    {"y'alld've", "y'all'd've"},
    {"y'all'dve", "y'all'd've"},
    {"youd", "you'd"},
    {"youd've", "you'd've"},
    {"you'dve", "you'd've"},
    {"youll", "you'll"},
    {"youre", "you're"},
    {"youve", "you've"},
};

static const char *look_up(const word_pair *table, size_t n, const char *word) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].from, word) == 0) return table[i].to;
    return word;
}
#define LOOK_UP(table, word) look_up(table, sizeof(table) / sizeof *(table), word)

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* A comma between digits: then no punctuation leaves a space behind, "1,000-2" being "10002". */
static bool has_digit_comma(const char *text) {
    for (const char *comma = strchr(text, ','); comma; comma = strchr(comma + 1, ','))
        if (comma > text && is_digit(comma[-1]) && is_digit(comma[1])) return true;
    return false;
}

/* A sign that stands beside a space anywhere in the text is taken out, another becomes a space.
 * Apostrophes and colons stay. */
static void strip_punctuation(char *text, const char *before) {
    static const char signs[] = ";/[]\"{}()=+\\_-><@`,?!";
    bool joined = has_digit_comma(before);
    for (const char *p = signs; *p; p++) {
        char behind[] = {*p, ' ', '\0'}, front[] = {' ', *p, '\0'};
        bool gone = joined || strstr(before, behind) || strstr(before, front);
        cvq_text_replace(text, *p, gone ? '\0' : ' ');
    }
}

/* A point that no digit follows is taken out; the first 32, to which the official code comes by
 * giving a flag in the place of a count. */
static void strip_periods(char *text) {
    char *to = text;
    int most = 32;
    for (; *text; text++) {
        if (*text == '.' && !is_digit(text[1]) && most-- > 0) continue;
        *to++ = *text;
    }
    *to = '\0';
}

/* Number words become digits, articles go, contractions get their apostrophe. No replacement is
 * more than a byte longer than its word, and out holds 3 times the text. */
static void rewrite_words(char *out, char *text) {
    char *to = out;
    const char *at = text;
    for (size_t n; (n = cvq_text_word(&at)) > 0; at += n) {
        char *word = text + (at - text), after = word[n];
        word[n] = '\0';
        const char *put = LOOK_UP(numbers, word);
        if (strcmp(put, "a") != 0 && strcmp(put, "an") != 0 && strcmp(put, "the") != 0) {
            put = LOOK_UP(contractions, put);
            if (to != out) *to++ = ' ';
            memcpy(to, put, strlen(put));
            to += strlen(put);
        }
        word[n] = after;
    }
    *to = '\0';
}

static cvq_status normalize(char **out, const char *text, cvq_error *err) {
    char *before = NULL, *copy = NULL;
    void *result = NULL;
    cvq_status status = cvq_text_trimmed(&before, text, err);
    if (status == CVQ_OK) {
        cvq_text_replace(before, '\n', ' ');
        cvq_text_replace(before, '\t', ' ');
        status = cvq_text_trimmed(&copy, before, err);
    }
    if (status == CVQ_OK)
        status = cvq_alloc(&result, 3 * (uint64_t)strlen(copy) + 1, 1, "an answer", err);
    if (status == CVQ_OK) {
        strip_punctuation(copy, before);
        strip_periods(copy);
        cvq_text_lower(copy);
        rewrite_words(result, copy);
        *out = result;
    }
    free(before);
    free(copy);
    return status;
}

static double at_most_one(double x) {
    return x < 1 ? x : 1;
}

/* An answer that 3 of the annotators gave is right, in the mean over all sets with one annotator
 * left out: with m of n the same, (m min((m - 1) / 3, 1) + (n - m) min(m / 3, 1)) / n. Fewer than
 * ten answers stand for ten, each for 10 / n annotators, as OK-VQA takes each of its five twice;
 * a single answer is then right or wrong. */
cvq_status cvq_score_vqa(const char *answer, const cvq_answer_key *key, double *score,
                         cvq_error *err) {
    char *given = NULL, *right = NULL;
    double n = (double)key->num_answers, m = 0;
    cvq_status status = normalize(&given, answer, err);
    for (size_t i = 0; status == CVQ_OK && i < key->num_answers; i++) {
        status = normalize(&right, key->answers[i], err);
        if (status == CVQ_OK && strcmp(given, right) == 0) m++;
        free(right);
        right = NULL;
    }
    free(given);
    if (n < 10) {
        m *= 10 / n;
        n = 10;
    }
    if (m > 0) *score = (m * at_most_one((m - 1) / 3) + (n - m) * at_most_one(m / 3)) / n;
    return status;
}
