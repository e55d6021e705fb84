/* What the tensors of a checkpoint are for, by their names; and the scales of its KV cache. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "load/quant_internal.h"

/* A part of the name, before any "layers", that says whose the tensor is. */
static const struct {
    const char *segment;
    enum tensor_role role;
} SEGMENTS[] = {
    {"layers", TENSOR_TEXT}, /* what comes behind is a layer's */
    {"mtp", TENSOR_MTP},
    {"pre_projection", TENSOR_DRAFTER}, /* Gemma 4's assistants */
    {"post_projection", TENSOR_DRAFTER},
    {"masked_embedding", TENSOR_DRAFTER},
    {"midlayer", TENSOR_DRAFTER}, /* EAGLE's */
    {"d2t", TENSOR_DRAFTER},
    {"t2d", TENSOR_DRAFTER},
    {"medusa_heads", TENSOR_DRAFTER},
    {"visual", TENSOR_VISION},
    {"vision_tower", TENSOR_VISION},
    {"vision_model", TENSOR_VISION},
    {"vision_encoder", TENSOR_VISION},
    {"vision_embedder", TENSOR_VISION},
    {"vision_language_adapter", TENSOR_VISION},
    {"embed_vision", TENSOR_VISION},
    {"multi_modal_projector", TENSOR_VISION},
    {"mm_projector", TENSOR_VISION},
    {"patch_merger", TENSOR_VISION},
    {"pre_mm_projector_norm", TENSOR_VISION},
    {"audio_tower", TENSOR_AUDIO},
    {"audio_model", TENSOR_AUDIO},
    {"audio_encoder", TENSOR_AUDIO},
    {"embed_audio", TENSOR_AUDIO},
    {"talker", TENSOR_AUDIO},
    {"token2wav", TENSOR_AUDIO},
    {"code2wav", TENSOR_AUDIO},
};

/* The end of a name, whatever stands before it. */
static const struct {
    const char *end;
    enum tensor_role role;
} ENDS[] = {
    {".rotary_emb.inv_freq", TENSOR_UNUSED},
    {".input_min", TENSOR_UNUSED},
    {".input_max", TENSOR_UNUSED},
    {".output_min", TENSOR_UNUSED},
    {".output_max", TENSOR_UNUSED},
    {".weight_zero_point", TENSOR_UNUSED}, /* of a symmetric format */
    {".k_scale", TENSOR_KV_SCALE},
    {".v_scale", TENSOR_KV_SCALE},
    {".q_scale", TENSOR_KV_SCALE},
    {".kv_scale", TENSOR_KV_SCALE},
    {".output_scale", TENSOR_KV_SCALE},
    {".prob_output_scale", TENSOR_KV_SCALE},
    {".k_cache.scale", TENSOR_KV_SCALE},
    {".v_cache.scale", TENSOR_KV_SCALE},
    {".q.scale", TENSOR_KV_SCALE},
    {".k_proj.k_bias", TENSOR_KV_SCALE}, /* ModelOpt's affine cache */
    {".v_proj.v_bias", TENSOR_KV_SCALE},
};

static enum tensor_role by_segments(const char *name) {
    while (*name) {
        size_t n = strcspn(name, ".");
        for (size_t i = 0; i < sizeof SEGMENTS / sizeof *SEGMENTS; i++) {
            if (strlen(SEGMENTS[i].segment) == n && memcmp(name, SEGMENTS[i].segment, n) == 0)
                return SEGMENTS[i].role;
        }
        name += n + (name[n] == '.');
    }
    return TENSOR_TEXT;
}

enum tensor_role checkpoint_role(const char *name) {
    enum tensor_role role = by_segments(name);
    if (role != TENSOR_TEXT) return role;
    for (size_t i = 0; i < sizeof ENDS / sizeof *ENDS; i++) {
        if (slice_ends(slice_of(name), ENDS[i].end)) return ENDS[i].role;
    }
    return TENSOR_TEXT;
}

const char *checkpoint_role_name(enum tensor_role role) {
    static const char *const names[] = {"text",  "mtp",      "drafter", "vision",
                                        "audio", "kv_scale", "unused"};
    return names[role];
}

void checkpoint_count(const struct checkpoint *ck, struct checkpoint_counts *out) {
    *out = (struct checkpoint_counts){0};
    for (size_t i = 0; i < ck->tensor_count; i++) {
        enum tensor_role role = checkpoint_role(ck->tensors[i]->name);
        out->tensors[role]++;
        out->bytes[role] += ck->tensors[i]->bytes;
    }
}

size_t checkpoint_unread(const struct checkpoint *ck, const struct tensor **first) {
    size_t count = 0;
    *first = NULL;
    for (size_t i = 0; i < ck->tensor_count; i++) {
        if (ck->read[i] || checkpoint_role(ck->tensors[i]->name) != TENSOR_TEXT) continue;
        if (count++ == 0) *first = ck->tensors[i];
    }
    return count;
}

/* ---- KV scales ---- */

/* All are multipliers. ModelOpt's, compressed-tensors' now and formerly, then what other writers
 * have; the last two serve k and v alike. */
static const char *const K_NAMES[] = {"k_proj.k_scale", "k_scale",           "k_proj.output_scale",
                                      "attn.k_scale",   "qkv_proj.k_scale",  "k_cache.scale",
                                      "kv_scale",       "qkv_proj.kv_scale", NULL};
static const char *const V_NAMES[] = {"v_proj.v_scale", "v_scale",           "v_proj.output_scale",
                                      "attn.v_scale",   "qkv_proj.v_scale",  "v_cache.scale",
                                      "kv_scale",       "qkv_proj.kv_scale", NULL};

static bool largest(const struct tensor *t, float *out) {
    enum { HEADS = 1024 };
    float values[HEADS];
    int64_t n = tensor_elements(t);
    if (n < 1 || n > HEADS) return false;
    if (!quant_to_floats(t, values)) return false;
    *out = values[0];
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(values[i]) || !(values[i] > 0)) return false;
        *out = fmaxf(*out, values[i]);
    }
    return true;
}

static float kv_scale(struct checkpoint *ck, const char *attention, const char *const *names) {
    char name[CAP_TENSOR_NAME + 64];
    float scale;
    for (; *names; names++) {
        int n = snprintf(name, sizeof name, "%s.%s", attention, *names);
        const struct tensor *t = n < (int)sizeof name ? checkpoint_find(ck, name) : NULL;
        if (t == NULL) continue;
        quant_mark_read(ck, t);
        if (largest(t, &scale)) return scale;
        if (!(ck->said & SAID_KV))
            log_line(ck->log, LOG_WARNING,
                     "tensor %s is no usable scale of a KV cache; 1 serves instead", t->name);
        ck->said |= SAID_KV;
    }
    return 1;
}

void checkpoint_kv_scales(struct checkpoint *ck, const char *attention, float *k, float *v) {
    *k = kv_scale(ck, attention, K_NAMES);
    *v = kv_scale(ck, attention, V_NAMES);
}
