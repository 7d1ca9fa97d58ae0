/* What cvq-info prints: text for people, TSV and JSON for programs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/info.h"

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

static void print_bad_ranges(const info_damage *d) {
    puts("offset\tbytes\ttensor");
    for (size_t i = 0; i < d->count; i++)
        printf("%" PRIu64 "\t%" PRIu64 "\t%s\n", d->ranges[i].offset, d->ranges[i].size,
               d->ranges[i].owner);
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
    printf("source:        revision ");
    cvq_print_plain(m->revision[0] ? m->revision : "not given");
    putchar('\n');
    for (size_t i = 0; i < m->num_files; i++) {
        printf("  ");
        cvq_print_plain(m->files[i].name);
        printf("  %s, sha256 %s\n", cvq_human_bytes(m->files[i].size, human), m->files[i].sha256);
    }
    printf("licences:      %s", m->num_licenses ? "" : "none in the file");
    for (size_t i = 0; i < m->num_licenses; i++) {
        printf("%s", i ? ", " : "");
        cvq_print_plain(m->licenses[i].name);
    }
    putchar('\n');
    if (m->card[0]) printf("model card:    %zu bytes\n", strlen(m->card));
}

static void print_text(const cvq_reader *r, const cvq_metadata *m) {
    char hex[65], human[32], exact[32];
    cvq_hex_id(cvq_reader_id(r), hex);
    printf("file:          ");
    cvq_print_plain(cvq_reader_path(r));
    printf("\nid:            %s\n", hex);
    printf("size:          %s (%s bytes), format version %u\n",
           cvq_human_bytes(cvq_reader_file_size(r), human),
           cvq_with_commas(cvq_reader_file_size(r), exact), CVQ_FILE_VERSION);
    printf("recipe:        ");
    cvq_print_plain(m->recipe);
    printf(", %zu tensors\n", cvq_reader_tensor_count(r));
    print_types(r);
    print_config(cvq_reader_config(r));
    print_source(m);
}

/* ---------------------------------------------------------------- JSON */

static void add_number(cJSON *object, const char *key, uint64_t value) {
    cvq_json_add_number(object, key, (double)value); /* all below 2^53 */
}

static void add_config(cJSON *root, const cvq_model_config *c) {
    cJSON *o = cvq_json_add_object(root, "config");
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
    cvq_json_add_number(o, "rms_norm_eps", (double)c->rms_norm_eps);
    cvq_json_add_number(o, "vit_layer_norm_eps", (double)c->vit_layer_norm_eps);
    cJSON *eos = cvq_json_add_array(o, "eos_ids");
    for (uint32_t i = 0; i < c->num_eos; i++)
        cvq_json_append(eos, cJSON_CreateNumber(c->eos_ids[i]));
}

static void add_source(cJSON *root, const cvq_metadata *m) {
    cJSON *source = cvq_json_add_object(root, "source");
    cvq_json_add_string(source, "revision", m->revision);
    cJSON *files = cvq_json_add_array(source, "files");
    for (size_t i = 0; i < m->num_files; i++) {
        cJSON *file = cJSON_CreateObject();
        cvq_json_add_string(file, "name", m->files[i].name);
        add_number(file, "size", m->files[i].size);
        cvq_json_add_string(file, "sha256", m->files[i].sha256);
        cvq_json_append(files, file);
    }
    cJSON *licenses = cvq_json_add_array(root, "licenses");
    for (size_t i = 0; i < m->num_licenses; i++)
        cvq_json_append(licenses, cJSON_CreateString(m->licenses[i].name));
    cvq_json_add_string(root, "card", m->card);
}

static void add_tensors(cJSON *root, const cvq_reader *r) {
    cJSON *tensors = cvq_json_add_array(root, "tensors");
    for (size_t i = 0; i < cvq_reader_tensor_count(r); i++) {
        const cvq_tensor *t = cvq_reader_tensor(r, i);
        cJSON *o = cJSON_CreateObject();
        cvq_json_add_string(o, "name", t->spec.name);
        cJSON *shape = cvq_json_add_array(o, "shape");
        for (uint32_t d = 0; d < t->spec.ndim; d++)
            cvq_json_append(shape, cJSON_CreateNumber((double)t->spec.dims[d]));
        cvq_json_add_string(o, "type", cvq_type_describe(t->type)->name);
        add_number(o, "offset", t->offset);
        add_number(o, "bytes", t->size);
        cvq_json_append(tensors, o);
    }
}

static void add_verification(cJSON *root, const info_file *f, const info_damage *d) {
    cJSON *o = cvq_json_add_object(root, "verify");
    cvq_json_add_bool(o, "ok", d->count == 0);
    if (f->has_manifest) cvq_json_add_bool(o, "by_manifest", true);
    cJSON *ranges = cvq_json_add_array(o, "bad_ranges");
    for (size_t i = 0; i < d->count; i++) {
        cJSON *range = cJSON_CreateObject();
        add_number(range, "offset", d->ranges[i].offset);
        add_number(range, "bytes", d->ranges[i].size);
        cvq_json_add_string(range, "tensor", d->ranges[i].owner);
        cvq_json_append(ranges, range);
    }
}

static void add_all(cJSON *root, const info_arguments *args, const cvq_reader *r,
                    const cvq_metadata *m) {
    char hex[65];
    cvq_hex_id(cvq_reader_id(r), hex);
    cvq_json_add_string(root, "id", hex);
    add_number(root, "version", CVQ_FILE_VERSION);
    add_number(root, "file_bytes", cvq_reader_file_size(r));
    cvq_json_add_string(root, "recipe", m->recipe);
    cJSON *types = cvq_json_add_object(root, "types");
    for (size_t i = 0; i < m->num_rules; i++)
        cvq_json_add_string(types, m->rules[i].pattern, m->rules[i].type);
    add_config(root, cvq_reader_config(r));
    if (args->tensors) add_tensors(root, r);
    add_source(root, m);
}

/* r and m are NULL where only the verification can be told. */
static cvq_status print_json(const info_arguments *args, const info_file *f, const cvq_metadata *m,
                             const info_damage *d, cvq_error *err) {
    cvq_buffer text = {0};
    cJSON *root = cJSON_CreateObject();
    if (m) add_all(root, args, f->reader, m);
    if (d->known) add_verification(root, f, d);
    cvq_status status = cvq_json_print(&text, root, err);
    if (status == CVQ_OK) printf("%s\n", (const char *)text.data);
    cJSON_Delete(root);
    cvq_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- all of it */

static cvq_status read_metadata(const cvq_reader *r, cvq_metadata *m, cvq_error *err) {
    cvq_buffer json = {0};
    cvq_status status = cvq_reader_metadata(r, &json, err);
    if (status == CVQ_OK)
        status = cvq_metadata_parse(m, (const char *)json.data, json.size, cvq_reader_path(r), err);
    cvq_buffer_free(&json);
    return status;
}

static void print_verification(const info_damage *d) {
    if (!d->known) return;
    if (d->count == 0) puts("verified:      every byte is as it was written");
    for (size_t i = 0; i < d->count; i++)
        printf("damaged:       %s, bytes %" PRIu64 " to %" PRIu64 "\n", d->ranges[i].owner,
               d->ranges[i].offset, d->ranges[i].offset + d->ranges[i].size - 1);
}

cvq_status info_print(const info_arguments *args, const info_file *f, const info_damage *d,
                      cvq_error *err) {
    cvq_metadata m = {0};
    cvq_status status = CVQ_OK;
    if (args->bad_ranges && !args->json) {
        print_bad_ranges(d);
        return CVQ_OK;
    }
    if (f->reader) CVQ_TRY(read_metadata(f->reader, &m, err));
    if (args->json) {
        status = print_json(args, f, f->reader ? &m : NULL, d, err);
    } else {
        if (f->reader && args->tensors)
            print_tensors(f->reader);
        else if (f->reader)
            print_text(f->reader, &m);
        if (!args->tensors) print_verification(d);
    }
    cvq_metadata_free(&m);
    return status;
}
