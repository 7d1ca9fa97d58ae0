/* cvq-info: what is in a .cvq file, whether its bytes are the ones that were published, and what to
 * do where they are not. */
#include <stdlib.h>

#include "cli/info.h"

static const cvq_option options[] = {
    {.name = "tensors",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(info_arguments, tensors),
     .help = "list the tensors (TSV): name, shape, type, bits, offset, bytes"},
    {.name = "verify",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(info_arguments, verify),
     .help = "read the whole file and check every hash; says which tensor and which bytes are "
             "damaged, with exit status 1"},
    {.name = "bad-ranges",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(info_arguments, bad_ranges),
     .help = "verify, and print the damaged ranges alone (TSV): offset, bytes, tensor; these are "
             "what has to be fetched again"},
    {.name = "manifest",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(info_arguments, manifest),
     .value = "FILE",
     .help = "a .cvq file: print its manifest, JSON to be published and signed beside it. With "
             "--verify, --bad-ranges or --repair, a manifest: the file is compared with it, even "
             "where its own head is damaged"},
    {.name = "pubkey",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(info_arguments, pubkey),
     .value = "KEY",
     .help =
         "check the manifest's signature (MANIFEST.minisig) with this public key of minisign: a "
         ".pub file, or the line in it that begins with RW"},
    {.name = "quality",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(info_arguments, quality),
     .value = "FILE.json",
     .help = "measured quality (a JSON object) to stand in the manifest that is printed"},
    {.name = "repair",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(info_arguments, repair),
     .value = "COPY",
     .help = "write OUT.cvq from FILE.cvq and a second copy, each part from where it is whole; the "
             "copy may be damaged too, or be an older version that a --diff was made with"},
    {.name = "diff",
     .kind = CVQ_OPTION_TEXT,
     .offset = offsetof(info_arguments, diff),
     .value = "MANIFEST",
     .help = "print the ranges (TSV: offset, bytes, tensor) of the manifest's file that FILE.cvq, "
             "an older version, does not have; these are what an update has to fetch"},
    {.name = "json",
     .kind = CVQ_OPTION_FLAG,
     .offset = offsetof(info_arguments, json),
     .help = "print one JSON object"},
};

static const cvq_command command = {
    .name = "cvq-info",
    .summary = "Say what is in a .cvq file, verify it, and mend it.",
    .operands = "FILE.cvq [OUT.cvq]",
    .min_operands = 0,
    .max_operands = 2,
    .options = options,
    .num_options = sizeof options / sizeof *options,
};

/* What is wrong with these arguments together, or NULL. */
static const char *wrong_usage(const info_arguments *a) {
    const bool verifying = a->verify || a->bad_ranges;
    const int n = a->common.num_operands;
    const bool printing_manifest = a->manifest && !verifying && !a->repair;
    if (a->diff && (a->repair || verifying || a->manifest)) return "--diff stands alone";
    if (a->repair && verifying) return "--repair verifies by itself";
    if (a->repair && n != 2) return "--repair takes FILE.cvq and OUT.cvq";
    if (!a->repair && n == 2) return "OUT.cvq belongs to --repair";
    if (printing_manifest && n != 0)
        return "--manifest prints a file's manifest, or needs --verify, --bad-ranges or --repair";
    if (a->quality && !printing_manifest) return "--quality belongs to printing a --manifest";
    if (a->pubkey && (printing_manifest || (!a->manifest && !a->diff)))
        return "--pubkey belongs to a --manifest that is read";
    if (n == 0 && !a->manifest) return "too few arguments: needs FILE.cvq";
    return NULL;
}

/* The plain command: what is in the file, verified where asked for. */
static cvq_status inform(const info_arguments *args, int *exit_code, cvq_error *err) {
    info_file f = {.raw.fd = -1};
    info_damage d = {0};
    cvq_status status = info_file_open(args, &f, err);
    if (status == CVQ_OK && (args->verify || args->bad_ranges))
        status = info_verify(args, &f, &d, err);
    if (status == CVQ_OK) status = info_print(args, &f, &d, err);
    if (status == CVQ_OK && d.count > 0) *exit_code = info_say_damage(args, &f, &d);
    free(d.ranges);
    info_file_close(&f);
    return status;
}

int main(int argc, char **argv) {
    info_arguments args = {0};
    int exit_code;
    if (!cvq_options_parse(&command, argc, argv, &args, &exit_code)) return exit_code;
    const char *wrong = wrong_usage(&args);
    if (wrong) return cvq_say_usage(&command, "%s", wrong);
    cvq_error err = {0};
    cvq_status status;
    if (args.diff)
        status = info_diff(&args, &err);
    else if (args.repair)
        status = info_repair(&args, &err);
    else if (args.manifest && !args.verify && !args.bad_ranges)
        status = info_manifest_print(&args, &err);
    else
        status = inform(&args, &exit_code, &err);
    if (status != CVQ_OK) exit_code = cvq_say_error(&command, &err);
    return cvq_finish_stdout(&command, exit_code);
}
