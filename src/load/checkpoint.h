/* A checkpoint: a folder with config.json and SafeTensors shards, or one file, as one set of
 * tensors.
 *
 * Owns the mappings; everything found in it lives until checkpoint_close. With an index
 * (model.safetensors.index.json) exactly the files it names are read, all inside the folder (no
 * "..", no absolute path, no symlink that leaves it, except into a Hub cache's own blobs); without
 * one, model.safetensors, else every *.safetensors but consolidated*, and if there are no others
 * those.
 *
 * Names are asked for in their canonical form, "model.norm.weight" and "lm_head", or exactly as in
 * the files; what a wrapped model puts before them is found once, at opening.
 *
 * One thread at a time: checkpoint_weight and checkpoint_vector add to the arena. */
#ifndef IMP_LOAD_CHECKPOINT_H
#define IMP_LOAD_CHECKPOINT_H

#include "base/log.h"
#include "base/map.h"
#include "load/config.h"
#include "load/safetensors.h"
#include "load/weight.h"

struct checkpoint {
    char *path; /* the folder */
    struct config config;
    struct safetensors *files;
    size_t file_count;
    struct tensor **tensors; /* all, sorted by name */
    size_t tensor_count;
    struct map by_name;  /* name -> index into tensors */
    struct arena arena;  /* converted scales, names */
    struct arena copies; /* of experts' matrices: see checkpoint_drop_copies */
    const struct log *log;
    enum quant_dialect { QUANT_NONE, QUANT_COMPRESSED_TENSORS, QUANT_MODELOPT } dialect;
    bool consolidated;      /* Mistral's own files: see consolidated.h */
    int64_t head_rows;      /* of them: rows of q and k in one head */
    const char *prefix;     /* what the files have for "model." ("model.language_model.") */
    const char *head;       /* what they have for "lm_head" */
    struct quant_declared { /* by the configuration: only ever compared with the tensors */
        unsigned formats;   /* bit f: enum weight_format f occurs */
        bool activations;   /* some layers ask for quantised activations */
        bool fp8_inputs;    /* NVFP4 weights under FP8 activations: input scales are amax/448 */
        int kv_bits;        /* of the KV cache's elements; 0: not stated, or not quantised */
        int64_t block_rows, block_cols; /* of FP8 block scales; 0: not stated */
    } declared;
    bool keep_bad_scales; /* of NVFP4 and MXFP4, for who judges them; else a weight's are checked */
    bool *read;           /* by tensor: somebody has asked for its values */
    size_t no_input_scale; /* linears whose input scale is missing or unusable, so far */
    unsigned said;         /* bits of the remarks already logged: each kind is made once */
};

/* `path`: a folder, or one .safetensors file with config.json beside it. need_tensors false:
 * config.json alone will do; weight files are opened where there are any. `log` must outlive it. */
int checkpoint_open(const char *path, bool need_tensors, const struct log *log,
                    struct checkpoint *out, struct imp_error *err);
void checkpoint_close(struct checkpoint *ck); /* zeroed or half-built is fine */

const struct tensor *checkpoint_find(const struct checkpoint *ck, const char *name); /* or NULL */

/* The linear at module path `module` ("model.layers.0.mlp.up_proj"), in whatever format the tensors
 * under that path say; what the config says otherwise is logged. Its bias, if any, is the plain
 * tensor "module.bias". rows and cols are what the model needs; -1 accepts any. Returns 0, or an
 * error that names tensor, expected and found; IMP_ERR_FILE with nothing under that path. */
int checkpoint_weight(struct checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                      struct weight *out, struct imp_error *err);
/* True if any tensor of a linear lies under `module`. */
bool checkpoint_has(const struct checkpoint *ck, const char *module);

/* A plain tensor of any rank ("model.norm.weight", a convolution's [C, 1, 4]), as fp32 in the
 * checkpoint's arena; count -1 accepts any. Must be finite. */
int checkpoint_vector(struct checkpoint *ck, const char *name, int64_t count, const float **out,
                      struct imp_error *err);

/* The scales of a quantised KV cache that the attention at `attention`
 * ("model.layers.0.self_attn") was calibrated with: what is stored is k / *k and v / *v. 1 where
 * there are none, or none that can be used. Heads with scales of their own share the largest, under
 * which no head is clipped. */
void checkpoint_kv_scales(struct checkpoint *ck, const char *attention, float *k, float *v);

/* ---- what else is in the files ---- */

enum tensor_role {
    TENSOR_TEXT,     /* of the language model */
    TENSOR_MTP,      /* multi-token prediction, a drafter inside the same files */
    TENSOR_DRAFTER,  /* what only a drafter's own files hold, beside its text model */
    TENSOR_VISION,   /* images are not read */
    TENSOR_AUDIO,    /* nor is sound */
    TENSOR_KV_SCALE, /* see checkpoint_kv_scales */
    TENSOR_UNUSED,   /* tables and bounds that nothing needs: rotary frequencies, clipping ranges */
    TENSOR_ROLES
};

struct checkpoint_counts {
    size_t tensors[TENSOR_ROLES];
    uint64_t bytes[TENSOR_ROLES];
};

enum tensor_role checkpoint_role(const char *name);      /* of a tensor, by its name in the files */
const char *checkpoint_role_name(enum tensor_role role); /* "vision" */
void checkpoint_count(const struct checkpoint *ck, struct checkpoint_counts *out);
/* How many tensors of the language model nobody has read: after a model is built, those of which it
 * knows nothing. *first: the first by name, or NULL. */
size_t checkpoint_unread(const struct checkpoint *ck, const struct tensor **first);

#endif
