// ask MODEL.cvq PICTURE.ppm QUESTION: one answer about one picture.
#include <stdio.h>
#include <stdlib.h>

#include "cvq.h"

static int show(void *context, int32_t id, const char *text, size_t length) {
    (void)context, (void)id;
    return fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0;
}

// A binary PPM is its width, height and RGB bytes: just what cvq_image_create takes.
static uint8_t *read_ppm(const char *path, unsigned *width, unsigned *height) {
    uint8_t *rgb = NULL;
    FILE *file = fopen(path, "rb");
    if (file && fscanf(file, "P6 %5u %5u 255", width, height) == 2 && fgetc(file) != EOF) {
        size_t size = (size_t)*width * *height * 3;
        rgb = malloc(size ? size : 1);
        if (rgb && fread(rgb, 1, size, file) != size) free(rgb), rgb = NULL;
    }
    if (file) fclose(file);
    return rgb;
}

int main(int argc, char **argv) {
    cvq_model *model = NULL;
    cvq_session *session = NULL;
    cvq_image *image = NULL;
    cvq_prompt *prompt = NULL;
    cvq_error err = {0};
    unsigned width, height;
    uint8_t *rgb = argc == 4 ? read_ppm(argv[2], &width, &height) : NULL;
    if (!rgb) return fprintf(stderr, "usage: ask MODEL.cvq PICTURE.ppm QUESTION\n"), 2;

    int failed =
        cvq_model_open(&model, argv[1], NULL, &err) ||
        cvq_session_open(&session, model, NULL, &err) ||
        cvq_image_create(&image, model, rgb, width, height, 3 * (size_t)width, &err) ||
        cvq_prompt_create(&prompt, model, CVQ_PROMPT_CHAT, NULL, 0, argv[3], image, &err) ||
        cvq_session_sync(session, prompt, &err) ||
        cvq_session_generate(session, NULL, 2048, show, NULL, NULL, &err);
    if (failed)
        fprintf(stderr, "ask: %s: %s\n", err.where, err.message);
    else
        putchar('\n');

    cvq_prompt_free(prompt);
    cvq_image_free(image);
    cvq_session_close(session);
    cvq_model_close(model);
    free(rgb);
    return failed;
}
