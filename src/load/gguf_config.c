/* config.json and generation_config.json of an imported GGUF file, as transformers writes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "load/gguf_import_internal.h"

/* The shortest decimal that is the same fp32: 1e-05, not 9.99999974737875e-06. */
static void add_float(struct str *s, double value) {
    char text[40];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtof(text, NULL) == (float)value) break;
    }
    str_add_text(s, text);
    if (strpbrk(text, ".e") == NULL) str_add_text(s, ".0");
}

static void add_int(struct str *s, const char *key, int64_t value) {
    str_printf(s, "  \"%s\": %lld,\n", key, (long long)value);
}

/* ---- rope scaling ---- */

static const double PI = 3.14159265358979323846;

/* Llama 3 files carry one divisor per frequency instead of the rule that made them. The rule is
 * known; only its factor differs between models. */
static bool matches_llama3(const float *divisor, const struct gguf_shape *s, double factor) {
    const double low = 1, high = 4, original = 8192;
    for (int64_t i = 0; i < s->head_dim / 2; i++) {
        double f = pow(s->theta, -2.0 * (double)i / (double)s->head_dim);
        double wavelength = 2 * PI / f, want = 1;
        if (wavelength > original / low) {
            want = factor;
        } else if (wavelength > original / high) {
            double t = (original / wavelength - low) / (high - low);
            want = 1 / ((1 - t) / factor + t);
        }
        if (fabs((double)divisor[i] - want) > 1e-4 * want) return false;
    }
    return true;
}

static int add_llama3(struct gguf_import *in, const struct gguf_shape *s,
                      const struct gguf_tensor *t, struct str *out, struct imp_error *err) {
    static const double factors[] = {8, 32};
    float divisor[512];
    const char *key = "rope_freqs.weight";
    if (t->dims != 1 || t->shape[0] != s->head_dim / 2 || t->type != GGUF_F32)
        return gguf_key_error(in->source, key, IMP_ERR_FILE, err,
                              "must hold one F32 value for each pair of a head");
    gguf_dequantize(t, 0, t->shape[0], divisor);
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        if (!matches_llama3(divisor, s, factors[i])) continue;
        str_printf(out,
                   "  \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": %.1f, "
                   "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                   "\"original_max_position_embeddings\": 8192},\n",
                   factors[i]);
        return 0;
    }
    return gguf_key_error(in->source, key, IMP_ERR_UNSUPPORTED, err,
                          "divides the frequencies by a rule that is not known");
}

static int add_rope_scaling(struct gguf_import *in, const struct gguf_shape *s, struct str *out,
                            struct imp_error *err) {
    const struct gguf *g = in->source;
    const struct gguf_tensor *divisors = gguf_find_tensor(g, "rope_freqs.weight");
    char type_key[64], factor_key[64], original_key[64];
    snprintf(type_key, sizeof type_key, "%s.rope.scaling.type", in->architecture);
    snprintf(factor_key, sizeof factor_key, "%s.rope.scaling.factor", in->architecture);
    snprintf(original_key, sizeof original_key, "%s.rope.scaling.original_context_length",
             in->architecture);
    struct slice type;
    double factor = 1;
    int64_t original = 0;
    int rc;
    if ((rc = gguf_key_string(g, type_key, &type, err)) < 0 ||
        (rc = gguf_key_float(g, factor_key, 0, 1e6, 1, &factor, err)) < 0 ||
        (rc = gguf_key_int(g, original_key, 1, CAP_CONTEXT, s->context, &original, err)) < 0)
        return rc;
    bool none = type.data == NULL || slice_equal(type, slice_of("none"));
    if (divisors && (none || slice_equal(type, slice_of("llama3"))))
        return add_llama3(in, s, divisors, out, err);
    if (divisors)
        return gguf_key_error(g, type_key, IMP_ERR_UNSUPPORTED, err,
                              "contradicts the tensor rope_freqs.weight");
    if (none) return 0;
    bool linear = slice_equal(type, slice_of("linear")), yarn = slice_equal(type, slice_of("yarn"));
    if (!linear && !yarn)
        return gguf_key_error(g, type_key, IMP_ERR_UNSUPPORTED, err, "\"%.*s\" is not known",
                              (int)(type.size > 40 ? 40 : type.size), type.data);
    str_printf(out, "  \"rope_scaling\": {\"rope_type\": \"%s\", \"factor\": ",
               linear ? "linear" : "yarn");
    add_float(out, factor);
    if (yarn) str_printf(out, ", \"original_max_position_embeddings\": %lld", (long long)original);
    str_add_text(out, "},\n");
    return 0;
}

/* ---- the two files ---- */

struct special_ids {
    int64_t bos, eos, pad; /* -1: none */
    int64_t eot, eom;      /* further ends, where the file names them */
};

static int read_id(const struct gguf *g, const struct gguf_shape *s, const char *key, int64_t *out,
                   struct imp_error *err) {
    *out = -1;
    if (gguf_find(g, key) == NULL) return 0;
    return gguf_key_int(g, key, 0, s->vocab - 1, 0, out, err);
}

static int read_special(const struct gguf *g, const struct gguf_shape *s, struct special_ids *ids,
                        struct imp_error *err) {
    int rc;
    if ((rc = read_id(g, s, "tokenizer.ggml.bos_token_id", &ids->bos, err)) < 0 ||
        (rc = read_id(g, s, "tokenizer.ggml.eos_token_id", &ids->eos, err)) < 0 ||
        (rc = read_id(g, s, "tokenizer.ggml.padding_token_id", &ids->pad, err)) < 0)
        return rc;
    if ((rc = read_id(g, s, "tokenizer.ggml.eot_token_id", &ids->eot, err)) < 0) return rc;
    return read_id(g, s, "tokenizer.ggml.eom_token_id", &ids->eom, err);
}

static void add_id(struct str *s, const char *key, int64_t id) {
    if (id >= 0) str_printf(s, "  \"%s\": %lld,\n", key, (long long)id);
}

static void add_eos(struct str *s, const struct special_ids *ids) {
    const int64_t all[] = {ids->eos, ids->eot, ids->eom};
    int64_t ends[3];
    int count = 0;
    for (int i = 0; i < 3; i++) {
        bool seen = all[i] < 0;
        for (int j = 0; j < count; j++) seen = seen || ends[j] == all[i];
        if (!seen) ends[count++] = all[i];
    }
    if (count == 1) add_id(s, "eos_token_id", ends[0]);
    if (count < 2) return;
    str_add_text(s, "  \"eos_token_id\": [");
    for (int i = 0; i < count; i++) str_printf(s, "%s%lld", i ? ", " : "", (long long)ends[i]);
    str_add_text(s, "],\n");
}

/* rope_local_base_freq and layer_types are the spelling that every reader of Gemma 3 knows. */
static void add_gemma(struct str *c, const struct gguf_shape *s) {
    str_add_text(c, "  \"hidden_activation\": \"gelu_pytorch_tanh\",\n");
    add_int(c, "query_pre_attn_scalar", s->query_scalar);
    add_int(c, "sliding_window", s->window);
    str_add_text(c, "  \"rope_local_base_freq\": ");
    add_float(c, s->window_theta);
    str_add_text(c, ",\n  \"final_logit_softcapping\": ");
    if (s->logit_softcap > 0)
        add_float(c, s->logit_softcap);
    else
        str_add_text(c, "null");
    str_add_text(c, ",\n  \"attention_bias\": false,\n  \"layer_types\": [");
    for (int64_t i = 0; i < s->layers; i++)
        str_printf(c, "%s\"%s_attention\"", i ? ", " : "",
                   (i + 1) % s->window_pattern ? "sliding" : "full");
    str_add_text(c, "],\n");
}

static void add_mixture(struct str *c, const struct gguf_shape *s) {
    add_int(c, "num_experts", s->experts);
    add_int(c, "num_experts_per_tok", s->top_k);
    add_int(c, "moe_intermediate_size", s->expert_width);
    /* llama.cpp has no key for it: every model of the family does. */
    str_add_text(c, "  \"norm_topk_prob\": true,\n  \"decoder_sparse_step\": 1,\n"
                    "  \"mlp_only_layers\": [],\n");
}

/* Fields that only some of the families have. */
static void add_family(struct str *c, const struct gguf_shape *s) {
    if (s->arch->post_norms) {
        add_gemma(c, s);
        return;
    }
    str_add_text(c, "  \"hidden_act\": \"silu\",\n");
    if (!s->arch->biased)
        str_printf(c, "  \"attention_bias\": %s,\n", s->attention_bias ? "true" : "false");
    if (s->arch->permuted) str_add_text(c, "  \"mlp_bias\": false,\n");
    if (s->experts > 0) add_mixture(c, s);
}

int gguf_write_config(struct gguf_import *in, const struct gguf_shape *shape,
                      struct imp_error *err) {
    struct special_ids ids;
    struct str c = {0}, g = {0};
    int rc = read_special(in->source, shape, &ids, err);
    if (rc < 0) return rc;
    str_printf(&c, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
               shape->arch->class_name, shape->arch->model_type);
    add_int(&c, "vocab_size", shape->vocab);
    add_int(&c, "hidden_size", shape->hidden);
    add_int(&c, "intermediate_size", shape->width);
    add_int(&c, "num_hidden_layers", shape->layers);
    add_int(&c, "num_attention_heads", shape->heads);
    add_int(&c, "num_key_value_heads", shape->kv_heads);
    add_int(&c, "head_dim", shape->head_dim);
    add_int(&c, "max_position_embeddings", shape->context);
    str_add_text(&c, "  \"rms_norm_eps\": ");
    add_float(&c, shape->eps);
    str_add_text(&c, ",\n  \"rope_theta\": ");
    add_float(&c, shape->theta);
    str_add_text(&c, ",\n");
    rc = add_rope_scaling(in, shape, &c, err);
    add_family(&c, shape);
    add_id(&c, "bos_token_id", ids.bos);
    add_eos(&c, &ids);
    add_id(&c, "pad_token_id", ids.pad);
    str_printf(&c, "  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"bfloat16\"\n}\n",
               shape->tied ? "true" : "false");
    str_add_text(&g, "{\n");
    add_id(&g, "bos_token_id", ids.bos);
    add_eos(&g, &ids);
    add_id(&g, "pad_token_id", ids.pad);
    str_add_text(&g, "  \"_from_model_config\": true\n}\n");
    if (rc < 0) {
        str_free(&c);
        str_free(&g);
        return rc;
    }
    in->config = str_take(&c);
    in->generation_config = str_take(&g);
    return 0;
}
