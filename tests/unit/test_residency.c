/* Which weights are asked for and let go of in each phase, whatever the memory: the helper thread's
 * work done by hand, its advice noted instead of given. */
#include "runtime/residency.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/synthetic_file.h"
#include "harness.h"
#include "temp_folder.h"

#define LAYERS 3 /* of the vision encoder, and of the decoder */

/* The advice so far: "+part" asked for, "-part" let go of, a part named once for all its pieces. */
typedef struct notes {
    char text[2048], last[32];
    uint64_t asked; /* bytes */
    cvq_residency *moves_on;
    size_t moves_to;
    int pieces_before;
} notes;

static cvq_reader *reader;
static const cvq_model_config *config;
static notes noted;

static cvq_status make_file(void) {
    cvq_model_config c = cvq_scaled_config(16);
    c.num_layers = c.vit_num_layers = LAYERS;
    c.intermediate_size =
        20480; /* an expert's layer takes two pieces of what is asked for at once */
    cvq_recipe *recipe = NULL;
    uint8_t id[CVQ_ID_BYTES];
    cvq_error err = {0};
    const cvq_synthetic_options options = {.seed = 1, .threads = 2};
    const char *path = temp_path("noise.cvq");
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    cvq_status status = cvq_recipe_open(&recipe, "q4", &err);
    if (status == CVQ_OK) status = cvq_synthetic_file(&c, recipe, &options, fd, path, id, &err);
    if (status == CVQ_OK) status = cvq_reader_open(&reader, path, &err);
    cvq_recipe_free(recipe);
    close(fd);
    if (status == CVQ_OK)
        config = cvq_reader_config(reader);
    else
        printf("%s: %s\n", err.where, err.message);
    return status;
}

/* ---------------------------------------------------------------- what is noted */

static uint64_t part_start(cvq_part part, size_t layer) {
    size_t first, count;
    cvq_model_part_range(config, part, (uint32_t)layer, &first, &count);
    return cvq_reader_tensor(reader, first)->offset;
}

static uint64_t part_end(cvq_part part, size_t layer) {
    size_t first, count;
    cvq_model_part_range(config, part, (uint32_t)layer, &first, &count);
    const cvq_tensor *last = cvq_reader_tensor(reader, first + count - 1);
    return last->offset + last->size;
}

static size_t layers_of(cvq_part part) {
    const bool layered =
        part == CVQ_PART_VIT || part == CVQ_PART_LANGUAGE || part == CVQ_PART_VISION;
    return layered ? LAYERS : 1;
}

static uint64_t bytes_of(cvq_part part) {
    uint64_t sum = 0;
    for (size_t n = 0; n < layers_of(part); n++) sum += part_end(part, n) - part_start(part, n);
    return sum;
}

/* The part and layer that hold a range, which must not reach beyond them. */
static void name_of(uint64_t offset, uint64_t size, char *name, size_t room) {
    static const char *const names[] = {[CVQ_PART_LANGUAGE] = "language",
                                        [CVQ_PART_HEAD] = "head",
                                        [CVQ_PART_EMBEDDING] = "rows",
                                        [CVQ_PART_VISION] = "vision",
                                        [CVQ_PART_ADAPTER] = "adapter",
                                        [CVQ_PART_VIT_PATCH] = "patch",
                                        [CVQ_PART_VIT] = "vit"};
    snprintf(name, room, "?");
    for (int part = 0; part < CVQ_PARTS; part++)
        for (size_t n = 0; n < layers_of((cvq_part)part); n++) {
            if (offset < part_start((cvq_part)part, n)) continue;
            if (offset + size > part_end((cvq_part)part, n)) continue;
            if (layers_of((cvq_part)part) > 1)
                snprintf(name, room, "%s%zu", names[part], n);
            else
                snprintf(name, room, "%s", names[part]);
        }
}

static void note(void *context, uint64_t offset, uint64_t size, cvq_advice advice) {
    notes *n = context;
    char name[24], entry[32];
    if (advice == CVQ_ADVICE_WILLNEED) return; /* one of the two that ask for a piece */
    name_of(offset, size, name, sizeof name);
    snprintf(entry, sizeof entry, " %c%s", advice == CVQ_ADVICE_POPULATE ? '+' : '-', name);
    if (advice == CVQ_ADVICE_POPULATE) n->asked += size;
    if (strcmp(entry, n->last) != 0) {
        strcat(n->text, entry); /* there is room for all that one station notes */
        strcpy(n->last, entry);
    }
    if (n->moves_on && n->pieces_before-- == 0)
        CHECK(cvq_residency_enter(n->moves_on, n->moves_to, true, NULL) == CVQ_OK);
}

static cvq_residency *open_noted(uint64_t kept) {
    cvq_residency *r = NULL;
    noted = (notes){0};
    CHECK(cvq_residency_open(&r, reader, NULL, 1, NULL, NULL) == CVQ_OK);
    cvq_residency_by_hand(r, note, &noted);
    cvq_residency_begin(r, kept);
    return r;
}

/* The work comes to a station; the notes are of that alone. */
static void enter(cvq_residency *r, size_t station, bool picture, const char *expected) {
    noted.text[0] = noted.last[0] = '\0';
    CHECK(cvq_residency_enter(r, station, picture, NULL) == CVQ_OK);
    cvq_residency_serve(r);
    const char *text = noted.text[0] ? noted.text + 1 : "";
    CHECK_SAY(strcmp(text, expected) == 0, "station %zu: \"%s\", not \"%s\"", station, text,
              expected);
}

static size_t decoder(size_t layer) {
    return cvq_station_decoder(config, layer);
}

/* ---------------------------------------------------------------- tests */

static void what_fits_is_asked_for_once(void) {
    cvq_residency *r = open_noted(part_end(CVQ_PART_VIT, LAYERS - 1));
    uint64_t all = 0;
    for (int part = 0; part < CVQ_PARTS; part++) all += bytes_of((cvq_part)part);
    enter(r, cvq_station_patch(), true,
          "+patch +vit0 +vit1 +vit2 +adapter +language0 +vision0 +language1 +vision1 +language2 "
          "+vision2 +head +rows");
    CHECK(noted.asked == all);
    for (size_t s = 1; s < cvq_station_head(config); s++) enter(r, s, true, "");
    enter(r, cvq_station_head(config), false, "");
    cvq_residency_close(r);
}

static void without_room_a_window_moves_along(void) {
    cvq_residency *r = open_noted(0);
    enter(r, cvq_station_patch(), true, "+patch +vit0");
    enter(r, cvq_station_vit(0), true, "-patch +vit1");
    enter(r, cvq_station_vit(1), true, "-vit0 +vit2");
    enter(r, cvq_station_vit(2), true, "-vit1 +adapter");
    enter(r, cvq_station_adapter(config), true, "-vit2 +language0 +vision0");
    cvq_residency_begin(r, 0);
    enter(r, decoder(0), true, "-adapter +language1 +vision1");
    enter(r, decoder(1), true, "-language0 -vision0 +language2 +vision2");
    enter(r, decoder(2), true, "-language1 -vision1 +head");
    CHECK(noted.asked == bytes_of(CVQ_PART_VIT_PATCH) + bytes_of(CVQ_PART_VIT) +
                             bytes_of(CVQ_PART_ADAPTER) + bytes_of(CVQ_PART_VISION) +
                             bytes_of(CVQ_PART_LANGUAGE) + bytes_of(CVQ_PART_HEAD));
    enter(r, cvq_station_head(config), false, "-language2 -vision2 +language0");
    /* Each token reads it all again. */
    for (int token = 0; token < 2; token++) {
        enter(r, decoder(0), false, "-head +language1");
        enter(r, decoder(1), false, "-language0 +language2");
        enter(r, decoder(2), false, "-language1 +head");
        enter(r, cvq_station_head(config), false, "-language2 +language0");
    }
    cvq_residency_close(r);
}

/* 8 GB and the released model: decoding stays, a picture's weights pass by. */
static void decoding_is_read_once(void) {
    const uint64_t kept = part_end(CVQ_PART_EMBEDDING, 0);
    cvq_residency *r = open_noted(0);
    enter(r, cvq_station_patch(), true, "+patch +vit0");
    enter(r, cvq_station_adapter(config), true, "-patch -vit0 +adapter +language0 +vision0");
    cvq_residency_begin(r, kept);
    noted.asked = 0;
    enter(r, decoder(0), true, "-adapter +language0 +language1 +vision1 +language2");
    enter(r, decoder(1), true, "-vision0 +vision2 +head +rows");
    enter(r, decoder(2), true, "-vision1");
    enter(r, cvq_station_head(config), false, "-vision2");
    const uint64_t once = noted.asked;
    for (int token = 0; token < 3; token++) {
        for (size_t n = 0; n < LAYERS; n++) enter(r, decoder(n), false, "");
        enter(r, cvq_station_head(config), false, "");
    }
    CHECK(noted.asked == once);
    cvq_residency_close(r);
}

/* Less than decoding needs: its first part stays, the same for every token. */
static void the_first_part_stays(void) {
    const uint64_t kept = part_end(CVQ_PART_LANGUAGE, 1);
    cvq_residency *r = open_noted(kept);
    enter(r, decoder(0), false, "+language0 +language1");
    for (int token = 0; token < 3; token++) {
        enter(r, decoder(1), false, "+language2");
        enter(r, decoder(2), false, "+head");
        enter(r, cvq_station_head(config), false, "-language2");
        enter(r, decoder(0), false, "-head");
    }
    cvq_residency_close(r);
}

/* A text prompt asks for nothing of the vision expert, and a phase asks anew for what stays. */
static void phases_ask_anew(void) {
    const uint64_t kept = part_end(CVQ_PART_EMBEDDING, 0);
    cvq_residency *r = open_noted(kept);
    const char *const all = "+language0 +language1 +language2 +head +rows";
    enter(r, decoder(0), false, all);
    enter(r, decoder(1), false, "");
    cvq_residency_begin(r, kept);
    enter(r, decoder(0), false, all);
    CHECK(noted.asked == 2 * (bytes_of(CVQ_PART_LANGUAGE) + bytes_of(CVQ_PART_HEAD) +
                              bytes_of(CVQ_PART_EMBEDDING)));
    cvq_residency_close(r);
}

/* Work that is faster than the disk reads the rest of its layer itself. */
static void what_was_passed_is_not_asked_for(void) {
    cvq_residency *r = open_noted(0);
    const uint64_t layer = part_end(CVQ_PART_LANGUAGE, 0) - part_start(CVQ_PART_LANGUAGE, 0);
    noted.moves_on = r;
    noted.moves_to = decoder(2);
    enter(r, decoder(0), false, "+language0 -language0 +language2 +vision2 +head");
    const uint64_t others = part_end(CVQ_PART_LANGUAGE, 2) - part_start(CVQ_PART_LANGUAGE, 2) +
                            part_end(CVQ_PART_VISION, 2) - part_start(CVQ_PART_VISION, 2) +
                            bytes_of(CVQ_PART_HEAD);
    CHECK(noted.asked > others && noted.asked < others + layer);
    cvq_residency_close(r);
}

static void room_is_counted_in_whole_parts(void) {
    const uint64_t first = part_end(CVQ_PART_LANGUAGE, 0) - part_start(CVQ_PART_LANGUAGE, 0);
    CHECK(cvq_residency_kept(reader, 0) == 0);
    CHECK(cvq_residency_kept(reader, first - 1) == 0);
    CHECK(cvq_residency_kept(reader, first) == part_end(CVQ_PART_LANGUAGE, 0));
    CHECK(cvq_residency_kept(reader, UINT64_MAX) == part_end(CVQ_PART_VIT, LAYERS - 1));
    uint64_t two = 0;
    for (size_t n = 0; n + 1 < LAYERS; n++) {
        const uint64_t sum = part_end(CVQ_PART_VISION, n + 1) - part_start(CVQ_PART_VISION, n);
        if (sum > two) two = sum;
    }
    CHECK(cvq_residency_window(reader) >= two); /* two of the vision expert's layers at once */
}

static void verification_stops(void) {
    cvq_weight_check *check = NULL;
    cvq_residency *r = NULL;
    atomic_int stop;
    cvq_error err = {0};
    atomic_init(&stop, 1);
    CHECK(cvq_weight_check_open(&check, reader, NULL) == CVQ_OK);
    CHECK(cvq_residency_open(&r, reader, check, 2, &stop, NULL) == CVQ_OK);
    CHECK(cvq_residency_enter(r, decoder(0), true, &err) == CVQ_CANCELLED);
    CHECK(strstr(err.message, "cancelled") != NULL);
    CHECK(cvq_residency_embedding(r, 0, NULL) == CVQ_CANCELLED);
    atomic_store(&stop, 0);
    CHECK(cvq_residency_enter(r, decoder(0), true, NULL) == CVQ_OK);
    CHECK(cvq_residency_embedding(r, 0, NULL) == CVQ_OK);
    atomic_store(&stop, 1); /* what is known to be right needs no look */
    CHECK(cvq_residency_enter(r, decoder(0), true, NULL) == CVQ_OK);
    cvq_residency_close(r);
    cvq_weight_check_close(check);
}

int main(void) {
    if (!temp_open()) return 1;
    if (make_file() == CVQ_OK) {
        RUN(what_fits_is_asked_for_once);
        RUN(without_room_a_window_moves_along);
        RUN(decoding_is_read_once);
        RUN(the_first_part_stays);
        RUN(phases_ask_anew);
        RUN(what_was_passed_is_not_asked_for);
        RUN(room_is_counted_in_whole_parts);
        RUN(verification_stops);
    } else {
        harness_failed++;
    }
    cvq_reader_close(reader);
    temp_close();
    return REPORT();
}
