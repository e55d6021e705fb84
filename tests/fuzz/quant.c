/* Any tensors under a linear "m": refused, or a weight whose rows can all be read. The input is
 * four bytes and a shape for each tensor; every tensor's bytes are a heap block of exactly its
 * size.
 *
 * Proved by planting (clang-14, one core): without the test of the number of
 * scales in a row (block_scales) it reads outside within 1 s. */
#include <stdlib.h>

#include "base/error.h"
#include "load/quant.h"

static const char *const NAMES[] = {
    "m.weight",         "m.weight_packed", "m.weight_scale",        "m.weight_scale_inv",
    "m.weight_scale_2", "m.input_scale",   "m.weight_global_scale", "m.input_global_scale"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char config[] = "{\"model_type\":\"m\"}", path[] = "fuzz";
    struct tensor tensors[8] = {0}, *list[8];
    struct checkpoint ck = {.path = path, .tensors = list};
    struct imp_error err;
    struct weight w;
    check(config_parse(config, sizeof config - 1, "config", &ck.config, &err) == 0);
    for (; size >= 8 && ck.tensor_count < 8; data += 8, size -= 8) {
        struct tensor *t = list[ck.tensor_count] = &tensors[ck.tensor_count];
        *t = (struct tensor){NAMES[data[0] % 8],
                             1 + data[1] % (DTYPE_COUNT - 1),
                             data[2] % 5,
                             {data[4] % 66, data[5] % 66, data[6] % 8, data[7] % 8},
                             .file = path};
        t->bytes = (size_t)tensor_elements(t) * (size_t)dtype_bits(t->dtype) / 8;
        t->data = memset(mem_alloc(t->bytes), data[3], t->bytes);
        map_add(&ck.by_name, slice_of(t->name), (int64_t)ck.tensor_count++);
    }
    if (quant_weight(&ck, "m", -1, -1, &w, &err) == 0) {
        check(w.rows > 0 && w.cols > 0 && w.multiplier > 0);
        float *row = mem_alloc((size_t)w.cols * sizeof *row);
        for (int64_t r = 0; r < w.rows; r++) weight_dequantize_row(&w, r, row);
        free(row);
    }
    for (size_t i = 0; i < ck.tensor_count; i++) free((void *)(uintptr_t)list[i]->data);
    map_free(&ck.by_name);
    arena_free(&ck.arena);
    config_close(&ck.config);
    return 0;
}
