/* imp_inspect: a checkpoint as one JSON document. What cannot be run is still described. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "engine/limits.h"
#include "engine/open.h"
#include "load/checkpoint.h"
#include "model/model.h"
#include "model/tensors.h"

struct inspection {
    struct checkpoint ck;
    struct arena arena;
    struct model_desc desc;
    struct checkpoint_counts counts;
    int64_t parameters; /* of desc */

    struct str out;
    bool first; /* no comma yet at this level */
};

static void key(struct inspection *in, const char *name) {
    if (!in->first) str_add_text(&in->out, ", ");
    in->first = false;
    str_add_json(&in->out, name, strlen(name));
    str_add_text(&in->out, ": ");
}

static void put_int(struct inspection *in, const char *name, int64_t value) {
    key(in, name);
    str_printf(&in->out, "%lld", (long long)value);
}

static void put_string(struct inspection *in, const char *name, const char *value) {
    key(in, name);
    str_add_json(&in->out, value, strlen(value));
}

static void open_object(struct inspection *in, const char *name) {
    key(in, name);
    str_add_char(&in->out, '{');
    in->first = true;
}

static void close_object(struct inspection *in) {
    str_add_char(&in->out, '}');
    in->first = false;
}

static size_t tensor_bytes(const struct checkpoint *ck) {
    size_t total = 0;
    for (size_t i = 0; i < ck->tensor_count; i++) total += ck->tensors[i]->bytes;
    return total;
}

static void put_dtypes(struct inspection *in) {
    size_t bytes[DTYPE_COUNT] = {0}, count[DTYPE_COUNT] = {0};
    for (size_t i = 0; i < in->ck.tensor_count; i++) {
        bytes[in->ck.tensors[i]->dtype] += in->ck.tensors[i]->bytes;
        count[in->ck.tensors[i]->dtype]++;
    }
    open_object(in, "dtypes");
    for (int t = 0; t < DTYPE_COUNT; t++) {
        if (count[t] == 0) continue;
        key(in, dtype_name((enum dtype)t));
        str_printf(&in->out, "{\"tensors\": %zu, \"bytes\": %zu}", count[t], bytes[t]);
    }
    close_object(in);
}

/* What the tensors are for: of the language model, of a drafter, of a vision tower ... */
static void put_roles(struct inspection *in) {
    open_object(in, "roles");
    for (int r = 0; r < TENSOR_ROLES; r++) {
        if (in->counts.tensors[r] == 0) continue;
        key(in, checkpoint_role_name((enum tensor_role)r));
        str_printf(&in->out, "{\"tensors\": %zu, \"bytes\": %llu}", in->counts.tensors[r],
                   (unsigned long long)in->counts.bytes[r]);
    }
    close_object(in);
}

static void put_tensors(struct inspection *in) {
    key(in, "tensors");
    str_add_char(&in->out, '[');
    for (size_t i = 0; i < in->ck.tensor_count; i++) {
        const struct tensor *t = in->ck.tensors[i];
        const char *file = strrchr(t->file, '/');
        file = file ? file + 1 : t->file;
        str_add_text(&in->out, i ? ", {\"name\": " : "{\"name\": ");
        str_add_json(&in->out, t->name, strlen(t->name));
        str_printf(&in->out, ", \"dtype\": \"%s\", \"shape\": [", dtype_name(t->dtype));
        for (int d = 0; d < t->dims; d++)
            str_printf(&in->out, "%s%lld", d ? ", " : "", (long long)t->shape[d]);
        str_printf(&in->out, "], \"bytes\": %zu, \"offset\": %llu, \"file\": ", t->bytes,
                   (unsigned long long)t->file_offset);
        str_add_json(&in->out, file, strlen(file));
        str_add_char(&in->out, '}');
    }
    str_add_char(&in->out, ']');
}

/* ---- the description ---- */

static bool same_mixer(const struct layer_desc *a, const struct layer_desc *b) {
    const struct attention_desc *x = &a->attention, *y = &b->attention;
    const struct gdn_shape *s = &a->gdn.shape, *t = &b->gdn.shape;
    if (a->mixer != b->mixer) return false;
    if (a->mixer == MIXER_GDN)
        return s->key_heads == t->key_heads && s->value_heads == t->value_heads &&
               s->key_dim == t->key_dim && s->value_dim == t->value_dim;
    return x->heads == y->heads && x->kv_heads == y->kv_heads && x->head_dim == y->head_dim &&
           x->window == y->window && x->shares_kv == y->shares_kv;
}

static void put_mixer(struct inspection *in, const struct layer_desc *layer, int layers) {
    const struct attention_desc *a = &layer->attention;
    const struct gdn_shape *s = &layer->gdn.shape;
    str_add_char(&in->out, '{');
    in->first = true;
    put_string(in, "kind", layer->mixer == MIXER_GDN ? "gated delta net" : "attention");
    put_int(in, "layers", layers);
    if (layer->mixer == MIXER_GDN) {
        put_int(in, "key_heads", s->key_heads);
        put_int(in, "key_dim", s->key_dim);
        put_int(in, "value_heads", s->value_heads);
        put_int(in, "value_dim", s->value_dim);
    } else {
        put_int(in, "heads", a->heads);
        put_int(in, "kv_heads", a->kv_heads);
        put_int(in, "head_dim", a->head_dim);
        put_int(in, "window", a->window);
        key(in, "shares_kv");
        str_add_text(&in->out, a->shares_kv ? "true" : "false");
    }
    close_object(in);
}

/* Each different mixer once, with the number of layers that have it. */
static void put_layer_kinds(struct inspection *in) {
    const struct model_desc *d = &in->desc;
    bool comma = false;
    key(in, "layer_kinds");
    str_add_char(&in->out, '[');
    for (int i = 0; i < d->layers; i++) {
        int first = 0, layers = 0;
        while (!same_mixer(&d->layer[first], &d->layer[i])) first++;
        if (first < i) continue;
        for (int k = i; k < d->layers; k++) layers += same_mixer(&d->layer[k], &d->layer[i]);
        if (comma) str_add_text(&in->out, ", ");
        comma = true;
        put_mixer(in, &d->layer[i], layers);
    }
    str_add_char(&in->out, ']');
}

/* The shape that one line can say: that of the first layer which has the thing. */
static void put_shape(struct inspection *in) {
    const struct model_desc *d = &in->desc;
    const struct attention_desc *a = NULL;
    const struct moe_desc *m = NULL;
    int64_t ffn = 0;
    for (int i = d->layers - 1; i >= 0; i--) {
        const struct layer_desc *layer = &d->layer[i];
        if (layer->mixer == MIXER_ATTENTION) a = &layer->attention;
        if (layer->moe.experts) m = &layer->moe;
        if (layer->ffn.width) ffn = layer->ffn.width;
    }
    if (a) {
        put_int(in, "heads", a->heads);
        put_int(in, "kv_heads", a->kv_heads);
        put_int(in, "head_dim", a->head_dim);
    }
    if (ffn) put_int(in, "intermediate_size", ffn);
    if (m) {
        put_int(in, "experts", m->experts);
        put_int(in, "experts_per_token", m->top_k);
        put_int(in, "expert_intermediate_size", m->width);
        if (m->shared_width) put_int(in, "shared_expert_intermediate_size", m->shared_width);
    }
}

static void put_desc(struct inspection *in) {
    const struct model_desc *d = &in->desc;
    put_string(in, "family", d->family);
    in->parameters = model_desc_parameters(d);
    put_int(in, "parameters", in->parameters);
    put_int(in, "layers", d->layers);
    put_int(in, "hidden_size", d->hidden);
    put_int(in, "vocab_size", d->vocab);
    put_int(in, "max_context_tokens", d->max_context);
    put_shape(in);
    put_layer_kinds(in);
    key(in, "tied_head");
    str_add_text(&in->out, d->tied_head ? "true" : "false");
    key(in, "eos_token_ids");
    str_add_char(&in->out, '[');
    for (int i = 0; i < d->eos_count; i++) str_printf(&in->out, "%s%d", i ? ", " : "", d->eos[i]);
    str_add_char(&in->out, ']');
    if (in->ck.tensor_count > 0) {
        key(in, "bits_per_weight");
        str_printf(&in->out, "%.3f",
                   8.0 * (double)in->counts.bytes[TENSOR_TEXT] / (double)in->parameters);
    }
}

/* The plan as it would be made at opening; weights as stored, or BF16 if there are no tensors. */
static int put_memory(struct inspection *in, const struct imp_options *options,
                      struct imp_error *err) {
    struct backend *be = NULL;
    struct limits l = {0};
    int threads, rc = open_backend(options, &be, &threads, err);
    if (rc < 0) return rc;
    size_t weights = (size_t)in->counts.bytes[TENSOR_TEXT];
    if (weights == 0) weights = (size_t)in->parameters * 2;
    rc = limits_make(&in->desc, be, options, threads, weights, &l, err);
    bool fits = rc == 0;
    if (rc == IMP_ERR_MEMORY && l.kv_blocks > 0) rc = 0; /* the sum is what was asked for */
    if (rc == 0) {
        put_int(in, "kv_bytes_per_token", (int64_t)(l.kv_block_bytes / KV_BLOCK_TOKENS));
        open_object(in, "memory");
        put_string(in, "device", be->name);
        put_int(in, "context_tokens", l.context);
        put_int(in, "max_batch", l.max_batch);
        put_int(in, "prefill_chunk", l.prefill_chunk);
        put_int(in, "kv_blocks", l.kv_blocks);
        put_int(in, "kv_block_tokens", KV_BLOCK_TOKENS);
        put_int(in, "kv_block_bytes", (int64_t)l.kv_block_bytes);
        put_int(in, "weight_bytes", (int64_t)l.weight_bytes);
        put_int(in, "kv_bytes", (int64_t)l.kv_bytes);
        put_int(in, "sequences", l.seats);
        put_int(in, "window_tokens", l.window);
        put_int(in, "window_blocks_per_sequence", l.window_blocks);
        put_int(in, "window_block_bytes", (int64_t)l.window_block_bytes);
        put_int(in, "window_bytes", (int64_t)l.window_bytes);
        put_int(in, "state_bytes_per_sequence", (int64_t)l.slot_bytes);
        put_int(in, "state_bytes", (int64_t)l.state_bytes);
        put_int(in, "activation_bytes", (int64_t)l.activation_bytes);
        put_int(in, "scratch_bytes", (int64_t)l.scratch_bytes);
        put_int(in, "total_bytes", (int64_t)limits_total_bytes(&l));
        key(in, "fits");
        str_add_text(&in->out, fits ? "true" : "false");
        close_object(in);
    }
    backend_close(be);
    return rc;
}

static int describe(struct inspection *in, const char *path, const struct imp_options *options,
                    struct imp_error *err) {
    static const char *const dialects[] = {"none", "compressed-tensors", "modelopt"};
    str_add_char(&in->out, '{');
    in->first = true;
    put_string(in, "path", path);
    put_string(in, "model_type", in->ck.config.model_type);
    if (strcmp(in->ck.config.top_type, in->ck.config.model_type) != 0)
        put_string(in, "wrapper", in->ck.config.top_type);
    put_string(in, "dialect", dialects[in->ck.dialect]);
    put_int(in, "files", (int64_t)in->ck.file_count);
    put_int(in, "tensor_count", (int64_t)in->ck.tensor_count);
    put_int(in, "tensor_bytes", (int64_t)tensor_bytes(&in->ck));
    int rc = model_describe(&in->ck.config, &in->arena, &in->desc, err);
    if (rc == 0) {
        put_desc(in);
        rc = put_memory(in, options, err);
    }
    key(in, "supported");
    str_add_text(&in->out, rc == 0 ? "true" : "false");
    if (rc < 0) put_string(in, "reason", err->message);
    put_dtypes(in);
    put_roles(in);
    put_tensors(in);
    str_add_text(&in->out, "}");
    return rc;
}

int imp_inspect(const char *path, const struct imp_options *options, char **json,
                struct imp_error *err) {
    struct inspection in = {.first = true};
    struct imp_options defaults;
    struct imp_error local = {0};
    if (err == NULL) err = &local;
    options_default(&defaults);
    if (options == NULL) options = &defaults;
    *json = NULL;
    int rc = checkpoint_open(path, false, &options->log, &in.ck, err);
    if (rc == 0) {
        checkpoint_count(&in.ck, &in.counts);
        rc = describe(&in, path, options, err);
        *json = str_take(&in.out);
    }
    str_free(&in.out);
    arena_free(&in.arena);
    checkpoint_close(&in.ck);
    return rc;
}
