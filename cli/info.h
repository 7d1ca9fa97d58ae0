/* What the files of cvq-info share: a .cvq file with, perhaps, the manifest that says what it
 * should be, and what verifying it found. */
#ifndef CVQ_CLI_INFO_H
#define CVQ_CLI_INFO_H

#include "cli/messages.h"
#include "formats/manifest.h"
#include "formats/metadata.h"

typedef struct info_arguments {
    cvq_common common;
    bool tensors, verify, bad_ranges, json;
    const char *manifest, *pubkey, *quality, *repair, *diff;
} info_arguments;

/* ---- manifests (info_manifest.c) */

/* Reads a manifest; with --pubkey its signature (MANIFEST.minisig) must be right, without, a note
 * says that it was not checked. */
cvq_status info_manifest_read(const info_arguments *args, const char *path, cvq_manifest *m,
                              cvq_error *err);
/* MANIFEST.minisig; false if that is too long. */
bool info_signature_name(char *name, size_t size, const char *manifest);
/* --manifest FILE.cvq: the file's manifest on stdout. */
cvq_status info_manifest_print(const info_arguments *args, cvq_error *err);
/* --diff NEW.manifest OLD.cvq: what an update has to fetch. */
cvq_status info_diff(const info_arguments *args, cvq_error *err);

/* ---- a file and its verification (info_verify.c) */

typedef struct info_file {
    char *path;
    cvq_reader *reader; /* NULL where the head is damaged and a manifest is there */
    cvq_file_map raw;   /* then the file is mapped here */
    bool has_manifest;
    cvq_manifest manifest;
} info_file;

/* Opens the operand, or the file that the manifest names beside itself. Without a manifest a
 * damaged head is an error here. */
cvq_status info_file_open(const info_arguments *args, info_file *f, cvq_error *err);
void info_file_close(info_file *f);

typedef struct info_range {
    const char *owner; /* a tensor's name, "head" or "(padding)"; borrowed from the file */
    uint64_t offset, size;
} info_range;

typedef struct info_damage {
    bool known; /* verified */
    info_range *ranges;
    size_t count, capacity;
} info_damage;

/* Damage is a finding, not a failure: CVQ_OK with out->count > 0. */
cvq_status info_verify(const info_arguments *args, const info_file *f, info_damage *out,
                       cvq_error *err);
/* The error line of a damaged file: its first range, and how many more. The exit code. */
int info_say_damage(const info_arguments *args, const info_file *f, const info_damage *d);
/* --repair COPY BAD OUT: every part from whichever of the two has it whole. */
cvq_status info_repair(const info_arguments *args, cvq_error *err);

/* ---- printing (info_print.c) */

cvq_status info_print(const info_arguments *args, const info_file *f, const info_damage *d,
                      cvq_error *err);

#endif
