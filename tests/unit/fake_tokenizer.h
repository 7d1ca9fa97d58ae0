/* A tokenizer.json of Llama 3's form with 259 pieces, 3 merges and 2 added tokens. */
#ifndef CVQ_TESTS_FAKE_TOKENIZER_H
#define CVQ_TESTS_FAKE_TOKENIZER_H

#include <stdlib.h>

#include "formats/json.h"

static const char fake_tokenizer_frame[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":["
    "{\"id\":259,\"content\":\"<|begin_of_text|>\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,\"normalized\":false,\"special\":true},"
    "{\"id\":262,\"content\":\"<|\\u00e9 t|>\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,\"normalized\":false,\"special\":true}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
    "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":false}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\"},"
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
    "\"use_regex\":true},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
    "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
    "\"byte_fallback\":false,\"ignore_merges\":true,\"vocab\":{},"
    "\"merges\":[\"t h\",[\"th\",\"e\"],\"\\u0120 t\"]}}";

/* GPT-2's stand-in of a byte as UTF-8. */
static inline void fake_stand_in(int byte, char out[3]) {
    unsigned code = (unsigned)byte;
    if (byte < 33) code = 256u + code;
    if (byte >= 127 && byte <= 160) code = 256u + 33u + code - 127u;
    if (byte == 173) code = 256u + 67u;
    if (code < 128) {
        out[0] = (char)code;
        out[1] = 0;
    } else {
        out[0] = (char)(0xc0u | code >> 6);
        out[1] = (char)(0x80u | (code & 63u));
        out[2] = 0;
    }
}

/* The frame with bytes as ids 0 .. 255, "th" 256, "the" 257, " t" 258. */
static inline cJSON *make_tokenizer(void) {
    cJSON *root = cJSON_Parse(fake_tokenizer_frame);
    cJSON *vocab = cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "vocab");
    if (!vocab) abort();
    for (int b = 0; b < 256; b++) {
        char key[3];
        fake_stand_in(b, key);
        cJSON_AddNumberToObject(vocab, key, b);
    }
    cJSON_AddNumberToObject(vocab, "th", 256);
    cJSON_AddNumberToObject(vocab, "the", 257);
    cJSON_AddNumberToObject(vocab, "\xc4\xa0t", 258);
    return root;
}

#endif
