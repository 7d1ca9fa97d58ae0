/* cvq-info: what is in a .cvq file, and whether its bytes are the ones that were written. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/messages.h"
#include "cli/progress.h"
#include "formats/cvq_reader.h"
#include "formats/metadata.h"

typedef struct arguments {
    cvq_common common;
    bool tensors, verify, bad_ranges, json;
} arguments;

static const cvq_option options[] = {
    {.name = "tensors",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, tensors),
     .help = "list the tensors (TSV): name, shape, type, bits, offset, bytes"},
    {.name = "verify",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, verify),
     .help = "read the whole file and check every hash; says which tensor and which bytes are "
             "damaged, with exit status 1"},
    {.name = "bad-ranges",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, bad_ranges),
     .help = "verify, and print the damaged ranges alone (TSV): offset, bytes, tensor; these are "
             "what has to be fetched again"},
    {.name = "json",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(arguments, json),
     .help = "print one JSON object"},
};

static const cvq_command command = {
    .name = "cvq-info",
    .summary = "Say what is in a .cvq file, and verify it.",
    .operands = "FILE.cvq",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .num_options = sizeof options / sizeof *options,
};

/* ---------------------------------------------------------------- damage */

typedef struct damaged_range {
    size_t tensor; /* SIZE_MAX: padding */
    uint64_t offset, size;
} damaged_range;

/* What verifying found. */
typedef struct verification {
    bool done;
    damaged_range *ranges;
    size_t count, capacity;
    bool no_memory;
    cvq_progress progress;
} verification;

static void add_damage(void *context, size_t tensor, uint64_t offset, uint64_t size) {
    verification *v = context;
    damaged_range *last = v->count ? &v->ranges[v->count - 1] : NULL;
    if (last && last->tensor == tensor && last->offset + last->size == offset) {
        last->size += size; /* neighbouring chunks are one range */
        return;
    }
    if (v->count == v->capacity) {
        size_t capacity = v->capacity ? 2 * v->capacity : 16;
        damaged_range *ranges = realloc(v->ranges, capacity * sizeof *ranges);
        if (!ranges) {
            v->no_memory = true;
            return;
        }
        v->ranges = ranges;
        v->capacity = capacity;
    }
    v->ranges[v->count++] = (damaged_range){tensor, offset, size};
}

static int on_progress(void *context, uint64_t done, uint64_t total) {
    verification *v = context;
    return cvq_progress_bytes(&v->progress, done, total);
}

static const char *damaged_name(const cvq_reader *r, const damaged_range *d) {
    return d->tensor == SIZE_MAX ? "(padding)" : cvq_reader_tensor(r, d->tensor)->spec.name;
}

/* Damage is a finding, not a failure: CVQ_OK with v->count > 0. */
static cvq_status verify(const arguments *args, const cvq_reader *r, verification *v,
                         cvq_error *err) {
    cvq_error found = {0};
    cvq_progress_init(&v->progress, &args->common);
    cvq_progress_begin(&v->progress, "verifying", "bytes");
    cvq_status status =
        cvq_reader_verify(r, args->common.threads, add_damage, on_progress, v, &found);
    cvq_progress_erase();
    cvq_say_more(&args->common, "every hash computed in %.2f s with %d threads",
                 cvq_progress_clock() - v->progress.started, args->common.threads);
    if (v->no_memory)
        return cvq_fail(err, CVQ_OUT_OF_MEMORY, cvq_reader_path(r), "too many damaged ranges");
    if (status != CVQ_OK && v->count == 0)
        return cvq_fail(err, found.code, found.where, "%s", found.message);
    v->done = true;
    return CVQ_OK;
}

/* The error of a damaged file: its first range, and how many more. */
static int say_damage(const cvq_reader *r, const verification *v) {
    const damaged_range *d = &v->ranges[0];
    cvq_error err = {0};
    char more[64] = "";
    if (v->count > 1) snprintf(more, sizeof more, " and %zu more ranges", v->count - 1);
    cvq_fail(&err, CVQ_MISMATCH, cvq_reader_path(r),
             "%s: bytes %" PRIu64 " to %" PRIu64 "%s are damaged; fetch the file again, or only "
             "what --bad-ranges lists",
             damaged_name(r, d), d->offset, d->offset + d->size - 1, more);
    return cvq_say_error(&command, &err);
}

/* ---------------------------------------------------------------- text */

/* "4096x14336". */
static const char *shape_text(const cvq_tensor_spec *spec, char out[96]) {
    size_t n = 0;
    for (uint32_t i = 0; i < spec->ndim; i++)
        n += (size_t)snprintf(out + n, 96 - n, "%s%" PRIu64, i ? "x" : "", spec->dims[i]);
    return out;
}

static void print_tensors(const cvq_reader *r) {
    char shape[96];
    puts("name\tshape\ttype\tbits\toffset\tbytes");
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        const cvq_type_info *type = cvq_type_describe(t->type);
        printf("%s\t%s\t%s\t%g\t%" PRIu64 "\t%" PRIu64 "\n", t->spec.name,
               shape_text(&t->spec, shape), type->name, (double)type->bits, t->offset, t->size);
    }
}

static void print_bad_ranges(const cvq_reader *r, const verification *v) {
    puts("offset\tbytes\ttensor");
    for (size_t i = 0; i < v->count; i++)
        printf("%" PRIu64 "\t%" PRIu64 "\t%s\n", v->ranges[i].offset, v->ranges[i].size,
               damaged_name(r, &v->ranges[i]));
}

static void print_types(const cvq_reader *r) {
    uint64_t bytes[CVQ_TYPES] = {0}, tensors[CVQ_TYPES] = {0};
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        bytes[t->type] += t->size;
        tensors[t->type]++;
    }
    for (uint32_t i = 0; i < CVQ_TYPES; i++) {
        char human[32];
        if (tensors[i] == 0) continue;
        printf("  %-12s %" PRIu64 " tensors, %s\n", cvq_type_describe(i)->name, tensors[i],
               cvq_human_bytes(bytes[i], human));
    }
}

static void print_config(const cvq_model_config *c) {
    char n[32];
    static const char *const templates[] = {"chat", "vqa", "base"};
    printf("decoder:       %u layers of %u, %u heads (%u for keys and values), MLP %u, "
           "vocabulary %s\n",
           c->num_layers, c->hidden_size, c->num_heads, c->num_kv_heads, c->intermediate_size,
           cvq_with_commas(c->vocab_size, n));
    printf("context:       %s slots, %zu of them for a picture\n",
           cvq_with_commas(c->max_positions, n), cvq_image_slots(c));
    printf("vision:        %u layers of %u, %u heads, MLP %u, pictures of %u x %u\n",
           c->vit_num_layers, c->vit_hidden_size, c->vit_num_heads, c->vit_intermediate_size,
           c->image_size, c->image_size);
    printf("template:      %s\n", templates[c->template_version % 3]);
}

static void print_source(const cvq_metadata *m) {
    char human[32];
    printf("source:        revision %s\n", m->revision[0] ? m->revision : "not given");
    for (size_t i = 0; i < m->num_files; i++)
        printf("  %s  %s, sha256 %s\n", m->files[i].name, cvq_human_bytes(m->files[i].size, human),
               m->files[i].sha256);
    printf("licences:      %s", m->num_licenses ? "" : "none in the file");
    for (size_t i = 0; i < m->num_licenses; i++) printf("%s%s", i ? ", " : "", m->licenses[i].name);
    putchar('\n');
    if (m->card[0]) printf("model card:    %zu bytes\n", strlen(m->card));
}

static void print_text(const cvq_reader *r, const cvq_metadata *m) {
    char hex[65], human[32], exact[32];
    cvq_hex_id(cvq_reader_id(r), hex);
    printf("file:          %s\n", cvq_reader_path(r));
    printf("id:            %s\n", hex);
    printf("size:          %s (%s bytes), format version %u\n",
           cvq_human_bytes(cvq_reader_file_size(r), human),
           cvq_with_commas(cvq_reader_file_size(r), exact), CVQ_FILE_VERSION);
    printf("recipe:        %s, %zu tensors\n", m->recipe, cvq_reader_tensor_count(r));
    print_types(r);
    print_config(cvq_reader_config(r));
    print_source(m);
}

/* ---------------------------------------------------------------- JSON */

static void add_number(cJSON *object, const char *key, uint64_t value) {
    cJSON_AddNumberToObject(object, key, (double)value); /* all below 2^53 */
}

static void add_config(cJSON *root, const cvq_model_config *c) {
    cJSON *o = cJSON_AddObjectToObject(root, "config");
    const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {
        {"hidden_size", c->hidden_size},
        {"num_layers", c->num_layers},
        {"num_heads", c->num_heads},
        {"num_kv_heads", c->num_kv_heads},
        {"intermediate_size", c->intermediate_size},
        {"vocab_size", c->vocab_size},
        {"max_positions", c->max_positions},
        {"bos_id", c->bos_id},
        {"pad_id", c->pad_id},
        {"template_version", c->template_version},
        {"vit_hidden_size", c->vit_hidden_size},
        {"vit_num_layers", c->vit_num_layers},
        {"vit_num_heads", c->vit_num_heads},
        {"vit_intermediate_size", c->vit_intermediate_size},
        {"image_size", c->image_size},
        {"patch_size", c->patch_size},
        {"in_channels", c->in_channels},
        {"vit_num_positions", c->vit_num_positions},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        add_number(o, numbers[i].key, numbers[i].value);
    cJSON_AddNumberToObject(o, "rms_norm_eps", (double)c->rms_norm_eps);
    cJSON_AddNumberToObject(o, "vit_layer_norm_eps", (double)c->vit_layer_norm_eps);
    cJSON *eos = cJSON_AddArrayToObject(o, "eos_ids");
    for (uint32_t i = 0; i < c->num_eos; i++)
        cJSON_AddItemToArray(eos, cJSON_CreateNumber(c->eos_ids[i]));
}

static void add_source(cJSON *root, const cvq_metadata *m) {
    cJSON *source = cJSON_AddObjectToObject(root, "source");
    cJSON_AddStringToObject(source, "revision", m->revision);
    cJSON *files = cJSON_AddArrayToObject(source, "files");
    for (size_t i = 0; i < m->num_files; i++) {
        cJSON *file = cJSON_CreateObject();
        cJSON_AddStringToObject(file, "name", m->files[i].name);
        add_number(file, "size", m->files[i].size);
        cJSON_AddStringToObject(file, "sha256", m->files[i].sha256);
        cJSON_AddItemToArray(files, file);
    }
    cJSON *licenses = cJSON_AddArrayToObject(root, "licenses");
    for (size_t i = 0; i < m->num_licenses; i++)
        cJSON_AddItemToArray(licenses, cJSON_CreateString(m->licenses[i].name));
    cJSON_AddStringToObject(root, "card", m->card);
}

static void add_tensors(cJSON *root, const cvq_reader *r) {
    cJSON *tensors = cJSON_AddArrayToObject(root, "tensors");
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", t->spec.name);
        cJSON *shape = cJSON_AddArrayToObject(o, "shape");
        for (uint32_t d = 0; d < t->spec.ndim; d++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->spec.dims[d]));
        cJSON_AddStringToObject(o, "type", cvq_type_describe(t->type)->name);
        add_number(o, "offset", t->offset);
        add_number(o, "bytes", t->size);
        cJSON_AddItemToArray(tensors, o);
    }
}

static void add_verification(cJSON *root, const cvq_reader *r, const verification *v) {
    cJSON *o = cJSON_AddObjectToObject(root, "verify");
    cJSON_AddBoolToObject(o, "ok", v->count == 0);
    cJSON *ranges = cJSON_AddArrayToObject(o, "bad_ranges");
    for (size_t i = 0; i < v->count; i++) {
        cJSON *range = cJSON_CreateObject();
        add_number(range, "offset", v->ranges[i].offset);
        add_number(range, "bytes", v->ranges[i].size);
        cJSON_AddStringToObject(range, "tensor", damaged_name(r, &v->ranges[i]));
        cJSON_AddItemToArray(ranges, range);
    }
}

static cvq_status print_json(const arguments *args, const cvq_reader *r, const cvq_metadata *m,
                             const verification *v, cvq_error *err) {
    cvq_buffer text = {0};
    char hex[65];
    cJSON *root = cJSON_CreateObject();
    cvq_hex_id(cvq_reader_id(r), hex);
    cJSON_AddStringToObject(root, "id", hex);
    add_number(root, "version", CVQ_FILE_VERSION);
    add_number(root, "file_bytes", cvq_reader_file_size(r));
    cJSON_AddStringToObject(root, "recipe", m->recipe);
    cJSON *types = cJSON_AddObjectToObject(root, "types");
    for (size_t i = 0; i < m->num_rules; i++)
        cJSON_AddStringToObject(types, m->rules[i].pattern, m->rules[i].type);
    add_config(root, cvq_reader_config(r));
    if (args->tensors) add_tensors(root, r);
    add_source(root, m);
    if (v->done) add_verification(root, r, v);
    cvq_status status = cvq_json_print(&text, root, err);
    if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
    cJSON_Delete(root);
    cvq_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- the command */

static cvq_status print_all(const arguments *args, const cvq_reader *r, const cvq_metadata *m,
                            const verification *v, cvq_error *err) {
    if (args->json) return print_json(args, r, m, v, err);
    if (args->bad_ranges) {
        print_bad_ranges(r, v);
    } else if (args->tensors) {
        print_tensors(r);
    } else {
        print_text(r, m);
        if (v->done && v->count == 0) puts("verified:      every byte is as it was written");
        for (size_t i = 0; i < v->count; i++)
            printf("damaged:       %s, bytes %" PRIu64 " to %" PRIu64 "\n",
                   damaged_name(r, &v->ranges[i]), v->ranges[i].offset,
                   v->ranges[i].offset + v->ranges[i].size - 1);
    }
    return CVQ_OK;
}

static cvq_status read_metadata(const cvq_reader *r, cvq_metadata *m, cvq_error *err) {
    cvq_buffer json = {0};
    cvq_status status = cvq_reader_metadata(r, &json, err);
    if (status == CVQ_OK)
        status = cvq_metadata_parse(m, (const char *)json.data, json.size, cvq_reader_path(r), err);
    cvq_buffer_free(&json);
    return status;
}

int main(int argc, char **argv) {
    arguments args = {0};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    cvq_error err = {0};
    cvq_reader *r = NULL;
    cvq_metadata m = {0};
    verification v = {0};
    cvq_status status = cvq_reader_open(&r, args.common.operands[0], &err);
    if (status != CVQ_OK) goto done;
    status = read_metadata(r, &m, &err);
    if (status != CVQ_OK) goto done;
    if (args.verify || args.bad_ranges) status = verify(&args, r, &v, &err);
    if (status != CVQ_OK) goto done;
    status = print_all(&args, r, &m, &v, &err);
done:
    if (status != CVQ_OK)
        exit_code = cvq_say_error(&command, &err);
    else if (v.count > 0)
        exit_code = say_damage(r, &v);
    free(v.ranges);
    cvq_metadata_free(&m);
    cvq_reader_close(r);
    return cvq_finish_stdout(&command, exit_code);
}
