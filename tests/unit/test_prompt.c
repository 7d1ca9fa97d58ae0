/* The three templates, with and without history. */
#include "runtime/prompt.h"

#include "tests/unit/harness.h"

static void gives(cvq_prompt_kind kind, const cvq_turn *turns, size_t n, const char *question,
                  const char *expected) {
    cvq_buffer out = {0};
    cvq_error err = {0};
    cvq_status status = cvq_prompt_text(&out, kind, turns, n, question, &err);
    CHECK_SAY(status == CVQ_OK, "%s", err.message);
    CHECK_SAY(out.size == strlen(expected) && memcmp(out.data, expected, out.size) == 0,
              "'%.*s' for '%s'", (int)out.size, (const char *)out.data, expected);
    cvq_buffer_free(&out);
}

static const cvq_turn turns[2] = {{"What is it?", "A cat."},
                                  {" \xe9\xa2\x9c\xe8\x89\xb2? ", " red \n"}};

static void test_templates(void) {
    gives(CVQ_PROMPT_CHAT, NULL, 0, "What is it?", "Question: What is it? Answer:");
    gives(CVQ_PROMPT_VQA, NULL, 0, "What is it?", "Question: What is it? Short answer:");
    gives(CVQ_PROMPT_BASE, NULL, 0, "What is it?", "What is it?");
    gives(CVQ_PROMPT_CHAT, NULL, 0, " \n", "Question:  \n Answer:");
    gives(CVQ_PROMPT_CHAT, NULL, 0, "100% %s", "Question: 100% %s Answer:");
}

static void test_history(void) {
    gives(CVQ_PROMPT_CHAT, turns, 2, "Why?",
          "Question: What is it? Answer: A cat.\n"
          "Question:  \xe9\xa2\x9c\xe8\x89\xb2?  Answer:  red \n\n"
          "Question: Why? Answer:");
    gives(CVQ_PROMPT_VQA, turns, 1, "Why?",
          "Question: What is it? Short answer: A cat.\nQuestion: Why? Short answer:");
    gives(CVQ_PROMPT_BASE, turns, 2, "Why?", "Why?");
}

static void test_empty(void) {
    cvq_buffer out = {0};
    CHECK(cvq_prompt_text(&out, CVQ_PROMPT_BASE, NULL, 0, "", NULL) == CVQ_OK);
    CHECK(out.size == 0);
    gives(CVQ_PROMPT_CHAT, NULL, 0, "", "Question:  Answer:");
    cvq_buffer_free(&out);
}

static void test_appends(void) {
    cvq_buffer out = {0};
    CHECK(cvq_prompt_text(&out, CVQ_PROMPT_BASE, NULL, 0, "one", NULL) == CVQ_OK);
    CHECK(cvq_prompt_text(&out, CVQ_PROMPT_BASE, NULL, 0, "two", NULL) == CVQ_OK);
    CHECK(out.size == 6 && memcmp(out.data, "onetwo", 6) == 0);
    cvq_buffer_free(&out);
}

static void test_refusals(void) {
    static const cvq_turn unanswered = {"q", NULL}, unasked = {NULL, "a"};
    static const cvq_prompt_kind kinds[] = {CVQ_PROMPT_CHAT, CVQ_PROMPT_VQA, CVQ_PROMPT_BASE};
    cvq_buffer out = {0};
    for (size_t i = 0; i < 3; i++)
        CHECK(cvq_prompt_text(&out, kinds[i], NULL, 0, NULL, NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_prompt_text(&out, CVQ_PROMPT_CHAT, &unanswered, 1, "q", NULL) ==
          CVQ_INVALID_ARGUMENT);
    CHECK(cvq_prompt_text(&out, CVQ_PROMPT_CHAT, &unasked, 1, "q", NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(cvq_prompt_text(&out, (cvq_prompt_kind)3, NULL, 0, "q", NULL) == CVQ_INVALID_ARGUMENT);
    CHECK(out.size == 0); /* a refused prompt leaves nothing behind */
    cvq_buffer_free(&out);
}

int main(void) {
    RUN(test_templates);
    RUN(test_history);
    RUN(test_empty);
    RUN(test_appends);
    RUN(test_refusals);
    return REPORT();
}
