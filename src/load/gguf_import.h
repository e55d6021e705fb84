/* A GGUF file as the Hugging Face folder it was made from: config, tokenizer, and a table of
 * tensors under Hugging Face names whose rows are read one by one as fp32.
 *
 * Owns the texts and the table; borrows the struct gguf, which must outlive it. Holds no weights:
 * gguf_import_row dequantises from the mapping, so a caller streams a model of any size. Immutable
 * after opening; any thread, any number of rows at once.
 *
 * Families: llama (also Mistral and SmolLM2, which GGUF files call llama), qwen2, qwen3, qwen3moe,
 * gemma3.
 * Everything else, and every key or tensor whose meaning would be lost, is
 * IMP_ERR_UNSUPPORTED; what contradicts itself is IMP_ERR_FILE. Both name the key or the tensor. */
#ifndef IMP_LOAD_GGUF_IMPORT_H
#define IMP_LOAD_GGUF_IMPORT_H

#include "load/gguf.h"

struct gguf_import_tensor {
    const char *name; /* Hugging Face's: "model.layers.0.self_attn.q_proj.weight" */
    const struct gguf_tensor *source;
    int dims; /* 2: matrix [rows, cols]; 1: vector [cols], and rows is 1 */
    int64_t rows, cols;
    int64_t head_rows;        /* > 0: rows (of a vector: elements) are interleaved inside every such
                                 group for GGUF's RoPE, and come out in Hugging Face's order */
    int64_t first_row;        /* of an expert in its stack */
    float multiplier, offset; /* value * multiplier + offset: the sidecar of an NVFP4 tensor; what
                                 the converter added to a norm */
};

struct gguf_import {
    const struct gguf *source;
    const char *architecture; /* as in the file: "llama" */
    /* Files of the folder, zero-terminated JSON: write them as they are. */
    char *config;            /* config.json; torch_dtype says bfloat16 */
    char *generation_config; /* generation_config.json */
    char *tokenizer;         /* tokenizer.json */
    char *tokenizer_config;  /* tokenizer_config.json, with the chat template if there is one */
    struct gguf_import_tensor *tensors; /* in the order in which transformers saves: by layer */
    size_t tensor_count;
    struct arena arena; /* names, table */
};

/* Needs the file's single shard: a split GGUF is IMP_ERR_UNSUPPORTED. */
int gguf_import_open(const struct gguf *g, struct gguf_import *out, struct imp_error *err);
void gguf_import_close(struct gguf_import *import); /* zeroed or half-built is fine */

/* Row `row` of tensor `index` in Hugging Face's order, out[cols]. A value that is not finite, as a
 * broken block scale gives, is IMP_ERR_FILE naming tensor, row and byte offset. */
int gguf_import_row(const struct gguf_import *import, size_t index, int64_t row, float *out,
                    struct imp_error *err);
/* Rows first .. first + count - 1, out[count][cols]. */
int gguf_import_rows(const struct gguf_import *import, size_t index, int64_t first, int64_t count,
                     float *out, struct imp_error *err);

#endif
