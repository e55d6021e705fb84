#include "quantize/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "num/nvfp4.h"
#include "quantize/policy.h"

static void number_groups(const struct source *source, struct layout *out) {
    struct map groups;
    struct str key = {0};
    map_create(&groups, 256);
    for (size_t i = 0; i < source->tensor_count; i++) {
        if (!out->tensors[i].quantized) continue;
        policy_group(&source->tensors[i], &key);
        struct slice name = {arena_strndup(&out->arena, key.data, key.size), key.size};
        if (map_add(&groups, name, (int64_t)out->group_count)) out->group_count++;
        out->tensors[i].group = (size_t)*map_find(&groups, name);
        out->quantized_count++;
    }
    str_free(&key);
    map_free(&groups);
}

static enum dtype plain_dtype(const struct source_tensor *t) {
    return t->as_it_is || !source_is_float(t->dtype) ? t->dtype : DTYPE_BF16;
}

static struct writer_tensor plain_tensor(const struct source_tensor *t) {
    struct writer_tensor w = {.name = t->name, .dtype = plain_dtype(t), .dims = t->dims};
    memcpy(w.shape, t->shape, sizeof w.shape);
    return w;
}

static uint64_t output_bytes(const struct source_tensor *t, bool quantized) {
    uint64_t n = (uint64_t)t->rows * (uint64_t)t->cols;
    if (quantized) return n / 2 + n / NVFP4_BLOCK + 4;
    return n * (uint64_t)dtype_bits(plain_dtype(t)) / 8;
}

static void cut_shards(const struct source *source, uint64_t shard_bytes, struct layout *out) {
    out->shards = arena_array(&out->arena, source->tensor_count + 1, sizeof *out->shards);
    struct layout_shard *shard = &out->shards[0];
    for (size_t i = 0; i < source->tensor_count; i++) {
        uint64_t bytes = output_bytes(&source->tensors[i], out->tensors[i].quantized);
        if (shard->bytes > 0 && shard->bytes + bytes > shard_bytes) {
            shard++;
            shard->first = i;
        }
        shard->bytes += bytes;
        shard->end = i + 1;
        out->tensors[i].shard = (size_t)(shard - out->shards);
    }
    out->shard_count = (size_t)(shard - out->shards) + 1;
    for (size_t s = 0; s < out->shard_count; s++) {
        if (out->shard_count == 1)
            snprintf(out->shards[s].name, sizeof out->shards[s].name, "model.safetensors");
        else
            snprintf(out->shards[s].name, sizeof out->shards[s].name,
                     "model-%05zu-of-%05zu.safetensors", s + 1, out->shard_count);
    }
}

/* The three tensors of a quantised matrix, with the names and shapes of the dialect. */
static void matrix_tensors(const struct source_tensor *t, enum layout_dialect dialect,
                           struct arena *arena, struct writer_tensor *codes,
                           struct writer_tensor *scales, struct writer_tensor *global) {
    struct slice m = policy_module(t);
    int n = (int)m.size;
    bool packed = dialect == LAYOUT_COMPRESSED_TENSORS;
    *codes = (struct writer_tensor){
        .name = packed ? arena_printf(arena, "%.*s.weight_packed", n, m.data) : t->name,
        .dtype = DTYPE_U8,
        .dims = 2,
        .shape = {t->rows, t->cols / 2}};
    *scales = (struct writer_tensor){.name = arena_printf(arena, "%.*s.weight_scale", n, m.data),
                                     .dtype = DTYPE_F8_E4M3,
                                     .dims = 2,
                                     .shape = {t->rows, t->cols / NVFP4_BLOCK}};
    *global = (struct writer_tensor){
        .name = arena_printf(arena, packed ? "%.*s.weight_global_scale" : "%.*s.weight_scale_2", n,
                             m.data),
        .dtype = DTYPE_F32,
        .dims = packed,
        .shape = {1}};
}

/* Large element types first, codes (whole multiples of 8 bytes) before scales (any number): every
 * tensor of the file is then aligned to its elements. */
static int rank_of(const struct writer_tensor *t) {
    if (t->dtype == DTYPE_F8_E4M3) return 5;
    switch (dtype_bits(t->dtype)) {
    case 128:
    case 64:
        return 0;
    case 32:
        return 1;
    case 16:
        return 2;
    default:
        return t->dtype == DTYPE_U8 ? 3 : 4;
    }
}

enum { RANKS = 6 };

struct part {
    struct writer_tensor tensor;
    size_t *index; /* where its place in the shard is kept */
};

static size_t list_parts(const struct source *source, enum layout_dialect dialect,
                         const struct layout_shard *shard, struct layout *out, struct part *parts) {
    size_t n = 0;
    for (size_t i = shard->first; i < shard->end; i++) {
        struct layout_tensor *to = &out->tensors[i];
        if (!to->quantized) {
            parts[n++] = (struct part){plain_tensor(&source->tensors[i]), &to->plain};
            continue;
        }
        matrix_tensors(&source->tensors[i], dialect, &out->arena, &parts[n].tensor,
                       &parts[n + 1].tensor, &parts[n + 2].tensor);
        parts[n++].index = &to->codes;
        parts[n++].index = &to->scales;
        parts[n++].index = &to->global;
    }
    return n;
}

static void fill_shard(const struct source *source, enum layout_dialect dialect,
                       struct layout_shard *shard, struct layout *out) {
    size_t room = 3 * (shard->end - shard->first) + 1;
    struct part *parts = mem_zero(room, sizeof *parts);
    size_t n = list_parts(source, dialect, shard, out, parts);
    shard->tensors = arena_array(&out->arena, room, sizeof *shard->tensors);
    for (int rank = 0; rank < RANKS; rank++) {
        for (size_t p = 0; p < n; p++) {
            if (rank_of(&parts[p].tensor) != rank) continue;
            *parts[p].index = shard->count;
            shard->tensors[shard->count++] = parts[p].tensor;
        }
    }
    free(parts);
}

void layout_make(const struct source *source, enum quantize_method method,
                 enum layout_dialect dialect, uint64_t shard_bytes, struct layout *out) {
    *out = (struct layout){.tensor_count = source->tensor_count};
    out->tensors = arena_array(&out->arena, source->tensor_count + 1, sizeof *out->tensors);
    for (size_t i = 0; i < source->tensor_count; i++)
        out->tensors[i].quantized =
            method != QUANTIZE_NONE && policy_quantizes(&source->tensors[i]);
    number_groups(source, out);
    cut_shards(source, shard_bytes, out);
    for (size_t s = 0; s < out->shard_count; s++) fill_shard(source, dialect, &out->shards[s], out);
}

void layout_free(struct layout *layout) {
    arena_free(&layout->arena);
    *layout = (struct layout){0};
}

void layout_index_json(const struct layout *layout, struct str *out) {
    uint64_t total = 0;
    for (size_t s = 0; s < layout->shard_count; s++) total += layout->shards[s].bytes;
    str_printf(out, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
               (unsigned long long)total);
    const char *separator = "\n    ";
    for (size_t s = 0; s < layout->shard_count; s++) {
        const struct layout_shard *shard = &layout->shards[s];
        for (size_t i = 0; i < shard->count; i++) {
            str_add_text(out, separator);
            str_add_json(out, shard->tensors[i].name, strlen(shard->tensors[i].name));
            str_printf(out, ": \"%s\"", shard->name);
            separator = ",\n    ";
        }
    }
    str_add_text(out, "\n  }\n}\n");
}
