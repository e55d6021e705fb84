/* Tiny checkpoints from one line of text, so that a test case is a row of a table.
 *
 *   "weight_packed U8 2,16 7A; weight_scale F8_E4M3 2,2 3C; weight_global_scale F32 1 =2688"
 *
 * Each tensor: its name, dtype, shape ("-" for rank 0), and either one byte in hexadecimal that
 * fills it or "=" and a number for every element. A name that starts with "/" stands as it is;
 * before any other goes the module's name. */
#ifndef IMP_TESTS_SUPPORT_TENSORS_H
#define IMP_TESTS_SUPPORT_TENSORS_H

#include <math.h>

#include "load/checkpoint.h"
#include "num/fp.h"
#include "support/files.h"

static inline size_t tensors_encode(const char *dtype, size_t count, const char *value, void *out) {
    int bits = dtype_bits(dtype_from_name(slice_of(dtype)));
    size_t bytes = count * (size_t)bits / 8;
    check(bits > 0 && bytes <= 1 << 20);
    if (value[0] != '=') {
        memset(out, (int)strtoul(value, NULL, 16), bytes);
        return bytes;
    }
    float x = strtof(value + 1, NULL);
    uint16_t half = strcmp(dtype, "F16") == 0 ? fp16_encode(x) : bf16_encode(x);
    for (size_t i = 0; i < count; i++) {
        if (bits == 32)
            memcpy((char *)out + 4 * i, &x, 4);
        else if (bits == 16)
            memcpy((char *)out + 2 * i, &half, 2);
        else
            ((uint8_t *)out)[i] = e4m3_encode(x);
    }
    return bytes;
}

static inline void tensors_add(struct maker *m, const char *module, const char *line) {
    static uint8_t bytes[1 << 20];
    char *text = mem_strndup(line, strlen(line)), *rest = text, *one;
    while ((one = strsep(&rest, ";")) != NULL) {
        char name[256], dtype[32], shape[64], value[64], full[512], list[80];
        if (sscanf(one, " %255s %31s %63s %63s", name, dtype, shape, value) != 4) continue;
        size_t count = 1;
        if (strcmp(shape, "-") == 0) shape[0] = 0;
        for (char *at = shape; *at;) {
            count *= strtoul(at, &at, 10);
            if (*at == ',') at++;
        }
        if (name[0] == '/')
            snprintf(full, sizeof full, "%s", name + 1);
        else
            snprintf(full, sizeof full, "%s.%s", module, name);
        snprintf(list, sizeof list, "[%s]", shape);
        maker_add(m, full, dtype, list, bytes, tensors_encode(dtype, count, value, bytes));
    }
    free(text);
}

/* A folder with one config.json and one model.safetensors, opened. */
struct tiny {
    char *folder;
    struct checkpoint ck;
    struct log log;
    int lines; /* logged at warning level or above */
    char last[512];
};

static inline void tiny_log(void *ctx, int level, const char *line) {
    struct tiny *t = ctx;
    if (level > 1) return;
    t->lines++;
    snprintf(t->last, sizeof t->last, "%s", line);
}

#define TINY_CONFIG "{\"model_type\":\"llama\"}"

/* Takes the maker's tensors; skew: see maker_finish. */
static inline int tiny_open_skewed(struct tiny *t, struct maker *m, int skew, const char *config,
                                   struct imp_error *err) {
    struct str image = {0};
    *t = (struct tiny){.folder = temp_folder()};
    t->log = (struct log){tiny_log, t};
    maker_finish(m, skew, &image);
    put_file(t->folder, "model.safetensors", image.data, image.size);
    put_text(t->folder, "config.json", config);
    str_free(&image);
    return checkpoint_open(t->folder, true, &t->log, &t->ck, err);
}

static inline int tiny_open(struct tiny *t, const char *module, const char *line,
                            const char *config, struct imp_error *err) {
    struct maker m = {0};
    tensors_add(&m, module, line);
    return tiny_open_skewed(t, &m, 0, config, err);
}

static inline void tiny_close(struct tiny *t) {
    checkpoint_close(&t->ck);
    temp_remove(t->folder);
}

#endif
