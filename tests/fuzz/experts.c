/* Any tensors under a module of experts "m": refused, or experts of which every row and bias can be
 * read. One byte says which layout and how many experts; then eight bytes a tensor: name, dtype,
 * rank, the byte that fills it, four dimensions. Every tensor is a heap block of exactly its size.
 *
 * Proved by planting (clang-14, one core): without the test of the first dimension in slice() of
 * experts.c it reads outside within 1 s. */
#include <stdlib.h>

#include "base/error.h"
#include "load/experts.h"
#include "load/quant.h"

enum { WIDTH = 32, HIDDEN = 32, TENSORS = 16 };

static const char *const NAMES[] = {
    "m.gate_up_proj",
    "m.gate_up_proj_blocks",
    "m.gate_up_proj_scales",
    "m.gate_up_proj_bias",
    "m.gate_up_proj_weight_scale",
    "m.gate_up_proj_weight_scale_2",
    "m.gate_up_proj_input_scale",
    "m.gate_up_proj.weight",
    "m.gate_up_proj.weight_packed",
    "m.gate_up_proj.weight_scale",
    "m.gate_up_proj.weight_scale_2",
    "m.gate_up_proj.weight_global_scale",
    "m.gate_up_proj_pre_quant_scale",
    "m.gate_proj.weight",
    "m.gate_proj.weight_scale",
    "m.up_proj.weight",
    "m.down_proj",
    "m.down_proj_blocks",
    "m.down_proj_scales",
    "m.down_proj_bias",
    "m.down_proj_weight_scale",
    "m.down_proj_weight_scale_2",
    "m.down_proj.weight",
    "m.down_proj.weight_scale",
    "m.0.gate_proj.weight",
    "m.0.up_proj.weight",
    "m.0.down_proj.weight",
    "m.0.gate_proj.bias",
    "m.0.up_proj.bias",
    "m.0.w1.weight",
    "m.0.w3.weight",
    "m.0.w2.weight",
};

static volatile float sink;

static void read_weight(const struct weight *w, int64_t rows, int64_t cols) {
    float row[HIDDEN];
    check(w->rows == rows && w->cols == cols && cols <= HIDDEN && w->multiplier > 0);
    for (int64_t r = 0; r < rows; r++) {
        weight_dequantize_row(w, r, row);
        sink = row[cols - 1];
    }
    for (int64_t k = 0; k < cols && w->pre_scale; k++) sink = w->pre_scale[k];
}

static void read_expert(const struct expert *x) {
    check(x->gate_up_count == 1 || x->gate_up_count == 2);
    for (int i = 0; i < x->gate_up_count; i++)
        read_weight(&x->gate_up[i], 2 * WIDTH / x->gate_up_count, HIDDEN);
    read_weight(&x->down, HIDDEN, WIDTH);
    for (int i = 0; i < 2 * WIDTH && x->gate_up_bias; i++) sink = x->gate_up_bias[i];
    for (int i = 0; i < HIDDEN && x->down_bias; i++) sink = x->down_bias[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char config[] = "{\"model_type\":\"m\"}", path[] = "fuzz", prefix[] = "model.",
         head[] = "lm_head";
    struct tensor tensors[TENSORS] = {0}, *list[TENSORS];
    struct checkpoint ck = {.path = path, .tensors = list, .prefix = prefix, .head = head};
    struct imp_error err;
    struct expert expert;
    if (size < 1) return 0;
    enum expert_layout layout = data[0] & 1 ? EXPERTS_GPT_OSS : EXPERTS_PLAIN;
    int experts = 1 + (data[0] >> 1) % 3;
    check(config_parse(config, sizeof config - 1, "config", &ck.config, &err) == 0);
    for (data++, size--; size >= 8 && ck.tensor_count < TENSORS; data += 8, size -= 8) {
        struct tensor *t = list[ck.tensor_count] = &tensors[ck.tensor_count];
        *t = (struct tensor){NAMES[data[0] % (sizeof NAMES / sizeof *NAMES)],
                             1 + data[1] % (DTYPE_COUNT - 1),
                             data[2] % 5,
                             {data[4] % 66, data[5] % 66, data[6] % 66, data[7] % 18},
                             .file = path};
        t->bytes = (size_t)tensor_elements(t) * (size_t)dtype_bits(t->dtype) / 8;
        t->data = memset(mem_alloc(t->bytes), data[3], t->bytes);
        map_add(&ck.by_name, slice_of(t->name), (int64_t)ck.tensor_count++);
    }
    for (int e = 0; e < experts; e++) {
        if (checkpoint_expert(&ck, "m", layout, experts, e, WIDTH, HIDDEN, &expert, &err) == 0)
            read_expert(&expert);
    }
    checkpoint_drop_copies(&ck);
    for (size_t i = 0; i < ck.tensor_count; i++) free((void *)(uintptr_t)list[i]->data);
    map_free(&ck.by_name);
    arena_free(&ck.arena);
    config_close(&ck.config);
    return 0;
}
