/* The table of settings and a set of their values.
 *
 * One row per key in options.c is the whole truth about it: name, type, range, default, help. The
 * command line, the configuration file and imp_options_set all end here. A struct imp_options is a
 * plain value, texts and all; it is copied into the engine at open. */
#ifndef IMP_ENGINE_OPTIONS_H
#define IMP_ENGINE_OPTIONS_H

#include <stdint.h>

#include "base/log.h"

enum setting {
    SETTING_DEVICE,
    SETTING_THREADS,
    SETTING_CONTEXT,
    SETTING_MAX_BATCH,
    SETTING_PREFILL_CHUNK,
    SETTING_REFERENCE,
    SETTING_ISA,
    SETTING_WARMUP,
    SETTING_GRAPHS,
    SETTING_PDL,
    SETTING_FAIL_CALL,
    SETTING_PREFIX_CACHE,
    SETTING_PREEMPT_EVERY,
    SETTING_KV_DTYPE,
    SETTING_KV_MEMORY,
    SETTING_KV_SHUFFLE,
    SETTING_ACTIVATIONS,
    SETTING_SPECIAL_IN_MESSAGES,
    SETTING_NOW,
    SETTING_REPLY_FORMAT,
    /* texts */
    SETTING_TRACE,
    SETTING_COUNT
};
enum { SETTING_FIRST_TEXT = SETTING_TRACE, SETTING_TEXT_BYTES = 4096 };

struct imp_options {
    int64_t value[SETTING_COUNT]; /* number, 0/1, bytes, index of the choice, length of the text */
    char text[SETTING_COUNT - SETTING_FIRST_TEXT][SETTING_TEXT_BYTES]; /* zero-terminated */
    struct log log;
};

void options_default(struct imp_options *options);
/* Of a text; NULL where it is empty. */
const char *options_setting_text(const struct imp_options *options, enum setting setting);
/* The instruction set that was asked for by name, or NULL. */
const char *options_isa(const struct imp_options *options);

enum { DEVICE_AUTO, DEVICE_CPU, DEVICE_GPU }; /* DEVICE_GPU + N: the Nth GPU */
enum { REFERENCE_FALSE, REFERENCE_TRUE, REFERENCE_ROUNDED };
enum { ISA_AUTO, ISA_AVX512, ISA_AVX2, ISA_PORTABLE };
enum { GRAPHS_AUTO, GRAPHS_NEVER };
enum { KV_BF16, KV_FP8 };
enum { ACTIVATIONS_BF16, ACTIVATIONS_NVFP4 };
enum { REPLY_FORMAT_AUTO, REPLY_FORMAT_NONE }; /* and on from there as enum reply_format */

#endif
