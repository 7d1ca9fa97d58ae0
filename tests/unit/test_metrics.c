/* The metrics against answers worked by hand from the published rules, and the statistics. */
#include "bench/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "bench/answer_text.h"
#include "bench/statistics.h"
#include "tests/unit/harness.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

typedef struct metric_case {
    const char *answer;
    const char *right[11]; /* up to NULL */
    double score;
} metric_case;

static double score(cvq_metric metric, const char *answer, const char *const *right,
                    const char *const *choices, const char *dataset) {
    cvq_answer_key key = {.answers = right, .choices = choices, .dataset = dataset};
    double s = -1;
    cvq_error err = {0};
    while (right[key.num_answers]) key.num_answers++;
    while (choices && choices[key.num_choices]) key.num_choices++;
    CHECK_SAY(cvq_metric_score(metric, answer, &key, &s, &err) == CVQ_OK, "%s", err.message);
    return s;
}

static void check_all(cvq_metric metric, const metric_case *cases, size_t n,
                      const char *const *choices, const char *dataset) {
    for (size_t i = 0; i < n; i++) {
        double s = score(metric, cases[i].answer, cases[i].right, choices, dataset);
        CHECK_SAY(fabs(s - cases[i].score) < 1e-12, "%s %zu: '%s' for '%s': %.6f, not %.6f",
                  cvq_metric_names[metric], i, cases[i].answer, cases[i].right[0], s,
                  cases[i].score);
    }
}

/* ---------------------------------------------------------------- exact */

static void exact(void) {
    static const metric_case cases[] = {
        {"13", {"13"}, 1},
        {"13", {"31"}, 0},
        {" 13", {"13"}, 1},
        {"13\n", {"13"}, 1},
        {"\t13 \r\n", {" 13 "}, 1},
        {"Red", {"red"}, 0},
        {"red", {"red"}, 1},
        {"red.", {"red"}, 0},
        {"red", {"blue", "red"}, 1},
        {"red", {"blue", "green"}, 0},
        {"", {""}, 1},
        {"", {"x"}, 0},
        {"x", {""}, 0},
        {"  ", {""}, 1},
        {"two words", {"two words"}, 1},
        {"two  words", {"two words"}, 0},
        {"two\twords", {"two words"}, 0},
        {"007", {"7"}, 0},
        {"1,000", {"1000"}, 0},
        {"5.0", {"5"}, 0},
        {"caf\xc3\xa9", {"caf\xc3\xa9"}, 1},
        {"cafe", {"caf\xc3\xa9"}, 0},
        {"cafe\xcc\x81", {"caf\xc3\xa9"}, 0}, /* other bytes for the same sight */
        {"\xe3\x80\x80red\xc2\xa0", {"red"}, 1},
        {"\xe2\x80\x8bred", {"red"}, 0}, /* a zero-width space is none */
        {"a red ball", {"red"}, 0},
        {"-5", {"5", "+5", "-5"}, 1},
    };
    check_all(CVQ_METRIC_EXACT, cases, COUNT(cases), NULL, NULL);
}

/* ---------------------------------------------------------------- vqa */

#define TWO(a) a, a
#define THREE(a) a, a, a
#define FOUR(a) a, a, a, a
#define NINE(a) THREE(a), THREE(a), THREE(a)

/* With m of ten annotators: 0, 0.3, 0.6, 0.9, 1. */
static void vqa_counts(void) {
    static const metric_case cases[] = {
        {"cat", {NINE("dog"), "fox"}, 0},
        {"cat", {NINE("dog"), "cat"}, 0.3},                           /* 1 x 0 + 9 x 1/3 */
        {"cat", {THREE("dog"), FOUR("fox"), "cow", TWO("cat")}, 0.6}, /* 2 x 1/3 + 8 x 2/3 */
        {"cat", {THREE("dog"), FOUR("fox"), THREE("cat")}, 0.9},      /* 3 x 2/3 + 7 x 1 */
        {"cat", {THREE("dog"), THREE("fox"), FOUR("cat")}, 1},
        {"cat", {NINE("cat"), "dog"}, 1},
        {"cat", {NINE("cat"), "cat"}, 1},
        /* fewer stand for ten: five count twice each */
        {"cat", {"cat"}, 1},
        {"dog", {"cat"}, 0},
        {"cat", {"cat", "dog"}, 1},
        {"cat", {"cat", FOUR("dog")}, 0.6},
        {"cat", {TWO("cat"), THREE("dog")}, 1},
        {"cat", {"cat", TWO("dog")}, (10. / 3 * (7. / 9) + 20. / 3) / 10},
        {"fox", {"cat", FOUR("dog")}, 0},
    };
    check_all(CVQ_METRIC_VQA, cases, COUNT(cases), NULL, NULL);
}

static void vqa_normalization(void) {
    static const metric_case cases[] = {
        /* case, articles, white space */
        {"The Cat", {"cat"}, 1},
        {"an apple and a pear", {"apple and pear"}, 1},
        {"a", {"the"}, 1}, /* nothing is left of both */
        {" two\nwords\there ", {"2 words here"}, 1},
        {"then", {"n"}, 0},
        /* number words; "none" is one */
        {"two", {"2"}, 1},
        {"Ten dogs", {"10 dogs"}, 1},
        {"none", {"0"}, 1},
        {"zero", {"none"}, 1},
        {"eleven", {"11"}, 0},
        {"twenty one", {"20 1"}, 0},
        /* points: only where no digit follows */
        {"yes.", {"yes"}, 1},
        {"3.5", {"35"}, 0},
        {"3.5.", {"3.5"}, 1},
        {".5", {".5"}, 1},
        {"u.s.a.", {"usa"}, 1},
        {"mr. smith", {"mr smith"}, 1},
        /* contractions */
        {"dont know", {"don't know"}, 1},
        {"Isnt", {"isn't"}, 1},
        {"whats up", {"what's up"}, 1},
        {"well", {"we'll"}, 0}, /* "well" is not in the list */
        {"girls", {"girl's"}, 0},
        {"im", {"i'm"}, 0}, /* the list has it with a capital, which nothing can meet */
        /* signs: a space, or nothing where one stands beside a space or a digit comma is there */
        {"black/white", {"black white"}, 1},
        {"black / white", {"black white"}, 1},
        {"yes, it is", {"yes it is"}, 1},
        {"t-shirt", {"t shirt"}, 1},
        {"t-shirt", {"tshirt"}, 0},
        {"t-shirt -", {"tshirt"}, 1},
        {"100,978", {"100978"}, 1},
        {"1,000-2", {"10002"}, 1},
        {"red,blue", {"red blue"}, 1},
        {"2:50 pm", {"2:50 pm"}, 1},
        {"2:50", {"2 50"}, 0},     /* colons stay */
        {"girl's", {"girl s"}, 0}, /* and apostrophes */
        {"(left)", {"left"}, 1},
        {"\"stop\"", {"stop"}, 1},
        {"what?!", {"what"}, 1},
        {"$5", {"5"}, 0}, /* no sign of the list */
        {"5%", {"5"}, 0},
    };
    check_all(CVQ_METRIC_VQA, cases, COUNT(cases), NULL, NULL);
}

/* ---------------------------------------------------------------- anls */

static void anls(void) {
    static const metric_case cases[] = {
        {"kitten", {"kitten"}, 1},
        {"kitten", {"sitten"}, 1 - 1. / 6},
        {"kitten", {"sitting"}, 1 - 3. / 7},
        {"kitten", {"mitosis"}, 0},
        {"Kitten", {"kITTEN"}, 1},
        {"12/15/89", {"12/15/88"}, 1 - 1. / 8},
        {"ab", {"ac"}, 0.5}, /* just reaches the threshold */
        {"abc", {"axx"}, 0},
        {"abcd", {"abxy"}, 0.5},
        {"abcde", {"abxyz"}, 0},
        {"", {""}, 1},
        {"", {"a"}, 0},
        {"a", {""}, 0},
        {"a", {"a", "b"}, 1},
        {"colour", {"flavour", "color"}, 1 - 1. / 6},
        {"Denver", {"Denver Broncos", "Broncos"}, 0},
        {"Denver Broncos", {"Denver R. Broncos"}, 1 - 3. / 17},
        {"  a  b  ", {"a b"}, 1},       /* spaces do not count in the distance */
        {"a   x", {"a y"}, 1 - 1. / 5}, /* but in the length */
        {"a\nb", {"a b"}, 1},
        {"dear dr. lobo", {"Dear Dr. Lobo", "Dr. Lobo"}, 1},
        {"1,000", {"1000"}, 1 - 1. / 5},
        {"caf\xc3\xa9", {"cafe"}, 1 - 1. / 4}, /* a character, not two bytes */
        {"\xc3\x89T\xc3\x89", {"\xc3\xa9t\xc3\xa9"}, 1},
        {"\xe6\x97\xa5\xe6\x9c\xac", {"\xe6\x97\xa5"}, 0.5},
        {"ca", {"abc"}, 0}, /* 3 of 3: an exchange is two edits */
        {"abcdefghij", {"jihgfedcba"}, 0},
        {"the total is 12", {"12"}, 0},
        {"invoice", {"invoices"}, 1 - 1. / 8},
        {"invoices", {"invoice"}, 1 - 1. / 8},
    };
    check_all(CVQ_METRIC_ANLS, cases, COUNT(cases), NULL, NULL);
}

/* ---------------------------------------------------------------- relaxed */

static void relaxed(void) {
    static const metric_case cases[] = {
        {"100", {"100"}, 1},
        {"105", {"100"}, 1}, /* 5% is within */
        {"95", {"100"}, 1},
        {"105.1", {"100"}, 0},
        {"94.9", {"100"}, 0},
        {"100", {"105"}, 1}, /* relative to the right one: 4.8% */
        {"-100", {"100"}, 0},
        {"-98", {"-100"}, 1},
        {"50%", {"0.5"}, 1},
        {"0.5", {"50%"}, 1},
        {"52%", {"50%"}, 1},
        {"53%", {"50%"}, 0},
        {"50", {"50%"}, 0},
        {"50 %", {"0.5"}, 1},
        {"0", {"0"}, 1}, /* compared as text */
        {"0.0", {"0"}, 0},
        {"0.01", {"0"}, 0},
        {"1e2", {"100"}, 1},
        {" 101 ", {"100"}, 1},
        {"1,000", {"1000"}, 0}, /* float() reads no commas */
        {"1_000", {"1000"}, 1}, /* but underscores */
        {"Yes", {"yes"}, 1},
        {"yes", {"no"}, 0},
        {"red", {"Red", "blue"}, 1},
        {"2014", {"2010"}, 1}, /* a year is a number */
        {"2014 ", {"abc", "2015"}, 1},
        {"ten", {"10"}, 0},
        {"$100", {"100"}, 0},
        {"$100", {"$100"}, 1},
        {"", {""}, 1},
        {"%", {"%"}, 1},
        {"5%%", {"0.05"}, 1},
        {"inf", {"100"}, 0},
        {"nan", {"100"}, 0},
        {"0x64", {"100"}, 0},
        {"\xc3\x84"
         "rzte",
         {"\xc3\xa4rzte"},
         1},
    };
    check_all(CVQ_METRIC_RELAXED, cases, COUNT(cases), NULL, NULL);
}

/* ---------------------------------------------------------------- ocrbench */

static void ocrbench(void) {
    static const metric_case cases[] = {
        {"CENTRE", {"centre"}, 1},
        {"The word is CENTRE.", {"centre"}, 1},
        {"cent re", {"centre"}, 0},
        {"centr", {"centre"}, 0},
        {"centres", {"centre"}, 1},
        {"centre", {" centre\n"}, 1},
        {"a\nb", {"a b"}, 1},
        {"a b", {"a\nb"}, 1},
        {"a  b", {"a b"}, 0},
        {"a\tb", {"a b"}, 0},
        {"x", {"y", "x"}, 1},
        {"x", {"y", "z"}, 0},
        {"Total: $12.50", {"$12.50"}, 1},
        {"Total: $12,50", {"$12.50"}, 0},
        {"12", {"123"}, 0},
        {"1234", {"123"}, 1},
        {"", {"a"}, 0},
        {"   ", {"a"}, 0},
        {"\xe4\xb8\xad\xe6\x96\x87\xe5\xad\x97", {"\xe6\x96\x87"}, 1},
        {"\xc3\x80 LA", {"\xc3\xa0 la"}, 1},
        {"STOP!", {"stop"}, 1},
        {"stop", {"stop!"}, 0},
        {"S.T.O.P", {"stop"}, 0},
        {"two lines\nof text", {"lines of"}, 1},
        {"x+y", {"x + y"}, 0}, /* spaces count but for formulas */
        {"ab", {"B"}, 1},
    };
    static const metric_case formulas[] = {
        {"x+y", {"x + y"}, 1},
        {"x + y", {"x+y"}, 1},
        {"X + y", {"x + y"}, 0}, /* case counts */
        {"so \\frac { a } { b } it is", {"\\frac{a}{b}"}, 1},
        {"a\nb", {"a b"}, 1},
        {"a\tb", {"a b"}, 0},
    };
    check_all(CVQ_METRIC_OCRBENCH, cases, COUNT(cases), NULL, "IIIT5K");
    check_all(CVQ_METRIC_OCRBENCH, cases, COUNT(cases), NULL, NULL);
    check_all(CVQ_METRIC_OCRBENCH, formulas, COUNT(formulas), NULL, "HME100k");
}

/* ---------------------------------------------------------------- mmmu */

static const char *const four[] = {"red ball", "blue ball", "green", "$5", NULL};

static void mmmu_letters(void) {
    static const metric_case cases[] = {
        {"B", {"B"}, 1},
        {"B", {"A"}, 0},
        {"B.", {"B"}, 1},
        {"(B)", {"B"}, 1},
        {"B) blue ball", {"B"}, 0}, /* neither "(B)" nor " B " */
        {"The answer is B", {"B"}, 1},
        {"The answer is B.", {"B"}, 1},
        {"The answer is (B).", {"B"}, 1},
        {"Answer: B", {"B"}, 1},
        {"Answer:B", {"B"}, 0},
        {"(A) or (B)", {"B"}, 1}, /* the last */
        {"(A) or (B)", {"A"}, 0},
        {"(C), not A or D", {"C"}, 1}, /* brackets before bare letters */
        {"A or B", {"B"}, 1},
        {"B.,", {"B"}, 1},
        {"B,.", {"B"}, 0}, /* commas are stripped first */
        {"b", {"B"}, 0},   /* fewer than five words: a guess, wrong here */
        {"it must be the BLUE ball then", {"B"}, 1},
        {"the blue ball", {"B"}, 0},                      /* three words are too few */
        {"not the red ball but the blue ball", {"B"}, 1}, /* the last */
        {"the price of that one is $5", {"D"}, 1},
        {"E", {"A"}, 0},                  /* no such choice */
        {"A ball that is red", {"A"}, 1}, /* an article counts as the letter */
        {"", {"A"}, 0},
        {"B", {"A", "B"}, 1},
        {"'B'", {"B"}, 1},
        {"B", {"blue ball"}, 1}, /* a task may give the text */
    };
    static const metric_case bare[] = {
        {"B", {"B"}, 1},
        {"E", {"E"}, 1}, /* choices reach as far as the answers */
        {"E", {"B"}, 0},
        {"(D)", {"D"}, 1},
    };
    check_all(CVQ_METRIC_MMMU, cases, COUNT(cases), four, NULL);
    check_all(CVQ_METRIC_MMMU, bare, COUNT(bare), NULL, NULL);
}

static void mmmu_open(void) {
    static const metric_case cases[] = {
        {"12", {"12"}, 1},
        {"12.0", {"12"}, 1},
        {"12.004", {"12"}, 1}, /* two decimals */
        {"12.01", {"12"}, 0},
        {"1,234", {"1234"}, 1},
        {"the answer is 1,234.", {"1234"}, 1},
        {"so x = 5", {"5"}, 1},
        {"so x = 5 apples", {"5"}, 1},
        {"about 5 or 6", {"6"}, 1},           /* any number of the response */
        {"It is 3.14, I think", {"3.14"}, 0}, /* a comma right behind: only 3 is read */
        {"It is 3.14 I think", {"3.14"}, 1},
        {"1.5e3", {"1500"}, 1},
        {"-7", {"-7"}, 1},
        {"it is -7 degrees", {"-7"}, 1},
        {"it is 7 degrees", {"-7"}, 0},
        {"Paris", {"paris"}, 1},
        {"The capital is Paris.", {"paris"}, 1},
        {"Paris is the capital", {"Paris"}, 0}, /* the part behind "is" counts */
        {"Paris", {"Par"}, 1},                  /* contained */
        {"Par", {"Paris"}, 0},
        {"x", {"x"}, 1},
        {"xy", {"x"}, 0}, /* a single letter only beside a space */
        {"it is x here", {"x"}, 1},
        {"Paris", {"London", "Paris"}, 1},
        {"first line\nthe final answer 42", {"42"}, 1},
        {"42 is wrong\nthe answer is 43", {"42"}, 0},
        {"the result :", {"12"}, 0},
        {"5abc", {"5"}, 0}, /* no end of a word behind the 5 */
        {"value 12,345,678 in all", {"12345678"}, 1},
        {"", {"12"}, 0},
        {".5", {"0.5"}, 0}, /* the response loses the point in front */
        {"a .5 share", {"0.5"}, 1},
    };
    check_all(CVQ_METRIC_MMMU, cases, COUNT(cases), NULL, NULL);
}

/* ---------------------------------------------------------------- choice */

static void choice(void) {
    static const metric_case cases[] = {
        {"B", {"B"}, 1},
        {"b", {"B"}, 1},
        {"b.", {"B"}, 1},
        {"(b)", {"B"}, 1},
        {"B.", {"B"}, 1},
        {"B)", {"B"}, 1},
        {"B) blue ball", {"B"}, 1},
        {"B: blue ball", {"B"}, 1},
        {"(B) blue ball", {"B"}, 1},
        {"**B**", {"B"}, 1},
        {"The answer is B.", {"B"}, 1},
        {"the answer is: (B)", {"B"}, 1},
        {"Answer: B", {"B"}, 1},
        {"A is wrong, so the answer is B", {"B"}, 1},
        {"A cat, so B", {"B"}, 1}, /* an article is no letter */
        {"A", {"A"}, 1},
        {"A.", {"A"}, 1},
        {"A cat", {"A"}, 0},
        {"A Cat", {"A"}, 1},
        {"B or C", {"B"}, 1},   /* the first */
        {"B or (C)", {"C"}, 1}, /* brackets first */
        {"USB-B port", {"B"}, 0},
        {"Blue ball.", {"B"}, 1}, /* a choice's text as the whole */
        {"a blue ball", {"B"}, 0},
        {"green", {"C"}, 1},
        {"E", {"A"}, 0},
        {"D's", {"D"}, 0},
        {"B2", {"B"}, 0},
        {"", {"A"}, 0},
        {"B", {"A", "B"}, 1},
        {"the red ball", {"A"}, 0},
        {"\xc3\x89"
         "B",
         {"B"},
         0}, /* a letter in front */
        {"$5", {"D"}, 1},
        {"C", {"green"}, 1}, /* a task may give the text */
    };
    check_all(CVQ_METRIC_CHOICE, cases, COUNT(cases), four, NULL);
}

/* ---------------------------------------------------------------- around them */

static void bad_keys(void) {
    const char *const none[] = {NULL};
    cvq_answer_key key = {.answers = none};
    double s = 7;
    for (int m = 0; m < CVQ_METRICS; m++)
        CHECK(cvq_metric_score((cvq_metric)m, "x", &key, &s, NULL) == CVQ_INVALID_ARGUMENT);
    key = (cvq_answer_key){.answers = four, .num_answers = 4, .choices = four, .num_choices = 27};
    CHECK(cvq_metric_score(CVQ_METRIC_CHOICE, "x", &key, &s, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(s == 7);
}

/* Any text must be safe, in every metric, as an answer and as a right one. */
static void odd_texts(void) {
    static const char *const odd[] = {"",
                                      " ",
                                      "\n\n",
                                      "...",
                                      "=",
                                      "is ",
                                      "so = .",
                                      "'''",
                                      "(",
                                      "(A",
                                      "-",
                                      "-.",
                                      "1e",
                                      "1,2,",
                                      ",",
                                      "%",
                                      "\xf0\x9f\x99\x82",
                                      "\xe2\x80\x99",
                                      "answer:",
                                      "the answer is",
                                      "\xcc\x81",
                                      "A B C D"};
    char longest[5001];
    memset(longest, '9', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    for (int m = 0; m < CVQ_METRICS; m++) {
        for (size_t i = 0; i <= COUNT(odd); i++) {
            for (size_t k = 0; k <= COUNT(odd); k++) {
                const char *right[] = {k < COUNT(odd) ? odd[k] : longest, NULL};
                double s = score((cvq_metric)m, i < COUNT(odd) ? odd[i] : longest, right,
                                 k & 1 ? four : NULL, NULL);
                CHECK(s >= 0 && s <= 1);
            }
        }
    }
}

static void lower_case(void) {
    static const char *const pairs[][2] = {
        {"ABCxyz09_", "abcxyz09_"},
        {"\xc3\x80\xc3\x96\xc3\x97\xc3\x98\xc3\x9e\xc3\x9f",
         "\xc3\xa0\xc3\xb6\xc3\x97\xc3\xb8\xc3\xbe\xc3\x9f"},
        {"\xc4\x80\xc4\xb9\xc5\x81\xc5\xb8\xc5\xbd", "\xc4\x81\xc4\xba\xc5\x82\xc3\xbf\xc5\xbe"},
        {"\xce\x91\xce\xa9\xce\x86\xce\x88\xce\x8f", "\xce\xb1\xcf\x89\xce\xac\xce\xad\xcf\x8e"},
        {"\xd0\x90\xd0\xaf\xd0\x81\xd0\x8f", "\xd0\xb0\xd1\x8f\xd1\x91\xd1\x9f"},
        {"\xd4\xb1\xe1\xb8\x80\xef\xbc\xa1", "\xd5\xa1\xe1\xb8\x81\xef\xbd\x81"},
        {"\xe6\x97\xa5\xf0\x9f\x99\x82", "\xe6\x97\xa5\xf0\x9f\x99\x82"},
    };
    for (size_t i = 0; i < COUNT(pairs); i++) {
        char text[64];
        strcpy(text, pairs[i][0]);
        cvq_text_lower(text);
        CHECK_SAY(strcmp(text, pairs[i][1]) == 0, "%s became %s, not %s", pairs[i][0], text,
                  pairs[i][1]);
    }
}

static void numbers(void) {
    static const char *const good[] = {"1",   "-1",        "+.5", "5.",    " 1_000.5e-3 ",
                                       "Inf", "-infinity", "NaN", "1e400", "1E+2"};
    static const char *const bad[] = {"",   " ",  ".",   "-",   "1,0",  "1__0",    "_1",  "1_",
                                      "1e", "e5", "0x1", "1 2", "1._5", "infinit", "--1", "1.e_5"};
    double x;
    for (size_t i = 0; i < COUNT(good); i++)
        CHECK_SAY(cvq_text_to_number(good[i], &x), "%s", good[i]);
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK_SAY(!cvq_text_to_number(bad[i], &x), "%s", bad[i]);
    CHECK(cvq_text_to_number(" 1_000.5e-3 ", &x) && fabs(x - 1.0005) < 1e-15);
}

static void statistics(void) {
    double x[] = {3, 1, 2, 5, 4};
    CHECK(cvq_mean(x, 5) == 3 && fabs(cvq_deviation(x, 5) - sqrt(2.5)) < 1e-15);
    CHECK(cvq_mean(x, 0) == 0 && cvq_deviation(x, 1) == 0);
    CHECK(cvq_quantile(x, 5, 0.5) == 3 && cvq_quantile(x, 5, 0) == 1 && cvq_quantile(x, 5, 1) == 5);
    CHECK(fabs(cvq_quantile(x, 5, 0.99) - 4.96) < 1e-12);
    /* Differences 1, 0, 0, -1, 1: mean 0.2, sample variance 0.7. */
    double a[] = {1, 1, 0, 0, 1}, b[] = {0, 1, 0, 1, 0};
    cvq_interval i = cvq_paired_difference(a, b, 5);
    double half = 1.959963984540054 * sqrt(0.7 / 5);
    CHECK(fabs(i.middle - 0.2) < 1e-15 && fabs(i.low - (0.2 - half)) < 1e-15 &&
          fabs(i.high - (0.2 + half)) < 1e-15);
    i = cvq_paired_difference(a, a, 5);
    CHECK(i.middle == 0 && i.low == 0 && i.high == 0);
    i = cvq_paired_difference(a, b, 1);
    CHECK(i.middle == 1 && i.low == -1 && i.high == 1);
}

int main(void) {
    RUN(exact);
    RUN(vqa_counts);
    RUN(vqa_normalization);
    RUN(anls);
    RUN(relaxed);
    RUN(ocrbench);
    RUN(mmmu_letters);
    RUN(mmmu_open);
    RUN(choice);
    RUN(bad_keys);
    RUN(odd_texts);
    RUN(lower_case);
    RUN(numbers);
    RUN(statistics);
    return REPORT();
}
