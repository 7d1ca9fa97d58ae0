/* The smallest test harness: CHECK in functions, RUN each, finish with REPORT. */
#ifndef CVQ_TESTS_HARNESS_H
#define CVQ_TESTS_HARNESS_H

#include <stdio.h>
#include <string.h>

static int harness_passed, harness_failed, harness_skipped, harness_broken;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            harness_broken++;                                                                      \
            printf("  %s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                     \
        }                                                                                          \
    } while (0)
/* With a printf-style explanation. */
#define CHECK_SAY(condition, ...)                                                                  \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            harness_broken++;                                                                      \
            printf("  %s:%d: not true: %s: ", __FILE__, __LINE__, #condition);                     \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)
#define RUN(test)                                                                                  \
    do {                                                                                           \
        harness_broken = 0;                                                                        \
        test();                                                                                    \
        if (harness_broken) {                                                                      \
            harness_failed++;                                                                      \
            printf("FAIL %s\n", #test);                                                            \
        } else {                                                                                   \
            harness_passed++;                                                                      \
            printf("ok %s\n", #test);                                                              \
        }                                                                                          \
        fflush(stdout);                                                                            \
    } while (0)
#define SKIP(test, why)                                                                            \
    do {                                                                                           \
        harness_skipped++;                                                                         \
        printf("skip %s: %s\n", test, why);                                                        \
    } while (0)
/* The last line of main. */
#define REPORT()                                                                                   \
    (printf("%d passed, %d failed, %d skipped\n", harness_passed, harness_failed,                  \
            harness_skipped),                                                                      \
     harness_failed != 0)

#endif
