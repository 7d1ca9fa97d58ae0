/* tokenizer.json to the binary table. */
#ifndef CVQ_CONVERT_TOKENIZER_IMPORT_H
#define CVQ_CONVERT_TOKENIZER_IMPORT_H

#include "formats/tokenizer_table.h"

/* Llama 3's own tokenizer only: byte-level BPE with the pattern that the runtime has compiled in
 * (another one is CVQ_UNSUPPORTED), merges as "a b" or ["a", "b"], added tokens. vocab_size: ids at
 * or above it are refused. */
cvq_status cvq_tokenizer_import(cvq_buffer *table, const char *path, uint32_t vocab_size,
                                cvq_error *err);

/* The pattern that text is split by. */
extern const char cvq_tokenizer_pattern[];
/* GPT-2's stand-ins: the byte that a character stands for, or -1. */
void cvq_tokenizer_stand_ins(int16_t byte_of[512]);

#endif
