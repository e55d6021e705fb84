/* Opening and closing an engine: files, then sizes, then memory, then the thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/thread.h"
#include "engine/open.h"
#include "load/gguf_import.h"
#include "model/tensors.h"

static char *last_part(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/') start--;
    return mem_strndup(path + start, n - start);
}

/* The folder whose tokenizer belongs to `path`, which may be one of its files. */
static char *folder_of(const char *path) {
    if (file_is_folder(path)) return mem_strndup(path, strlen(path));
    const char *slash = strrchr(path, '/');
    return slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strndup(".", 1);
}

static bool is_gguf(const char *path) {
    return slice_ends(slice_of(path), ".gguf") && !file_is_folder(path);
}

/* A model is a folder, or one of its files: say what another file is. For text a GGUF file does. */
static int check_path(const char *path, bool model, struct imp_error *err) {
    struct slice name = slice_of(path);
    if (!file_exists(path)) return error_set(err, IMP_ERR_IO, path, "no such file or folder");
    if (file_is_folder(path) || slice_ends(name, ".safetensors") || slice_ends(name, ".json"))
        return 0;
    if (is_gguf(path) && !model) return 0;
    if (is_gguf(path))
        return error_set(
            err, IMP_ERR_FILE, path,
            "a GGUF file is not run as it is: imp quantize makes a model folder of it");
    return error_set(err, IMP_ERR_FILE, path, "neither a model folder nor a .safetensors file");
}

/* Whether a GPU is asked for, or there to be tried. */
static bool may_use_gpu(const struct imp_options *o) {
    if (o->value[SETTING_DEVICE] >= DEVICE_GPU) return true;
    return o->value[SETTING_DEVICE] == DEVICE_AUTO &&
           o->value[SETTING_REFERENCE] == REFERENCE_FALSE &&
           o->value[SETTING_ACTIVATIONS] == ACTIVATIONS_BF16 && backend_gpu_exists();
}

static int check_options(const struct imp_options *o, bool gpu, struct imp_error *err) {
    if (!gpu && o->value[SETTING_KV_DTYPE] != KV_BF16)
        return error_set(err, IMP_ERR_UNSUPPORTED, NULL, "kv.dtype=fp8 is not there on a CPU");
    return 0;
}

int open_backend(const struct imp_options *o, struct backend **out, int *threads,
                 struct imp_error *err) {
    *threads = o->value[SETTING_THREADS] ? (int)o->value[SETTING_THREADS] : cpu_count();
    const int64_t device = o->value[SETTING_DEVICE];
    struct backend_options options = {
        .kind = device >= DEVICE_GPU                             ? BACKEND_GPU
                : o->value[SETTING_REFERENCE] == REFERENCE_FALSE ? BACKEND_CPU
                                                                 : BACKEND_CPU_REFERENCE,
        .threads = *threads,
        .device = device >= DEVICE_GPU ? (int)(device - DEVICE_GPU) : 0,
        .round_bf16 = o->value[SETTING_REFERENCE] == REFERENCE_ROUNDED,
        .nvfp4_activations = o->value[SETTING_ACTIVATIONS] == ACTIVATIONS_NVFP4,
        .graphs = o->value[SETTING_GRAPHS] == GRAPHS_AUTO,
        .pdl = o->value[SETTING_PDL] != 0,
        .kv_fp8 = o->value[SETTING_KV_DTYPE] == KV_FP8,
        .fail_call = o->value[SETTING_FAIL_CALL],
        .isa = options_isa(o)};
    if (device == DEVICE_AUTO && may_use_gpu(o)) {
        struct imp_error why = {0};
        options.kind = BACKEND_GPU;
        if (backend_open(&options, out, &why) == 0) return 0;
        log_line(&o->log, LOG_WARNING, "%s: running on the CPU", why.message);
        options.kind = BACKEND_CPU;
    }
    const int rc = check_options(o, options.kind == BACKEND_GPU, err);
    return rc < 0 ? rc : backend_open(&options, out, err);
}

/* Tokenizer and chat template of a GGUF file, as imp quantize would write them. */
static int open_gguf_text(struct imp_engine *e, const char *path, struct imp_error *err) {
    struct gguf file = {0};
    struct gguf_import import = {0};
    int rc = gguf_open(path, &file, err);
    if (rc == 0) rc = gguf_import_open(&file, &import, err);
    if (rc == 0)
        rc = tokenizer_parse(import.tokenizer, strlen(import.tokenizer), path, &e->options.log,
                             &e->tokenizer, err);
    if (rc == 0)
        rc = chat_parse(import.tokenizer_config, strlen(import.tokenizer_config), path, &e->chat,
                        err);
    gguf_import_close(&import);
    gguf_close(&file);
    return rc;
}

static int open_text(struct imp_engine *e, const char *path, struct imp_error *err) {
    if (is_gguf(path)) return open_gguf_text(e, path, err);
    char *folder = folder_of(path);
    int rc = tokenizer_load(folder, &e->options.log, &e->tokenizer, err);
    if (rc == 0) rc = chat_load(folder, &e->chat, err);
    free(folder);
    return rc;
}

/* "nvfp4 (modelopt)", from what the checkpoint's linears hold. */
static void describe_quantisation(struct imp_engine *e) {
    static const char *const dialects[] = {"", "compressed-tensors", "modelopt"};
    size_t packed = 0, fp8 = 0;
    for (size_t i = 0; i < e->checkpoint.tensor_count; i++) {
        enum dtype t = e->checkpoint.tensors[i]->dtype;
        packed += t == DTYPE_U8;
        fp8 += t == DTYPE_F8_E4M3 && e->checkpoint.dialect == QUANT_NONE;
    }
    const char *what = packed ? "nvfp4" : fp8 ? "fp8" : "none";
    const char *dialect = dialects[e->checkpoint.dialect];
    snprintf(e->quantisation, sizeof e->quantisation, "%s%s%s%s", what, *dialect ? " (" : "",
             dialect, *dialect ? ")" : "");
}

/* What the model's generation_config.json says, over what local engines commonly take: a model that
 * was shipped without sampling values talks better with a little truncation than with none. */
static void default_request(struct imp_engine *e) {
    struct imp_request *r = &e->defaults;
    *r = (struct imp_request){.max_tokens = IMP_MAX_TOKENS_REST,
                              .temperature = 0.7f,
                              .top_p = 0.95f,
                              .top_k = 40,
                              .repetition_penalty = 1};
    yyjson_val *g = e->checkpoint.config.generation
                        ? yyjson_doc_get_root(e->checkpoint.config.generation)
                        : NULL;
    struct {
        const char *key;
        float *to;
        double min, max;
    } fields[] = {{"temperature", &r->temperature, 0, 100},
                  {"top_p", &r->top_p, 1e-6, 1},
                  {"min_p", &r->min_p, 0, 1},
                  {"repetition_penalty", &r->repetition_penalty, 1e-6, 100}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        yyjson_val *v = yyjson_obj_get(g, fields[i].key);
        double x = yyjson_get_num(v);
        if (yyjson_is_num(v) && x >= fields[i].min && x <= fields[i].max) *fields[i].to = (float)x;
    }
    yyjson_val *top_k = yyjson_obj_get(g, "top_k");
    if (yyjson_is_int(top_k) && yyjson_get_sint(top_k) >= 0 && yyjson_get_sint(top_k) < INT32_MAX)
        r->top_k = (int32_t)yyjson_get_sint(top_k);
    if (yyjson_is_false(yyjson_obj_get(g, "do_sample"))) r->temperature = 0;
}

/* Pages weights in and warms every path of a step, in a block that nobody holds yet. */
static int warm_up(struct imp_engine *e, struct imp_error *err) {
    if (!e->options.value[SETTING_WARMUP]) return 0;
    const int32_t zero = 0, seq_row[2] = {0, 1};
    struct batch batch = {.rows = 1,
                          .seqs = 1,
                          .out_rows = 1,
                          .token = &zero,
                          .position = &zero,
                          .seq = &zero,
                          .seq_row = seq_row,
                          .blocks = {&zero, &zero},
                          .slot = &zero,
                          .max_blocks = 1,
                          .out_row = &zero};
    return model_forward(&e->model, &batch, NULL, err);
}

static int open_trace(struct imp_engine *e, struct imp_error *err) {
    const char *path = options_setting_text(&e->options, SETTING_TRACE);
    return path ? trace_open(path, &e->model, &e->limits.step, &e->trace, err) : 0;
}

static int reserve(struct imp_engine *e, struct imp_error *err) {
    const struct limits *l = &e->limits;
    const struct model_memory memory = {{l->kv_blocks, l->seats * l->window_blocks}, l->seats};
    return model_reserve(&e->model, &l->step, &memory, err);
}

/* Not always a fault: Gemma 4's files have keys and values of layers that use another's. */
static void report_unread(const struct imp_engine *e) {
    const struct tensor *first;
    size_t count = checkpoint_unread(&e->checkpoint, &first);
    if (count > 0)
        log_line(&e->options.log, LOG_INFO,
                 "%s: %zu tensors of the language model have no use here, among them %s",
                 e->checkpoint.path, count, first->name);
}

static int open_model(struct imp_engine *e, const char *path, struct imp_error *err) {
    int threads, rc;
    if ((rc = checkpoint_open(path, true, &e->options.log, &e->checkpoint, err)) < 0 ||
        (rc = open_backend(&e->options, &e->backend, &threads, err)) < 0 ||
        (rc = model_open(&e->checkpoint, e->backend, NULL, NULL, &e->model, err)) < 0 ||
        (rc = limits_make(&e->model.desc, e->backend, &e->options, threads, e->model.weight_bytes,
                          &e->limits, err)) < 0 ||
        (rc = reserve(e, err)) < 0)
        return rc;
    report_unread(e);
    e->parameters = model_desc_parameters(&e->model.desc);
    int32_t known = tokenizer_size(e->tokenizer);
    e->usable_vocab = known < e->model.desc.vocab ? known : e->model.desc.vocab;
    describe_quantisation(e);
    default_request(e);
    if ((rc = warm_up(e, err)) < 0 || (rc = open_trace(e, err)) < 0) return rc;
    return engine_start(e, err);
}

static int open_engine(const char *path, const struct imp_options *options, bool model,
                       struct imp_engine **out, struct imp_error *err) {
    struct imp_engine *e = mem_zero(1, sizeof *e);
    if (options) {
        e->options = *options;
    } else {
        options_default(&e->options);
    }
    /* A trace reads between the ops; a graph's have no between. */
    if (e->options.value[SETTING_TRACE]) e->options.value[SETTING_GRAPHS] = GRAPHS_NEVER;
    e->name = last_part(path);
    *out = NULL;
    int rc = check_path(path, model, err);
    if (rc == 0 && model) rc = check_options(&e->options, may_use_gpu(&e->options), err);
    if (rc == 0) rc = open_text(e, path, err);
    if (rc == 0 && model) rc = open_model(e, path, err);
    if (rc < 0) {
        imp_close(e);
        return rc;
    }
    *out = e;
    return 0;
}

int imp_open(const char *path, const struct imp_options *options, struct imp_engine **out,
             struct imp_error *err) {
    return open_engine(path, options, true, out, err);
}

int imp_open_text(const char *path, const struct imp_options *options, struct imp_engine **out,
                  struct imp_error *err) {
    return open_engine(path, options, false, out, err);
}

void imp_close(struct imp_engine *e) {
    if (e == NULL) return;
    if (e->thread_started) engine_stop(e);
    trace_close(e->trace);
    model_close(&e->model);
    backend_close(e->backend);
    checkpoint_close(&e->checkpoint);
    chat_free(e->chat);
    tokenizer_free(e->tokenizer);
    free(e->name);
    free(e);
}

void imp_info_get(const struct imp_engine *e, struct imp_info *out) {
    *out = (struct imp_info){
        .name = e->name, .family = "", .device = "", .quantisation = "", .bos_id = -1};
    if (e->backend == NULL) return;
    const struct model_desc *d = &e->model.desc;
    *out = (struct imp_info){
        .name = e->name,
        .family = d->family,
        .device = e->backend->name,
        .quantisation = e->quantisation,
        .parameters = (uint64_t)e->parameters,
        .weight_bytes = e->model.weight_bytes,
        .bytes_per_step = e->model.bytes_per_step,
        .kv_bytes_per_token = e->limits.kv_block_bytes / KV_BLOCK_TOKENS,
        .vocab_size = (uint32_t)d->vocab,
        .context_tokens = (uint32_t)e->limits.context,
        .layers = (uint32_t)d->layers,
        .hidden_size = (uint32_t)d->hidden,
        .max_batch = (uint32_t)e->limits.max_batch,
        .threads = (uint32_t)e->limits.threads,
        .bos_id = d->bos,
        .eos_count = (uint32_t)d->eos_count,
        .eos_ids = d->eos,
        .temperature = e->defaults.temperature,
        .top_p = e->defaults.top_p,
        .min_p = e->defaults.min_p,
        .top_k = e->defaults.top_k,
        .repetition_penalty = e->defaults.repetition_penalty,
        .nvfp4_activations = e->options.value[SETTING_ACTIVATIONS] == ACTIVATIONS_NVFP4,
        .preemptions = atomic_load(&((struct imp_engine *)(uintptr_t)e)->preemptions),
        .step_allocations = atomic_load(&((struct imp_engine *)(uintptr_t)e)->step_allocations),
    };
}
