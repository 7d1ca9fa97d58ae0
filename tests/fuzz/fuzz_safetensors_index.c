/* model.safetensors.index.json, beside two shards: a.safetensors with x and y, b.safetensors with
 * z. */
#include <string.h>

#include "base/checked.h"
#include "formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void write_shard(const char *name, const char *header, size_t data_bytes) {
    uint8_t bytes[512] = {0};
    const size_t length = strlen(header);
    cvq_store_le(bytes, length, 8);
    memcpy(bytes + 8, header, length);
    (void)fuzz_folder(name, bytes, 8 + length + data_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool written;
    cvq_safetensors *s = NULL;
    if (!written) {
        write_shard("a.safetensors",
                    "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                    "\"y\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[8,14]}}",
                    14);
        write_shard("b.safetensors",
                    "{\"z\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8);
        written = true;
    }
    const char *folder = fuzz_folder("model.safetensors.index.json", data, size);
    if (cvq_safetensors_open(&s, folder, NULL) != CVQ_OK) return 0;
    fuzz_accepted();
    if (cvq_safetensors_count(s) > 3) __builtin_trap();
    for (size_t i = 0; i < cvq_safetensors_count(s); i++) {
        const cvq_st_tensor *t = cvq_safetensors_at(s, i);
        if (cvq_safetensors_find(s, t->name) != t || t->file >= cvq_safetensors_files(s))
            __builtin_trap();
    }
    cvq_safetensors_close(s);
    return 0;
}
